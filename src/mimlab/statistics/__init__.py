"""Attention statistics (theory, section 7): of any explicit map, and in closed form of a symmetric one.

`attention` measures an array (..., N, N) of any array library. `blocks` gives the same numbers for the P x P
map of a world with one partition, without building it, at a cost that does not depend on P. Both are exact.
`bounds` says how low NMI and diversity can be where rows attend to their own areas.
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
from mimlab.statistics.bounds import diversity_lower_bound, nmi_lower_bound

__all__ = [
    "BlockMap",
    "distance",
    "diversity",
    "diversity_lower_bound",
    "effective_rank",
    "entropy",
    "information",
    "locality",
    "nmi",
    "nmi_lower_bound",
    "row_entropy",
    "spread",
]
