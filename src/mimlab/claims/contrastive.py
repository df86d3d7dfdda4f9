"""Claims about rows that are trained to tell images apart (theory, section 6): one run, and series of runs."""

from __future__ import annotations

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.points import PointsEvidence, slope_of, when
from mimlab.claims.rows import PAPER, RowEvidence

LEFT = 0.05
"""Attention on the own area that counts as none."""


def _ends_at(column: str, row: RowEvidence, words: str) -> Measurement:
    value, width = row.final(column)
    start = float(row.columns[column][0])
    told = (
        f"attention on {words}: {start:.3g} at the start, {value:.4g} at time {row.columns['time'][-1]:.3g}"
    )
    return Measurement(value, value - width, value + width, told)


def _global(row: RowEvidence) -> Measurement | None:
    return _ends_at("attention_global", row, "the global area")


def _own(row: RowEvidence) -> Measurement | None:
    if not row.is_local or float(row.columns["attention_own"][0]) <= LEFT:  # nothing to lose
        return None
    return _ends_at("attention_own", row, "the own area")


CONTRASTIVE_CLAIMS: tuple[Claim[RowEvidence], ...] = (
    Claim(
        "contrastive global attention",
        "With the contrastive objective a row ends up attending to the global area, whatever the sign of Δ.",
        f"{PAPER}, contrastive learning (its ICLR 2025 version); theory, section 6",
        "attention on the global area at the end",
        Threshold(low=0.9),
        _global,
        "≥ 0.9",
        "Nearly all; a row that shares its attention between two areas, as where the contrast is lost, stays below. "
        "A run is judged as far as it went.",
    ),
    Claim(
        "contrastive training leaves the own area",
        "With the contrastive objective a row does not learn the feature of its own area.",
        f"{PAPER}, contrastive learning (its ICLR 2025 version); theory, section 6",
        "attention on the own area at the end",
        Threshold(high=LEFT),
        _own,
        "≤ 0.05",
        "The masked objective ends above 0.95 in the same worlds: its mirror image. Nothing is said where attention "
        "begins at the threshold or below.",
    ),
)

DERIVED = "docs/contrastive.md, 'The time it takes' (own derivation)"
_HALF = slope_of("half_time", "the half-attention time")


def _around_prediction(evidence: PointsEvidence) -> Threshold:
    assert evidence.predicted is not None
    return Threshold(evidence.predicted - 0.1, evidence.predicted + 0.1)


CONTRASTIVE_SERIES_CLAIMS: tuple[Claim[PointsEvidence], ...] = (
    Claim(
        "exponent of contrastive half time",
        "From Q = 0 the time until half of the attention lies on the global area grows as P^(3-2κc).",
        DERIVED,
        "slope of log T_half in log P",
        _around_prediction,
        when(
            lambda e: e.axis == "patches" and e.objective == "contrastive" and e.predicted is not None,
            _HALF,
        ),
        "within 0.1 of 3-2κc",
        "Two decades of P, where corrections of the relative order (C_1/P)² still show; exponents that differ by 0.1 "
        "differ by a factor of 1.6 in time there.",
    ),
    Claim(
        "number of negatives",
        "One negative is enough, and n of them shorten contrastive learning as (n+1)/n: more halve its time at most.",
        DERIVED,
        "slope of log T_half in log((n+1)/n)",
        Threshold(low=0.8, high=1.2),
        when(lambda e: e.axis == "negatives", _HALF),
        "in [0.8, 1.2]",
        "A power of 1 to a fifth: from one negative to many the time halves, give or take a seventh. Derived for "
        "similarities that are small beside τ.",
    ),
)
