"""Descent and flow: on objectives whose course is known, and on rows, against SciPy at tight tolerance."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mimlab
from mimlab.dynamics.enumerated import enumerated_draws
from mimlab.dynamics.integrators import Path, descend, flow, log_spaced
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.objectives.kernel import Evaluation, RowObjective
from mimlab.world.row import row_of

Array = np.ndarray
NEVER = np.inf


class Course:
    """An objective given by its velocity and attention; `seen` collects every state that was asked for."""

    def __init__(
        self,
        velocity: Callable[[Array], Array],
        attention: Callable[[Array], float] = lambda _: 0.0,
        loss: Callable[[Array], float] = lambda _: 1.0,
    ) -> None:
        self.velocity, self.attention, self.loss, self.seen = velocity, attention, loss, []

    def evaluate(self, state: Array) -> Evaluation:
        self.seen.append(state)
        return Evaluation(self.loss(state), 0.0, self.velocity(state), self.attention(state), 0.0)


ZERO = np.zeros(1)
APPROACH = Course(lambda y: 1 - y, lambda y: float(y[0]))  # y = 1 - e^{-t}, descent y = 1 - (1-η)^T
CLIMB = Course(lambda y: np.array([1.0]), lambda y: float(y[0]))  # y = t


@cache
def row_objective(engine: str, latent: mimlab.Latent, query: int, **sizes: int) -> RowObjective:
    if sizes:
        world = mimlab.World(patches=sizes["patches"], global_exponent=0.9, local_exponent=0.3, latent=latent)
    else:
        world = mimlab.World(area_sizes=(8, 4, 4), latent=latent)
    row = row_of(world.layout(), world.base.first_patch(1) if query else 0, 100)
    masked = round(0.75 * row.patches)
    draws = {"enumerated": enumerated_draws, "mean-field": mean_field_draws}[engine](row, latent, masked)
    return RowObjective(row, draws, masked / row.patches)


CONSTANT = mimlab.Latent(1.0, 1.0)
ROWS = [
    ("enumerated", mimlab.Latent(values=(0.5, 1.5)), 1),
    ("enumerated", CONSTANT, 0),
    ("mean-field", mimlab.Latent(0.5, 1.5), 1),
]


def assert_well_formed(path: Path) -> None:
    assert len(path.times) == len(path.states)
    assert path.times[0] == 0.0
    assert np.all(np.diff(path.times) > 0), "time goes forward"
    assert np.all(np.isfinite(path.states)) and np.all(np.isfinite(path.times))


# --- descent ----------------------------------------------------------------------------------------------


def test_descent_takes_the_steps_it_says() -> None:
    path = descend(APPROACH, ZERO, 0.1, 50, NEVER)
    assert_well_formed(path)
    assert path.status == "finished"
    assert path.steps is not None and path.steps[0] == 0 and path.steps[-1] == 50
    np.testing.assert_allclose(path.states[:, 0], 1 - 0.9**path.steps, rtol=0, atol=1e-14)
    assert np.array_equal(path.times, 0.1 * path.steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 200, 5000])
def test_descent_records_first_and_last_and_few_between(steps: int) -> None:
    path = descend(CLIMB, ZERO, 1e-6, steps, NEVER)
    assert_well_formed(path)
    assert path.steps is not None and path.steps.dtype.kind == "i"
    assert (path.steps[0], path.steps[-1]) == (0, steps)
    assert len(path.steps) <= min(steps, 240) + 2
    np.testing.assert_allclose(path.states[:, 0], 1e-6 * path.steps, rtol=1e-9)


def test_descent_stops_at_the_first_step_that_attends_enough() -> None:
    path = descend(APPROACH, ZERO, 0.1, 1000, 0.9)
    assert path.status == "stopped"
    assert path.steps is not None and path.steps[-1] == 22  # 0.9^22 = .0985
    assert path.states[-1, 0] >= 0.9 > 1 - 0.9**21


def test_descent_finds_half_attention_between_two_steps() -> None:
    """Linearly between step 6 (.4686) and step 7 (.5217)."""
    path = descend(APPROACH, ZERO, 0.1, 1000, 0.9)
    before, after = 1 - 0.9**6, 1 - 0.9**7
    assert path.half_time == pytest.approx(0.1 * (6 + (0.5 - before) / (after - before)), rel=1e-12)
    assert descend(APPROACH, ZERO, 0.1, 5, 0.9).half_time is None
    assert descend(CLIMB, np.array([0.7]), 0.1, 5, NEVER).half_time == 0.0


def test_descent_that_need_not_start() -> None:
    path = descend(APPROACH, np.array([0.95]), 0.1, 100, 0.9)
    assert (path.status, path.half_time, path.times.tolist()) == ("stopped", 0.0, [0.0])


def test_descent_records_the_steps_that_are_asked_for() -> None:
    path = descend(APPROACH, ZERO, 0.1, 1000, NEVER, at=np.array([0, 3, 4, 90]))
    assert path.steps is not None and path.steps.tolist() == [0, 3, 4, 90]
    np.testing.assert_allclose(path.states[:, 0], 1 - 0.9 ** np.array([0, 3, 4, 90]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("broken", ["velocity", "loss", "state"])
def test_descent_that_diverges_keeps_what_was_finite(broken: str) -> None:
    def beyond(y: Array, value: float) -> float:
        return value if y[0] > 10 else 1.0

    course = Course(
        lambda y: np.array(
            [beyond(y, np.nan) if broken == "velocity" else 1e308 if broken == "state" else 1.0]
        ),
        loss=lambda y: beyond(y, np.inf) if broken == "loss" else 1.0,
    )
    path = descend(course, ZERO, 1.0, 100, NEVER)
    assert_well_formed(path)
    assert path.status == "diverged"
    assert path.steps is not None
    assert path.steps[-1] == (1 if broken == "state" else 10)


def test_descent_that_is_broken_from_the_start() -> None:
    path = descend(Course(lambda y: np.array([np.nan])), ZERO, 1.0, 10, NEVER)
    assert (path.status, path.times.tolist(), path.states.tolist()) == ("diverged", [0.0], [[0.0]])


# --- flow -------------------------------------------------------------------------------------------------


def test_flow_follows_a_known_course() -> None:
    path = flow(APPROACH, ZERO, 5.0, NEVER)
    assert_well_formed(path)
    assert (path.status, path.steps) == ("horizon", None)
    assert path.times[-1] == pytest.approx(5.0, rel=1e-6)
    np.testing.assert_allclose(path.states[:, 0], 1 - np.exp(-path.times), rtol=0, atol=2e-6)
    assert path.half_time == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9, 0.99])
def test_flow_ends_where_attention_reaches_the_level(level: float) -> None:
    path = flow(APPROACH, ZERO, 1e6, level)
    assert_well_formed(path)
    assert path.status == "stopped"
    assert path.states[-1, 0] == pytest.approx(level, abs=1e-6)
    assert path.times[-1] == pytest.approx(-np.log(1 - level), rel=1e-5)
    if level < 0.5:
        assert path.half_time is None
    else:
        assert path.half_time == pytest.approx(np.log(2), rel=1e-5)
        half = path.states[np.searchsorted(path.times, path.half_time), 0]
        assert half == pytest.approx(0.5, abs=1e-6), "the half time is among the recorded ones"


def test_flow_to_half_attention_ends_at_the_half_time() -> None:
    path = flow(APPROACH, ZERO, 1e6, 0.5)
    assert path.half_time == path.times[-1]


def test_flow_records_the_times_that_are_asked_for() -> None:
    at = np.array([0.0, 0.25, 1.0, 3.0])
    path = flow(APPROACH, ZERO, 3.0, NEVER, at)
    assert np.array_equal(path.times, at)
    np.testing.assert_allclose(path.states[:, 0], 1 - np.exp(-at), rtol=0, atol=2e-6)


@pytest.mark.parametrize("horizon", [1e-3, 1.0, 1e9])
def test_flow_that_never_arrives_ends_at_the_horizon(horizon: float) -> None:
    path = flow(Course(lambda y: np.zeros(1)), ZERO, horizon, 0.9)
    assert_well_formed(path)
    assert (path.status, path.half_time) == ("horizon", None)
    assert path.times[-1] == pytest.approx(horizon, rel=1e-6)


def test_flow_that_need_not_start() -> None:
    path = flow(CLIMB, np.array([0.95]), 10.0, 0.9)
    assert (path.status, path.half_time, path.times.tolist()) == ("stopped", 0.0, [0.0])


def test_flow_without_an_attention_runs_to_the_horizon() -> None:
    """nan: the query's images are all hopeless."""
    path = flow(Course(lambda y: np.array([1.0]), lambda y: np.nan), ZERO, 7.0, 0.9)
    assert (path.status, path.half_time) == ("horizon", None)
    assert path.states[-1, 0] == pytest.approx(7.0, rel=1e-6)


@pytest.mark.parametrize("what", ["velocity", "loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_diverges_keeps_what_was_finite(what: str, value: float) -> None:
    def beyond(y: Array) -> float:
        return value if not y[0] <= 3 else 1.0

    course = Course(
        lambda y: np.array([beyond(y) if what == "velocity" else 1.0]),
        loss=lambda y: beyond(y) if what == "loss" else 1.0,
    )
    path = flow(course, ZERO, 100.0, NEVER)
    assert_well_formed(path)
    assert path.status == "diverged"
    assert path.states[-1, 0] == pytest.approx(3.0, abs=0.2)
    assert len(path.times) > 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_is_broken_from_the_start(value: float) -> None:
    path = flow(Course(lambda y: np.array([value])), ZERO, 10.0, NEVER)
    assert (path.status, path.times.tolist(), path.states.tolist()) == ("diverged", [0.0], [[0.0]])


def test_flow_that_the_solver_gives_up_says_so() -> None:
    """y' = 1 + y² leaves every bound at t = π/2."""
    path = flow(Course(lambda y: 1 + y * y), ZERO, 100.0, NEVER)
    assert_well_formed(path)
    assert path.status.startswith("failed: ")
    assert path.times[-1] == pytest.approx(np.pi / 2, rel=1e-3)


def test_times_are_log_spaced_from_first_to_last() -> None:
    times = log_spaced(1e-3, 10.0)
    assert (times[0], times[-1]) == (0.0, 10.0)
    assert times[1] == pytest.approx(1e-3)
    np.testing.assert_allclose(np.diff(np.log(times[1:])), np.log(1e4) / (len(times) - 2))
    assert log_spaced(1e-3, 0.0).tolist() == [0.0]
    assert np.all(np.diff(log_spaced(5.0, 1.0)) > 0)


# --- rows of the laboratory -------------------------------------------------------------------------------


def solved(objective: RowObjective, level: float, horizon: float) -> tuple[float, float, Array]:
    """Times of half attention and of the level, and the state there, by another method at tight tolerance in t."""

    def reached(value: float) -> Callable[[float, Array], float]:
        event = lambda _t, y: objective.evaluate(y).attention_own - value  # noqa: E731
        event.terminal = value == level  # type: ignore[attr-defined]
        return event

    solution = solve_ivp(
        lambda _t, y: objective.velocity(y),
        (0.0, horizon),
        np.zeros(objective.row.size),
        method="LSODA",
        rtol=1e-11,
        atol=1e-13,
        events=[reached(0.5), reached(level)],
    )
    return solution.t_events[0][0], solution.t_events[1][0], solution.y_events[1][0]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_flow_of_a_row_is_right_to_its_tolerance(row: tuple[str, mimlab.Latent, int]) -> None:
    objective = row_objective(*row)
    half, end, state = solved(objective, 0.9, 1e5)
    path = flow(objective, np.zeros(objective.row.size), 1e7, 0.9)
    assert_well_formed(path)
    assert path.status == "stopped"
    assert path.half_time == pytest.approx(half, rel=1e-5)
    assert path.times[-1] == pytest.approx(end, rel=1e-5)
    np.testing.assert_allclose(path.states[-1], state, rtol=0, atol=1e-5)
    at_half = path.states[np.searchsorted(path.times, path.half_time)]
    assert objective.evaluate(at_half).attention_own == pytest.approx(0.5, abs=1e-6)
    assert objective.evaluate(path.states[-1]).attention_own == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("power", [4, 8, 12])
def test_half_and_stop_are_states_of_their_attention_at_any_size(power: int) -> None:
    """At P = 10^12 attention goes from a tenth to nine tenths within a millionth of the time that it took."""
    objective = row_objective("mean-field", CONSTANT, 1, patches=10**power)
    start = np.zeros(objective.row.size)
    path = flow(objective, start, 1e9 * 10**power, 0.99)
    assert_well_formed(path)
    assert path.half_time is not None
    attention = objective.evaluate(path.states).attention_own
    at_half = int(np.searchsorted(path.times, path.half_time))
    assert path.times[at_half] == path.half_time
    assert attention[at_half] == pytest.approx(0.5, abs=1e-6)
    assert attention[-1] == pytest.approx(0.99, abs=1e-6)
    # From half to A takes ∫ dA / (γ A² (1-A)³), 6944 for A = .99, less 1/C_a of it (docs, "The final stage").
    own = float(objective.row.cell_size[0]) + 1
    assert path.times[-1] - path.half_time == pytest.approx(6944 * (1 - 1 / own), rel=0.01)
    short = flow(objective, start, 1e9 * 10**power, 0.5)
    assert short.half_time == short.times[-1] == pytest.approx(path.half_time, rel=1e-6)
    np.testing.assert_allclose(short.states[-1], path.states[at_half], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_descent_approaches_the_flow(row: tuple[str, mimlab.Latent, int]) -> None:
    """Explicit Euler: the distance at one time is halved with the learning rate."""
    objective = row_objective(*row)
    start, time = np.zeros(objective.row.size), 60.0
    exact = flow(objective, start, time, NEVER).states[-1]
    off = [
        np.abs(descend(objective, start, time / n, n, NEVER).states[-1] - exact).max()
        for n in (100, 200, 400)
    ]
    assert 1.7 < off[0] / off[1] < 2.3
    assert 1.7 < off[1] / off[2] < 2.3


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_position_correlations_sum_to_nothing_all_along(row: tuple[str, mimlab.Latent, int]) -> None:
    objective = row_objective(*row)
    start = np.zeros(objective.row.size)
    for path in (flow(objective, start, 1e6, 0.99), descend(objective, start, 1.0, 300, 0.99)):
        Upsilon = path.states[:, len(objective.row.phi_tied) :]
        np.testing.assert_allclose(Upsilon @ objective.row.upsilon_tied, 0.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_loss_falls_all_along_the_flow(row: tuple[str, mimlab.Latent, int]) -> None:
    objective = row_objective(*row)
    path = flow(objective, np.zeros(objective.row.size), 1e6, 0.99)
    assert np.all(np.diff(objective.evaluate(path.states).loss) <= 1e-12)


@pytest.mark.parametrize("rate", [1e3, 1e6, 1e100, 1e298])
@pytest.mark.parametrize("engine", ["enumerated", "mean-field", "sampled"])
def test_absurd_learning_rates_end_in_finite_numbers(engine: str, rate: float) -> None:
    """Softmax saturates, so that a leap of 10^298 comes to rest; what does not must say so."""
    latent = mimlab.Latent(values=(0.5, 1.5)) if engine == "enumerated" else mimlab.Latent(0.5, 1.5)
    world = mimlab.World(
        area_sizes=(12, 4, 4, 4) if engine == "enumerated" else (60, *[3] * 60), latent=latent
    )
    run = mimlab.simulate(
        world, engine=engine, integrator="descent", learning_rate=rate, steps=30, draws=64, stop_attention=1.0
    )
    assert run.summary["status"] in ("finished", "diverged")
    for name in ("time", "loss", "phi_own", "phi_global", "upsilon_max"):
        assert np.all(np.isfinite(run.trajectory[name].to_numpy()))
    assert np.all(np.isfinite(run.correlations["value"].to_numpy()))
