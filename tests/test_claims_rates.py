"""Claims about rates and about many worlds: each where it must hold, where it must fail, and where it cannot tell."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from mimlab import Latent, MaskedReconstruction, World, simulate
from mimlab.claims import judge_grid
from mimlab.claims.fits import fit_line
from mimlab.claims.grids import GRID_CLAIMS, GridEvidence
from mimlab.claims.rates import RATE_CLAIMS
from mimlab.studies.random_worlds import (
    area_record,
    between_record,
    partition_config,
    partition_record,
    phi_by_area,
)
from mimlab.studies.scaling import point_of, run_scale
from mimlab.studies.single import Simulation, simulate_config

from .claim_case import Case, Records, cases, check, check_all, name_of

LOCAL = {"global_exponent": 0.9, "local_exponent": 0.3}
GAPPED = {**LOCAL, "latent": {"values": [0.2] * 9 + [1.8]}}
SMALL_FIRST = World(area_sizes=(16, 4000, *[16] * 374))
TO_HALF = {"engine": "mean-field", "stop_attention": 0.5}


@cache
def series(name: str) -> Records:
    """Verdicts on a series over P."""
    low, high, points, config = {
        "constant": (1e4, 1e12, 5, {"world": LOCAL}),
        "varying": (1e4, 1e12, 5, {"world": {**LOCAL, "latent": {"low": 0.5, "high": 1.5}}}),
        "gapped": (1e4, 1e5, 4, {"world": GAPPED}),
        "gapped, two": (1e4, 1e12, 4, {"world": {**LOCAL, "latent": {"values": [0.2, 0.2, 1.8]}}}),
        "out of time": (1e4, 1e8, 3, {"world": LOCAL, "dynamics": {"learning_rate": 1.0, "steps": 100_000}}),
    }[name]
    claims: Records = run_scale(config, None, low=low, high=high, points=points)["claims"]
    return claims


def over(name: str) -> Callable[[], Records]:
    return partial(series, name)


RUNS: dict[str, Callable[[], Simulation]] = {
    "large gap": partial(simulate, World(10_000, 0.9, 0.3), **TO_HALF),
    "negative gap": partial(simulate, World(10_000, 0.55, 0.3), **TO_HALF),
    "small gap": partial(simulate, World(200, 0.7, 0.3), **TO_HALF),
    "areas of two": partial(simulate, World(area_sizes=(78, *[2] * 461)), **TO_HALF),
    "few masked": partial(simulate, World(area_sizes=(19, *[2] * 90)), MaskedReconstruction(0.05), **TO_HALF),
    "small first": partial(simulate, SMALL_FIRST, query=4016, **TO_HALF),
    "large first": partial(simulate, World(area_sizes=(4000, *[16] * 375)), **TO_HALF),
}


def grid(names: str, copies: int, record: Callable[[Simulation], dict[str, Any]]) -> Records:
    """Verdicts on so many worlds like each of those named."""
    records = []
    for name in names.split("; "):
        one = run(name)
        records += [{"mask_ratio": one.config.objective.mask_ratio, **record(one)}] * copies
    return [v.as_dict() for v in judge_grid(GridEvidence(records))]


@cache
def run(name: str) -> Simulation:
    return RUNS[name]()


gaps, areas = partial(grid, record=point_of), partial(grid, record=area_record)
three = ("three worlds", partial(gaps, "large gap", 3))
late = ("two of three P get to half attention in time", over("out of time"))
CASES = [
    *cases(
        "tightness of the paper's bound",
        holds=("z = 1: the bound is the exponent", over("constant")),
        fails=("U/L = 3: the bound is four times the exponent", over("varying")),
        inconclusive=late,
    ),
    *cases(
        "half time beside the equation",
        holds=("z = 1", over("constant")),
        fails=("weak latents are reached by positions first: 1/(z² C_a) = 0.8 to 1.5", over("gapped")),
        inconclusive=late,
    ),
    *cases(
        "constant of local half time",
        holds=("z = 1: I = 1", over("constant")),
        fails=("the gap in the law outweighs the first stretch by 700 to 90", over("gapped, two")),
        inconclusive=late,
    ),
    *cases(
        "sign of the gap over worlds",
        holds=("gaps far from 0 at P = 10⁴", partial(gaps, "large gap; negative gap", 30)),
        fails=("Δ_p = 0.06 at P = 200", partial(gaps, "small gap", 24)),
        inconclusive=three,
    ),
    *cases(
        "finite-size boundary over worlds",
        holds=(
            "far from it, or between the two",
            partial(gaps, "large gap; negative gap; small gap", 24),
        ),
        fails=("areas of 2, of which a masked query leaves 1", partial(gaps, "few masked", 40)),
        inconclusive=three,
    ),
    *cases(
        "boundary where the two rules differ",
        holds=("Δ_p = 0.06, (1-γ) P^Δ_p = 0.35", partial(gaps, "small gap", 40)),
        fails=("areas of 2: 0.76 with C_a, 1.5 with C_a - 1", partial(gaps, "areas of two", 40)),
        inconclusive=("the rules agree", partial(gaps, "large gap", 40)),
    ),
    *cases(
        "largest area decides the phases",
        holds=("area 1 of 4000 patches, or area 0", partial(areas, "small first; large first", 30)),
        fails=("areas of 2, of which a masked query leaves 1", partial(areas, "few masked", 40)),
        inconclusive=("three worlds", partial(areas, "small first", 3)),
    ),
    *cases(
        "area 0 decides the phases",
        holds=("area 0 is the largest", partial(areas, "large first", 40)),
        fails=("area 0 has 16 patches, area 1 has 4000", partial(areas, "small first", 40)),
        inconclusive=("three worlds", partial(areas, "large first", 3)),
    ),
]


def test_no_claim_lacks_a_case():
    check_all(CASES, (*RATE_CLAIMS, *GRID_CLAIMS))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case(case: Case):
    check(case)


def test_a_line_meets_zero_where_numpy_has_it():
    x, y = np.array([0.1, 0.3, 0.4, 0.9]), np.array([1.0, 2.0, 1.5, 3.0])
    line = fit_line(x, y)
    fitted, covariance = np.polyfit(x, y, 1, cov=True)
    assert (line.slope, line.at_zero) == pytest.approx(tuple(fitted))
    assert line.at_zero_width == pytest.approx(4.302653 * covariance[1, 1] ** 0.5, rel=1e-6)


def test_relabelling_areas_changes_nothing():
    """The loss does not know which area is area 0: the same areas in another order, the same course."""
    sizes, order = (60, 20, 12, 8, 8), (3, 0, 4, 2, 1)
    other = tuple(sizes[i] for i in order)
    one = simulate(World(area_sizes=sizes), query=80, **TO_HALF)
    two = simulate(World(area_sizes=other), query=sum(other[:3]), **TO_HALF)
    assert one.summary["queries"][0]["area_size"] == two.summary["queries"][0]["area_size"] == 12
    assert one.summary["queries"][0]["half_time"] == pytest.approx(
        two.summary["queries"][0]["half_time"], rel=1e-5
    )
    ends = [phi_by_area(run)[-1] for run in (one, two)]
    np.testing.assert_allclose(ends[0][list(order)], ends[1], rtol=1e-4)


@pytest.mark.parametrize("number", range(8))
def test_the_largest_area_always_stands_lowest(number):
    """An area falls at A(A - S), and S, the sum of squares, is at most the largest A: nothing passes the largest."""
    run = simulate_config(partition_config(number, "mean-field"))
    record = area_record(run)
    assert record["deepest_size"] == record["largest_size"]


def test_areas_by_exponents_whose_first_is_small_have_one_phase():
    run = simulate(World(10_000, 0.3, 0.6), **TO_HALF)
    first, last = phi_by_area(run)[[1, -1]]
    assert -first[2:].min() / first[1] < 1 and last[2] < last[0] < last[1]


def test_random_worlds_are_what_they_say():
    configs = [partition_config(number, "mean-field") for number in range(40)]
    assert len({config.world.area_sizes for config in configs}) == 40
    assert sum(config.world.area_sizes[0] == max(config.world.area_sizes) for config in configs) < 10
    record = partition_record(3, "mean-field")
    assert record["area_size"] in configs[3].world.area_sizes and record == partition_record(3, "mean-field")
    for number in range(10):
        between = between_record(number, "mean-field", 1e6)
        assert (
            -0.02
            < between["patch_gap"]
            < np.log(1 / (1 - between["mask_ratio"])) / np.log(between["patches"]) + 0.02
        )


def test_a_world_of_constant_strength_has_the_time_of_its_fourth_power():
    """Leading time from the law, measured: z = 2 is 16 times as fast."""
    points = [
        point_of(simulate(World(10**8, 0.9, 0.4, latent=Latent(low=z, high=z)), **TO_HALF))
        for z in (1.0, 2.0)
    ]
    assert points[0]["leading_half_time"] == pytest.approx(16 * points[1]["leading_half_time"])
    assert points[0]["half_time"] == pytest.approx(16 * points[1]["half_time"], rel=0.02)
