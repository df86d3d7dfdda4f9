"""Engine "sampled": a fixed set of low-variance draws of visible counts and latents (theory, section 4).

What matters most is drawn best: the count of visible patches in the query's own area and in the largest other area,
and the latents of both, come from a scrambled Sobol sequence; the hopeless images (own area wholly masked) are a
stratum with its exact probability and, like the other images, never fewer than one draw in sixteen, however rare; the
rest is pseudo-random.
Where many areas are alike and each lies in one cell, their sums over areas are taken once (``Latent.merge``), so that
the flow costs the same whatever their number.
Draws come in independent replicates; their spread is the engine's standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lgamma, log, log2
from sys import maxsize

import numpy as np

from mimlab.objectives.columns import Columns, columns_of
from mimlab.objectives.draws import Draws, Merged
from mimlab.objectives.masked import log_none
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent
from mimlab.world.row import Row

Array = np.ndarray

REPLICATES = 8
LEAST_SHARE = 1 / 16  # of the draws: hopeless images, and others, where they are rarer than that
NEGLIGIBLE = 1e-12  # probability of hopeless images below which they get no draw
MERGE_ERROR = 1e-13
MOST_NODES = 1000
LARGEST = 300_000_000  # draws x areas: a replicate, an eighth, takes about 300 MB an array


def sampled_replicates(
    row: Row, latent: Latent, masked: int, draws: int, seed: int, reach: float
) -> list[tuple[Draws, ...]]:
    """REPLICATES independent sets of draws, each a Draws per view, with ``draws`` in all.

    ``reach`` is the largest |Phi| of a merged area for which merging is good to MERGE_ERROR. Raises InputError where
    draws and areas are too many to hold.
    """
    areas = int(row.cell_count.sum())
    if draws * areas > LARGEST:
        raise InputError(
            f"dynamics: engine = sampled would hold {draws} draws x {areas} areas, more than {LARGEST:.0e}; "
            "use engine = mean-field, or fewer patches or draws."
        )
    columns = columns_of(row)
    nodes = _nodes_needed(latent, reach)
    sizes = np.diff(np.linspace(0, draws, REPLICATES + 1).astype(int))
    result = []
    for replicate, size in enumerate(sizes):
        generator = np.random.default_rng([seed, row.query, replicate])
        plain = _replicate(row, columns, latent, row.patches - masked, int(size), generator)
        result.append(tuple(_merge(d, latent, nodes) for d in plain))
    return result


def join(replicates: Sequence[tuple[Draws, ...]]) -> tuple[Draws, ...]:
    """All replicates as one set of draws."""
    joined = []
    for parts in zip(*replicates, strict=True):
        merged = [d.merged for d in parts if d.merged is not None]
        joined.append(
            replace(
                parts[0],
                weight=np.concatenate([d.weight for d in parts]) / len(parts),
                counts=np.concatenate([d.counts for d in parts]),
                z=np.concatenate([d.z for d in parts]),
                masked=np.concatenate([d.masked for d in parts]),
                solvable=np.concatenate([d.solvable for d in parts]),
                merged=replace(
                    merged[0],
                    counts=np.concatenate([m.counts for m in merged]),
                    pairs=np.concatenate([m.pairs for m in merged]),
                )
                if merged
                else None,
            )
        )
    return tuple(joined)


def merged_phis(draws: Sequence[Draws]) -> Array:
    """Indices of the Phi whose areas were merged."""
    return np.unique(np.concatenate([d.phi[:0] if d.merged is None else d.merged.phi for d in draws]))


def _replicate(
    row: Row, columns: Columns, latent: Latent, visible: int, draws: int, generator: np.random.Generator
) -> tuple[Draws, ...]:
    sobol = _sobol(2 + 2 * len(columns.views), draws, generator)
    closest = min(range(len(row.views)), key=lambda v: row.views[v].own_size)
    own = _own_cells(columns, closest)
    outside = np.flatnonzero(~own)
    lead = outside[np.argmax(columns.size[outside])] if len(outside) else None
    counts = np.zeros((draws, len(columns.size)), dtype=np.int64)

    n_own = int(columns.size[own].sum())
    in_own, weight = _stratified_own(row.patches - 1, n_own, visible, sobol[:, 0])
    _split(counts, np.flatnonzero(own), columns.size, in_own, generator)
    remaining = visible - in_own
    if lead is not None:
        total, n_lead = row.patches - 1 - n_own, int(columns.size[lead])
        in_lead = np.empty(draws, dtype=np.int64)
        for value in np.unique(remaining):  # few distinct values: one table each
            here = remaining == value
            support, cumulative = _hypergeometric(total, n_lead, int(value))
            in_lead[here] = support[np.searchsorted(cumulative[:-1], sobol[here, 1], side="right")]
        counts[:, lead] = in_lead
        others = outside[outside != lead]
        _split(counts, others, columns.size, remaining - in_lead, generator)

    latents = []
    for position, view in enumerate(columns.views):
        u = generator.random((draws, len(view.phi)))
        u[:, view.own] = sobol[:, 2 + 2 * position]
        if lead is not None:
            area = _column_of(view.order, view.starts, int(lead))
            if area != view.own:
                u[:, area] = sobol[:, 3 + 2 * position]
        latents.append(latent.quantile(u))
    return columns.draws(counts, tuple(latents), weight)


def _sobol(dimensions: int, draws: int, generator: np.random.Generator) -> Array:
    from scipy.stats import qmc  # loaded here: half a second that only this engine pays

    engine = qmc.Sobol(dimensions, scramble=True, rng=generator)
    power = int(np.ceil(np.log2(max(draws, 2))))
    return np.asarray(engine.random_base2(power))[:draws]


def _own_cells(columns: Columns, view: int) -> Array:
    """Which cells lie in the own area of a view; shape (cells,) bool."""
    chosen = columns.views[view]
    if chosen.starts is None:
        position = np.array([chosen.own])
    else:
        ends = np.append(chosen.starts[1:], len(chosen.order))
        position = np.arange(chosen.starts[chosen.own], ends[chosen.own])
    result = np.zeros(len(columns.size), dtype=bool)
    result[chosen.order[position]] = True
    return result


def _column_of(order: Array, starts: Array | None, cell: int) -> int:
    position = int(np.flatnonzero(order == cell)[0])
    return position if starts is None else int(np.searchsorted(starts, position, side="right")) - 1


def _stratified_own(total: int, n_own: int, visible: int, u: Array) -> tuple[Array, Array]:
    """Visible patches in the own area and the draws' weights: the hopeless stratum, then the rest by inversion."""
    draws = len(u)
    support, cumulative = _hypergeometric(total, n_own, visible)
    p0 = float(cumulative[0]) if support[0] == 0 else 0.0
    if p0 <= NEGLIGIBLE or len(support) == 1:
        return support[np.searchsorted(cumulative[:-1], u, side="right")], np.full(draws, 1 / draws)
    least = max(
        LEAST_SHARE, 2.0 ** -int(log2(draws))
    )  # Sobol: every interval this long, from 0 or to 1, has a draw
    share = min(max(p0, least), 1 - least)
    hopeless = u < share
    rest = np.clip((u - share) / (1 - share), 0.0, 1.0)
    counts = support[np.searchsorted(cumulative[:-1], p0 + (1 - p0) * rest, side="right")]
    counts = np.where(hopeless, 0, np.maximum(counts, 1))
    weight = np.where(hopeless, p0 / hopeless.sum(), (1 - p0) / (~hopeless).sum())
    return counts, weight


def _hypergeometric(total: int, good: int, sample: int) -> tuple[Array, Array]:
    """Support and distribution function of the number of good ones among ``sample`` of ``total``; the support is cut
    at 12 standard deviations."""
    low, high = max(0, sample - (total - good)), min(good, sample)
    if total > 1:
        mean = sample * good / total
        spread = 12 * (mean * (1 - good / total) * (total - sample) / (total - 1)) ** 0.5 + 2
        if low > 0 or mean > spread:
            low = max(low, int(mean - spread))
        high = min(high, int(mean + spread) + 1)
    k = np.arange(low, high + 1)
    steps = (good - k[:-1]) * (sample - k[:-1]) / ((k[:-1] + 1.0) * (total - good - sample + k[:-1] + 1.0))
    log_pmf = np.concatenate([[0.0], np.cumsum(np.log(steps))])
    if low == 0:  # keep P(0) exact: it is the weight of the hopeless stratum
        log_pmf += log_none(total, good, sample)
        pmf = np.exp(log_pmf)
        return k, np.cumsum(pmf)
    pmf = np.exp(log_pmf - log_pmf.max())
    return k, np.cumsum(pmf) / pmf.sum()


def _split(counts: Array, cells: Array, sizes: Array, totals: Array, generator: np.random.Generator) -> None:
    """Spread each draw's total over cells as a uniform mask does, in place."""
    if len(cells) == 1:
        counts[:, cells[0]] = totals
    elif len(cells) > 1:
        for draw, total in enumerate(totals):
            counts[draw, cells] = generator.multivariate_hypergeometric(
                sizes[cells], int(total), method="marginals"
            )


def _nodes_needed(latent: Latent, reach: float) -> int:
    """Chebyshev nodes for e^{2zΦ}, |Φ| <= reach, to MERGE_ERROR of its maximum (docs/derivations.md)."""
    if latent.atoms is not None:
        return len(latent.atoms)
    low, high = latent.support
    c, nodes = reach * (high - low), 2
    while nodes * log(max(c, 1e-9)) - lgamma(nodes + 1) - (nodes - 1) * log(2) > log(MERGE_ERROR):
        nodes += 1
        if nodes > MOST_NODES:  # a run that flies apart: no Phi has so many areas that merging would help
            return maxsize
    return nodes


def _merge(draws: Draws, latent: Latent, nodes: int) -> Draws:
    """Merge the columns of every Phi that has more areas than ``nodes``; needs one cell per column."""
    phis, number = np.unique(draws.phi, return_counts=True)
    many = phis[number > nodes]
    if draws.starts is not None or not len(many):
        return draws
    node_z = latent.nodes(nodes)
    counts, pairs, upsilon = [], [], []
    for index in many:
        here = np.flatnonzero(draws.phi == index)
        u = draws.counts[:, here]
        summed, squares = latent.merge(draws.z[:, here], (u, u * u), nodes)
        counts.append(summed)
        pairs.append(squares)
        upsilon.append(draws.cell_upsilon[here[0]])
    keep = np.flatnonzero(~np.isin(draws.phi, many))
    return replace(
        draws,
        counts=draws.counts[:, keep],
        cell_upsilon=draws.cell_upsilon[keep],
        phi=draws.phi[keep],
        z=draws.z[:, keep],
        own=int(np.flatnonzero(keep == draws.own)[0]),
        merged=Merged(
            counts=np.concatenate(counts, axis=1),
            pairs=np.concatenate(pairs, axis=1),
            z=np.tile(node_z, len(many)),
            phi=np.repeat(many, len(node_z)),
            upsilon=np.repeat(upsilon, len(node_z)),
        ),
    )
