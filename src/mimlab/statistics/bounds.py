"""Lower bounds on NMI and diversity of a map whose rows attend to their own areas (derivation: docs/diversity.md).

Areas are a partition of the P patches; every patch is a query. Nothing is assumed of a row but how much of it leaves
its own area: not how it is spread inside, not where the rest goes.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mimlab.runs.errors import InputError
from mimlab.statistics.terms import surprise

Floats = NDArray[np.float64]


def nmi_lower_bound(sizes: ArrayLike, leak: ArrayLike = 0.0, *, counts: ArrayLike | None = None) -> Any:
    """Least NMI of a map whose rows put, on average over queries, at most `leak` outside their own areas.

    sizes: (n,) patches of each area, >= 1. counts: (n,) areas of each size, 1 each unless given; neither need be whole.
    leak: any shape, within [0, 1]; the bound has its shape. No unit, within [0, 1], 0 where nothing follows. With n
    areas of C_a patches and leak ε

        max(0, log P - Σ_a (C_a/P) log C_a - h(ε) - ε log(n - 1)) / log P,    h(ε) = -ε log ε - (1-ε) log(1-ε)

    by Fano's inequality; reached at ε = 0 by rows that are even over their own areas. Raises InputError for sizes or
    counts below 1, a leak that is no share, and fewer than two patches.

    >>> print(f"{nmi_lower_bound([4, 4]):.4f} {nmi_lower_bound([4, 4], 0.1):.4f}")
    0.3333 0.1770
    """
    size, count, patches, share = _checked(sizes, leak, counts)
    areas = count.sum()
    known = np.sum(size * count / patches * np.log(patches / size))  # entropy of the query's area
    share = np.minimum(share, 1 - 1 / areas)  # beyond, "at most" says nothing that "chance" does not
    lost = surprise(share) + surprise(1 - share) + share * np.log(np.maximum(areas - 1, 1))
    return np.maximum(known - lost, 0)[()] / np.log(patches)


def diversity_lower_bound(sizes: ArrayLike, leak: ArrayLike = 0.0, *, counts: ArrayLike | None = None) -> Any:
    """Least diversity of a map whose rows have, on average over queries, at most the share `leak` of their Euclidean
    norm outside their own areas, ‖a_i off its area‖ / ‖a_i‖.

    Arguments as in `nmi_lower_bound`. No unit, within [0, 1]; reached at leak 0 by rows that are even over their areas:

        max(0, 1 - Σ_a C_a (C_a - 1) / (P (P - 1)) - 2 leak)

    >>> print(f"{diversity_lower_bound([4, 4]):.4f}")
    0.5714
    """
    size, count, patches, share = _checked(sizes, leak, counts)
    alike = np.sum(count * (size / patches) * ((size - 1) / (patches - 1)))
    return np.maximum(1 - alike - 2 * share, 0)[()]


def _checked(
    sizes: ArrayLike, leak: ArrayLike, counts: ArrayLike | None
) -> tuple[Floats, Floats, float, Floats]:
    """Sizes, counts, P and leak as arrays; InputError where they are none of that."""
    size, share = np.asarray(sizes, dtype=float), np.asarray(leak, dtype=float)
    count = np.ones(size.shape) if counts is None else np.asarray(counts, dtype=float)
    for name, array in (("sizes", size), ("counts", count)):
        if array.ndim != 1 or array.shape != size.shape or not array.size or not np.all(_at_least_one(array)):
            raise InputError(
                f"{name} = {array.tolist()}: give a finite number >= 1 for each area or kind of area"
            )
    if not np.all((share >= 0) & (share <= 1)):
        raise InputError(f"leak = {share.tolist()} must be a share of attention, within [0, 1]")
    patches = float(np.sum(size * count))
    if patches < 2:
        raise InputError("NMI and diversity compare two queries; give areas of at least two patches together")
    return size, count, patches, share


def _at_least_one(array: Floats) -> NDArray[np.bool_]:
    return np.asarray((array >= 1) & np.isfinite(array))
