"""Runs in turns, so that all ways meet the same machine; ratios within a turn, their median and its interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import comb
from typing import Any

import numpy as np


def in_turns(
    ways: Mapping[str, Callable[[], object]], turns: Mapping[str, int], seed: int
) -> dict[str, dict[str, list[float]]]:
    """Wall and processor seconds of each way in its first ``turns[way]`` turns; the order in a turn is drawn."""
    order = np.random.default_rng(seed)
    taken: dict[str, dict[str, list[float]]] = {way: {"seconds": [], "cpu_seconds": []} for way in ways}
    for turn in range(max(turns.values())):
        names = [way for way in ways if turn < turns[way]]
        for way in order.permutation(names).tolist():
            began, busy = time.perf_counter(), time.process_time()
            ways[way]()
            taken[way]["seconds"].append(time.perf_counter() - began)
            taken[way]["cpu_seconds"].append(time.process_time() - busy)
    return taken


def ratio_of(taken: Mapping[str, Mapping[str, Sequence[float]]], way: str, base: str) -> dict[str, Any]:
    """Median of the ratios of wall seconds, turn by turn, and its interval."""
    ratios = [
        one / other for one, other in zip(taken[way]["seconds"], taken[base]["seconds"], strict=False)
    ]  # some ways sit later turns out
    low, high, confidence = median_interval(ratios)
    return {"median": float(np.median(ratios)), "low": low, "high": high, "confidence": confidence}


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest symmetric pair of order statistics that holds the median with 95% confidence, and its confidence.

    Below six values no pair does: then the smallest and the largest, with the confidence that they have.

    >>> median_interval([1, 2, 3, 4, 5, 6])
    (1.0, 6.0, 0.96875)
    """
    ordered, n = sorted(values), len(values)

    def confidence(cut: int) -> float:  # values left out at each end
        return 1 - 2 * sum(comb(n, k) for k in range(cut + 1)) / 2**n

    cut = max((cut for cut in range(n // 2) if confidence(cut) >= 0.95), default=0)
    return float(ordered[cut]), float(ordered[n - 1 - cut]), confidence(cut)
