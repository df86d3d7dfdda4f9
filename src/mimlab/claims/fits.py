"""Straight-line fits with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGMAS = 2.365  # 95% of Student's t with 7 degrees of freedom: standard errors come from 8 replicates


@dataclass(frozen=True)
class Line:
    """A least-squares slope with its 95% interval (Student's t; the points' own scatter about the line), and where the
    line meets x = 0, with half the width of that value's interval."""

    slope: float
    low: float
    high: float
    points: int
    at_zero: float
    at_zero_width: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Fit y = a + slope x; None with fewer than three points or a single x."""
    from scipy.special import stdtrit

    u, v = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(u) & np.isfinite(v)
    u, v = u[keep], v[keep]
    if len(u) < 3 or np.ptp(u) == 0:
        return None
    du = u - u.mean()
    slope = float(du @ v / (du @ du))
    residual = v - v.mean() - slope * du
    scatter = float(stdtrit(len(u) - 2, 0.975)) * float(np.sqrt(residual @ residual / (len(u) - 2)))
    width = scatter / float(np.sqrt(du @ du))
    at_zero = float(v.mean() - slope * u.mean())
    at_zero_width = scatter * float(np.sqrt(1 / len(u) + u.mean() ** 2 / (du @ du)))
    return Line(slope, slope - width, slope + width, len(u), at_zero, at_zero_width)
