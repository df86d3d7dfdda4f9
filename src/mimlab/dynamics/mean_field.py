"""Engine "mean-field": counts at their means, many areas by the law of large numbers (theory, section 4).

The latents of the query's own area and of the largest other area are integrated by quadrature; every other area adds
its expectation over its own latent. Nothing loops over areas, so P = 10^12 costs what P = 10^4 does. It has no hopeless
draws and no fluctuation of counts: an approximation, whose error where engines overlap is in docs/engines.md.
"""

from __future__ import annotations

import numpy as np

from mimlab.objectives.draws import Draws, Merged
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent
from mimlab.world.row import Row, View

Array = np.ndarray

OWN_NODES = 24  # of the query's own latent: late in training attention switches on within z ~ 1/Phi
NODES = 8  # of the other latents
MOST_COLUMNS = 20_000


def mean_field_draws(row: Row, latent: Latent, masked: int) -> tuple[Draws, ...]:
    """Quadrature draws. Raises InputError where too many areas are unlike one another."""
    return tuple(_view_draws(row, view, latent, masked) for view in row.views)


def _view_draws(row: Row, view: View, latent: Latent, masked: int) -> Draws:
    nodes, weights = latent.quadrature(NODES)
    own_nodes, own_weights = latent.quadrature(OWN_NODES)
    visible = (row.patches - masked) / (
        row.patches - 1
    )  # chance that a patch other than the query is visible

    # One representative area per Phi, standing for `number` like areas.
    phis, first = np.unique(view.area_phi, return_index=True)
    number = np.array(
        [row.cell_count[a] if row.grouped else np.sum(view.area_phi == view.area_phi[a]) for a in first]
    )
    own = int(np.flatnonzero(phis == view.area_phi[view.own])[0])
    cells = [np.flatnonzero(view.cell_area == a) for a in first]
    patches = number * np.array([row.cell_size[c].sum() for c in cells])
    # The one area besides the query's own whose latent matters: the largest, unless areas like it average it out.
    lone = np.where((number == 1) & (np.arange(len(phis)) != own), patches, -1)
    plain = [own] + ([int(np.argmax(lone))] if lone.max() > 0 else [])
    averaged = [g for g in range(len(phis)) if g not in plain]
    rules = [(own_nodes, own_weights), (nodes, weights)][: len(plain)]  # one per latent integrated
    grid = np.indices([len(rule[0]) for rule in rules]).reshape(len(plain), -1)  # (plain, draws)
    weight = np.prod([rule[1][index] for rule, index in zip(rules, grid, strict=True)], axis=0)
    z = np.stack([rule[0][index] for rule, index in zip(rules, grid, strict=True)], axis=1)

    def expected(group: int) -> Array:  # visible patches of one area, per cell
        return np.asarray(visible * row.cell_size[cells[group]])

    # Averaged areas of one cell merge; of several cells they take a column per node, for the whole crowd.
    single = [g for g in averaged if len(cells[g]) == 1]
    crowded = [(g, v) for g in averaged if len(cells[g]) > 1 for v in range(len(nodes))]
    if len(crowded) + len(single) * len(nodes) > MOST_COLUMNS:
        raise InputError(
            f"dynamics: engine = mean-field would treat {len(averaged)} areas that are unlike one another, at most "
            f"{MOST_COLUMNS // len(nodes)}; use engine = sampled or partitions = shared."
        )
    merged = None
    if single:
        u = np.concatenate([expected(g) for g in single])
        number_u, number_pairs = number[single] * u, number[single] * u * u
        merged = Merged(
            counts=np.outer(number_u, weights).reshape(1, -1),
            pairs=np.outer(number_pairs, weights).reshape(1, -1),
            z=np.tile(nodes, len(single)),
            phi=np.repeat(phis[single], len(nodes)),
            upsilon=np.repeat([row.cell_upsilon[cells[g][0]] for g in single], len(nodes)),
        )
    crowd = np.array([1.0] * len(plain) + [number[g] * weights[v] for g, v in crowded])
    columns = plain + [g for g, _ in crowded]
    counts = [crowd[i] * expected(g) for i, g in enumerate(columns)]
    starts = np.cumsum([0, *(len(c) for c in counts[:-1])])
    draws = len(weight)
    hidden = (1 - visible) * row.upsilon_tied
    hidden[0] = 1.0
    return Draws(
        share=view.share,
        weight=weight,
        counts=np.concatenate(counts)[None, :],
        starts=None if all(len(c) == 1 for c in counts) else starts,
        cell_upsilon=np.concatenate([row.cell_upsilon[cells[g]] for g in columns]),
        phi=phis[columns],
        z=np.concatenate([z, np.broadcast_to(nodes[[v for _, v in crowded]], (draws, len(crowded)))], axis=1),
        masked=np.broadcast_to(hidden, (draws, len(hidden))),
        own=0,
        solvable=np.full(draws, float(view.own_size > 1)),
        crowd=crowd if crowded else None,
        merged=merged,
    )
