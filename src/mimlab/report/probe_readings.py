"""What the numbers of a probe say in plain words, layer by layer, and where each reading begins.

Every threshold is derived from the baselines of the layer's own layout (`mimlab.probing.catalogue`). A layer is
named only where its mean over heads passes the threshold with its whole 95% interval over images; with one image
there is no interval, and the mean decides alone. A layer that no reading names is none of these: that is the usual
case, not a gap.

What would mislead: reading these as judgements of a model. They describe attention on the images measured, and
nearly uniform attention is evidence of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mimlab.report.numbers import ABSENT
from mimlab.report.probe_tables import Curve, ModelRecord, baseline, curve, depths, with_random_weights

UNMEASURED = "not measured"
NEARLY = 0.01  # of the way from one baseline to another: within this, a layer is as good as there
COMPARED = (
    "distance_ratio",
    "entropy",
    "nmi",
    "diversity",
)  # with random weights; each needs N, none alone decides

Passed = NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """One model's curves and baselines, brought to its layers: arrays of one value per layer, nan where unknown."""

    table: pa.Table
    model: ModelRecord

    def has(self, statistics: Iterable[str], random_weights: bool = False) -> bool:
        """Whether all of some statistics were measured."""
        name = self.model["name"]
        label = with_random_weights(name) if random_weights else name
        return all(bool(curve(self.table, label, one)) for one in statistics)

    def surely(self, statistic: str, side: int, kind: str, factor: float = 1.0, plus: float = 0.0) -> Passed:
        """Layers whose mean is, interval and all, above (side 1) or below (-1) factor x baseline + plus."""
        found = self.ends(statistic)[0 if side > 0 else 1]
        bound = factor * baseline(self.model, statistic, kind) + plus
        return np.asarray(side * (found - bound) >= 0)

    def ends(
        self, statistic: str, random_weights: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper end of the interval in each layer; the mean where there is none."""
        name = self.model["name"]
        found: Curve = curve(self.table, with_random_weights(name) if random_weights else name, statistic)
        at = {int(layer): index for index, layer in enumerate(found.layers)}
        kept = [at.get(record["layer"]) for record in self.model["layers"]]
        low, high = (np.where(np.isnan(end), found.mean, end) for end in (found.low, found.high))
        take = np.array([[np.nan, np.nan] if i is None else [low[i], high[i]] for i in kept]).reshape(-1, 2)
        return take[:, 0], take[:, 1]

    def like_random_weights(self) -> Passed:
        """Layers whose intervals of all compared statistics meet those of the same architecture's random weights."""
        meets = []
        for statistic in COMPARED:
            low, high = self.ends(statistic)
            least, most = self.ends(statistic, random_weights=True)
            meets.append((low <= most) & (least <= high))
        return np.asarray(np.all(meets, axis=0))


@dataclass(frozen=True)
class Reading:
    """A name for what a layer does, when it is given, and what it does and does not mean.

    needs: the statistics that tell; drawn: of random weights, too.
    """

    name: str
    when: str
    meaning: str
    needs: tuple[str, ...]
    test: Callable[[Measured], Passed]
    drawn: bool = False

    def told_by(self, measured: Measured) -> bool:
        """Whether what it needs was measured."""
        return measured.has(self.needs) and (not self.drawn or measured.has(self.needs, random_weights=True))


READINGS = (
    Reading(
        "nearly uniform",
        "entropy at least 99% of log N, uniform attention's",
        "Queries look nowhere in particular. Uniform attention is no evidence: an untrained layer does the same.",
        ("entropy",),
        lambda of: of.surely("entropy", 1, "uniform", 1 - NEARLY),
    ),
    Reading(
        "collapsed",
        "diversity at most 0.01 (uniform 0, identity 1), and not nearly uniform",
        "All queries look at the same few places, whichever query asks. The mean row's entropy tells how few.",
        ("diversity", "entropy"),
        lambda of: (
            of.surely("diversity", -1, "identity", NEARLY) & of.surely("entropy", -1, "uniform", 1 - NEARLY)
        ),
    ),
    Reading(
        "local",
        "distance at most half of uniform attention's",
        "Queries look at their neighbourhood, on average over heads: single heads may look far.",
        ("distance_ratio",),
        lambda of: of.surely("distance_ratio", -1, "uniform", 0.5),
    ),
    Reading(
        "diverse",
        "diversity at least 1 - 1/e = 0.63, that of independent random logits",
        "Different queries look at different places, more than independent noise of variance 1 makes them.",
        ("diversity",),
        lambda of: of.surely("diversity", 1, "random"),
    ),
    Reading(
        "sink",
        "mass on prefix tokens at least 0.5, and above uniform attention's",
        "Most attention goes to CLS or registers; the other statistics describe the smaller part that is left.",
        ("prefix_mass",),
        lambda of: of.surely("prefix_mass", 1, "identity", plus=0.5) & of.surely("prefix_mass", 1, "uniform"),
    ),
    Reading(
        "as with random weights",
        "the intervals of distance ratio, entropy, NMI and diversity all meet those with random weights",
        "These statistics do not tell the layer from an untrained one; nothing learned can be read from them.",
        COMPARED,
        Measured.like_random_weights,
        drawn=True,
    ),
)


def readings(table: pa.Table, model: ModelRecord) -> list[Mapping[str, Any]]:
    """A record per reading: `reading, depth` (from 1, an en dash for none)`, when, meaning`.

    `table` is that of layers (`mimlab.report.probe_tables`). The depth of what cannot be told, because a statistic or
    the random weights were not measured, is UNMEASURED.
    """
    measured = Measured(table, model)
    layers = np.array([record["layer"] for record in model["layers"]])
    return [
        {
            "reading": one.name,
            "depth": (depths(layers[one.test(measured)]) or ABSENT) if one.told_by(measured) else UNMEASURED,
            "when": one.when,
            "meaning": one.meaning,
        }
        for one in READINGS
    ]
