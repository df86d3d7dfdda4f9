"""Following the gradient of one row: exactly as the paper does, or as a flow (theory, section 4).

Both return a Path: recorded times, always with the first and the last, log-spaced in between.
Gradient descent with learning rate η is the flow's explicit Euler method; for small η it follows the flow at t = ηT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from mimlab.objectives.kernel import Evaluation

Array = np.ndarray
Progress = Callable[[float, str], None]

RECORDS = 120  # recorded states a row by time, log-spaced, and as many again by path length (flow)
FIRST_MOVE = 1e-3  # change of the fastest entry, in logits, by the first recorded time after 0
HALF = 0.5
RTOL, ATOL = 1e-6, 1e-8  # of one step; a whole run is good to about 1e-7 in time
FIRST_STEP = 0.1  # path length, in logits, of the solver's first step
LONGEST = 1e5  # path length, in logits, beyond which a row is taken not to end


class Objective(Protocol):
    """What an integrator needs of a row's objective."""

    def evaluate(self, state: Array) -> Evaluation: ...


@dataclass(frozen=True, eq=False)
class Path:
    """A row's recorded course. ``states`` (times, unknowns); ``steps`` (times,) for descent only."""

    times: Array
    states: Array
    steps: Array | None
    status: str  # "stopped", "finished", "horizon", "diverged" or "failed: ..."
    half_time: float | None


def log_spaced(first: float, end: float) -> Array:
    """0 and RECORDS log-spaced times from ``first`` (or the middle, where that is later) up to ``end``."""
    if end <= 0:
        return np.zeros(1)
    times = np.concatenate([[0.0], np.geomspace(min(first, end / 2), end, RECORDS)])
    times[-1] = end
    return times


def descend(
    objective: Objective,
    state: Array,
    learning_rate: float,
    steps: int,
    stop_attention: float,
    at: Array | None = None,
    progress: Progress | None = None,
) -> Path:
    """Q(t+1) = Q(t) - η ∇L(Q(t)) for at most ``steps`` steps. Ends early at ``stop_attention``, or "diverged" at the
    last finite state. ``at``: steps to record, the last of them the end, instead of log-spaced ones."""
    if at is None:
        at = np.unique(np.geomspace(1, steps, RECORDS).astype(int))
    else:
        steps = int(at[-1])
    wanted = {0, *at.tolist()}
    kept: list[tuple[int, Array]] = []
    half_time, before, previous, status = None, np.nan, state, "finished"
    for step in range(steps + 1):
        now = objective.evaluate(state)
        if not (_finite(now) and np.all(np.isfinite(state))):
            status = "diverged"
            step, state = max(step - 1, 0), previous
            break
        if half_time is None and now.attention_own >= HALF:
            back = 0.0 if step == 0 else (now.attention_own - HALF) / (now.attention_own - before)
            half_time = float(learning_rate * (step - back))
        if step in wanted:
            kept.append((step, state))
        if now.attention_own >= stop_attention:
            status = "stopped"
            break
        if step == steps:
            break
        before, previous = now.attention_own, state
        with np.errstate(over="ignore"):
            state = state + learning_rate * now.velocity
        if progress is not None and step % 64 == 0:
            progress(step / steps, f"descent step {step}")
    if not kept or kept[-1][0] < step:
        kept.append((step, state))
    index = np.array([s for s, _ in kept])
    return Path(learning_rate * index, np.stack([s for _, s in kept]), index, status, half_time)


def flow(
    objective: Objective,
    state: Array,
    horizon: float,
    stop_attention: float,
    at: Array | None = None,
    progress: Progress | None = None,
) -> Path:
    """dQ/dt = -∇L by SciPy's DOP853 up to ``horizon``; half attention and ``stop_attention`` are solver events.

    The solver's variable is the length of the path, ds = |dQ/dt| dt, and time a component of its state: rates span as
    many orders of magnitude as T does, and along the path they do not (docs/derivations.md, "Flow by path length").
    ``at``: times to record instead of log-spaced ones. Ends "diverged" where a value stops being finite.
    """
    from scipy.integrate import solve_ivp

    start = objective.evaluate(state)
    half_time = 0.0 if start.attention_own >= HALF else None
    if start.attention_own >= stop_attention or horizon <= 0:
        return Path(np.zeros(1), state[None, :], None, "stopped", half_time)
    if not _finite(start):
        return Path(np.zeros(1), state[None, :], None, "diverged", None)
    memo: dict[bytes, Evaluation] = {}
    lost = False  # whether the solver last saw a value that is not finite

    def evaluated(y: Array) -> Evaluation:
        key = y.tobytes()
        if key not in memo:
            if len(memo) > 8:
                memo.clear()
            memo[key] = objective.evaluate(y[:-1])
        return memo[key]

    def along(_s: float, y: Array) -> Array:
        nonlocal lost
        if progress is not None:
            progress(-1.0, f"t = {y[-1]:.3g}")
        velocity = evaluated(y).velocity
        lost = not (np.all(np.isfinite(y)) and _finite(evaluated(y)))
        speed = max(float(velocity @ velocity) ** 0.5, 1 / horizon)  # slower than that never arrives
        return np.append(velocity / speed, 1.0 / speed)

    def reached(level: float) -> Callable[[float, Array], float]:
        def event(_s: float, y: Array) -> float:
            attention = evaluated(y).attention_own  # nan where every image is hopeless
            return float(attention if attention == attention else -1.0) - level

        event.direction = 1.0  # type: ignore[attr-defined]
        return event

    def late(_s: float, y: Array) -> float:
        return float(y[-1]) / horizon - 1.0

    def broken(_s: float, y: Array) -> float:
        return 1.0 if _finite(evaluated(y)) else -1.0

    half, stop = reached(HALF), reached(stop_attention)
    for event in (stop, late, broken):
        event.terminal = True  # type: ignore[attr-defined]
    first = FIRST_MOVE / max(float(np.abs(start.velocity).max()), 1 / horizon)
    tolerance = np.append(np.full(len(state), ATOL), RTOL * first)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        solution = solve_ivp(
            along,
            (0.0, LONGEST),
            np.append(state, 0.0),
            method="DOP853",
            events=[half, stop, late, broken],
            dense_output=True,
            first_step=FIRST_STEP,
            rtol=RTOL,
            atol=tolerance,
        )
    if len(solution.t_events[0]):
        half_time = float(solution.y_events[0][0][-1])
    sound = np.flatnonzero(np.all(np.isfinite(solution.y), axis=0))[-1]
    end, status = float(solution.y[-1, sound]), _status(solution, int(sound), lost)
    if status == "stopped" and stop_attention == HALF:
        half_time = end  # two events at one time: the solver may report the terminal one alone
    return _recorded(solution.sol, solution.t[: sound + 1], end, first, half_time, status, at)


def _finite(evaluation: Evaluation) -> bool:
    return bool(np.isfinite(evaluation.loss) and np.all(np.isfinite(evaluation.velocity)))


def _status(solution: Any, sound: int, lost: bool) -> str:
    _, stop, late, broken = solution.t_events
    if len(broken) or sound < solution.y.shape[1] - 1:
        return "diverged"
    if solution.status < 0 and lost:  # ever shorter steps, each to where values are not finite
        return "diverged"
    if solution.status < 0:
        return f"failed: {solution.message}"
    return (
        "stopped"
        if len(stop)
        else "horizon"
        if len(late)
        else "failed: the row travelled too far without an end"
    )


def _recorded(
    path: Any,
    lengths: Array,
    end: float,
    first: float,
    half_time: float | None,
    status: str,
    at: Array | None,
) -> Path:
    """States read off the solver's continuous path: at the times ``at``; or else at the half time and at states
    spaced evenly both in log time and in path length, since what happens at once, such as the end of growth where P is
    large, takes a length but no time."""
    if len(lengths) == 1:
        return Path(np.zeros(1), path(lengths)[:-1].T, None, status, half_time)
    # Finer than the solver's steps, and finer still at the start, so that time is nearly linear in between.
    fine = np.concatenate([np.linspace(a, b, 9)[:-1] for a, b in pairwise(lengths)] + [lengths[-1:]])
    if fine[1] > FIRST_MOVE:
        fine = np.union1d(fine, np.geomspace(0.1 * FIRST_MOVE, fine[1], 17))
    times = np.maximum.accumulate(path(fine)[-1])
    if at is not None:
        at = at[at <= end * (1 + RTOL)]  # the end is a root, not found to the last bit
        return Path(at, path(_lengths_at(path, at, fine, times))[:-1].T, None, status, half_time)
    by_time = np.interp(log_spaced(first, end), times, fine)
    half = _lengths_at(path, np.array([half_time] if half_time else []), fine, times)
    s = np.unique(np.concatenate([by_time, np.linspace(0.0, lengths[-1], RECORDS), half]))
    y = path(s)
    recorded = np.maximum.accumulate(y[-1])
    recorded[np.isin(s, half)] = half_time
    recorded[0], recorded[-1] = 0.0, end
    later = np.append(np.diff(recorded) > 0, True)  # of states that the clock cannot tell apart, the last
    return Path(recorded[later], y[:-1, later].T, None, status, half_time)


def _lengths_at(path: Any, wanted: Array, fine: Array, times: Array) -> Array:
    """Path lengths at which the times are ``wanted``, by bracketed root finding between the ``fine`` ones."""
    from scipy.optimize import elementwise

    after = np.clip(np.searchsorted(times, wanted, side="left"), 1, len(fine) - 1)
    low, high = fine[after - 1], fine[after]
    inside = (times[after - 1] < wanted) & (wanted < times[after])
    s = np.where(wanted <= times[after - 1], low, high)
    if inside.any():
        found = elementwise.find_root(
            lambda x, t: path(x)[-1] / t - 1.0, (low[inside], high[inside]), args=(wanted[inside],)
        )
        s[inside] = found.x
    return s
