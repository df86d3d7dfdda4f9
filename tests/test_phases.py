"""Phases on curves whose crossings and fastest growth are known, and on rows of worlds of either sign of Δ."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mimlab
from mimlab.dynamics.phases import Phase, find_phases

Array = np.ndarray
NAMES = ("decoupling", "growth", "convergence")


def named(times: Array, own: Array, down: Array, is_global: bool = False) -> dict[str, tuple[float, float]]:
    return {p.name: (p.start, p.end) for p in find_phases(7, times, own, down, is_global)}


def recorded(end: float, count: int = 400) -> Array:
    return np.concatenate([[0.0], np.geomspace(end * 1e-6, end, count)])


# --- known curves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [3.0, 10.0, 1e3, 1e6])
def test_decoupling_ends_where_the_rates_cross(b: float) -> None:
    """Theory's leading order, T = 1: Φ_1 = -½ log(1 + bt) and Φ_a = -log(1 - t) move equally fast at (b-2)/(3b)."""
    times = recorded(0.9, 2000)
    found = named(times, -np.log1p(-times), -0.5 * np.log1p(b * times))
    assert list(found) == ["decoupling", "growth"], "the target still accelerates at the end"
    assert found["decoupling"][0] == 0.0
    assert found["decoupling"][1] == pytest.approx((b - 2) / (3 * b), rel=0.01)
    assert found["growth"] == (found["decoupling"][1], 0.9)


@pytest.mark.parametrize("b", [0.0, 0.5, 1.9])
def test_without_a_faster_fall_there_is_no_decoupling(b: float) -> None:
    times = recorded(0.9)
    assert list(named(times, -np.log1p(-times), -0.5 * np.log1p(b * times))) == ["growth"]


@pytest.mark.parametrize("centre", [0.2, 1.0, 5.0])
def test_growth_ends_where_it_is_fastest(centre: float) -> None:
    """A logistic rise is steepest at its centre."""
    times = np.linspace(0.0, 10.0, 1001)
    found = named(times, 1 / (1 + np.exp(-4 * (times - centre))), np.zeros_like(times))
    assert list(found) == ["growth", "convergence"]
    assert found["growth"] == (0.0, pytest.approx(centre, abs=0.011))
    assert found["convergence"][1] == 10.0


def test_growth_that_slows_from_the_start_is_convergence() -> None:
    times = recorded(10.0)
    assert named(times, 1 - np.exp(-times), np.zeros_like(times)) == {"convergence": (0.0, 10.0)}


def test_three_phases_follow_one_another() -> None:
    times = np.linspace(0.0, 10.0, 2001)
    own, down = 1 / (1 + np.exp(-4 * (times - 6))), -np.log1p(20 * times) / 20
    found = named(times, own, down)
    assert tuple(found) == NAMES
    # The fall's rate 1/(1 + 20t) meets the rise's, 4e^{4(t-6)} while it is small, near t = 4.2.
    rate = 4 * own * (1 - own) - 1 / (1 + 20 * times)
    crossing = times[np.flatnonzero(rate > 0)[0]]
    assert found["decoupling"][1] == pytest.approx(crossing, abs=0.01)
    assert found["growth"] == (found["decoupling"][1], pytest.approx(6.0, abs=0.01))
    assert found["convergence"] == (found["growth"][1], 10.0)


def test_decoupling_that_is_never_overtaken_lasts_to_the_end() -> None:
    times = recorded(10.0)
    assert named(times, 1e-3 * times, -times) == {"decoupling": (0.0, 10.0)}


def test_decoupling_past_the_fastest_growth_leaves_no_growth() -> None:
    """The target grows fastest at once, the global feature falls faster still: what follows is convergence."""
    times = np.linspace(0.0, 10.0, 2001)
    found = named(times, 1 - np.exp(-times), -3 * (1 - np.exp(-2 * times)) / 2)
    assert list(found) == ["decoupling", "convergence"]
    assert found["decoupling"][1] == pytest.approx(np.log(3), abs=0.01)  # 3 e^{-2t} = e^{-t}


def test_the_global_area_has_nothing_to_decouple_from() -> None:
    times = recorded(10.0)
    assert "decoupling" in named(times, times**2, -times)
    assert "decoupling" not in named(times, times**2, -times, is_global=True)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_records_have_no_phases(count: int) -> None:
    times = np.arange(count) * 1.0
    assert find_phases(0, times, times, -times, False) == ()


def test_a_row_that_has_not_moved_has_no_phases() -> None:
    times = np.arange(10) * 1.0
    assert find_phases(0, times, np.zeros(10), np.zeros(10), False) == ()


# --- whatever the curve -----------------------------------------------------------------------------------

steps = st.lists(st.floats(-1, 1), min_size=3, max_size=30)


@given(steps, st.data(), st.booleans())
def test_phases_follow_one_another_from_first_to_last(
    moves: list[float], data: st.DataObject, is_global: bool
) -> None:
    falls = data.draw(st.lists(st.floats(-1, 1), min_size=len(moves), max_size=len(moves)))
    gaps = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(moves), max_size=len(moves)))
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    own, down = (np.concatenate([[0.0], np.cumsum(values)]) for values in (moves, falls))
    phases = find_phases(3, times, own, down, is_global)
    if not np.any(own):
        assert phases == ()
        return
    assert all(isinstance(phase, Phase) and phase.query == 3 for phase in phases)
    order = [NAMES.index(phase.name) for phase in phases]
    assert order == sorted(set(order))
    assert phases[0].start == 0.0
    assert phases[-1].end == times[-1]
    for before, after in pairwise(phases):
        assert before.start < before.end == after.start < after.end


@given(steps, st.sampled_from([2.0**-20, 0.5, 2.0, 2.0**30]), st.floats(0.1, 10))
def test_phases_have_the_units_of_their_times(moves: list[float], unit: float, gap: float) -> None:
    """Powers of two, which change no digit of a rate."""
    times = gap * np.arange(len(moves) + 1)
    own, down = np.concatenate([[0.0], np.cumsum(moves)]), -np.sqrt(times)
    first, second = (find_phases(0, c * times, own, down, False) for c in (1.0, unit))
    assert [p.name for p in first] == [p.name for p in second]
    for one, other in zip(first, second, strict=True):
        assert (other.start, other.end) == (unit * one.start, unit * one.end)


# --- rows of the laboratory -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "query", "expected"),
    [
        ({"patches": 10**4, "global_exponent": 0.9, "local_exponent": 0.3}, "local", NAMES),
        ({"patches": 10**4, "global_exponent": 0.6, "local_exponent": 0.3}, "local", NAMES[1:]),
        ({"patches": 10**4, "global_exponent": 0.9, "local_exponent": 0.3}, "global", NAMES[1:]),
        ({"patches": 10**4, "global_exponent": 0.6, "local_exponent": 0.3}, "global", NAMES[1:]),
    ],
)
def test_the_sign_of_the_gap_shows_in_the_phases(
    world: dict[str, float], query: str, expected: tuple[str, ...]
) -> None:
    """Δ = 0.5: two phases, for a local query; Δ = -0.1: one. Convergence is what follows either."""
    run = mimlab.simulate(mimlab.World(**world), engine="mean-field", query=query)  # type: ignore[arg-type]
    phases, times = run.summary["phases"], run.trajectory["time"].to_numpy()
    assert tuple(phase["name"] for phase in phases) == expected
    assert (phases[0]["start"], phases[-1]["end"]) == (0.0, times[-1])
    half = run.summary["half_time"] or run.summary["queries"][0]["half_time"]
    growth = next(phase for phase in phases if phase["name"] == "growth")
    assert 0.5 * half < growth["end"] < 1.2 * half, "growth ends about when attention is won"


@pytest.mark.parametrize("engine", ["mean-field", "sampled"])
@pytest.mark.parametrize("stop", [0.5, 0.9, 0.99])
def test_decoupling_does_not_depend_on_where_a_run_stops(engine: str, stop: float) -> None:
    """It ends at a third of the half time or a little later (docs/derivations.md, "The end of decoupling")."""
    world = mimlab.World(patches=3000, global_exponent=0.9, local_exponent=0.3)
    run = mimlab.simulate(world, engine=engine, stop_attention=stop, draws=64)
    (end,) = (phase["end"] for phase in run.summary["phases"] if phase["name"] == "decoupling")
    assert 0.33 < end / run.summary["half_time"] < 0.40
