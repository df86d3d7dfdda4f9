"""Claims about one row that is trained to tell images apart (theory, section 6)."""

from __future__ import annotations

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER, RowEvidence


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
    return _ends_at("attention_own", row, "the own area") if row.is_local else None


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
        Threshold(high=0.05),
        _own,
        "≤ 0.05",
        "The masked objective ends above 0.95 in the same worlds: its mirror image.",
    ),
)
