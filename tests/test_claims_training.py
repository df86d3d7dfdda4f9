"""Claims about pretraining against plain loops: one number per seed, their mean, Student's interval over seeds."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from mimlab.claims import judge_training
from mimlab.claims.training import TrainingEvidence

from .training_records import AFTER, LAYERS, MASKED, OTHERS, STEPS, UNIFORM, evidence_of, look

HOLDS_ABOVE = {
    "NMI of masked pretraining": True,
    "diversity of masked pretraining": True,
    "distance of masked pretraining": False,
    "contrastive training lowers NMI": False,
    "contrastive training lowers diversity": False,
    "masked pretraining reconstructs": False,
    "features beat random weights": True,
    "layers in order": True,
    "locality goes with the gap": False,
    "FP exceeds PP": True,
}
NAMES = tuple(HOLDS_ABOVE)
EVERY = set(NAMES)
WIDENED = set(NAMES[:3])


def without(evidence, run):
    """The evidence with nothing of a run."""
    names = ("looks", "evaluations", "shares", "photographs")
    return replace(evidence, **{n: [r for r in getattr(evidence, n) if r["run"] != run] for n in names})


def changed(evidence, table, change, **where):
    """The evidence with `change` made to the records of a table that are so; at least one must be."""
    records, found = [], 0
    for record in getattr(evidence, table):
        chosen = all(record.get(key) == value for key, value in where.items())
        records.append({**record, **change(record)} if chosen else record)
        found += chosen
    assert found
    return replace(evidence, **{table: records})


# The oracle


def indexed(records, key, *names):
    """The values of a table by what its records are; no two are of one place."""
    found = {}
    for record in records:
        if key in record:
            place = tuple(record[name] for name in names)
            assert place not in found, place
            found[place] = record[key]
    return found


class Looks:
    """Single values of the looks, and each run's first and last step."""

    def __init__(self, evidence):
        self.values = indexed(evidence.looks, "value", "run", "seed", "step", "layer", "statistic")
        self.runs = (evidence.masked, *evidence.others)
        self.steps = {run: set() for run, *_ in self.values}
        for run, _, step, *_ in self.values:
            self.steps[run].add(step)

    def start(self, run, seed, layer, statistic):
        return self.values[run, seed, min(self.steps[run]), layer, statistic]

    def end(self, run, seed, layer, statistic):
        return self.values[run, seed, max(self.steps[run]), layer, statistic]

    def chance(self, statistic, seeds):
        largest = 0.0
        for run in self.runs:
            for seed in seeds:
                for layer in range(LAYERS):
                    apart = self.start(run, seed, layer, statistic) - UNIFORM[statistic]
                    largest = max(largest, abs(apart))
        return largest

    def differences(self, statistic, seed):
        masked, *others = self.runs
        return [
            self.end(masked, seed, layer, statistic) - self.end(other, seed, layer, statistic)
            for layer in range(LAYERS)
            for other in others
        ]

    def change(self, run, statistic, seed):
        total = 0.0
        for layer in range(LAYERS):
            total += self.end(run, seed, layer, statistic) - self.start(run, seed, layer, statistic)
        return total / LAYERS

    def order(self, seed):
        times, run = [], self.runs[0]
        for layer in range(LAYERS):
            series = [(step, self.values[run, seed, step, layer, "nmi"]) for step in sorted(self.steps[run])]
            times.append(half_time(series))
        ratios = [math.log((1 + later) / (1 + earlier)) for earlier, later in pairwise(times)]
        return sum(ratios) / len(ratios)


def half_time(series):
    """The step at which a list of (step, value) first reaches half its last value."""
    half = series[-1][1] / 2
    for place, (step, value) in enumerate(series):
        if value >= half:
            if place == 0:
                return step
            step_before, before = series[place - 1]
            share = (half - before) / (value - before)
            low, high = math.log(1 + step_before), math.log(1 + step)
            return math.exp(low + share * (high - low)) - 1
    raise AssertionError("the last value is at least its half")


def reconstruction(evidence, seed):
    last = evidence.masked, seed, STEPS[-1]
    model, mean, nearest = (
        indexed(evidence.evaluations, key, "run", "seed", "step")[last]
        for key in ("model", "image_mean", "nearest_patch")
    )
    return math.log(model / min(mean, nearest))


def learned(evidence, seed):
    knn = indexed(evidence.evaluations, "knn", "run", "seed", "step")
    gains = [
        knn[run, seed, STEPS[-1]] - knn[run, seed, STEPS[0]] for run in (evidence.masked, *evidence.others)
    ]
    return min(gains)


def ranks_agree(evidence, seed):
    own = [r for r in evidence.photographs if (r["run"], r["seed"]) == (evidence.masked, seed)]
    return stats.spearmanr([r["gap"] for r in own], [r["distance_ratio"] for r in own]).statistic


def fp_less_pp(evidence, seed):
    shares = indexed(evidence.shares, "share", "run", "seed", "step", "layer", "component")
    total = 0.0
    for layer in range(LAYERS):
        last = evidence.masked, seed, STEPS[-1], layer
        total += shares[*last, "FP"] - shares[*last, "PP"]
    return total / LAYERS


def oracle(evidence, seeds):
    """(value, low, high) of every claim, by name."""
    looks = Looks(evidence)
    per_seed = {
        NAMES[0]: [min(looks.differences("nmi", seed)) for seed in seeds],
        NAMES[1]: [min(looks.differences("diversity", seed)) for seed in seeds],
        NAMES[2]: [max(looks.differences("distance_ratio", seed)) for seed in seeds],
        NAMES[3]: [looks.change(evidence.after, "nmi", seed) for seed in seeds],
        NAMES[4]: [looks.change(evidence.after, "diversity", seed) for seed in seeds],
        NAMES[5]: [reconstruction(evidence, seed) for seed in seeds],
        NAMES[6]: [learned(evidence, seed) for seed in seeds],
        NAMES[7]: [looks.order(seed) for seed in seeds],
        NAMES[8]: [ranks_agree(evidence, seed) for seed in seeds],
        NAMES[9]: [fp_less_pp(evidence, seed) for seed in seeds],
    }
    chances = dict(zip(NAMES, (looks.chance(statistic, seeds) for statistic in UNIFORM), strict=False))
    found = {}
    for name, values in per_seed.items():
        n = len(values)
        mean = sum(values) / n
        variance = sum((value - mean) ** 2 for value in values) / (n - 1)
        width = stats.t.ppf(0.975, n - 1) * math.sqrt(variance / n) + chances.get(name, 0.0)
        found[name] = (mean, mean - width, mean + width)
    return found


def judged(evidence):
    """Verdicts by the names of their claims: each of the ten once."""
    verdicts = judge_training(evidence)
    assert [verdict.claim.name for verdict in verdicts] == list(NAMES)
    return {verdict.claim.name: verdict for verdict in verdicts}


def verdict_of(name, low, high):
    if low >= 0:
        return "holds" if HOLDS_ABOVE[name] else "fails"
    if high <= 0:
        return "fails" if HOLDS_ABOVE[name] else "holds"
    return "inconclusive"


def missing(evidence):
    """Names of the claims without a value; those are inconclusive and say why."""
    names = set()
    for name, verdict in judged(evidence).items():
        measured = verdict.measurement
        assert measured.evidence.strip()
        if measured.value is None:
            assert (measured.low, measured.high, verdict.verdict) == (None, None, "inconclusive")
            names.add(name)
    return names


# Tests


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("signs", [(1, 1), (1, 1, 1, 1), (-1,) * 5, (1, -1, 1, -1), (1, 1, 1, -1, 1, 1)])
def test_values_intervals_and_verdicts_are_the_oracles(signs, seed):
    evidence = evidence_of(signs, seed, chance=0.01 + 0.02 * seed, noise=0.02 * (1 + seed))
    expected = oracle(evidence, range(len(signs)))
    for name, verdict in judged(evidence).items():
        measured = verdict.measurement
        found = (measured.value, measured.low, measured.high)
        assert found == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name
        assert verdict.verdict == verdict_of(name, *expected[name][1:]), name
        assert str(verdict.threshold) == ("≥ 0" if HOLDS_ABOVE[name] else "≤ 0")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("signs", "expected"), [((1,) * 4, "holds"), ((-1,) * 4, "fails"), ((1, -1, 1, -1), "inconclusive")]
)
def test_each_claim_holds_fails_and_cannot_tell(name, signs, expected):
    verdict = judged(evidence_of(signs))[name]
    assert verdict.measurement.value is not None
    assert verdict.verdict == expected


def test_chance_is_read_of_every_run_that_is_compared_both_sides_of_uniform():
    """A start far from uniform takes the verdict back and leaves the value; that of another run does not count."""
    evidence = evidence_of((1,) * 4)
    plain = judged(evidence)
    for run, statistic, name, start in (
        ("simmim", "nmi", NAMES[0], 0.3),
        ("supervised", "diversity", NAMES[1], 0.3),
        ("simclr", "distance_ratio", NAMES[2], 0.6),
        ("simclr", "distance_ratio", NAMES[2], 1.4),
    ):
        where = {"run": run, "seed": 2, "step": 0, "layer": 1, "statistic": statistic}
        far = changed(evidence, "looks", lambda _, start=start: {"value": start}, **where)
        found = judged(far)
        assert found[name].measurement.value == pytest.approx(plain[name].measurement.value, abs=1e-15)
        expected = abs(start - UNIFORM[statistic]) - Looks(evidence).chance(statistic, range(4))
        grown = found[name].measurement.high - plain[name].measurement.high
        assert grown == pytest.approx(expected, abs=1e-12)
        assert plain[name].measurement.low - found[name].measurement.low == pytest.approx(expected, abs=1e-12)
        assert (plain[name].verdict, found[name].verdict) == ("holds", "inconclusive")
        for other in WIDENED - {name}:
            assert found[other].measurement == plain[other].measurement
    for run in (AFTER, "stranger"):
        step = min(Looks(evidence).steps[run])
        far = changed(evidence, "looks", lambda _: {"value": 3.0}, run=run, step=step)
        assert all(judged(far)[name].measurement == plain[name].measurement for name in WIDENED)


def test_runs_that_are_not_asked_about_change_nothing():
    evidence = evidence_of((1, -1, 1))
    alone = {name: v.measurement for name, v in judged(without(evidence, "stranger")).items()}
    assert {name: v.measurement for name, v in judged(evidence).items()} == alone


def test_runs_may_have_other_names():
    names = {MASKED: "hidden", OTHERS[0]: "pairs", OTHERS[1]: "labels", AFTER: "later"}
    evidence = evidence_of((1, 1, -1))
    tables = [
        [{**record, "run": names.get(record["run"], record["run"])} for record in table]
        for table in (evidence.looks, evidence.evaluations, evidence.shares, evidence.photographs)
    ]
    renamed = TrainingEvidence(*tables, masked="hidden", others=("pairs", "labels"), after="later")
    expected = oracle(evidence, range(3))
    for name, verdict in judged(renamed).items():
        measured = verdict.measurement
        assert (measured.value, measured.low, measured.high) == pytest.approx(expected[name], rel=1e-12)


def test_one_other_run_is_enough():
    evidence = replace(without(evidence_of((1, 1, -1)), "supervised"), others=("simclr",))
    expected = oracle(evidence, range(3))
    for name, verdict in judged(evidence).items():
        measured = verdict.measurement
        assert (measured.value, measured.low, measured.high) == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize(
    ("run", "gone"),
    [
        (MASKED, EVERY - set(NAMES[3:5])),
        (OTHERS[0], WIDENED | {NAMES[6]}),
        (OTHERS[1], WIDENED | {NAMES[6]}),
        (AFTER, set(NAMES[3:5])),
        ("stranger", set()),
    ],
)
def test_a_run_that_is_missing_leaves_its_claims_open(run, gone):
    assert missing(without(evidence_of((1,) * 4), run)) == gone


def test_one_seed_has_no_interval():
    assert missing(evidence_of((1,))) == EVERY
    assert missing(evidence_of((1, 1))) == set()


def test_no_records_leave_every_claim_open():
    assert missing(TrainingEvidence((), (), (), ())) == EVERY


@pytest.mark.parametrize(
    ("table", "key", "where", "gone"),
    [
        ("looks", "value", {"run": MASKED, "step": 1000, "statistic": "nmi"}, {NAMES[0], NAMES[7]}),
        ("looks", "value", {"run": OTHERS[1], "step": 1000, "statistic": "nmi"}, {NAMES[0]}),
        ("looks", "value", {"run": OTHERS[0], "step": 1000, "statistic": "diversity"}, {NAMES[1]}),
        ("looks", "value", {"run": OTHERS[0], "step": 0, "statistic": "diversity"}, {NAMES[1]}),
        ("looks", "value", {"run": MASKED, "step": 0, "statistic": "distance_ratio"}, {NAMES[2]}),
        ("looks", "value", {"run": AFTER, "step": 400, "statistic": "nmi"}, {NAMES[3]}),
        ("looks", "value", {"run": AFTER, "step": 900, "statistic": "diversity"}, {NAMES[4]}),
        ("looks", "value", {"run": MASKED, "step": 1000, "statistic": "positional_nmi"}, set()),
        ("evaluations", "model", {"run": MASKED, "step": 1000}, {NAMES[5]}),
        ("evaluations", "nearest_patch", {"run": MASKED, "step": 1000}, {NAMES[5]}),
        ("evaluations", "image_mean", {"run": MASKED, "step": 1000}, {NAMES[5]}),
        ("evaluations", "knn", {"run": OTHERS[1], "step": 0}, {NAMES[6]}),
        ("evaluations", "knn", {"run": MASKED, "step": 1000}, {NAMES[6]}),
        ("evaluations", "linear", {"run": MASKED, "step": 1000}, set()),
        ("photographs", "distance_ratio", {"run": MASKED, "photograph": "p3"}, {NAMES[8]}),
        ("photographs", "gap", {"run": MASKED, "photograph": "p3"}, {NAMES[8]}),
        ("photographs", "distance_ratio", {"run": OTHERS[0]}, set()),
        ("shares", "share", {"run": MASKED, "step": 1000, "component": "FP"}, {NAMES[9]}),
        ("shares", "share", {"run": MASKED, "step": 1000, "component": "PP"}, {NAMES[9]}),
        ("shares", "share", {"run": MASKED, "step": 1000, "component": "FF"}, set()),
    ],
)
def test_what_is_not_a_number_leaves_its_claims_open_and_no_others(table, key, where, gone):
    """Of one layer and one seed alone: neither may be left out of a mean, a least or a largest."""
    place = {"layer": 1} if table in ("looks", "shares") else {}
    broken = changed(evidence_of((1,) * 4), table, lambda _: {key: math.nan}, seed=2, **place, **where)
    assert missing(broken) == gone


def test_a_masked_run_without_a_reconstruction_leaves_that_claim_open():
    evidence = evidence_of((1,) * 4)
    short = [{k: v for k, v in record.items() if k != "model"} for record in evidence.evaluations]
    assert missing(replace(evidence, evaluations=short)) == {"masked pretraining reconstructs"}


def test_layers_that_learned_nothing_have_no_order():
    """Half of next to nothing is reached by chance."""
    evidence = evidence_of((1,) * 4)
    layer = {"run": MASKED, "layer": 2, "statistic": "nmi"}
    for end, gone in ((0.049, {"layers in order"}), (0.051, set())):
        ends = changed(evidence, "looks", lambda _, end=end: {"value": end}, step=1000, **layer)
        assert missing(ends) == gone


def test_the_half_is_first_reached_between_looks_in_the_logarithm_of_time():
    """By hand: layer 0 rises in a line of log(1 + step), layer 1 overshoots, layer 2 starts above its half."""
    looks = []
    rises = {0: (0.0, 0.1, 0.2, 0.3), 1: (0.0, 0.8, 0.1, 0.4), 2: (0.3, 0.3, 0.3, 0.4)}
    for seed in (0, 1):
        for layer, values in rises.items():
            for step, value in zip((0, 1, 3, 7), values, strict=True):
                looks.append(look(MASKED, seed, step, layer, "nmi", value))
    times = [1.5 * math.log(2), 0.25 * math.log(2), 0.0]
    measured = judged(TrainingEvidence(looks, (), (), ()))["layers in order"].measurement
    expected = (times[2] - times[0]) / 2  # the mean of differences of neighbours
    assert [measured.value, measured.low, measured.high] == pytest.approx([expected] * 3, abs=1e-12)


def test_gap_and_distance_are_ranked_within_each_seed():
    """Seeds that differ in level by more than photographs do; ties share their mean rank."""
    photographs = []
    gaps = (-0.2, 0.0, 0.0, 0.1, 0.3)
    ratios = {0: (0.9, 0.8, 0.7, 0.7, 0.2), 1: (9.0, 9.1, 9.0, 8.9, 8.0), 2: (5.0, 4.0, 3.0, 2.0, 6.0)}
    for seed, values in ratios.items():
        for number, (gap, ratio) in enumerate(zip(gaps, values, strict=True)):
            kept = {"photograph": f"p{number}", "gap": gap, "run": MASKED, "seed": seed}
            photographs.append({**kept, "distance_ratio": ratio})
    measured = judged(TrainingEvidence((), (), (), photographs))["locality goes with the gap"].measurement
    expected = [stats.spearmanr(gaps, values).statistic for values in ratios.values()]
    assert measured.value == pytest.approx(np.mean(expected), abs=1e-12)
    width = stats.t.ppf(0.975, 2) * np.std(expected, ddof=1) / math.sqrt(3)
    assert measured.high - measured.value == pytest.approx(width, abs=1e-12)
