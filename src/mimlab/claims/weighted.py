"""Claims about a ladder of runs that weigh the contrastive objective ever more against the masked one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite, nan, sqrt
from typing import Any

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.fits import SIGMAS

NEARLY_ALL = 0.9
"""Attention on an area from which a row is said to be on it."""
_OWN_SIDE, _GLOBAL_SIDE = "attention_own", "attention_global"


@dataclass(frozen=True, eq=False)
class LadderEvidence:
    """A local row at the end of runs that differ in w. ``rungs``: a record per run, w ascending and above 0, with
    `contrastive_weight`, `attention_own`, `attention_global` and their `_se`; ``half_times``: of the masked and of the
    contrastive objective alone, None where never; ``balance``: the w that own derivation has for equal shares."""

    rungs: Sequence[Mapping[str, Any]]
    half_times: tuple[float | None, float | None]
    balance: float

    def weights(self, column: str, there: bool) -> list[float]:
        """The w whose row surely is, or surely is not, on an area."""
        return [rung["contrastive_weight"] for rung in self.rungs if _is_on(rung, column) is there]

    @property
    def last_own(self) -> float | None:
        """The largest w up to which every row surely is on its own area."""
        return _unbroken(self.rungs, _OWN_SIDE)

    @property
    def first_global(self) -> float | None:
        """The smallest w from which every row surely is on the global area."""
        return _unbroken(self.rungs[::-1], _GLOBAL_SIDE)


def balance(patches: int, global_size: int, mask_ratio: float, clusters: int, negatives: int) -> float:
    """The w at which a local row shares its attention equally: 2γP / ((1 + s) c), s = C_1/P, c = (1 - 1/K) n/(n + 1)
    (docs/contrastive.md); infinite for a single cluster.

    >>> round(balance(1000, 501, 0.5, 4, 4))
    1110
    """
    contrast = (1 - 1 / clusters) * negatives / (negatives + 1)
    return 2 * mask_ratio * patches / ((1 + global_size / patches) * contrast) if contrast else float("inf")


def _is_on(rung: Mapping[str, Any], column: str) -> bool | None:
    """Whether the row is on an area at the end of a run; None where its 95% interval does not tell."""
    return _exceeds(rung[column], SIGMAS * _error(rung, column), NEARLY_ALL)


def _leads(rung: Mapping[str, Any]) -> bool | None:
    """Whether the global area has more of the attention than the own one; None where that is not sure."""
    width = SIGMAS * (_error(rung, _GLOBAL_SIDE) + _error(rung, _OWN_SIDE))
    return _exceeds(rung[_GLOBAL_SIDE] - rung[_OWN_SIDE], width, 0.0)


def _error(rung: Mapping[str, Any], column: str) -> float:
    error = rung[f"{column}_se"]
    return nan if error is None else float(error)


def _exceeds(value: float, width: float, level: float) -> bool | None:
    return True if value - width >= level else False if value + width < level else None


def _unbroken(rungs: Sequence[Mapping[str, Any]], column: str) -> float | None:
    there = list(takewhile(lambda rung: _is_on(rung, column) is True, rungs))
    return there[-1]["contrastive_weight"] if there else None


def _ends(evidence: LadderEvidence) -> tuple[float, float] | str:
    own, everywhere = evidence.last_own, evidence.first_global
    if own is None:
        return "no row is on its own area at the foot of the ladder"
    if everywhere is None:
        return "no row is on the global area at the top of the ladder"
    return own, everywhere


def _width(evidence: LadderEvidence) -> Measurement:
    ends = _ends(evidence)
    if isinstance(ends, str):
        return Measurement.missing(ends)
    own, everywhere = ends
    first = min(evidence.weights(_OWN_SIDE, False), default=everywhere)
    last = max(evidence.weights(_GLOBAL_SIDE, False), default=own)
    low, high = max(last / first, 1.0), everywhere / own
    words = f"on its own area up to w = {own:.4g}, on the global one from w = {everywhere:.4g}"
    return Measurement(sqrt(low * high), low, high, words)


def _place(evidence: LadderEvidence) -> Measurement:
    ends = _ends(evidence)
    if isinstance(ends, str):
        return Measurement.missing(ends)
    masked, contrastive = evidence.half_times
    if masked is None or contrastive is None:
        return Measurement.missing("one of the objectives alone never reaches half attention")
    ratio, (own, everywhere) = contrastive / masked, ends
    words = (
        f"between w = {own:.4g} and {everywhere:.4g}; the half times, {contrastive:.4g} and {masked:.4g}, "
    )
    words += f"have the ratio {ratio:.4g}"
    return Measurement(sqrt(own * everywhere) / ratio, own / ratio, everywhere / ratio, words)


def _shared(evidence: LadderEvidence) -> Measurement:
    below = list(takewhile(lambda rung: _leads(rung) is False, evidence.rungs))
    above = list(takewhile(lambda rung: _leads(rung) is True, evidence.rungs[::-1]))
    if not (below and above and isfinite(evidence.balance)):
        return Measurement.missing(
            "the ladder has no weights on either side of equal shares, or theory has no such"
        )
    last, first = below[-1], above[-1]
    low, high = (rung["contrastive_weight"] / evidence.balance for rung in (last, first))
    behind, ahead = (rung[_GLOBAL_SIDE] - rung[_OWN_SIDE] for rung in (last, first))
    value = low * (high / low) ** (behind / (behind - ahead))
    words = (
        f"equal shares at about w = {value * evidence.balance:.4g}, own derivation: {evidence.balance:.4g}"
    )
    return Measurement(value, low, high, words)


LADDER_CLAIMS: tuple[Claim[LadderEvidence], ...] = (
    Claim(
        "the weighted sum tips over",
        "As the contrastive objective gains weight, a local row goes from its own area to the global one at once.",
        "the question that prediction C5 leaves open; C6 expects otherwise",
        "smallest w on the global area over largest w on the own area (0.9 of the attention)",
        Threshold(high=2.0),
        _width,
        "≤ 2",
        "Between neighbouring weights of a ladder in factors of 2 there is room for no mixture.",
    ),
    Claim(
        "where the weighted sum tips over",
        "The weight at which a local row changes sides is the ratio of the two objectives' own half times.",
        "prediction C5",
        "the weight between both sides over T_half contrastive / T_half masked",
        Threshold(low=0.33, high=3.0),
        _place,
        "in [0.33, 3]",
        "The half times are leading-order estimates; a factor of 3 either way.",
    ),
    Claim(
        "balance of the weighted sum",
        "A local row shares its attention equally where the two objectives' pulls balance: w = 2γP/((1+s)c).",
        "prediction C6 (own derivation)",
        "the weight of equal shares over 2γP/((1+s)c)",
        Threshold(low=0.5, high=2.0),
        _shared,
        "in [0.5, 2]",
        "Derived for z = 1, two areas and similarities small beside τ; a factor of 2 for all three.",
    ),
)
