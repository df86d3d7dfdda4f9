"""Claims on networks, judged on made-up tables: what holds, what fails, and what must not be concluded.

Tables are those of the probe with values put in by hand: a level for each model and layer, differences of images that
are the same for all models (they must cancel, being paired), and a little noise of its own for each.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from mimlab.claims import judge_agreement, judge_networks
from mimlab.claims.catalogue import CLAIMS
from mimlab.claims.networks import (
    AGREEMENT_CLAIMS,
    DIVERSITIES,
    NETWORK_CLAIMS,
    AgreementEvidence,
    NetworkEvidence,
)
from mimlab.probing.catalogue import RANDOM_WEIGHTS

OTHERS = ("MoCo v3", "DINO", "DeiT")
LEVELS = {"MAE": 0.6, "MoCo v3": 0.2, "DINO": 0.3, "DeiT": 0.4}
IMAGES, LAYERS, HEADS = 12, 3, 2


def table_of(levels, chance=0.01, images=IMAGES, noise=0.01, layers=LAYERS, seed=0):
    """Rows of probe.parquet. levels: by model a number, or one for each layer; chance: of all with random weights."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(images, 1, 1))  # images differ far more than models do
    rows = []
    known = {**levels, **({} if chance is None else {name + RANDOM_WEIGHTS: chance for name in levels})}
    for model, level in known.items():
        depth = layers if np.ndim(level) == 0 else len(level)
        base = np.broadcast_to(np.asarray(level, dtype=float), depth)[None, :, None]
        spoken = 0 if model.endswith(RANDOM_WEIGHTS) else 1
        values = base + spoken * (shared + noise * rng.normal(size=(images, depth, HEADS)))
        for (image, layer, head), value in np.ndenumerate(values):
            here = {"model": model, "image": f"{image}.png", "layer": layer, "head": head, "value": value}
            rows += [here | {"statistic": name} for name in (*DIVERSITIES, "entropy")]
    return pa.Table.from_pylist(rows)


def models_of(levels, grids=None, layers=LAYERS):
    depth = {name: layers if np.ndim(level) == 0 else len(level) for name, level in levels.items()}
    return [
        {"name": name, "layers": [{"grid": [4, 4] if grids is None else grids[name]}] * depth[name]}
        for name in levels
    ]


def evidence_of(levels, grids=None, **options):
    return NetworkEvidence.of(table_of(levels, **options), models_of(levels, grids), "MAE", OTHERS)


def verdict_on(levels, statistic="diversity", **options):
    verdicts = judge_networks(evidence_of(levels, **options))
    assert [one.claim for one in verdicts] == list(NETWORK_CLAIMS)
    return verdicts[DIVERSITIES.index(statistic)]


@pytest.mark.parametrize("statistic", DIVERSITIES)
@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (LEVELS, "holds"),
        (LEVELS | {"DeiT": [0.4, 0.4, 0.9]}, "fails"),  # one layer of one model is enough
        (LEVELS | {"DeiT": [0.4, 0.4, 0.601]}, "inconclusive"),
    ],
)
def test_every_layer_and_model_counts(statistic, levels, expected):
    found = verdict_on(levels, statistic)
    assert found.verdict == expected, found.measurement
    assert statistic in found.claim.quantity.lower() and found.claim.name in {one.name for one in CLAIMS}


def test_difference_is_paired_and_its_interval_is_bonferronis_students():
    """By loops over images: t at 1 - 0.025/9 for nine comparisons, widened by what random weights reach."""
    table = table_of(LEVELS, chance=0.02)
    found = verdict_on(LEVELS, chance=0.02).measurement
    values = {}
    for row in table.to_pylist():
        if row["statistic"] == "diversity":
            key = row["model"], row["layer"], row["image"]
            values[key] = values.get(key, 0) + row["value"] / HEADS
    apart = {}
    for layer in range(LAYERS):
        for other in OTHERS:
            apart[layer, other] = [
                values["MAE", layer, f"{n}.png"] - values[other, layer, f"{n}.png"] for n in range(IMAGES)
            ]
    width = {
        key: stats.t.ppf(1 - 0.025 / 9, IMAGES - 1) * stats.sem(one) + 0.02 for key, one in apart.items()
    }
    assert found.value == pytest.approx(min(np.mean(one) for one in apart.values()), abs=1e-12)
    assert found.low == pytest.approx(min(np.mean(apart[k]) - width[k] for k in apart), abs=1e-12)
    assert found.high == pytest.approx(min(np.mean(apart[k]) + width[k] for k in apart), abs=1e-12)
    assert found.high - found.low < 0.1  # images differ by 1: unpaired, nothing could be told


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_that_random_weights_reach_is_no_evidence(sign):
    levels = {"MAE": 0.05 + sign * 0.01} | dict.fromkeys(OTHERS, 0.05)
    sure, chance = (verdict_on(levels, chance=chance, noise=1e-4) for chance in (0.001, 0.05))
    assert sure.verdict == ("holds" if sign > 0 else "fails")
    assert chance.verdict == "inconclusive"
    assert "with random weights up to 0.05" in chance.measurement.evidence


def test_random_weights_are_those_of_the_two_that_are_compared():
    table = table_of(LEVELS)
    loud = np.array([name == f"DeiT{RANDOM_WEIGHTS}" for name in table["model"].to_pylist()])
    values = np.where(loud, 0.5, table["value"].to_numpy())
    table = table.set_column(table.column_names.index("value"), "value", pa.array(values))
    evidence = NetworkEvidence.of(table, models_of(LEVELS), "MAE", OTHERS)
    assert {one.verdict for one in judge_networks(evidence)} == {"inconclusive"}
    without = replace(evidence, others=OTHERS[:2])
    assert {one.verdict for one in judge_networks(without)} == {"holds"}


def test_each_layer_is_judged_with_the_interval_it_has_among_all():
    evidence = evidence_of(LEVELS | {"DeiT": [0.4, 0.6005, 0.9]})
    claim = NETWORK_CLAIMS[0]
    found = [claim.judge(evidence.at(layer)) for layer in range(LAYERS)]
    assert [one.verdict for one in found] == ["holds", "inconclusive", "fails"]
    assert min(one.measurement.low for one in found) == claim.judge(evidence).measurement.low


def test_chance_alone_rarely_holds_or_fails():
    """Equal models whose images differ by chance, and no widening: at most one in 20 is concluded from."""
    concluded = 0
    for seed in range(200):
        verdict = verdict_on(dict.fromkeys(LEVELS, 0.5), chance=0.0, noise=0.1, images=6, seed=seed).verdict
        concluded += verdict != "inconclusive"
    assert concluded <= 17  # 99% of a binomial of 200 at 0.05


def without(table, keep):
    return table.filter(pa.array([keep(row) for row in table.to_pylist()]))


def nan_at(table, model, layer):
    hit = [row["model"] == model and row["layer"] == layer for row in table.to_pylist()]
    values = np.where(hit, np.nan, table["value"].to_numpy())
    return table.set_column(table.column_names.index("value"), "value", pa.array(values))


def reason(table, models=None, others=OTHERS):
    evidence = NetworkEvidence.of(table, models or models_of(LEVELS), "MAE", others)
    found = {
        (one.verdict, one.measurement.value, one.measurement.evidence) for one in judge_networks(evidence)
    }
    words = {evidence for _, _, evidence in found}
    assert {(verdict, value) for verdict, value, _ in found} == {("inconclusive", None)}
    return words.pop()


def test_what_cannot_be_compared_is_inconclusive_and_says_why():
    table = table_of(LEVELS)
    assert "one image" in reason(without(table, lambda row: row["image"] == "3.png"))
    assert reason(nan_at(table, "DINO", 1)) == "values at depth 2 of DINO are not numbers"
    shallow = LEVELS | {"DINO": [0.1, 0.1]}
    told = reason(table_of(shallow), models_of(shallow))
    assert "MAE 3 of 4×4 patches" in told and "DINO 2 of 4×4 patches" in told
    grids = {key: [4, 4] for key in LEVELS} | {"DeiT": [8, 8]}
    assert "DeiT 3 of 8×8 patches" in reason(table, models_of(LEVELS, grids))
    assert f"MAE{RANDOM_WEIGHTS}" in reason(table_of(LEVELS, chance=None))
    lone = without(table, lambda row: row["model"].startswith("MAE"))
    assert reason(lone, models_of({"MAE": 0.6})) == "needs the weights of MoCo v3, DINO, DeiT"
    assert reason(table, others=()) == "there is nothing to compare MAE with"
    assert reason(without(table, lambda row: False)).endswith("(random weights)")
    same = table_of(dict.fromkeys(LEVELS, 0.5), chance=0.0, noise=0.0)
    assert reason(same) == "MAE and MoCo v3 have equal values at depth 1"


def test_a_broken_layer_leaves_the_others_judged():
    evidence = NetworkEvidence.of(nan_at(table_of(LEVELS), "DINO", 1), models_of(LEVELS), "MAE", OTHERS)
    found = [NETWORK_CLAIMS[0].judge(evidence.at(layer)).verdict for layer in range(LAYERS)]
    assert found == ["holds", "inconclusive", "holds"]


def test_images_that_a_model_lacks_are_left_out_for_all():
    table = table_of(LEVELS)
    some = without(table, lambda row: row["model"] != "DeiT" or row["image"] in ("1.png", "2.png", "5.png"))
    evidence = NetworkEvidence.of(some, models_of(LEVELS), "MAE", OTHERS)
    assert {len(values) for values in evidence.values.values()} == {3}
    assert "3 images" in judge_networks(evidence)[0].measurement.evidence


def pair(simulated, probed, statistic="nmi"):
    return {"statistic": statistic, "time": 1.5, "simulated": simulated, "probed": probed}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([pair(0.4, 0.4 + 1e-6), pair(4.9, 4.9 - 1e-6, "entropy")], "holds"),
        ([pair(0.4, 0.4), pair(0.4, 0.41)], "fails"),
        ([pair(0.4, 0.4), pair(4.9, 4.0, "entropy")], "fails"),
        ([pair(0.4, float("nan"))], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_agreement_of_probe_and_simulator(pairs, expected):
    (found,) = judge_agreement(AgreementEvidence(pairs, 144))
    assert found.verdict == expected
    assert found.claim is AGREEMENT_CLAIMS[0]


def test_entropy_is_compared_as_a_share_of_its_range():
    (found,) = judge_agreement(AgreementEvidence([pair(3.0, 2.0, "entropy"), pair(0.3, 0.2)], 100))
    assert found.measurement.value == pytest.approx(1 / np.log(100))
    assert "Entropy at time 1.5" in found.measurement.evidence
