"""The claim about copying in context: worlds where it must hold, must fail, and cannot be told; real runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from mimlab import InContextLearning, World, judge, simulate
from mimlab.claims.in_context import COPYING_CLAIMS
from mimlab.studies.single import Simulation

from .claim_case import Case, Records, cases, check, check_all, name_of

pytest.importorskip("torch")

PAIRS = World(area_sizes=(2,) * 8)
DENSE: dict[str, Any] = {
    "engine": "dense",
    "integrator": "descent",
    "learning_rate": 4.0,
    "draws": 64,
    "stop_attention": 0.96,
}

RUNS: dict[str, Callable[[], Simulation]] = {
    "pairs": partial(simulate, PAIRS, InContextLearning(), steps=200, **DENSE),
    "tied": partial(
        simulate, World(area_sizes=(8, 8)), InContextLearning(in_weights=1.0), steps=200, **DENSE
    ),
    "cut short": partial(simulate, PAIRS, InContextLearning(), steps=2, **DENSE),
}


@cache
def simulated(name: str) -> Simulation:
    return RUNS[name]()


def on(name: str) -> Callable[[], Records]:
    return lambda: simulated(name).summary["claims"]


CASES = cases(
    "copying goes by position",
    holds=(
        "tokens are drawn anew, each copy has one place to look: FP/PP = (γ/2V)² (γ/2)(1-γ/2) P",
        on("pairs"),
    ),
    fails=("what an area shows is always the same, and its feature pools over c = 2.5 patches", on("tied")),
    inconclusive=("at 8 of T_half = 34 nothing is learned yet", on("cut short")),
)


def test_no_claim_lacks_a_case():
    check_all(CASES, COPYING_CLAIMS)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)


def verdict(change: dict[str, Any]) -> str:
    run = simulated("pairs")
    found = judge(run.trajectory, run.summary | change)
    return next(one.verdict for one in found if one.claim.name == "copying goes by position")


def test_error_and_share_decide():
    """The whole interval counts, and without an error nothing is concluded."""
    assert verdict({"pp_share": 0.901, "pp_share_se": 1e-4}) == "holds"
    assert verdict({"pp_share": 0.901, "pp_share_se": 1e-2}) == "inconclusive"
    assert verdict({"pp_share": 0.5, "pp_share_se": 1e-2}) == "fails"
    assert verdict({"pp_share": 0.95, "pp_share_se": None}) == "inconclusive"


def test_only_claims_that_mean_the_same_are_judged():
    """What is about features of areas, or about phases, is not asked of tokens."""
    names = [one["claim"] for one in simulated("pairs").summary["claims"]]
    assert names == ["convergence", "area-wide attention", "copying goes by position"]
    assert {one["verdict"] for one in simulated("pairs").summary["claims"]} == {"holds"}


def test_the_leading_terms_give_the_shares():
    """FP/PP = (γ/2V)² (γ/2)(1-γ/2) P for pairs, within the terms in 1/V and 1/P that it leaves out."""
    summary = simulated("pairs").summary
    gamma = 0.75
    predicted = (gamma / 32) ** 2 * gamma / 2 * (1 - gamma / 2) * 16
    assert summary["fp_share"] / summary["pp_share"] == pytest.approx(predicted, rel=0.5)


def test_a_common_feature_is_all_that_weights_hold_of_tokens():
    """In the table: Φ of every area alike, and little beside Υ of the source."""
    table = simulated("pairs").correlations
    time = np.asarray(table["time"])
    kind, value = np.asarray(table["kind"]), np.asarray(table["value"])
    last = time == time.max()
    phi, upsilon = value[last & (kind == "feature")], value[last & (kind == "position")]
    assert len(phi) == 8
    assert np.ptp(phi) < 1e-12
    assert np.argmax(upsilon) == 2  # the source of patch 3
    assert abs(phi[0]) < 0.1 * upsilon.max()


def test_another_objective_has_no_shares_yet():
    run = simulate(World(area_sizes=(12, 4)), engine="mean-field")
    assert run.summary["pp_share"] is run.summary["pp_share_se"] is run.summary["fp_share"] is None
    assert replace(run.rows[0]).shares == {}
