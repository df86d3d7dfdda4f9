"""Claims about contrastive learning: worlds where each must hold, must fail, and cannot be told."""

from collections.abc import Callable
from functools import cache, partial

import pytest

from mimlab import ContrastiveLearning, Latent, World, simulate
from mimlab.claims.contrastive import CONTRASTIVE_CLAIMS
from mimlab.studies.single import Simulation

from .claim_case import Case, Records, cases, check, check_all, name_of

EXACT = {"engine": "mean-field"}
FOUR = World(area_sizes=(40, *[8] * 5), clusters=4, latent=Latent(low=0.5, high=1.5))
CONTRAST = partial(simulate, FOUR, ContrastiveLearning(), draws=256, **EXACT)
DESCENT = {"integrator": "descent", "stop_attention": 1.0}

RUNS: dict[str, Callable[[], Simulation]] = {
    "to the end": CONTRAST,
    "to the level": partial(CONTRAST, stop_attention=0.9),
    "at the start": partial(
        simulate, FOUR, ContrastiveLearning(), draws=64, learning_rate=1e-6, steps=1, **DESCENT
    ),
    "images all alike": partial(
        simulate,
        World(area_sizes=(40, 20, 20)),
        ContrastiveLearning(),
        draws=64,
        learning_rate=1e4,
        steps=9,
        **DESCENT,
        **EXACT,
    ),
}


@cache
def row(name: str) -> Records:
    claims: Records = RUNS[name]().summary["claims"]
    return claims


def on(name: str) -> Callable[[], Records]:
    return partial(row, name)


CASES = [
    *cases(
        "contrastive global attention",
        holds=("four clusters, mean counts: the flow ends at 0.99", on("to the end")),
        fails=("one cluster, constant latents, mean counts: no two images differ", on("images all alike")),
        inconclusive=("a run stopped at the threshold itself", on("to the level")),
    ),
    *cases(
        "contrastive training leaves the own area",
        holds=("what the global area has at the end leaves 0.01", on("to the end")),
        fails=("nothing is learned, and (1-γ) C_a/P = 0.125", on("images all alike")),
        inconclusive=("at the start attention is (1-γ) C_a/P = 0.05", on("at the start")),
    ),
]


def test_no_claim_lacks_a_case():
    check_all(CASES, CONTRASTIVE_CLAIMS)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)
