"""Contrastive learning followed as a flow or by descent: all rows at once (theory, section 6).

From Q = 0 all rows are alike for all time, by symmetry, and one course stands for every query. With a `start` the
entries of `ROWS_APART` classes of rows are drawn, and nothing but positions of one cell is tied.

Engines differ in the masks alone: "sampled" draws those of both views, "mean-field" takes their mean counts. Clusters,
latents and negatives are drawn by both, in independent replicates, whose spread is the standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import Path, Progress
from mimlab.dynamics.rows import HORIZON, RowRun, first_half, follow, half_timed, measured, with_errors
from mimlab.dynamics.sampled import REPLICATES
from mimlab.dynamics.whole import class_statistics, map_errors
from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.kernel import Evaluation
from mimlab.objectives.pairs import Cells, Pairs, PairsObjective
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent
from mimlab.world.partition import Layout
from mimlab.world.row import Row, joint_cells, row_of, unlumped_row

Array = np.ndarray

ROWS_APART = 16
"""Classes of rows where they start apart."""
MOST_UNKNOWNS = 50_000
LARGEST = 30_000_000
"""Rows x draws x areas."""


def cells_of(layout: Layout, max_cells: int, apart: bool, untied: bool = False) -> Cells:
    """The cells of a world and its unknowns. apart: areas are not alike, since their entries start apart; untied: nor
    are positions, each of which is a cell."""
    K = layout.clusters
    if untied or not layout.shared:
        cell_of, areas = _every_position(layout) if untied else joint_cells(layout, max_cells)
        J = int(areas.max()) + 1
        there = np.arange(J) <= areas.max(axis=0)[:, None]
        phi = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
        return Cells(np.bincount(cell_of), np.arange(len(areas)), areas.T, phi)
    base = layout.partitions[0]
    size = np.concatenate([np.full(number, size) for size, number in base.runs])
    J = len(size)
    area = np.tile(np.arange(J), (K, 1))
    if apart:
        return Cells(size, np.arange(J), area, np.arange(K * J).reshape(K, J))
    _, alike = np.unique(np.where(np.arange(J) == 0, -1, size), return_inverse=True)
    return Cells(size, alike, area, np.tile(alike, (K, 1)))


def _every_position(layout: Layout) -> tuple[Array, Array]:
    """As `joint_cells`, with a cell for each position."""
    labels = [layout.partition_of(k).all_labels() for k in range(layout.clusters)]
    return np.arange(layout.patches), np.stack(labels, axis=1)


def drawn_pairs(
    cells: Cells,
    latent: Latent,
    objective: ContrastiveLearning,
    images: int,
    generator: np.random.Generator,
    masks: bool,
) -> Pairs:
    """Images of all clusters in equal numbers, each seen twice, and their negatives, uniform over the other images.

    masks: drawn; else each cell has its mean number of visible patches.
    """
    K, J = cells.phi.shape
    cluster = generator.permutation(np.arange(images) % K)
    z = latent.sample(generator, (images, J))
    seen = cells.patches - objective.masked(cells.patches)
    if masks:
        visible = generator.multivariate_hypergeometric(
            cells.size, seen, size=(2, images), method="marginals"
        ).astype(float)
    else:
        visible = np.broadcast_to(cells.size * (seen / cells.patches), (2, images, len(cells.size)))
    away = 1 + generator.integers(images - 1, size=(images, objective.negatives))
    return Pairs(cluster, z, visible, (np.arange(images)[:, None] + away) % images)


@dataclass(frozen=True, eq=False)
class Courses:
    """Loss (times,) and attention (times, classes of rows, clusters, areas) along a path."""

    loss: Array
    attention: Array


@dataclass(frozen=True, eq=False)
class Followed:
    """The objective as the integrators take it: of the flat state of all classes of rows, with the attention of class
    `row` on its cluster-wise global area as the attention that a run waits for."""

    objective: PairsObjective
    row: int

    def along(self, path: Path) -> Courses:
        """Loss and attention at the recorded states."""
        found = [self.objective.evaluate(self._by_class(state)) for state in path.states]
        return Courses(np.array([one.loss for one in found]), np.stack([one.attention for one in found]))

    def _by_class(self, state: Array) -> Array:
        return state.reshape(len(self.objective.share), -1)

    def evaluate(self, state: Array) -> Evaluation:
        """Loss, velocity and the attention waited for; there is no floor to take an excess over."""
        found = self.objective.evaluate(self._by_class(state))
        everywhere = float(np.nanmean(found.attention[self.row, :, 0]))
        return Evaluation(found.loss, np.nan, found.velocity.ravel(), everywhere, everywhere)


def run_contrastive(
    config: SimulationConfig, layout: Layout, queries: Sequence[int], progress: Progress | None = None
) -> list[RowRun]:
    """Follow all rows until that of the first query attends to the global area; a course for each query.

    Raises InputError for an engine that does not take the objective, and for worlds with too many areas.
    """
    objective, dynamics = config.objective, config.dynamics
    assert isinstance(objective, ContrastiveLearning)
    check_taken(config, objective)
    apart = dynamics.start > 0
    classes = ROWS_APART if apart else 1
    if apart and dynamics.query == "all":
        queries = one_of_each_class(layout.patches)
    untied = dynamics.start_alike == "nothing"
    _check_size(layout, classes, dynamics.draws, apart, untied)
    cells = cells_of(layout, config.world.max_cells, apart, untied)
    lump = unlumped_row if apart else partial(row_of, max_cells=config.world.max_cells)
    rows = [lump(layout, query) for query in queries]
    cell_at = _cell_at(layout, config.world.max_cells, untied)
    unknowns = [_unknowns(row, cells, cell_at) for row in rows]

    first, *seeds = np.random.SeedSequence(config.seed).spawn(REPLICATES + 1)
    start = dynamics.start * np.random.default_rng(first).standard_normal(classes * len(cells.tied))
    sets = drawn_sets(config, cells, objective, seeds)
    share = np.full(classes, 1 / classes)
    watched = queries[0] % classes
    whole, *parts = (
        Followed(PairsObjective(cells, pairs, objective, share), watched) for pairs in (joined(sets), *sets)
    )
    path = follow(config, whole, start, HORIZON * layout.patches, None, progress)
    paths = [half_timed(config, part, follow(config, part, start, np.inf, path), path) for part in parts]

    mean = config.world.latent.mean
    together = _together(whole.objective, path, paths, mean)

    def courses(followed: Followed, path: Path) -> list[RowRun]:
        found = followed.along(path)
        return [
            _course(row, path, found, where, layout, mean) for row, where in zip(rows, unknowns, strict=True)
        ]

    replicates = [courses(part, own) for part, own in zip(parts, paths, strict=True)]
    return [
        replace(with_errors(run, others), together=together)
        for run, *others in zip(courses(whole, path), *replicates, strict=True)
    ]


def check_taken(config: SimulationConfig, objective: ContrastiveLearning) -> None:
    """Raises InputError for an engine that does not take the objective, and for draws too few for its negatives."""
    dynamics = config.dynamics
    if dynamics.engine not in ("sampled", "mean-field"):
        others = ", mean-field or dense" if config.objective is objective else " or mean-field"
        raise InputError(
            f"dynamics: engine = {dynamics.engine} does not take objective = {config.objective.name}; use "
            f"sampled{others}."
        )
    if dynamics.draws // REPLICATES <= objective.negatives:
        raise InputError(
            f"dynamics: draws = {dynamics.draws} in {REPLICATES} replicates leave no {objective.negatives} other "
            "images to be negatives; draw more, or give fewer negatives."
        )


def drawn_sets(
    config: SimulationConfig,
    cells: Cells,
    objective: ContrastiveLearning,
    seeds: Sequence[np.random.SeedSequence],
) -> list[Pairs]:
    """Pairs of every replicate, as many in all as the configuration draws."""
    images, masks = config.dynamics.draws // REPLICATES, config.dynamics.engine == "sampled"
    generators = (np.random.default_rng(seed) for seed in seeds)
    return [
        drawn_pairs(cells, config.world.latent, objective, images, generator, masks)
        for generator in generators
    ]


def one_of_each_class(patches: int) -> list[int]:
    """A position of every class of rows that starts apart, spread over all; position p is of class p mod ROWS_APART."""
    each = -(-patches // ROWS_APART)  # positions of a class, the last one of some missing
    places = (place + ROWS_APART * (place * each // ROWS_APART) for place in range(min(ROWS_APART, patches)))
    return [place if place < patches else place - ROWS_APART for place in places]


def _together(
    objective: PairsObjective, path: Path, replicates: Sequence[Path], mean_latent: float
) -> dict[str, Array]:
    """Statistics of the whole map along a path, and their errors."""
    found, *others = (
        class_statistics(
            objective.cells,
            objective.share,
            one.states.reshape(len(one.times), len(objective.share), -1),
            mean_latent,
        )
        for one in (path, *replicates)
        if len(one.times) == len(path.times)
    )
    return found | map_errors(others, len(replicates))


def joined(sets: Sequence[Pairs]) -> Pairs:
    """All pairs as one set; negatives stay in the set that they were drawn from."""
    firsts = np.cumsum([0, *(len(one) for one in sets)])
    return Pairs(
        np.concatenate([one.cluster for one in sets]),
        np.concatenate([one.latent for one in sets]),
        np.concatenate([one.visible for one in sets], axis=1),
        np.concatenate([one.negatives + first for one, first in zip(sets, firsts, strict=False)]),
    )


def _check_size(layout: Layout, classes: int, draws: int, apart: bool, untied: bool) -> None:
    areas = max(partition.areas for partition in layout.partitions)
    unknowns = classes * areas * (layout.clusters + 1) if apart else 0
    if untied:
        areas, unknowns = layout.patches, unknowns + classes * layout.patches
    if unknowns > MOST_UNKNOWNS or classes * draws * areas > LARGEST:
        raise InputError(
            f"dynamics: contrastive learning would follow {classes} classes of rows over {draws} draws x {areas} "
            f"areas or positions, more than {LARGEST:.0e} numbers or {MOST_UNKNOWNS} unknowns; "
            "give fewer patches or draws, or start = 0."
        )


def _course(
    row: Row, path: Path, found: Courses, unknowns: Array, layout: Layout, mean_latent: float
) -> RowRun:
    """The course of one query, its unknowns as the tables have them."""
    classes = found.attention.shape[1]
    place = row.query % classes
    states = path.states.reshape(len(path.times), classes, -1)[:, place, unknowns]
    own = [layout.partition_of(k).area_of(row.query) for k in range(layout.clusters)]
    attention = found.attention[:, place]  # (times, K, J)
    evaluated = Evaluation(
        found.loss,
        np.full(len(path.times), np.nan),
        np.empty(0),
        np.nanmean(attention[:, np.arange(len(own)), own], axis=1),
        np.nanmean(attention[:, :, 0], axis=1),
    )
    half_time = path.half_time if classes == 1 else first_half(path.times, evaluated.attention_global)
    own_path = replace(path, states=states, half_time=half_time)
    return measured(row, own_path, evaluated, mean_latent, learns_global=True)


def _cell_at(layout: Layout, max_cells: int, untied: bool) -> Callable[[Array], Array]:
    """The cells that hold given patches."""
    if untied:
        return np.asarray
    if layout.shared:
        base = layout.partitions[0]
        return lambda patches: np.array([base.area_of(int(patch)) for patch in patches])
    cell_of, _ = joint_cells(layout, max_cells)
    return lambda patches: cell_of[patches]


def _unknowns(row: Row, cells: Cells, cell_at: Callable[[Array], Array]) -> Array:
    """Where each unknown of a row stands in the state of a class of rows; shape (row.size,)."""
    found = np.zeros(row.size, dtype=np.int64)
    for view in row.views:
        found[view.area_phi] = cells.phi[view.clusters[0], view.area_index]
    patches = np.append(row.query, np.where(row.cell_patch < 0, row.query, row.cell_patch))
    position = len(cells.phi_tied) + cells.upsilon[cell_at(patches)]
    found[len(row.phi_tied) + np.append(0, row.cell_upsilon)] = position
    return found
