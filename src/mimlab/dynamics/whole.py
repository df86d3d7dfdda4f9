"""Statistics of the whole P x P map along a run, on an unmasked image whose latents stand at their mean.

With the masked objective a run for every class of interchangeable queries gives every row; with the contrastive one all
rows are followed anyway, in classes. Values are means over clusters, each with an image of its own: of the
statistics, not of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimlab.dynamics.rows import RowRun, standard_error
from mimlab.objectives.pairs import Cells
from mimlab.statistics.blocks import BlockMap
from mimlab.statistics.classes import ClassMap
from mimlab.statistics.grouped import GroupedMap
from mimlab.world.partition import Layout

Array = np.ndarray

WITH_ERROR = ("nmi", "diversity")


def whole_map(runs: Sequence[RowRun], layout: Layout, mean_latent: float) -> dict[str, Array]:
    """Columns of the trajectory that speak of all rows, each (times,); empty where not all rows are known."""
    if runs[0].together:
        return runs[0].together
    block = block_map(runs, layout, mean_latent)
    if block is None:
        return {}
    found = statistics_of(block) | _on_plane(block, [run.row.kind for run in runs], layout)
    found |= {"nmi_bound": block.nmi_bound(), "diversity_bound": block.diversity_bound()}
    others = [
        whole_map(parts, layout, mean_latent)
        for parts in zip(*(run.replicates for run in runs), strict=True)
        if all(len(part.path.times) == len(runs[0].path.times) for part in parts)
    ]
    return found | map_errors(others, len(runs[0].replicates))


def statistics_of(whole: GroupedMap) -> dict[str, Array]:
    """The statistics of theory, section 7, that need no plane."""
    return {
        "nmi": whole.nmi(),
        "effective_rank": whole.effective_rank(),
        "diversity": whole.diversity(),
        "spread": whole.spread(),
        "mean_entropy": whole.entropy(),
    }


def map_errors(others: Sequence[dict[str, Array]], expected: int) -> dict[str, Array]:
    """Standard errors from the replicates, where none of them is missing."""
    if not expected or len(others) < expected or not all(others):
        return {}
    return {f"{name}_se": standard_error([other[name] for other in others]) for name in WITH_ERROR}


def block_map(runs: Sequence[RowRun], layout: Layout, mean_latent: float) -> BlockMap | None:
    """The map at every recorded time; None unless there is a run for every class of queries and one partition."""
    classes = [run.row.kind for run in runs]
    if not all(run.row.grouped for run in runs) or len(set(classes)) < len(runs):
        return None
    needed = {area_key(layout, int(a)) for run in runs for a in run.row.views[0].area_index}
    if needed != set(classes) or any(not np.array_equal(r.path.times, runs[0].path.times) for r in runs):
        return None
    base = layout.partitions[0]
    number = {key: 0 for key in classes}
    area = 0
    for size, count in base.runs:
        number[area == 0, size] += count
        area += count
    times, n = len(runs[0].path.times), len(runs)
    own_self, own_rest = np.full((times, n), np.nan), np.full((times, n), np.nan)
    other = np.full((times, n, n), np.nan)
    for i, run in enumerate(runs):
        n_phi = len(run.row.phi_tied)
        Phi, Upsilon = mean_latent * run.path.states[:, :n_phi], run.path.states[:, n_phi:]
        view = run.row.views[0]
        own_self[:, i] = Phi[:, view.own] + Upsilon[:, 0]
        own_rest[:, i] = Phi[:, view.own] + Upsilon[:, run.row.cell_upsilon[view.own]]
        for column in range(1, len(view.area_index)):
            j = classes.index(area_key(layout, int(view.area_index[column])))
            other[:, i, j] = Phi[:, view.area_phi[column]] + Upsilon[:, run.row.cell_upsilon[column]]
    return BlockMap(
        np.array([size for _, size in classes], dtype=float),
        np.array([number[key] for key in classes], dtype=float),
        own_self,
        own_rest,
        other,
    )


def _on_plane(block: BlockMap, classes: Sequence[tuple[bool, int]], layout: Layout) -> dict[str, Array]:
    """Distance over that of uniform attention, and what lies within one patch side; empty where there is no plane."""
    if layout.grid is None:
        return {}
    labels = layout.partitions[0].all_labels()
    place = np.stack(np.unravel_index(np.arange(len(labels)), layout.grid), axis=1)
    distance = np.sqrt(((place[:, None] - place) ** 2).sum(axis=-1))
    kind = np.array([classes.index(area_key(layout, int(area))) for area in range(labels.max() + 1)])
    member = (kind[labels] == np.arange(len(classes))[:, None]).astype(float)  # (classes, P)
    same = labels[:, None] == labels
    beside, beyond = same & ~np.eye(len(labels), dtype=bool), ~same

    def mean_over(values: Array) -> Array:
        def means(pairs: Array) -> Array:
            number = member @ pairs @ member.T
            total: Array = member @ (pairs * values) @ member.T
            total /= np.maximum(number, 1)
            return total

        found: Array = block.mean_over(float(values[0, 0]), np.diag(means(beside)), means(beyond))
        return found

    return {"distance_ratio": mean_over(distance) / distance.mean(), "locality_1": mean_over(distance <= 1.0)}


def class_statistics(cells: Cells, share: Array, states: Array, mean_latent: float) -> dict[str, Array]:
    """`whole_map` of classes of rows: share (R,) of all rows, states (times, R, unknowns)."""
    n_phi = len(cells.phi_tied)
    Upsilon = states[..., n_phi + cells.upsilon]
    by_cluster = [
        statistics_of(
            ClassMap(share * cells.patches, cells.size, mean_latent * states[..., phi[area]] + Upsilon)
        )
        for phi, area in zip(cells.phi, cells.area, strict=True)
    ]
    return {name: np.mean([one[name] for one in by_cluster], axis=0) for name in by_cluster[0]}


def area_key(layout: Layout, area: int) -> tuple[bool, int]:
    """What areas of one kind have in common: whether global, and their size."""
    return area == 0, layout.partitions[0].size_of(area)
