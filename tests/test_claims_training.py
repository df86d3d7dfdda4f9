"""Claims on pretraining, against plain loops over records written from the claims' own words, before the code."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from mimlab.claims import judge_training
from mimlab.claims.training import TrainingEvidence

SEEDS, STEPS, LAYERS = (0, 1, 2), (0, 10, 100), (0, 1)
UNIFORM = {"nmi": 0.0, "diversity": 0.0, "distance_ratio": 1.0}
MASKED, OTHERS, AFTER = "simmim", ("simclr", "supervised"), "simclr-after-simmim"
PHOTOGRAPHS = ("a", "b", "c", "d", "e")


def records(sign: float = 1.0, **drop: object) -> TrainingEvidence:
    """Seeded tables. sign +1: as the theory has it; -1: the other way round."""
    rng = np.random.default_rng(7)
    looks, evaluations, shares, photographs = [], [], [], []
    ends = {MASKED: 0.3, "simclr": 0.05, "supervised": 0.06, AFTER: 0.1}
    for run in (MASKED, *OTHERS, AFTER):
        for seed in SEEDS:
            for step in STEPS:
                for layer in LAYERS:
                    part = {0: 0.0, 10: 0.5 - 0.4 * layer, 100: 1.0}[step]
                    start = 0.3 if run == AFTER else 0.002
                    for name, uniform in UNIFORM.items():
                        level = start + (ends[run] - start) * part
                        if sign < 0:
                            level = start + (0.35 - ends[run] - start) * part
                            if run == AFTER:
                                level = 0.1 + 0.2 * part
                        value = level + rng.normal(0, 0.001)
                        value = uniform - value if name == "distance_ratio" else value
                        looks.append(
                            {
                                "run": run,
                                "seed": seed,
                                "step": step,
                                "layer": layer,
                                "statistic": name,
                                "value": value,
                            }
                        )
                    for component, share in (("FP", 0.5 + 0.2 * sign), ("PP", 0.5 - 0.2 * sign)):
                        if run == MASKED:
                            shares.append(
                                {
                                    "run": run,
                                    "seed": seed,
                                    "step": step,
                                    "layer": layer,
                                    "component": component,
                                    "share": share + rng.normal(0, 0.01),
                                }
                            )
                record = {
                    "run": run,
                    "seed": seed,
                    "step": step,
                    "knn": 0.3 + 0.1 * sign * (step == 100) + rng.normal(0, 0.005),
                }
                if run == MASKED:
                    ratio = math.exp(-sign * 0.5 * (step == 100)) + rng.normal(0, 0.01)
                    record |= {"model": 0.2 * ratio, "image_mean": 0.3, "nearest_patch": 0.2}
                evaluations.append(record)
    for seed in SEEDS:
        for place, name in enumerate(PHOTOGRAPHS):
            distance = 0.5 - sign * 0.05 * place + rng.normal(0, 0.04)
            photographs.append(
                {
                    "photograph": name,
                    "gap": 0.1 * place,
                    "run": MASKED,
                    "seed": seed,
                    "distance_ratio": distance,
                }
            )
    return TrainingEvidence(looks, evaluations, shares, photographs)


def at(evidence, run, seed, statistic, when):
    """Value by layer at a run's first or last step."""
    rows = [r for r in evidence.looks if (r["run"], r["seed"], r["statistic"]) == (run, seed, statistic)]
    step = when([r["step"] for r in rows])
    return {r["layer"]: r["value"] for r in rows if r["step"] == step}


def chance(evidence, statistic):
    return max(
        abs(value - UNIFORM[statistic])
        for run in (MASKED, *OTHERS)
        for seed in SEEDS
        for value in at(evidence, run, seed, statistic, min).values()
    )


def differences(evidence, seed, statistic):
    return [
        at(evidence, MASKED, seed, statistic, max)[layer] - at(evidence, other, seed, statistic, max)[layer]
        for layer in LAYERS
        for other in OTHERS
    ]


def reached(evidence, seed, layer):
    """1 + the first step at which NMI is half of its last, logarithms interpolated."""
    rows = sorted(
        (r["step"], r["value"])
        for r in evidence.looks
        if (r["run"], r["seed"], r["statistic"], r["layer"]) == (MASKED, seed, "nmi", layer)
    )
    half = rows[-1][1] / 2
    for (s, v), (t, w) in pairwise(rows):
        if v < half <= w:
            share = (half - v) / (w - v)
            return math.exp(math.log1p(s) + share * (math.log1p(t) - math.log1p(s)))
    raise AssertionError


def last(evidence, run, seed):
    rows = [r for r in evidence.evaluations if (r["run"], r["seed"]) == (run, seed)]
    return max(rows, key=lambda r: r["step"]), min(rows, key=lambda r: r["step"])


def change(evidence, seed, statistic):
    end, start = (at(evidence, AFTER, seed, statistic, when).values() for when in (max, min))
    return np.mean(list(end)) - np.mean(list(start))


def spearman(evidence, seed):
    rows = [r for r in evidence.photographs if r["seed"] == seed]
    return stats.spearmanr([r["gap"] for r in rows], [r["distance_ratio"] for r in rows]).statistic


def fp_less_pp(evidence, seed):
    rows = [r for r in evidence.shares if r["seed"] == seed and r["step"] == max(STEPS)]
    per = {c: np.mean([r["share"] for r in rows if r["component"] == c]) for c in ("FP", "PP")}
    return per["FP"] - per["PP"]


def reconstruction(evidence, seed):
    end, _ = last(evidence, MASKED, seed)
    return math.log(end["model"] / min(end["image_mean"], end["nearest_patch"]))


def features(evidence, seed):
    ends = [last(evidence, run, seed) for run in (MASKED, *OTHERS)]
    return min(end["knn"] - start["knn"] for end, start in ends)


EXPECTED = {
    "NMI of masked pretraining": (lambda e, s: min(differences(e, s, "nmi")), "nmi"),
    "diversity of masked pretraining": (lambda e, s: min(differences(e, s, "diversity")), "diversity"),
    "distance of masked pretraining": (
        lambda e, s: max(differences(e, s, "distance_ratio")),
        "distance_ratio",
    ),
    "contrastive training lowers NMI": (lambda e, s: change(e, s, "nmi"), None),
    "contrastive training lowers diversity": (lambda e, s: change(e, s, "diversity"), None),
    "masked pretraining reconstructs": (reconstruction, None),
    "features beat random weights": (features, None),
    "layers in order": (lambda e, s: math.log(reached(e, s, 1) / reached(e, s, 0)), None),
    "locality goes with the gap": (spearman, None),
    "FP exceeds PP": (fp_less_pp, None),
}

OPPOSITE = [
    name for name in EXPECTED if name != "layers in order"
]  # the opposite table keeps the order of layers


def verdicts(evidence):
    return {verdict.claim.name: verdict for verdict in judge_training(evidence)}


@pytest.mark.parametrize(
    ("name", "sign"), [*((name, 1.0) for name in EXPECTED), *((name, -1.0) for name in OPPOSITE)]
)
def test_measurements_are_those_of_plain_loops(name, sign):
    evidence = records(sign)
    measure, widened = EXPECTED[name]
    values = [measure(evidence, seed) for seed in SEEDS]
    width = stats.t.ppf(0.975, len(SEEDS) - 1) * stats.sem(values)
    more = chance(evidence, widened) if widened else 0.0
    found = verdicts(evidence)[name].measurement
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.low == pytest.approx(np.mean(values) - width - more, abs=1e-12)
    assert found.high == pytest.approx(np.mean(values) + width + more, abs=1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_table_as_the_theory_has_it_holds(name):
    assert verdicts(records())[name].verdict == "holds"


@pytest.mark.parametrize("name", OPPOSITE)
def test_the_opposite_table_fails(name):
    assert verdicts(records(-1.0))[name].verdict == "fails"


def without(evidence, **change):
    parts = {name: getattr(evidence, name) for name in ("looks", "evaluations", "shares", "photographs")}
    return TrainingEvidence(**(parts | change))


def test_layers_in_reverse_order_fail():
    evidence = records()
    swapped = [r | {"layer": 1 - r["layer"]} for r in evidence.looks]
    assert verdicts(without(evidence, looks=swapped))["layers in order"].verdict == "fails"


def test_a_nearly_uniform_layer_has_no_time():
    evidence = records()
    flat = [r | {"value": 0.1 * r["value"]} if r["layer"] == 1 else r for r in evidence.looks]
    found = verdicts(without(evidence, looks=flat))["layers in order"]
    assert found.verdict == "inconclusive" and found.measurement.value is None
    assert "0.05" in found.measurement.evidence


@pytest.mark.parametrize("name", EXPECTED)
def test_one_seed_cannot_tell(name):
    evidence = records()
    parts = {
        p: [r for r in getattr(evidence, p) if r["seed"] == 0]
        for p in ("looks", "evaluations", "shares", "photographs")
    }
    found = verdicts(without(evidence, **parts))[name]
    assert found.verdict == "inconclusive" and found.measurement.value is None


@pytest.mark.parametrize("name", EXPECTED)
def test_no_runs_cannot_tell(name):
    found = verdicts(TrainingEvidence((), (), (), ()))[name]
    assert found.verdict == "inconclusive" and found.measurement.value is None


def test_a_value_that_is_no_number_cannot_tell():
    evidence = records()
    broken = [
        r | {"value": math.nan} if (r["run"], r["seed"]) == ("simclr", 1) else r for r in evidence.looks
    ]
    found = verdicts(without(evidence, looks=broken))
    assert found["NMI of masked pretraining"].measurement.value is None
    assert found["contrastive training lowers NMI"].verdict == "holds"


def test_a_missing_run_is_named():
    evidence = records()
    fewer = [r for r in evidence.looks if r["run"] != "supervised"]
    words = verdicts(without(evidence, looks=fewer))["NMI of masked pretraining"].measurement.evidence
    assert "supervised" in words


def test_a_seed_that_one_run_lacks_is_left_out():
    evidence = records()
    fewer = [r for r in evidence.looks if (r["run"], r["seed"]) != ("simclr", 2)]
    found = verdicts(without(evidence, looks=fewer))["NMI of masked pretraining"].measurement
    values = [min(differences(evidence, seed, "nmi")) for seed in (0, 1)]
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)


def test_what_starts_uneven_widens_the_interval():
    evidence = records()
    uneven = [
        r | {"value": 0.4} if r["step"] == 0 and r["statistic"] == "nmi" and r["run"] == "simclr" else r
        for r in evidence.looks
    ]
    assert verdicts(without(evidence, looks=uneven))["NMI of masked pretraining"].verdict == "inconclusive"
