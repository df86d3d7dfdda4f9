"""Area sizes from exponents (theory, section 1), as runs of equal sizes so that P = 10^12 needs no list of areas."""

from __future__ import annotations

from collections.abc import Sequence

from mimlab.runs.errors import InputError

Runs = tuple[tuple[int, int], ...]
"""Areas in index order, run-length encoded: (size in patches, number of consecutive areas of that size)."""

PAPER_RANGE = {"global_exponent": (0.5005, 1.0), "local_exponent": (0.001, 0.5)}


def runs_from_sizes(sizes: Sequence[int]) -> Runs:
    """Run-length encode; the first area, the global one, always stands alone.

    >>> runs_from_sizes([6, 2, 2, 1])
    ((6, 1), (2, 2), (1, 1))
    """
    runs: list[tuple[int, int]] = []
    for index, size in enumerate(sizes):
        if index > 1 and runs[-1][0] == size:
            runs[-1] = (size, runs[-1][1] + 1)
        else:
            runs.append((int(size), 1))
    return tuple(runs)


def runs_from_exponents(patches: int, global_exponent: float, local_exponent: float) -> Runs:
    """One global area of round(P^κc) patches and local areas of round(P^κs); what remains goes to the first local
    areas, a patch each (in turns, where the remainder exceeds their number).

    Raises InputError where no local area fits beside the global one.

    >>> runs_from_exponents(100, 0.7, 0.5)
    ((25, 1), (11, 5), (10, 2))
    """
    large, small = round(patches**global_exponent), max(1, round(patches**local_exponent))
    rest = patches - large
    if rest < small:
        raise InputError(
            f"world: with patches = {patches}, global_exponent = {global_exponent} and local_exponent = "
            f"{local_exponent} the global area takes {large} patches and leaves {max(rest, 0)}, too few for one local "
            f"area of {small}; lower an exponent or raise patches."
        )
    count = rest // small
    extra, longer = divmod(rest - count * small, count)
    small += extra
    locals_ = [(small + 1, longer), (small, count - longer)]
    return ((large, 1), *(run for run in locals_ if run[1]))
