"""Claims about many local queries of photographs together (theory, section 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import atanh, isfinite, sqrt, tanh
from typing import Any

import numpy as np

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER

NORMAL = 1.96  # 95% of the normal law


@dataclass(frozen=True, eq=False)
class SurveyEvidence:
    """``queries``: a record per local query of a photograph, with `image, patches, area_size, patch_gap, first_rates`
    (initial fall of Phi_global over initial rise of Phi_own), `phi_global_at_half, attention_own` (at the end)."""

    queries: Sequence[Mapping[str, Any]]
    mask_ratio: float

    def having(self, *names: str) -> list[Mapping[str, Any]]:
        """Queries in which every named quantity was measured."""
        return [q for q in self.queries if all(q[n] is not None and isfinite(q[n]) for n in names)]


def share(successes: int, total: int, words: str) -> Measurement:
    """A share with Wilson's 95% interval."""
    if total == 0:
        return Measurement.missing("no query could be measured")
    p, z = successes / total, NORMAL
    centre, width = p + z * z / (2 * total), z * sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return Measurement(
        p, (centre - width) / scale, (centre + width) / scale, f"{successes} of {total} {words}"
    )


def rank_correlation(x: Sequence[float], y: Sequence[float], words: str) -> Measurement:
    """Spearman's rank correlation with a 95% interval by Fisher's transformation."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Measurement.missing("fewer than four queries, or all alike")
    order = np.stack([ranks(np.asarray(values, dtype=float)) for values in (x, y)])
    r = float(np.corrcoef(order)[0, 1])
    z, width = atanh(min(max(r, -0.999999), 0.999999)), NORMAL * sqrt((1 + r * r / 2) / (len(x) - 3))
    return Measurement(r, tanh(z - width), tanh(z + width), f"{words}, {len(x)} queries")


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray = (ends - (counts - 1) / 2 - 1)[inverse]
    return mean


def _phases_follow(
    boundary: Callable[[Mapping[str, Any], float], float], words: str
) -> Callable[[SurveyEvidence], Measurement]:
    def measure(evidence: SurveyEvidence) -> Measurement:
        queries = evidence.having("first_rates")
        right = sum((q["first_rates"] > 1) == (boundary(q, evidence.mask_ratio) > 1) for q in queries)
        return share(right, len(queries), words)

    return measure


def _gap_orders(evidence: SurveyEvidence) -> Measurement:
    queries = evidence.having("phi_global_at_half")
    x, y = [q["patch_gap"] for q in queries], [-q["phi_global_at_half"] for q in queries]
    return rank_correlation(x, y, "Δ_p against -Φ_global at half attention")


def _local(evidence: SurveyEvidence) -> Measurement:
    queries = evidence.having("attention_own")
    return share(
        sum(q["attention_own"] >= 0.95 for q in queries), len(queries), "queries end on their own area"
    )


_NINE_TENTHS = (
    "Nine of ten: a rule that a practitioner could rely on, and far from the half of a coin. The interval takes "
    "queries as independent, though up to three share a photograph: it is somewhat too narrow."
)

SURVEY_CLAIMS: tuple[Claim[SurveyEvidence], ...] = (
    Claim(
        "sign of the gap on photographs",
        "Whether a patch of a photograph learns in one phase or two is the sign of its Δ_p.",
        f"{PAPER}, Δ > 0 against Δ < 0; theory, section 9",
        "share of local queries with two phases exactly if Δ_p > 0",
        Threshold(low=0.9),
        _phases_follow(lambda q, ratio: q["patches"] ** q["patch_gap"], "queries go with the sign of Δ_p"),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
    Claim(
        "finite-size boundary on photographs",
        "With few patches the boundary between one phase and two is (1-γ) P^Δ_p = 1 rather than Δ_p = 0.",
        "theory, section 5 (own derivation)",
        "share of local queries with two phases exactly if (1-γ) P^Δ_p > 1",
        Threshold(low=0.9),
        _phases_follow(
            lambda q, ratio: (1 - ratio) * q["patches"] ** q["patch_gap"],
            "queries go with (1-γ) P^Δ_p against 1",
        ),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
    Claim(
        "gap orders photographs",
        "The larger the gap of a patch of a photograph, the deeper it decouples from the largest area.",
        "theory, section 9",
        "rank correlation of Δ_p with -Φ_global at half attention",
        Threshold(low=0.8),
        _gap_orders,
        "≥ 0.8",
        "The crossover is smooth at a few hundred patches, so order rather than value; 0.8 leaves room for other large "
        "areas, which are pushed down too.",
    ),
    Claim(
        "local attention on photographs",
        "On real area sizes, too, a masked patch ends up attending to its own area.",
        f"{PAPER}, attention after training",
        "share of local queries whose attention on the own area ends at 0.95 or more",
        Threshold(low=0.9),
        _local,
        "≥ 0.9",
        _NINE_TENTHS,
    ),
)
