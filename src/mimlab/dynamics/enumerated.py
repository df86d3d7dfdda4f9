"""Engine "enumerated": every mask and every value of a discrete latent, exactly.

Masks that leave the same number of patches visible in every cell are the same draw, weighted by their number, so the
expectation is that over all binomial(P-1, m-1) masks that hide the query.
"""

from __future__ import annotations

from itertools import accumulate, product
from math import comb, log10, prod

import numpy as np

from mimlab.objectives.columns import Columns, columns_of
from mimlab.objectives.draws import Draws
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent
from mimlab.world.row import Row

Array = np.ndarray

LARGEST = 5_000_000  # entries (draws x cells): about 40 MB an array
COUNTED = 10**15  # draws, beyond which their number is told as a lower bound


def enumerated_draws(row: Row, latent: Latent, masked: int) -> tuple[Draws, ...]:
    """All draws. Raises InputError, with the count, where they are too many or the latent is continuous."""
    if latent.atoms is None:
        raise InputError(
            "dynamics: engine = enumerated needs a discrete latent, and this one is uniform on an interval; "
            "give latent.values, or low = high, or use engine = sampled."
        )
    visible = row.patches - masked
    cells = int(row.cell_count.sum())
    areas = max(cells if row.grouped else len(view.area_phi) for view in row.views)
    vectors = (
        LARGEST if cells > LARGEST else _count_vectors(np.repeat(row.cell_size, row.cell_count), visible)
    )
    latents = areas * log10(len(latent.atoms))  # of so many digits
    if log10(vectors) + latents + log10(cells) > log10(LARGEST):
        raise InputError(
            f"dynamics: engine = enumerated would need at least {vectors:.3g} counts of visible patches x "
            f"{_power(latents)} latents x {cells} cells, more than {LARGEST:.0e}; "
            "use engine = sampled or fewer patches."
        )
    columns = columns_of(row)
    counts = _enumerate_counts(columns.size, visible)
    total = comb(row.patches - 1, visible)
    ways = [
        prod(comb(int(s), int(u)) for s, u in zip(columns.size, line, strict=True)) / total for line in counts
    ]
    return _with_latents(columns, counts, np.array(ways), latent)


def _with_latents(columns: Columns, counts: Array, weight: Array, latent: Latent) -> tuple[Draws, ...]:
    atoms, chances = np.asarray(latent.atoms), latent.probabilities()
    result: list[Draws] = []
    for view in columns.views:
        areas = len(view.phi)
        index = np.array(list(product(range(len(atoms)), repeat=areas)))  # every combination of latents
        z = np.tile(atoms[index], (len(counts), 1))
        every = np.repeat(counts, len(index), axis=0)
        both = np.repeat(weight, len(index)) * np.tile(chances[index].prod(axis=1), len(counts))
        one = Columns(columns.size, columns.upsilon, columns.n_upsilon, (view,))
        result += one.draws(every, (z,), both)
    return tuple(result)


def _count_vectors(sizes: Array, visible: int) -> int:
    """How many vectors u with 0 <= u_c <= size_c sum to ``visible``; where more than COUNTED, a lower bound.

    As many as sum to the number masked. With ``total`` the lesser of the two sums, at most half of all, partial
    vectors are never more than whole ones: their numbers by sum are log-concave and symmetric.
    """
    *others, largest = sorted(int(s) for s in sizes)
    total = min(visible, int(sizes.sum()) - visible)
    if min(total, sum(others)) >= LARGEST:
        return LARGEST
    ways = [1]  # by sum
    for size in others:
        below = [0, *accumulate(ways), *[sum(ways)] * size]
        ways = [above - below[max(0, n - size)] for n, above in enumerate(below[1:])][: total + 1]
        if max(ways) > COUNTED:
            return max(ways)
    return sum(ways[max(0, total - largest) :])


def _power(digits: float) -> str:
    """10^digits in words, however large."""
    return f"{10**digits:.3g}" if digits < 300 else f"10^{digits:.0f}"


def _enumerate_counts(sizes: Array, visible: int) -> Array:
    """Those vectors; shape (vectors, cells)."""
    room = np.concatenate([np.cumsum(sizes[::-1])[::-1], [0]])
    lines: list[tuple[int, ...]] = [()]
    for position, size in enumerate(map(int, sizes)):
        left = [visible - sum(line) for line in lines]
        lines = [
            (*line, u)
            for line, rest in zip(lines, left, strict=True)
            for u in range(max(0, rest - int(room[position + 1])), min(size, rest) + 1)
        ]
    return np.array(lines, dtype=np.int64).reshape(len(lines), len(sizes))
