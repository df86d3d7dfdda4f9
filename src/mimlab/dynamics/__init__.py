"""How a row moves: engines that take the expectation, integrators that follow the gradient, phases read off."""
