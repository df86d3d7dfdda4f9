"""Rows as tables: trajectory.parquet and correlations.parquet (docs/file-contract.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mimlab.dynamics.integrators import Path
from mimlab.dynamics.rows import MEASURES_WITH_ERROR, RowRun
from mimlab.dynamics.whole import WITH_ERROR, area_key, whole_map
from mimlab.world.partition import Layout
from mimlab.world.row import Row

Array = np.ndarray

EVERY_PATCH = 1000  # up to so many patches, correlations list each; beyond, one per cell
SNAPSHOTS = 24  # log-spaced times of the correlations table, besides the first, last, half and phase ends

MEASURES = (
    "loss",
    "excess_loss",
    "attention_own",
    "attention_global",
    "entropy",
    "nmi",
    "effective_rank",
    "nmi_bound",
    "diversity",
    "diversity_bound",
    "spread",
    "mean_entropy",
    "distance_ratio",
    "locality_1",
    "phi_own",
    "phi_global",
    "phi_other_max",
    "upsilon_max",
)
TRAJECTORY_SCHEMA = pa.schema(
    [("query", pa.int64()), ("step", pa.int64()), ("time", pa.float64())]
    + [(name, pa.float64()) for name in MEASURES]
    + [(f"{name}_se", pa.float64()) for name in (*MEASURES_WITH_ERROR, *WITH_ERROR)]
)
CORRELATIONS_SCHEMA = pa.schema(
    [
        ("query", pa.int64()),
        ("time", pa.float64()),
        ("kind", pa.string()),
        ("cluster", pa.int64()),
        ("target", pa.int64()),
        ("size", pa.int64()),
        ("value", pa.float64()),
    ]
)


def trajectory_table(runs: Sequence[RowRun], layout: Layout, mean_latent: float) -> pa.Table:
    """A row per (query, recorded time); see TRAJECTORY_SCHEMA. What an engine does not know is null."""
    together = whole_map(runs, layout, mean_latent)
    pieces = []
    for run in runs:
        count = len(run.path.times)
        columns: dict[str, Array | list[None]] = {
            "query": np.full(count, run.row.query),
            "step": [None] * count if run.path.steps is None else run.path.steps,
            "time": run.path.times,
        }
        known = run.measures | together | {f"{name}_se": values for name, values in run.errors.items()}
        for name in TRAJECTORY_SCHEMA.names[3:]:
            columns[name] = known.get(name, [None] * count)
        arrays = [
            pa.array(columns[field.name], type=field.type, from_pandas=True) for field in TRAJECTORY_SCHEMA
        ]
        pieces.append(pa.Table.from_arrays(arrays, schema=TRAJECTORY_SCHEMA))
    return pa.concat_tables(pieces)


def snapshots(run: RowRun) -> Array:
    """Positions in the recorded times at which correlations are listed."""
    times = run.path.times
    wanted = [0, len(times) - 1, *np.linspace(0, len(times) - 1, SNAPSHOTS).astype(int).tolist()]
    for moment in (run.path.half_time, *(phase.end for phase in run.phases)):
        if moment is not None:
            wanted.append(nearest_record(run.path, moment))
    return np.unique(wanted)


def nearest_record(path: Path, time: float) -> int:
    """Position of the recorded time nearest to ``time``."""
    return int(np.argmin(np.abs(path.times - min(time, float(path.times[-1])))))


def correlations_table(runs: Sequence[RowRun], layout: Layout) -> pa.Table:
    """Phi and Upsilon at the snapshots: every entry where P <= EVERY_PATCH, else one row per tied cell or area."""
    pieces = []
    for run in runs:
        where = _entries(run.row, layout)
        moments = snapshots(run)
        repeated = len(moments)
        values = run.path.states[moments][:, where["unknown"]]
        kinds, clusters = np.array(["feature", "position"]), where["cluster"]
        columns = [
            np.full(values.size, run.row.query),
            np.repeat(run.path.times[moments], values.shape[1]),
            np.tile(kinds[(clusters < 0).astype(int)], repeated),
            pa.array(np.tile(clusters, repeated), mask=np.tile(clusters < 0, repeated)),
            np.tile(where["target"], repeated),
            np.tile(where["size"], repeated),
            values.ravel(),
        ]
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, CORRELATIONS_SCHEMA, strict=True)]
        pieces.append(pa.Table.from_arrays(arrays, schema=CORRELATIONS_SCHEMA))
    return pa.concat_tables(pieces)


def _entries(row: Row, layout: Layout) -> dict[str, Array]:
    """Index into the state, cluster (-1: a position), target and size of every listed entry."""
    n_phi = len(row.phi_tied)
    every = layout.patches <= EVERY_PATCH
    parts = []
    for view in row.views:
        for k in view.clusters:
            if every:
                areas = np.arange(layout.partition_of(k).areas)
                sizes = np.ones(len(areas), dtype=np.int64)
                unknown = view.area_phi[_area_columns(row, layout, areas)] if row.grouped else view.area_phi
            else:
                areas, unknown = view.area_index, view.area_phi
                sizes = row.cell_count if row.grouped else np.ones(len(areas), dtype=np.int64)
            parts.append((unknown, np.full(len(areas), k), areas, sizes))
    if every:
        patches = np.arange(layout.patches)
        upsilon = _patch_upsilon(row, layout)
        parts.append(
            (n_phi + upsilon, np.full(len(patches), -1), patches, np.ones(len(patches), dtype=np.int64))
        )
    else:
        filled = np.flatnonzero(row.cell_size > 0)
        index = np.concatenate([[0], row.cell_upsilon[filled]])
        targets = np.concatenate([[row.query], row.cell_patch[filled]])
        sizes = np.concatenate([[1], (row.cell_size * row.cell_count)[filled]])
        parts.append((n_phi + index, np.full(len(index), -1), targets, sizes))
    names = ("unknown", "cluster", "target", "size")
    return {
        name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }


def attention_map(run: RowRun, layout: Layout, record: int, mean_latent: float) -> Array:
    """Attention of the row over every patch of an unmasked image whose latents all stand at their mean, at a recorded
    time (its position); shape (P,), sums to 1. For clusters that differ: in the first of them."""
    row, view = run.row, run.row.views[0]
    state = run.path.states[record]
    Phi, Upsilon = state[: len(row.phi_tied)], state[len(row.phi_tied) :]
    base = layout.partitions[0]
    columns = _area_columns(row, layout, np.arange(base.areas)) if row.grouped else np.arange(base.areas)
    logits = (
        mean_latent * Phi[view.area_phi[columns]][base.all_labels()] + Upsilon[_patch_upsilon(row, layout)]
    )
    weights = np.exp(logits - logits.max())
    result: Array = weights / weights.sum()
    return result


def _area_columns(row: Row, layout: Layout, areas: Array) -> Array:
    """Column of each area in the one view of a shared row: areas of one size are alike."""
    view = row.views[0]
    own = int(view.area_index[view.own])
    column = {area_key(layout, int(a)): c for c, a in enumerate(view.area_index) if c != view.own}
    return np.array([view.own if a == own else column.get(area_key(layout, int(a)), view.own) for a in areas])


def _patch_upsilon(row: Row, layout: Layout) -> Array:
    """Index of every patch's Upsilon; shape (P,)."""
    cells = row.cell_of
    if cells is None:
        base = layout.partitions[0]
        cells = _area_columns(row, layout, np.arange(base.areas))[base.all_labels()]
    result: Array = row.cell_upsilon[cells]
    result[row.query] = 0
    return result
