"""Following the gradient of one row: exactly as the paper does, or as a flow (theory, section 4).

Both return a Path: recorded times, always with the first and the last, log-spaced in between.
Gradient descent with learning rate η is the flow's explicit Euler method; for small η it follows the flow at t = ηT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mimlab.objectives.kernel import Evaluation

Array = np.ndarray
Progress = Callable[[float, str], None]

RECORDS = 240  # recorded times a row
FIRST_MOVE = 1e-3  # change of the fastest entry, in logits, by the first recorded time after 0
HALF = 0.5
RTOL, ATOL = 1e-6, 1e-9  # the flow is not stiff: every rate decays as the state moves


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
        if not (np.isfinite(now.loss) and np.all(np.isfinite(now.velocity))):
            status = "diverged"
            step, state = max(step - 1, 0), previous
            break
        if half_time is None and now.attention_own >= HALF:
            back = 0.0 if step == 0 else (now.attention_own - HALF) / (now.attention_own - before)
            half_time = learning_rate * (step - back)
        if step in wanted:
            kept.append((step, state))
        if now.attention_own >= stop_attention:
            status = "stopped"
            break
        if step == steps:
            break
        before, previous = now.attention_own, state
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
    """dQ/dt = -∇L by SciPy's RK45 up to ``horizon``; half attention and ``stop_attention`` are solver events.

    ``at``: times to record instead of log-spaced ones. Ends "diverged" where a value stops being finite.
    """
    from scipy.integrate import solve_ivp

    memo: dict[bytes, Evaluation] = {}

    def evaluated(y: Array) -> Evaluation:
        key = y.tobytes()
        if key not in memo:
            if len(memo) > 8:
                memo.clear()
            memo[key] = objective.evaluate(y)
        return memo[key]

    def velocity(t: float, y: Array) -> Array:
        if progress is not None:
            progress(-1.0, f"t = {t:.3g}")
        return evaluated(y).velocity

    def reached(level: float) -> Callable[[float, Array], float]:
        def event(_t: float, y: Array) -> float:
            attention = evaluated(y).attention_own  # nan where every image is hopeless
            return (attention if attention == attention else -1.0) - level

        event.direction = 1.0  # type: ignore[attr-defined]
        return event

    half, stop = reached(HALF), reached(stop_attention)

    def broken(_t: float, y: Array) -> float:
        now = evaluated(y)
        return 1.0 if np.isfinite(now.loss) and np.all(np.isfinite(now.velocity)) else -1.0

    stop.terminal = True  # type: ignore[attr-defined]
    broken.terminal = True  # type: ignore[attr-defined]
    start = objective.evaluate(state)
    if start.attention_own >= stop_attention or horizon <= 0:
        return Path(
            np.zeros(1), state[None, :], None, "stopped", 0.0 if start.attention_own >= HALF else None
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        solution = solve_ivp(
            velocity,
            (0.0, horizon),
            state,
            method="RK45",
            events=[half, stop, broken],
            dense_output=True,
            rtol=RTOL,
            atol=ATOL,
        )
    half_time = 0.0 if start.attention_own >= HALF else None
    if len(solution.t_events[0]):
        half_time = float(solution.t_events[0][0])
    end = float(solution.t[-1])
    if len(solution.t_events[2]) or not np.all(np.isfinite(solution.y)):
        status = "diverged"
        end = float(solution.t[np.all(np.isfinite(solution.y), axis=0)][-1])
    elif solution.status < 0:
        status = f"failed: {solution.message}"
    else:
        status = "stopped" if solution.status == 1 else "horizon"
    if status == "stopped" and stop_attention == HALF:
        half_time = end  # two events at one time: the solver may report the terminal one alone
    first = FIRST_MOVE / max(float(np.abs(start.velocity).max()), 1e-300)
    times = log_spaced(first, end) if at is None else at[at <= end]
    if at is None and half_time:
        times = np.unique(np.append(times, half_time))
    return Path(
        times, solution.sol(times).T if end > 0 else np.tile(state, (len(times), 1)), None, status, half_time
    )
