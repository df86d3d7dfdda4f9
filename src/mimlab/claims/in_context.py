"""Claims about one row that learns to copy (docs/in-context.md)."""

from __future__ import annotations

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.fits import SIGMAS
from mimlab.claims.rows import ROW_CLAIMS, RowEvidence

LEARNED = 0.95
"""Attention on the own area from where on a row has learned to copy."""


def _by_position(row: RowEvidence) -> Measurement | None:
    attention, width = row.final("attention_own")
    value, error = row.summary["pp_share"], row.summary["pp_share_se"]
    if not attention >= LEARNED:
        return Measurement.missing(
            f"it was not learned: attention on the own area ended at {attention:.3g}, below {LEARNED}"
        )
    if value is None or error is None:
        return Measurement.missing("the logits are 0, or their shares' error is not known")
    words = f"PP {value:.3g}, FP {row.summary['fp_share']:.3g}; attention on the own area {attention:.3f} ± {width:.2g}"
    return Measurement(value, value - SIGMAS * error, value + SIGMAS * error, words)


COPYING_CLAIMS: tuple[Claim[RowEvidence], ...] = (
    Claim(
        "copying goes by position",
        "Where a patch shows what its area showed elsewhere in the image, and that is drawn anew in every image, "
        "attention is learned by position.",
        "docs/in-context.md (own derivation): FP/PP ≈ (γ/2V)² (γ/2)(1-γ/2) P for pairs",
        "PP share of the logits' variance, FP and PP together, at attention ≥ 0.95",
        Threshold(low=0.9),
        _by_position,
        "≥ 0.9",
        "Nearly all: the formula gives above 0.99 for a dozen tokens and more, and features tied to areas give at most "
        "a half. A run that has not learned to copy says nothing.",
    ),
)
IN_CONTEXT_CLAIMS = (
    *(claim for claim in ROW_CLAIMS if claim.name in ("convergence", "area-wide attention")),
    *COPYING_CLAIMS,
)
"""What is judged of a run: of the claims about masked reconstruction those that mean the same here."""
