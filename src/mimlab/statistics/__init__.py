"""Attention statistics (theory, section 7): of any explicit map, and in closed form of a symmetric one.

`attention` measures an array (..., N, N) of any array library. `blocks` gives the same numbers for the P x P
map of a world with one partition, without building it, at a cost that does not depend on P. Both are exact.
"""

from mimlab.statistics.attention import (
    distance,
    diversity,
    effective_rank,
    entropy,
    information,
    locality,
    nmi,
    row_entropy,
    spread,
)
from mimlab.statistics.blocks import BlockMap

__all__ = [
    "BlockMap",
    "distance",
    "diversity",
    "effective_rank",
    "entropy",
    "information",
    "locality",
    "nmi",
    "row_entropy",
    "spread",
]
