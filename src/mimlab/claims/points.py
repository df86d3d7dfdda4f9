"""Claims about a series of runs: how times and correlations scale with P or with the area size (theory, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.fits import Line, fit_line
from mimlab.claims.rows import PAPER


@dataclass(frozen=True, eq=False)
class PointsEvidence:
    """Runs that differ in one thing. ``points``: a record per run (columns of points.parquet); ``axis``: what differs,
    "patches", "area_size" or "negatives"; ``is_local``: of which queries; exponents, latent range and the objective's
    name as configured."""

    points: Sequence[Mapping[str, Any]]
    axis: str
    is_local: bool
    global_exponent: float | None
    local_exponent: float | None
    latent: tuple[float, float]
    objective: str = "masked"

    @property
    def masked(self) -> bool:
        """Whether the theory of masked reconstruction speaks of these runs."""
        return self.objective == "masked"

    def line(self, quantity: str, beside: str | None = None) -> Line | None:
        """Log-log fit of a quantity, or of its ratio to the one ``beside``, against P, against C_a - 1 where area sizes
        differ, or against (n+1)/n where the numbers of negatives do."""
        chosen = self.having(quantity, *([beside] if beside else []))
        ratios = [p[quantity] / (p[beside] if beside else 1) for p in chosen]
        return fit_line([log(self._along(p)) for p in chosen], [log(ratio) for ratio in ratios])

    def _along(self, point: Mapping[str, Any]) -> float:
        if self.axis == "patches":
            return float(point["patches"])
        return float(point["area_size"] - 1) if self.axis == "area_size" else 1 + 1 / point["negatives"]

    def having(self, *quantities: str) -> list[Mapping[str, Any]]:
        """Runs in which every quantity was measured, and is positive."""
        return [p for p in self.points if all(p.get(q) is not None and p[q] > 0 for q in quantities)]

    def constant(self) -> Line | None:
        """Log of the half-attention time over I K P/(γ(1-γ)C_a), fitted by 1 and 1/log P: ``at_zero`` is the log of the
        constant for P → ∞."""
        chosen = self.having("half_time", "leading_half_time")
        return fit_line(
            [1 / log(p["patches"]) for p in chosen],
            [log(p["half_time"] / p["leading_half_time"]) for p in chosen],
        )

    def over_area(self) -> Line | None:
        """Log-log fit of the half-attention time against P/C_a, whose exponent is 1: sizes are whole numbers of
        patches, so that C_a only follows P^κs."""
        chosen = self.having("half_time")
        return fit_line(
            [log(p["patches"] / p["area_size"]) for p in chosen], [log(p["half_time"]) for p in chosen]
        )

    @property
    def predicted(self) -> float | None:
        """Exponent of the half-attention time in P: 1-κs for a local query, 1-κc for a global one; with the contrastive
        objective 3-2κc for both (docs/contrastive.md)."""
        if self.objective == "contrastive":
            return None if self.global_exponent is None else 3 - 2 * self.global_exponent
        kappa = self.local_exponent if self.is_local else self.global_exponent
        return None if kappa is None or not self.masked else 1 - kappa

    @property
    def bound(self) -> float | None:
        """The paper's upper bound on that exponent: max{2(U/L-1), 1} times it."""
        low, high = self.latent
        if self.predicted is None or low == 0 or self.objective != "masked":
            return None
        return max(2 * (high / low - 1), 1.0) * self.predicted


def exponents(evidence: PointsEvidence) -> list[dict[str, Any]]:
    """The fitted exponents in P, as summary.json lists them."""
    found = []
    for quantity in ("half_time", "final_stage"):
        line = evidence.line(quantity)
        if line is not None:
            found.append(
                {
                    "quantity": quantity,
                    "slope": line.slope,
                    "low": line.low,
                    "high": line.high,
                    "bound": evidence.bound if quantity == "half_time" else None,
                    "predicted": evidence.predicted
                    if quantity == "half_time"
                    else 0.0
                    if evidence.masked
                    else None,
                }
            )
    return found


def slope_of(quantity: str, what: str) -> Callable[[PointsEvidence], Measurement]:
    """The exponent of a quantity; ``what``: the quantity in words."""

    def measure(evidence: PointsEvidence) -> Measurement:
        line = evidence.line(quantity)
        if line is None:
            return Measurement.missing(f"fewer than three runs have {what}")
        words = f"log-log slope of {what} over {line.points} runs"
        return Measurement(line.slope, line.low, line.high, words)

    return measure


def when(
    applies: Callable[[PointsEvidence], bool], measure: Callable[[PointsEvidence], Measurement]
) -> Callable[[PointsEvidence], Measurement | None]:
    """A measurement that is taken only of evidence that it applies to."""
    return lambda evidence: measure(evidence) if applies(evidence) else None


def over_patches(is_local: bool) -> Callable[[PointsEvidence], bool]:
    """Whether runs of masked reconstruction over P are spoken of."""
    return lambda e: e.masked and e.axis == "patches" and e.is_local == is_local and e.predicted is not None


def _has_final_stage(evidence: PointsEvidence) -> bool:
    speaks = evidence.axis == "patches" and evidence.masked
    return speaks and any(p.get("final_stage") is not None for p in evidence.points)


def _around_prediction(evidence: PointsEvidence) -> Threshold:
    assert evidence.predicted is not None
    return Threshold(evidence.predicted - 0.05, evidence.predicted + 0.05)


def _below_bound(evidence: PointsEvidence) -> Threshold:
    assert evidence.bound is not None
    return Threshold(high=evidence.bound + 0.05)


_HALF = slope_of("half_time", "the half-attention time")
_FINAL = slope_of("final_stage", "the time from half attention to the stop")
_RATIO = slope_of("upsilon_over_phi", "largest |Υ| / Φ_own")
_TWENTIETH = (
    "Exponents that differ by 0.05 differ by a factor of 2.5 in time over the eight decades of P; finite-P "
)
_TWENTIETH += "corrections are of the order 1/log P of that."

POINT_CLAIMS: tuple[Claim[PointsEvidence], ...] = (
    Claim(
        "exponent of local half time",
        "The half-attention time of a local patch grows as P^(1-κs).",
        "theory, section 5 (own derivation and measurement)",
        "slope of log T_half in log P",
        _around_prediction,
        when(over_patches(True), _HALF),
        "within 0.05 of 1-κs",
        _TWENTIETH,
    ),
    Claim(
        "paper's bound on local half time",
        "The half-attention time of a local patch grows no faster than P^(max{2(U/L-1), 1}(1-κs)).",
        f"{PAPER}, local areas: training time",
        "slope of log T_half in log P",
        _below_bound,
        when(lambda e: over_patches(True)(e) and e.bound is not None, _HALF),
        "≤ max{2(U/L-1), 1}(1-κs) + 0.05",
        "An upper bound up to logarithms, which can add a few hundredths to a slope over eight decades.",
    ),
    Claim(
        "exponent of global half time",
        "The half-attention time of a global patch grows as P^(1-κc).",
        "theory, section 5 (own measurement)",
        "slope of log T_half in log P",
        _around_prediction,
        when(over_patches(False), _HALF),
        "within 0.05 of 1-κc",
        _TWENTIETH,
    ),
    Claim(
        "exponent of the final stage",
        "From half attention on, what is left takes a time that does not grow with P.",
        "derivations, section 'The final stage': dA/dt ≈ γ A² (1-A)³ for z = 1, in which P is not",
        "slope of log (T_stop - T_half) in log P",
        Threshold(low=-0.05, high=0.05),
        when(_has_final_stage, _FINAL),
        "in [-0.05, 0.05]",
        _TWENTIETH,
    ),
    Claim(
        "position correlations shrink with P",
        "Beside what is learned of features, position correlations shrink as images grow.",
        f"{PAPER}, PP correlations are o(1) in P; theory, section 5: Υ/Φ ≈ 1/(C_a - 1)",
        "slope of log (largest |Υ| / Φ_own) in log P",
        lambda e: Threshold(high=-0.5 * (e.local_exponent or 0.0)),
        when(lambda e: over_patches(True)(e) and bool(e.local_exponent), _RATIO),
        "≤ -κs/2",
        "Theory has -κs; half of it is a decay that cannot be mistaken for a constant.",
    ),
    Claim(
        "position correlations shrink with area size",
        "Position correlations are small only where own areas are large: Υ/Φ ≈ 1/(C_a - 1).",
        "theory, section 5 (constant latents; own derivation)",
        "slope of log (largest |Υ| / Φ_own) in log (C_a - 1)",
        Threshold(low=-1.15, high=-0.85),
        when(lambda e: e.axis == "area_size", _RATIO),
        "in [-1.15, -0.85]",
        "A power of -1 to 15%: an estimate that neglects other areas of size C_a, which add terms of relative order "
        "C_a/P and of hopeless images.",
    ),
)
