"""The phases of a row, read off its trajectory (theory, section 5): no time is assumed, no threshold set.

With rates of change along the recorded course,
decoupling  -- from the start, while Phi_global falls faster than Phi_own grows;
growth      -- then, while the growth of Phi_own accelerates;
convergence -- from the fastest growth of Phi_own on: attention is won and the rate falls.
A phase that does not occur is not listed: a row of a world with Δ < 0, or of the global area, has no decoupling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Phase:
    """A phase of one row, in units of learning rate x steps."""

    query: int
    name: str
    start: float
    end: float


def find_phases(
    query: int, times: Array, phi_own: Array, phi_global: Array, is_global: bool
) -> tuple[Phase, ...]:
    """Phases of a row from its recorded times, shape (times,), ascending; none where it has not moved.

    ``is_global``: the query lies in the global area, which has nothing to decouple from.
    """
    if len(times) < 3 or not np.any(phi_own != phi_own[0]):
        return ()
    middle = 0.5 * (times[1:] + times[:-1])
    rate_own = np.diff(phi_own) / np.diff(times)
    rate_down = -np.diff(phi_global) / np.diff(times)
    end_decoupling = 0.0
    if not is_global and rate_down[0] > rate_own[0]:
        caught = np.flatnonzero(rate_down <= rate_own)
        end_decoupling = (
            _crossing(middle, rate_own - rate_down, int(caught[0])) if len(caught) else float(times[-1])
        )
    peak = int(np.argmax(rate_own))
    fastest = 0.0 if peak == 0 else float(times[-1]) if peak == len(middle) - 1 else float(middle[peak])
    bounds = [0.0, end_decoupling, max(fastest, end_decoupling), float(times[-1])]
    names = ("decoupling", "growth", "convergence")
    return tuple(
        Phase(query, name, start, end)
        for name, start, end in zip(names, bounds[:-1], bounds[1:], strict=True)
        if end > start
    )


def _crossing(times: Array, values: Array, after: int) -> float:
    """Where ``values`` crosses 0 between positions after-1 and after, linearly."""
    before = after - 1
    share = -values[before] / (values[after] - values[before])
    return float(times[before] + share * (times[after] - times[before]))
