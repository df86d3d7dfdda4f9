"""Which runs feed which claims: one world, a range of sizes, photographs, and all of the paper."""
