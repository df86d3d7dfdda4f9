"""What figures and pages of the probe are made of: the summary's keys, and its tables read layer by layer.

The summary of a run is a mapping with the keys of `ProbeSummary`, as JSON holds it. The table `layers` has the
columns `model, layer, module, head, statistic, mean, low, high, images`: the mean over images with its 95%
interval, low and high null (or nan) where there is none. A row without a head speaks of the layer: for a
statistic of heads it is the mean over heads, taken within each image, so that its interval is over images. Where
there is no such row, the mean over heads stands in for it with the mean of the heads' intervals, which is never
too narrow. The same architecture with weights drawn anew is the model named with RANDOM_WEIGHTS at the end; the
summary does not list it.

Tables count layers from 0, figures and pages say *depth*, from 1.

What would mislead: one layout for all layers of a model that has several. Baselines are those of each layer's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mimlab.probing.catalogue import CATALOGUE, PUBLISHED, RANDOM_WEIGHTS, Statistic
from mimlab.probing.layout import Layout
from mimlab.report.numbers import format_number

Array = NDArray[np.float64]

LAYERS_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("statistic", pa.string()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("images", pa.int64()),
    ]
)
"""The table of layers: what `layers.parquet` holds."""

DEPTH = "depth (layer + 1)"
"""What an axis of depths is called: tables and terminal count layers from 0."""
_TOPS: dict[str, Callable[[Layout], float]] = {
    "0 to 1": lambda layout: 1.0,
    "0 to 2": lambda layout: 2.0,
    "0 to log N": lambda layout: math.log(layout.patches),
}


class LayerRecord(TypedDict):
    """One captured layer: its index from 0, its module's name, its heads, and its Layout key by key."""

    layer: int
    module: str
    heads: int
    grid: Sequence[int]
    prefix: int
    patch_size: Sequence[float]
    windows: int


class ModelRecord(TypedDict):
    """One model by name, its number of parameters, and its captured layers in forward order."""

    name: str
    parameters: int
    layers: Sequence[LayerRecord]


class ProbeSummary(TypedDict):
    """Keys of summary.json that figures and pages read; others may stand beside them.

    images: how many were measured. source: where they are from, in words. skipped: pairs of a file and why.
    warnings: sentences, those of `warnings_of` among them. seconds, images_per_second: of all models together.
    """

    status: str
    models: Sequence[ModelRecord]
    images: int
    source: str
    skipped: Sequence[Sequence[str]]
    warnings: Sequence[str]
    baselines: Sequence[dict[str, str | float]]
    command: str
    seconds: float
    images_per_second: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Curve:
    """One statistic of one model: layers from 0, their means and intervals, and rows (layer, head, mean) of heads.

    Ends of intervals are nan where there are none.
    """

    layers: NDArray[np.int64]
    mean: Array
    low: Array
    high: Array
    heads: Array

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.layers.size)

    @property
    def values(self) -> Array:
        """Every finite value: of heads, means, and ends of intervals."""
        every = np.concatenate([self.heads[:, 2], self.mean, self.low, self.high])
        return np.asarray(every[np.isfinite(every)], dtype=np.float64)


def curve(table: pa.Table, model: str, name: str, value: str = "mean", kind: str = "statistic") -> Curve:
    """Rows of a table for one model and one statistic (or component of shares), by layer."""
    chosen = table.filter((pc.field("model") == model) & (pc.field(kind) == name))
    layer, head, mean, low, high = (
        np.asarray(chosen[key].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        for key in ("layer", "head", value, "low", "high")
    )
    layers = np.unique(layer)
    whole = np.isnan(head)
    kept = []
    for one in layers:
        here = (layer == one) & whole
        rows = here if here.any() else layer == one
        kept.append([mean[rows].mean(), low[rows].mean(), high[rows].mean()])
    means, lows, highs = np.array(kept, dtype=np.float64).reshape(-1, 3).T
    heads = np.stack([layer, head, mean], axis=1)[~whole]
    return Curve(layers.astype(np.int64), means, lows, highs, heads)


def models_in(table: pa.Table) -> list[str]:
    """Models of a table in order of appearance, those with random weights among them."""
    return [str(name) for name in table["model"].unique().to_pylist()]


def statistics_in(table: pa.Table) -> list[str]:
    """Statistics of a table, in the catalogue's order; those it does not know come last."""
    found = [str(name) for name in table["statistic"].unique().to_pylist()]
    order = list(CATALOGUE)
    return sorted(found, key=lambda name: order.index(name) if name in CATALOGUE else len(order))


def layout_of(record: LayerRecord) -> Layout:
    """The layout of a captured layer."""
    rows, columns = record["grid"]
    height, width = record["patch_size"]
    return Layout((rows, columns), record["prefix"], (height, width), record["windows"])


def baseline(model: ModelRecord, statistic: str, kind: str) -> Array:
    """Value of uniform, identity or random attention in each layer of the model; nan for unknown statistics."""
    known = CATALOGUE.get(statistic) or PUBLISHED.get(statistic)
    of_layout = getattr(known, kind) if known else lambda layout: math.nan
    return np.array([of_layout(layout_of(record)) for record in model["layers"]], dtype=np.float64)


def bounds(model: ModelRecord, statistic: str) -> tuple[float, float]:
    """Least and greatest value that the statistic can take in any layer of the model; infinite where unknown."""
    known = CATALOGUE.get(statistic)
    if known is None or not known.range.startswith("0 to "):
        return -math.inf, math.inf
    top = _TOPS.get(known.range)
    return 0.0, max(top(layout_of(record)) for record in model["layers"]) if top else math.inf


def within(found: Curve, low: float, high: float) -> Curve:
    """The curve with its intervals cut where the statistic ends; means stay, a mean beyond by rounding as well."""
    return replace(
        found,
        low=np.maximum(found.low, np.minimum(low, found.mean)),
        high=np.minimum(found.high, np.maximum(high, found.mean)),
    )


def title_of(statistic: str) -> str:
    """Title with its unit in brackets; a name that the catalogue does not know stays as it is."""
    known = CATALOGUE.get(statistic)
    return _titled(known) if known else statistic


def _titled(known: Statistic) -> str:
    return f"{known.title} ({known.unit})" if known.unit else known.title


def span(values: Iterable[float], digits: int = 4) -> str:
    """A number, or the two ends where there are several; an en dash for none that is finite.

    >>> span([5.278, 5.278]), span([2.0, 4.0, 3.0]), span([float("nan")])
    ('5.278', '2 to 4', '–')
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return format_number(None)
    ends = dict.fromkeys(format_number(end, digits) for end in (min(finite), max(finite)))
    return " to ".join(ends)


def depths(layers: Iterable[int]) -> str:
    """Layers counted from 0 as depths counted from 1, runs of neighbours joined.

    >>> depths([0, 1, 2, 6])
    '1–3, 7'
    """
    numbers = sorted(set(int(layer) + 1 for layer in layers))
    breaks = [index for index, (a, b) in enumerate(pairwise(numbers), start=1) if b > a + 1]
    runs = [numbers[start:stop] for start, stop in pairwise([0, *breaks, len(numbers)])]
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if run)


def warnings_of(models: Sequence[ModelRecord], layers: pa.Table) -> list[str]:
    """What a reader of these numbers must know: values that are not numbers, windows, numbers of patches."""
    found = []
    alone = {  # with one head there is no diversity between heads: nan by definition
        (label, record["layer"], "head_diversity")
        for model in models
        for record in model["layers"]
        for label in (model["name"], with_random_weights(model["name"]))
        if record["heads"] == 1
    }
    for name in models_in(layers):
        nan = layers.filter((pc.field("model") == name) & pc.is_nan(pc.field("mean")))
        rows = [row for row in nan.to_pylist() if (name, row["layer"], row["statistic"]) not in alone]
        broken = [row["layer"] for row in rows if row["layer"] is not None]
        if broken:
            told = ", ".join(dict.fromkeys(row["statistic"] for row in rows))
            found.append(f"{name}: values at depth {depths(broken)} are not numbers (NaN): {told}.")
    for model in models:
        windowed = [record for record in model["layers"] if record["windows"] > 1]
        if windowed:
            sizes = span(layout_of(record).patches for record in windowed)
            found.append(
                f"{model['name']}: attention at depth {depths(record['layer'] for record in windowed)} stays within "
                f"windows of {sizes} patches; its statistics are those of a window, and so are their baselines."
            )
    patches = dict.fromkeys(layout_of(record).patches for model in models for record in model["layers"])
    if len(patches) > 1:
        *first, last = map(str, patches)
        several = f"{', '.join(first)} and {last}"
        found.append(
            f"Maps have {several} patches. Entropy, information, NMI and spread depend on the number of patches N: "
            "do not compare their values across different N, only with the baselines of each; diversity and "
            "the distance ratio depend on it less."
        )
    return found


def with_random_weights(model: str) -> str:
    """The name under which the model's architecture with random weights stands in the tables."""
    return model + RANDOM_WEIGHTS
