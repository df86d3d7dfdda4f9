"""Claims about contrastive learning: worlds where each must hold, must fail, and cannot be told."""

from collections.abc import Callable
from functools import cache, partial

import pytest

from mimlab import ContrastiveLearning, Latent, World, simulate
from mimlab.claims import judge_points
from mimlab.claims.contrastive import CONTRASTIVE_CLAIMS, CONTRASTIVE_SERIES_CLAIMS
from mimlab.studies.scaling import evidence_of, point_of, run_scale
from mimlab.studies.single import Simulation

from .claim_case import Case, Records, cases, check, check_all, name_of

EXACT = {"engine": "mean-field"}
LARGE = World(area_sizes=(32, 16, 16, 16), clusters=4, latent=Latent(low=0.5, high=1.5))
FOUR = World(area_sizes=(40, *[8] * 5), clusters=4, latent=Latent(low=0.5, high=1.5))
CONSTANT = World(area_sizes=(40, *[8] * 5), clusters=4)
CONTRAST = partial(simulate, FOUR, ContrastiveLearning(), draws=256, **EXACT)
DESCENT = {"integrator": "descent", "stop_attention": 1.0}

RUNS: dict[str, Callable[[], Simulation]] = {
    "to the end": CONTRAST,
    "to the level": partial(CONTRAST, stop_attention=0.9),
    "half of the way": partial(simulate, LARGE, ContrastiveLearning(), draws=64, stop_attention=0.6),
    "large local areas": partial(simulate, LARGE, ContrastiveLearning(), draws=256, **EXACT),
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


def scale(patches: tuple[float, float], exponent: float, **more: dict[str, float]) -> Records:
    """Verdicts on a series over P in worlds of few, large local areas."""
    world = {"global_exponent": exponent, "local_exponent": 0.6, "clusters": 4}
    dynamics = {"draws": 256, **more.get("dynamics", {})}
    objective = {"name": "contrastive", **more.get("objective", {})}
    low, high = patches
    found = run_scale(
        {"world": world, "objective": objective, "dynamics": dynamics},
        None,
        low=low,
        high=high,
        points=4,
    )
    claims: Records = found["claims"]
    return claims


def negatives(numbers: tuple[int, ...], temperature: float = 1.0, **dynamics: float) -> Records:
    """Verdicts on a world with few negatives and with more."""
    points = []
    for number in numbers:
        objective = ContrastiveLearning(negatives=number, temperature=temperature)
        simulation = simulate(CONSTANT, objective, draws=512, stop_attention=0.5, **EXACT, **dynamics)
        points.append({"negatives": number, **point_of(simulation)})
    verdicts = judge_points(evidence_of(simulation.config, points, "negatives"))
    return [verdict.as_dict() for verdict in verdicts]


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
        holds=("it begins at (1-γ) C_a/P = 0.1, the flow ends at 0.99 elsewhere", on("large local areas")),
        fails=("nothing is learned, and (1-γ) C_a/P = 0.125", on("images all alike")),
        inconclusive=("it begins at 0.1; where half is lost, 64 draws cannot tell", on("half of the way")),
    ),
    *cases(
        "exponent of contrastive half time",
        holds=("κc = 0.7: P (P/C_1)², corrections fall as (C_1/P)²", partial(scale, (1e3, 3e4), 0.7)),
        fails=(
            "κc = 0.95, γ = 0.4, a few hundred patches: attention begins at 0.48 to 0.43, just below its half",
            partial(scale, (100, 800), 0.95, objective={"mask_ratio": 0.4}),
        ),
        inconclusive=(
            "no run gets to half attention in the time given",
            partial(scale, (1e3, 3e4), 0.7, dynamics={"learning_rate": 1.0, "steps": 10}),
        ),
    ),
    *cases(
        "number of negatives",
        holds=(
            "τ = 1, similarities of a few tenths: to first order in them",
            partial(negatives, (1, 2, 4, 8)),
        ),
        fails=(
            "τ = 0.05: what a negative is worth depends on the hardest one",
            partial(negatives, (1, 2, 4, 8), 0.05, learning_rate=1.0, steps=100_000),
        ),
        inconclusive=("two numbers make no line with an interval", partial(negatives, (1, 2))),
    ),
]


def test_no_claim_lacks_a_case():
    check_all(CASES, [*CONTRASTIVE_CLAIMS, *CONTRASTIVE_SERIES_CLAIMS])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)
