"""What figures and pages of pretraining are made of: the summary's keys, the log, and tables read as curves.

`statistics` has the columns `step, layer, module, head, statistic, value` (a null layer: of the outputs), `maps` the
columns `step, layer, query, patch, value` (one query's weights on all patches of one held-out crop, mean over
heads), `shares` the columns `step, layer, module, head, component, share, low, high`; `log` is the records of
log.jsonl. The tables' first step is the network before training.

So that one set of figures serves the probe and pretraining, a step of a run can be read as a probed model
(`layers_at`), and the start of the run as what the probe calls random weights (`as_probed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mimlab.report.probe_tables import LAYERS_SCHEMA, LayerRecord, ModelRecord, with_random_weights

Array = NDArray[np.float64]
Log = Sequence[Mapping[str, Any]]

MAPS, PICTURE, SHARES = "maps.parquet", "held_out/000.png", "shares.parquet"
"""Files of a run's folder: the query's maps, the crop that it stands in, and shares of logit variance."""


class PretrainSummary(TypedDict):
    """Keys of a pretraining run's summary.json that figures and pages read; others may stand beside them.

    status: "finished", or how it ended. objective: in words, as the user names it. start: the run whose encoder it
    started from, or null. step, steps: done, and planned. crops: how many held-out crops were watched; held_out,
    images: where those and the training images are from, in words. parameters, layers: of the encoder. evaluation: a
    record for each evaluated checkpoint, `step` and any of `knn, linear, chance, model, image_mean, nearest_patch`.
    alarms, warnings: sentences.
    """

    status: str
    objective: str
    start: str | None
    seed: int
    step: int
    steps: int
    images: str
    held_out: str
    crops: int
    parameters: int
    layers: Sequence[LayerRecord]
    evaluation: Sequence[Mapping[str, float | None]]
    alarms: Sequence[str]
    warnings: Sequence[str]
    command: str
    seconds: float
    images_per_second: float
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class PretrainRun:
    """One run: how it is called (its folder's name), its summary and tables.

    maps, picture: of the query that is followed, where there are any; picture is the crop, (h, w, 3) uint8. shares: of
    logit variance, where there are any.
    """

    name: str
    summary: PretrainSummary
    statistics: pa.Table
    maps: pa.Table | None = None
    picture: NDArray[np.uint8] | None = None
    shares: pa.Table | None = None

    @property
    def model(self) -> ModelRecord:
        """The encoder as the probe would list it."""
        summary = self.summary
        return {"name": self.name, "parameters": summary["parameters"], "layers": summary["layers"]}


@dataclass(frozen=True, eq=False)
class Series:
    """A value against step: its mean over heads, and the ends of a band about it, the lowest and highest head or those
    of an interval."""

    steps: NDArray[np.int64]
    mean: Array
    low: Array
    high: Array

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(np.isfinite(self.mean).any())


def series(statistics: pa.Table, statistic: str, layer: int | None = None) -> Series:
    """A statistic of a layer, or of the outputs, in order of steps."""
    of_layer = pc.field("layer").is_null() if layer is None else pc.field("layer") == layer
    chosen = statistics.filter((pc.field("statistic") == statistic) & of_layer)
    return _by_step(chosen, {"value": ("mean", "min", "max")})


def share_series(shares: pa.Table, component: str, layer: int) -> Series:
    """A share of a layer's logit variance in order of steps, with the mean of its heads' intervals, which is never too
    narrow for the mean over heads."""
    chosen = shares.filter((pc.field("component") == component) & (pc.field("layer") == layer))
    return _by_step(chosen, dict.fromkeys(("share", "low", "high"), ("mean",)))


def _by_step(rows: pa.Table, wanted: Mapping[str, Sequence[str]]) -> Series:
    """Three aggregates of columns, step by step."""
    pairs = [(column, kind) for column, kinds in wanted.items() for kind in kinds]
    grouped = rows.group_by("step", use_threads=False).aggregate(pairs).sort_by("step")
    mean, low, high = (
        np.asarray(grouped[f"{column}_{kind}"].to_numpy(zero_copy_only=False), dtype=np.float64)
        for column, kind in pairs
    )
    return Series(grouped["step"].to_numpy(), mean, low, high)


def steps_in(table: pa.Table) -> list[int]:
    """Every step of a table, in order."""
    return sorted(int(step) for step in table["step"].unique().to_pylist())


def layers_in(statistics: pa.Table) -> list[int]:
    """Every layer, from 0."""
    return sorted(int(layer) for layer in statistics["layer"].unique().to_pylist() if layer is not None)


def layers_at(table: pa.Table, step: int, model: str, images: int) -> pa.Table:
    """A step of a run's statistics or shares as the probe's table of layers: each head's mean over the images.

    Shares have an interval and are called by their component; statistics have none.
    """
    chosen = table.filter((pc.field("step") == step) & pc.field("layer").is_valid())
    count = len(chosen)
    if "share" in table.column_names:
        renamed = {"statistic": "component", "mean": "share", "low": "low", "high": "high"}
        values = {name: chosen[column] for name, column in renamed.items()}
    else:
        empty = pa.nulls(count, pa.float64())
        values = {"statistic": chosen["statistic"], "mean": chosen["value"], "low": empty, "high": empty}
    columns = {key: chosen[key] for key in ("layer", "module", "head")} | values
    columns |= {"model": pa.array([model] * count, pa.string())}
    columns |= {"images": pa.array([images] * count, pa.int64())}
    return pa.table(columns, schema=LAYERS_SCHEMA)


def as_probed(run: PretrainRun, table: pa.Table | None = None) -> pa.Table:
    """The end of a run under its name, and its start under the name of random weights: of its statistics, or of its
    shares where these are given."""
    table, crops = run.statistics if table is None else table, run.summary["crops"]
    steps = steps_in(table)
    start = layers_at(table, steps[0], with_random_weights(run.name), crops)
    return pa.concat_tables([layers_at(table, steps[-1], run.name, crops), start])


def spread_steps(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, the first and the last among them, even in their order."""
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    return [steps[place] for place in dict.fromkeys(places.tolist())]


def map_values(maps: pa.Table, step: int, layer: int) -> Array:
    """The weights of the query on all patches, row by row, at a step in a layer; empty where there are none."""
    chosen = maps.filter((pc.field("step") == step) & (pc.field("layer") == layer)).sort_by("patch")
    return np.asarray(chosen["value"].to_numpy(), dtype=np.float64)
