"""Claims about pretraining, read off the tables of runs made here: one number a seed, its mean with an interval.

Runs of one method differ in their seed alone, and a claim speaks of the method: so what is measured in a run is brought
to one number q_s first (the worst layer, the least of two differences), and Student's 95% interval is that of its mean
over seeds. "In every layer" needs no correction for many comparisons then: the least difference is one number.

"Start" is a run's first look, at random weights or at another run's encoder; "end" is its last. Uniform attention is no
evidence: where runs are compared, intervals are widened, both ways, by the farthest that any of them is from uniform
attention at its start.

What would mislead: three seeds give wide intervals and assume the q_s normal; and these are small networks on a few
photographs (docs/claims.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import exp, isfinite, log1p, nan
from typing import Any

import numpy as np

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER
from mimlab.claims.surveys import ranks
from mimlab.statistics.intervals import student_width

Record = Mapping[str, Any]
Layers = Mapping[int, float]

UNIFORM = {"nmi": 0.0, "diversity": 0.0, "distance_ratio": 1.0}
"""What uniform attention gives."""
NEARLY_UNIFORM = 0.05
"""NMI below which a layer has no pattern whose time could be told; contrastive runs from random weights stay below."""


class Missing(Exception):
    """Why a number cannot be told."""


@dataclass(frozen=True, eq=False)
class TrainingEvidence:
    """Tables of runs, a record a row, each with `run`, the method's name, and `seed`.

    looks: `step, layer, statistic, value`, mean over heads, of `nmi, diversity, distance_ratio`. evaluations: `step`
    and any of `knn, model, image_mean, nearest_patch`. shares: `step, layer, component, share`, mean over heads.
    photographs: `photograph, gap, distance_ratio`, of the network at its end. masked: the run of masked image
    modeling; others: what it is compared with; after: contrastive training that started from it.
    """

    looks: Sequence[Record]
    evaluations: Sequence[Record]
    shares: Sequence[Record]
    photographs: Sequence[Record]
    masked: str = "simmim"
    others: tuple[str, ...] = ("simclr", "supervised")
    after: str = "simclr-after-simmim"

    @property
    def compared(self) -> tuple[str, ...]:
        """The masked run and those it is compared with."""
        return (self.masked, *self.others)

    def seeds(self, table: Sequence[Record], runs: Sequence[str]) -> list[int]:
        """Seeds that all these runs have in a table. Raises Missing where there is none."""
        found = {run: {one["seed"] for one in table if one["run"] == run} for run in runs}
        absent = [run for run in runs if not found[run]]
        if absent:
            raise Missing(f"needs runs of {', '.join(absent)}")
        return sorted(set.intersection(*found.values()))

    def course(self, run: str, seed: int, statistic: str) -> dict[int, Layers]:
        """Values by step, in order, and layer."""
        steps: dict[int, dict[int, float]] = {}
        for one in self._looks.get((run, seed, statistic), ()):
            steps.setdefault(one["step"], {})[one["layer"]] = one["value"]
        if not steps:
            raise Missing(f"{statistic} of {run} was not measured for seed {seed}")
        return dict(sorted(steps.items()))

    def start(self, run: str, seed: int, statistic: str) -> Layers:
        """Values by layer at a run's first look."""
        return next(iter(self.course(run, seed, statistic).values()))

    def end(self, run: str, seed: int, statistic: str) -> Layers:
        """Values by layer at a run's last look."""
        return next(reversed(self.course(run, seed, statistic).values()))

    def evaluated(self, run: str, seed: int, name: str) -> list[float]:
        """What the evaluations of a run have of a quantity, in order of steps."""
        chosen = [one for one in self.evaluations if (one["run"], one["seed"]) == (run, seed)]
        values = [
            one[name] for one in sorted(chosen, key=lambda one: int(one["step"])) if one.get(name) is not None
        ]
        if not values:
            raise Missing(f"{name} of {run} was not measured for seed {seed}")
        return values

    @cached_property
    def _looks(self) -> dict[tuple[str, int, str], list[Record]]:
        found: dict[tuple[str, int, str], list[Record]] = {}
        for one in self.looks:
            found.setdefault((one["run"], one["seed"], one["statistic"]), []).append(one)
        return found


def _over_seeds(
    number: Callable[[TrainingEvidence, int], float],
    seeds: Callable[[TrainingEvidence], list[int]],
    words: str,
    chance: Callable[[TrainingEvidence], float] = lambda evidence: 0.0,
) -> Callable[[TrainingEvidence], Measurement]:
    """The measurement of a claim: mean of q_s over seeds, with its interval, widened by `chance`."""

    def measure(evidence: TrainingEvidence) -> Measurement:
        try:
            chosen = seeds(evidence)
            values = np.array([number(evidence, seed) for seed in chosen])
            more = chance(evidence)
        except Missing as why:
            return Measurement.missing(str(why))
        if len(values) < 2:
            return Measurement.missing(f"{len(values)} seed that all runs have; an interval needs several")
        if not (np.isfinite(values).all() and isfinite(more)):
            return Measurement.missing("not every value is a number")
        mean = float(values.mean())
        width = float(student_width(values.var(ddof=1), len(values))) + more
        told = ", ".join(f"{value:.3g}" for value in values)
        return Measurement(mean, mean - width, mean + width, f"{words}; by seed {told}")

    return measure


def _chance(statistic: str, evidence: TrainingEvidence) -> float:
    """The farthest from uniform that a layer of any compared run is at its start."""
    starts = [
        value
        for run in evidence.compared
        for seed in evidence.seeds(evidence.looks, (run,))
        for value in evidence.start(run, seed, statistic).values()
    ]
    return float(np.max(np.abs(np.array(starts) - UNIFORM[statistic])))  # nan where one is


def _differences(statistic: str, evidence: TrainingEvidence, seed: int) -> list[float]:
    """Masked less other at the end, for every layer and other."""
    masked = evidence.end(evidence.masked, seed, statistic)
    found = []
    for other in evidence.others:
        values = evidence.end(other, seed, statistic)
        if values.keys() != masked.keys():
            raise Missing(f"{other} has other layers than {evidence.masked}")
        found += [masked[layer] - values[layer] for layer in masked]
    return found


def _compared(
    statistic: str, worst: Callable[[list[float]], Any]
) -> Callable[[TrainingEvidence], Measurement]:
    return _over_seeds(
        lambda evidence, seed: float(worst(_differences(statistic, evidence, seed))),
        lambda evidence: evidence.seeds(evidence.looks, evidence.compared),
        "worst of all layers and others",
        partial(_chance, statistic),
    )


def _lowered(statistic: str) -> Callable[[TrainingEvidence], Measurement]:
    def number(evidence: TrainingEvidence, seed: int) -> float:
        end, start = (at(evidence.after, seed, statistic) for at in (evidence.end, evidence.start))
        return float(np.mean(list(end.values())) - np.mean(list(start.values())))

    return _over_seeds(
        number, lambda evidence: evidence.seeds(evidence.looks, (evidence.after,)), "mean over layers"
    )


def _reconstruction(evidence: TrainingEvidence, seed: int) -> float:
    names = ("model", "image_mean", "nearest_patch")
    model, *guesses = (evidence.evaluated(evidence.masked, seed, name)[-1] for name in names)
    return float(np.log(model / np.min(guesses)))


def _features(evidence: TrainingEvidence, seed: int) -> float:
    known = [evidence.evaluated(run, seed, "knn") for run in evidence.compared]
    return float(np.min([values[-1] - values[0] for values in known]))


def _order(evidence: TrainingEvidence, seed: int) -> float:
    course = evidence.course(evidence.masked, seed, "nmi")
    end = next(reversed(course.values()))
    flat = [layer for layer, value in end.items() if not value >= NEARLY_UNIFORM]
    if flat or len(end) < 2:
        raise Missing(
            f"depth {flat[0] + 1} of seed {seed} ends at NMI {end[flat[0]]:.2g}, below {NEARLY_UNIFORM}: nearly uniform"
            if flat
            else "one layer has no order"
        )
    times = [_time_to_half(course, layer) for layer in sorted(end)]
    return float(np.mean(np.diff(np.log(times))))


def _time_to_half(course: Mapping[int, Layers], layer: int) -> float:
    """1 + the first step at which a layer's NMI is half of its last, between two looks by the logarithm."""
    steps = list(course)
    half = course[steps[-1]][layer] / 2
    if course[steps[0]][layer] >= half:
        return 1.0 + steps[0]
    at = next(place for place, step in enumerate(steps) if course[step][layer] >= half)
    before, here = (course[steps[place]][layer] for place in (at - 1, at))
    low, high = log1p(steps[at - 1]), log1p(steps[at])
    return exp(low + (high - low) * (half - before) / (here - before))


def _locality(evidence: TrainingEvidence, seed: int) -> float:
    rows = [one for one in evidence.photographs if (one["run"], one["seed"]) == (evidence.masked, seed)]
    known = [(one["gap"], one["distance_ratio"]) for one in rows if one["gap"] is not None]
    pairs = np.array(known, dtype=float)
    if not np.isfinite(pairs).all():
        return nan
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        raise Missing("fewer than three photographs, or all alike")
    return float(np.corrcoef(ranks(pairs[:, 0]), ranks(pairs[:, 1]))[0, 1])


def _feature_less_position(evidence: TrainingEvidence, seed: int) -> float:
    rows = [one for one in evidence.shares if (one["run"], one["seed"]) == (evidence.masked, seed)]
    end = max(one["step"] for one in rows)
    FP, PP = (
        float(np.mean([one["share"] for one in rows if (one["step"], one["component"]) == (end, name)]))
        for name in ("FP", "PP")
    )
    return FP - PP


def _of_masked(table: str) -> Callable[[TrainingEvidence], list[int]]:
    return lambda evidence: evidence.seeds(getattr(evidence, table), (evidence.masked,))


_MORE = "More is more than nothing: the worst layer counts, and what attention is at its start is taken off either way."
_LESS = "Any fall counts: the start is the masked network itself, and each seed is its own comparison."
_TRIAL = "own trial on photographs"
_COMPARISON = f"{PAPER}, comparison of pretrained models; {_TRIAL}"


def _claim(
    name: str,
    statement: str,
    source: str,
    quantity: str,
    measure: Callable[[TrainingEvidence], Measurement],
    reason: str,
    least: bool = True,
) -> Claim[TrainingEvidence]:
    """A claim that holds on one side of 0; least: at 0 or above it."""
    threshold = Threshold(low=0.0) if least else Threshold(high=0.0)
    return Claim(name, statement, source, quantity, threshold, measure, "≥ 0" if least else "≤ 0", reason)


TRAINING_CLAIMS: tuple[Claim[TrainingEvidence], ...] = (
    _claim(
        "NMI of masked pretraining",
        "Masked pretraining ends with higher NMI than contrastive and supervised training, in every layer.",
        _COMPARISON,
        "least difference in NMI, masked less another, over layers and others, at the end",
        _compared("nmi", np.min),
        _MORE,
    ),
    _claim(
        "diversity of masked pretraining",
        "Masked pretraining ends with more diverse attention than contrastive and supervised training, in every layer.",
        _COMPARISON,
        "least difference in diversity, masked less another, over layers and others, at the end",
        _compared("diversity", np.min),
        _MORE,
    ),
    _claim(
        "distance of masked pretraining",
        "Masked pretraining ends with attention that reaches less far than contrastive and supervised training, in "
        "every layer.",
        _COMPARISON,
        "largest difference in distance ratio, masked less another, over layers and others, at the end",
        _compared("distance_ratio", np.max),
        _MORE,
        least=False,
    ),
    _claim(
        "contrastive training lowers NMI",
        "Contrastive training that starts from a masked network makes its attention less diverse, by NMI.",
        f"{PAPER}, contrastive objectives collapse to global attention; {_TRIAL}",
        "NMI at the end less at the start, mean over layers",
        _lowered("nmi"),
        _LESS,
        least=False,
    ),
    _claim(
        "contrastive training lowers diversity",
        "Contrastive training that starts from a masked network makes its attention less diverse, by diversity.",
        f"{PAPER}, contrastive objectives collapse to global attention; {_TRIAL}",
        "diversity at the end less at the start, mean over layers",
        _lowered("diversity"),
        _LESS,
        least=False,
    ),
    _claim(
        "masked pretraining reconstructs",
        "The masked network reconstructs held-out crops better than the better of two guesses.",
        "what a comparison of attention rests on: the network has learned its task",
        "log of its loss over that of the better of image mean and nearest visible patch, at the end",
        _over_seeds(_reconstruction, _of_masked("evaluations"), "held-out crops"),
        "Both guesses need no learning; the mean colour alone is a strong one on close crops.",
        least=False,
    ),
    _claim(
        "features beat random weights",
        "Features of every method tell photographs apart better than those of random weights do.",
        "what a comparison of attention rests on: each network has learned",
        "least gain in accuracy of the nearest neighbours, end less start, over methods",
        _over_seeds(
            _features,
            lambda evidence: evidence.seeds(evidence.evaluations, evidence.compared),
            "least of all methods",
        ),
        "On grey standardised crops, where random weights tell less; still the start is the value to beat.",
    ),
    _claim(
        "layers in order",
        "A layer of a masked network reaches its pattern before the next one does.",
        "a question of this project; no source predicts it",
        "mean over neighbours of log((1 + t of the deeper) / (1 + t)), t the step at half of the final NMI",
        _over_seeds(_order, _of_masked("looks"), "mean over neighbouring layers"),
        "Order alone is claimed: the sign. A layer whose NMI ends below 0.05 has no pattern to wait for.",
    ),
    _claim(
        "locality goes with the gap",
        "The larger the information gap of a photograph's patches, the less far attention of a masked network reaches.",
        "theory, sections 5 and 9: a larger Δ_p is a smaller own area; that it carries over is a conjecture",
        "rank correlation over photographs of the median Δ_p with the distance ratio at the end",
        _over_seeds(_locality, _of_masked("photographs"), "rank correlation over photographs"),
        "The sign. The interval is over networks alone: other photographs could give another correlation.",
        least=False,
    ),
    _claim(
        "FP exceeds PP",
        "What attention goes by is feature-position correlation, more than position-position correlation.",
        f"{PAPER}, PP correlations are o(1); theory, section 8",
        "share of logit variance, FP less PP, mean over layers, at the end",
        _over_seeds(_feature_less_position, _of_masked("shares"), "mean over layers and heads"),
        "The larger of two shares; how much larger is said by the value.",
    ),
)
