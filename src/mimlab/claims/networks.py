"""Claims about networks, read off the probe's table (theory, section 7): whose attention is more diverse, and whether
the probe measures right.

The comparison is paired: in one layer and one image the statistic of the masked model less that of another, mean over
heads, then the mean over images with Student's interval. All pairs of a layer and another model are judged at once,
so each interval is Bonferroni's share of 95%: together they cover 19 times in 20. "In every layer" holds where each of
them does; the least difference stands for all.

Uniform attention is no evidence: all three statistics are 0 there and small at random weights, where any difference
is an accident of the draw. Each interval is therefore widened, both ways, by the larger value that the two models
reach with random weights; a difference within that is inconclusive, whatever its sign.

What cannot be compared is inconclusive, and says why: a model that is absent, fewer than two images, layers that are
not as many or not of one grid, values that are not numbers, no random weights, and equal values throughout.

What would mislead: intervals are over images. They say nothing of another training run of the same method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER
from mimlab.probing.catalogue import CATALOGUE, RANDOM_WEIGHTS
from mimlab.statistics.intervals import student_width

Array = NDArray[np.float64]

DIVERSITIES = ("diversity", "nmi", "spread")
"""The paper's own formula was not at hand: these stand beside each other."""


@dataclass(frozen=True, eq=False)
class NetworkEvidence:
    """Models measured on the same images.

    values: by model and statistic, (images, layers), mean over heads; models with random weights are named as in the
    probe's tables. grids: rows and columns of patches of each layer, by model. masked: the model of masked image
    modeling; others: those it is compared with, whether they were measured or not. depths: the layers that are judged,
    from 0; None: all of them. Of each layer apart, use `at`.
    """

    values: Mapping[tuple[str, str], Array]
    grids: Mapping[str, Sequence[tuple[int, ...]]]
    masked: str
    others: tuple[str, ...]
    depths: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, table: pa.Table, models: Sequence[Mapping[str, Any]], masked: str, others: Sequence[str]
    ) -> NetworkEvidence:
        """From probe.parquet and the models of its summary. Images that a model lacks are left out for all."""
        table = table.filter(pc.is_in(table["statistic"], pa.array(DIVERSITIES)))
        means = table.group_by(["model", "image", "layer", "statistic"]).aggregate([("value", "mean")])
        names = [str(name) for name in means["model"].unique().to_pylist()]
        images = [set(means.filter(pc.field("model") == name)["image"].to_pylist()) for name in names]
        common = pa.array(sorted(set.intersection(*images)) if images else [], pa.string())
        values = {}
        for name in names:
            for statistic in DIVERSITIES:
                chosen = means.filter((pc.field("model") == name) & (pc.field("statistic") == statistic))
                chosen = chosen.filter(pc.is_in(chosen["image"], common))
                if len(chosen):
                    places = pc.index_in(chosen["image"], common).to_numpy()
                    layers = chosen["layer"].to_numpy()
                    found = np.full((len(common), layers.max() + 1), np.nan)
                    found[places, layers] = chosen["value_mean"].to_numpy()
                    values[name, statistic] = found
        grids = {one["name"]: [tuple(layer["grid"]) for layer in one["layers"]] for one in models}
        return cls(values, grids, masked, tuple(others))

    def at(self, layer: int) -> NetworkEvidence:
        """The same evidence, judged in one layer; intervals stay as wide as they are among all."""
        return replace(self, depths=(layer,))

    @property
    def layers(self) -> int:
        """How many layers the masked model has."""
        return len(self.grids.get(self.masked, ()))

    def compared(self, statistic: str) -> list[Comparison] | str:
        """Every comparison that is judged; or why there is none."""
        models = (self.masked, *self.others)
        absent = [name for name in models if name not in self.grids]
        if absent:
            return f"needs the weights of {', '.join(absent)}"
        if not self.others:
            return f"there is nothing to compare {self.masked} with"
        if len({tuple(self.grids[name]) for name in models}) > 1:
            told = ", ".join(f"{name} {_layers(self.grids[name])}" for name in models)
            return f"layers cannot be paired: {told}"
        labels = [name + end for end in ("", RANDOM_WEIGHTS) for name in models]
        unknown = [label for label in labels if (label, statistic) not in self.values]
        if unknown:
            return f"{statistic} was not measured in {', '.join(unknown)}"
        found = []
        for layer in range(self.layers) if self.depths is None else self.depths:
            column = {label: self.values[label, statistic][:, layer] for label in labels}
            broken = [label for label, one in column.items() if not np.isfinite(one).all()]
            if broken:
                return f"values at depth {layer + 1} of {', '.join(broken)} are not numbers"
            if len(column[self.masked]) < 2:
                return "one image has no interval; give several"
            count = self.layers * len(self.others)
            found += [Comparison.of(layer, self.masked, one, column, count) for one in self.others]
        tied = [one for one in found if one.low == one.high == 0]
        if tied:
            return f"{self.masked} and {tied[0].other} have equal values at depth {tied[0].layer + 1}"
        return found


@dataclass(frozen=True)
class Comparison:
    """The masked model against one other in one layer: means over images, and their paired difference.

    low, high: its interval, already widened by `chance`, the larger mean of the two with random weights.
    """

    layer: int
    masked: str
    other: str
    images: int
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    chance: float

    @classmethod
    def of(cls, layer: int, masked: str, other: str, column: Mapping[str, Array], count: int) -> Comparison:
        """From values of each image, by label; count: comparisons that are judged together."""
        pair = column[masked], column[other]
        apart = pair[0] - pair[1]
        images = len(apart)
        width = student_width(apart.var(ddof=1), images, 0.05 / count)
        chance = max(float(column[name + RANDOM_WEIGHTS].mean()) for name in (masked, other))
        mean = float(apart.mean())
        low, high = mean - width - chance, mean + width + chance
        means = float(pair[0].mean()), float(pair[1].mean())
        return cls(layer, masked, other, images, means, mean, float(low), float(high), chance)


def _layers(grids: Sequence[tuple[int, ...]]) -> str:
    sizes = dict.fromkeys("×".join(map(str, grid)) for grid in grids)
    return f"{len(grids)} of {' and '.join(sizes)} patches"


def _least(statistic: str) -> Callable[[NetworkEvidence], Measurement]:
    def measure(evidence: NetworkEvidence) -> Measurement:
        found = evidence.compared(statistic)
        if isinstance(found, str):
            return Measurement.missing(found)
        least = min(found, key=lambda one: one.difference)
        above, below = sum(one.low >= 0 for one in found), sum(one.high < 0 for one in found)
        words = (
            f"above in {above} and below in {below} of {len(found)} comparisons; least at depth {least.layer + 1}: "
            f"{least.masked} {least.means[0]:.4g}, {least.other} {least.means[1]:.4g}, with random weights up to "
            f"{least.chance:.2g}; {least.images} images"
        )
        low, high = (min(getattr(one, end) for one in found) for end in ("low", "high"))
        return Measurement(least.difference, low, high, words)

    return measure


@dataclass(frozen=True, eq=False)
class AgreementEvidence:
    """Statistics of one map by two ways. ``pairs``: records with `statistic, time, simulated, probed`."""

    pairs: Sequence[Mapping[str, Any]]
    patches: int


def _agreement(evidence: AgreementEvidence) -> Measurement:
    if not evidence.pairs:
        return Measurement.missing("needs torch and transformers: install mimlab[probe]")
    scale = {"entropy": np.log(evidence.patches)}  # the others range to 1
    errors = [abs(p["probed"] - p["simulated"]) / scale.get(p["statistic"], 1.0) for p in evidence.pairs]
    if not all(map(isfinite, errors)):
        return Measurement.missing("not every statistic is a number")
    worst = int(np.argmax(errors))
    pair = evidence.pairs[worst]
    words = (
        f"largest of {len(errors)}: {CATALOGUE[pair['statistic']].title} at time {pair['time']:.4g}, "
        f"simulator {pair['simulated']:.7g}, probe {pair['probed']:.7g}"
    )
    return Measurement(errors[worst], errors[worst], errors[worst], words)


def _more(statistic: str) -> Claim[NetworkEvidence]:
    title = CATALOGUE[statistic].title
    named = title if title.isupper() else title.lower()
    return Claim(
        f"{named} of masked image modeling",
        "In every layer the attention of masked image modeling is more diverse than that of contrastive, distilled and "
        f"supervised models, measured by {named}.",
        f"{PAPER}, comparison of pretrained models; theory, section 7: its formula was not at hand, three statistics "
        "stand beside each other",
        f"least paired difference in {named}, masked model less another, over layers and others",
        Threshold(low=0.0),
        _least(statistic),
        "≥ 0",
        "More is more than nothing. Intervals cover all layers and models at once, and are widened by what random "
        "weights reach: nearly uniform attention is no evidence.",
    )


NETWORK_CLAIMS: tuple[Claim[NetworkEvidence], ...] = tuple(_more(statistic) for statistic in DIVERSITIES)

AGREEMENT_CLAIMS: tuple[Claim[AgreementEvidence], ...] = (
    Claim(
        "the probe agrees with the simulator",
        "In a network made of the simulator's weights the probe measures the statistics that the simulator computes in "
        "closed form.",
        "theory, sections 4 and 7",
        "largest |probe - simulator| over NMI and entropy at several times, as a share of the statistic's range",
        Threshold(high=1e-5),
        _agreement,
        "≤ 1e-5",
        "The network computes in float32, whose relative rounding of 6e-8 grows with the size of the logits; what an "
        "image teaches is a thousand times larger.",
    ),
)
