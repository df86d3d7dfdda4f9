"""Claims about the whole map: worlds where each must hold, must fail, and cannot be told; where none is judged."""

from collections.abc import Callable
from functools import cache, partial

import pytest

from mimlab import ContrastiveLearning, Latent, World, simulate
from mimlab.claims.diversity import MAP_CLAIMS, areas_bound
from mimlab.studies.single import Simulation

from .claim_case import Case, Records, cases, check, check_all, name_of

MEAN = {"engine": "mean-field"}
VARYING = Latent(low=0.5, high=1.5)
FOUR = World(area_sizes=(40, *[8] * 5), clusters=4, latent=VARYING)
MASKED = partial(simulate, World(area_sizes=(60, *[12] * 5)), query="all", **MEAN)
APART = partial(
    simulate,
    FOUR,
    ContrastiveLearning(),
    draws=64,
    start=1.0,
    integrator="descent",
    learning_rate=1500.0,
    **MEAN,
)

RUNS: dict[str, Callable[[], Simulation]] = {
    "to the end": MASKED,
    "stopped early": partial(MASKED, learning_rate=1.0, steps=30),
    "two areas, one of a patch": partial(simulate, World(area_sizes=(60, 1)), query="all", **MEAN),
    "one area": partial(simulate, World(area_sizes=(20,)), query="all", **MEAN),
    "contrast": partial(APART, steps=200),
    "positions apart": partial(APART, steps=200, start_alike="nothing"),
    "images all alike": partial(
        simulate,
        World(area_sizes=(24, 8, 8)),
        ContrastiveLearning(),
        draws=64,
        start=1.0,
        learning_rate=1e3,
        steps=5,
        **MEAN,
    ),
    "hardly apart": partial(APART, start=0.05, steps=1),
}


@cache
def found(name: str) -> Records:
    claims: Records = RUNS[name]().summary["claims"]
    return claims


def on(name: str) -> Callable[[], Records]:
    return partial(found, name)


CASES = [
    *cases(
        "NMI of a converged masked model",
        holds=("every row ends at 0.99 on its own area", on("to the end")),
        fails=("a tenth of the way: rows are nearly even", on("stopped early")),
        inconclusive=("H_A = 0.083 is less than h(0.05) = 0.199", on("two areas, one of a patch")),
    ),
    *cases(
        "NMI by area sizes",
        holds=("areas of 12 patches and more", on("to the end")),
        fails=("a tenth of the way: rows are nearly even", on("stopped early")),
        inconclusive=("there is nothing to tell apart", on("one area")),
    ),
    *cases(
        "contrastive NMI",
        holds=("four clusters that differ, positions of an area alike", on("contrast")),
        fails=("rows end on places of their own inside the global area", on("positions apart")),
        inconclusive=("the start is below the threshold", on("hardly apart")),
    ),
    *cases(
        "contrastive diversity",
        holds=("four clusters that differ, positions of an area alike", on("contrast")),
        fails=("one cluster, constant latents, mean counts: no two images differ", on("images all alike")),
        inconclusive=("the start is below the threshold", on("hardly apart")),
    ),
]


def test_no_claim_lacks_a_case():
    check_all(CASES, MAP_CLAIMS)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)


def test_the_bound_of_the_areas_by_hand():
    """60 patches and five times 12 of 120: log 120 - (log 60 + log 12)/2 = 1.4979, over log 120 = 4.7875."""
    assert areas_bound([[60, 1], [12, 5]]) == pytest.approx(1.4979 / 4.7875, abs=1e-4)


def test_no_claim_speaks_of_maps_that_are_not_known_or_alike_by_symmetry():
    one = simulate(World(area_sizes=(12, 4, 4)), **MEAN)
    alike = simulate(FOUR, ContrastiveLearning(), draws=64, learning_rate=1.0, steps=5, **MEAN)
    names = {claim.name for claim in MAP_CLAIMS}
    for run in (one, alike):
        assert not names & {claim["claim"] for claim in run.summary["claims"]}
