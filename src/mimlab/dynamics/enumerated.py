"""Engine "enumerated": every mask and every value of a discrete latent, exactly.

Masks that leave the same number of patches visible in every cell are the same draw, weighted by their number, so the
expectation is that over all binomial(P-1, m-1) masks that hide the query.
"""

from __future__ import annotations

from math import comb, prod

import numpy as np

from mimlab.objectives.columns import Columns, columns_of
from mimlab.objectives.draws import Draws
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent
from mimlab.world.row import Row

Array = np.ndarray

LARGEST = 5_000_000  # entries (draws x cells): about 40 MB an array


def enumerated_draws(row: Row, latent: Latent, masked: int) -> tuple[Draws, ...]:
    """All draws. Raises InputError, with the count, where they are too many or the latent is continuous."""
    columns = columns_of(row)
    if latent.atoms is None:
        raise InputError(
            "dynamics: engine = enumerated needs a discrete latent, and this one is uniform on an interval; "
            "give latent.values, or low = high, or use engine = sampled."
        )
    visible = row.patches - masked
    vectors = _count_vectors(columns.size, visible)
    areas = max(len(view.phi) for view in columns.views)
    latents = len(latent.atoms) ** areas
    if vectors * latents * len(columns.size) > LARGEST:
        raise InputError(
            f"dynamics: engine = enumerated would need {vectors:.3g} counts of visible patches x {latents:.3g} latents"
            f" x {len(columns.size)} cells, more than {LARGEST:.0e}; use engine = sampled or fewer patches."
        )
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
        index = np.indices((len(atoms),) * areas).reshape(areas, -1).T  # every combination of latents
        z = np.tile(atoms[index], (len(counts), 1))
        every = np.repeat(counts, len(index), axis=0)
        both = np.repeat(weight, len(index)) * np.tile(chances[index].prod(axis=1), len(counts))
        one = Columns(columns.size, columns.upsilon, columns.n_upsilon, (view,))
        result += one.draws(every, (z,), both)
    return tuple(result)


def _count_vectors(sizes: Array, visible: int) -> int:
    """How many vectors u with 0 <= u_c <= size_c sum to ``visible``."""
    ways = [1] + [0] * visible
    for size in map(int, sizes):
        ways = [sum(ways[max(0, n - size) : n + 1]) for n in range(visible + 1)]
        if sum(ways) > 10**15:
            return sum(ways)
    return ways[visible]


def _enumerate_counts(sizes: Array, visible: int) -> Array:
    """Those vectors; shape (vectors, cells)."""
    room = np.concatenate([np.cumsum(sizes[::-1])[::-1], [0]])
    lines: list[tuple[int, ...]] = [()]
    for position, size in enumerate(map(int, sizes)):
        lines = [
            (*line, u)
            for line in lines
            for u in range(size + 1)
            if 0 <= visible - sum(line) - u <= room[position + 1]
        ]
    return np.array(lines, dtype=np.int64).reshape(len(lines), len(sizes))
