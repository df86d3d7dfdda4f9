"""Claims about how tight the bounds on times are, and what a half-attention time is made of (docs/rates.md)."""

from __future__ import annotations

from math import exp

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.points import PointsEvidence, over_patches, slope_of, when


def _beside_the_equation(evidence: PointsEvidence) -> Measurement:
    line = evidence.line("half_time", "reduced_half_time")
    if line is None:
        return Measurement.missing("fewer than three runs have a half-attention time")
    alone, foretold = evidence.line("half_time"), evidence.line("reduced_half_time")
    assert alone is not None and foretold is not None
    words = f"over {line.points} runs T_half has slope {alone.slope:.3f}, the equation's {foretold.slope:.3f}"
    return Measurement(line.slope, line.low, line.high, words)


def _constant(evidence: PointsEvidence) -> Measurement:
    line = evidence.constant()
    if line is None:
        return Measurement.missing("fewer than three runs have a half-attention time")
    ends = [
        p["half_time"] / p["leading_half_time"] for p in evidence.having("half_time", "leading_half_time")
    ]
    words = f"T_half / (I K P/(γ(1-γ)C_a)) goes from {ends[0]:.3g} to {ends[-1]:.3g} over {line.points} runs"
    low, value, high = (exp(line.at_zero + side * line.at_zero_width) for side in (-1, 0, 1))
    return Measurement(value, low, high, words)


def _near_bound(evidence: PointsEvidence) -> Threshold:
    assert evidence.bound is not None
    return Threshold(low=evidence.bound - 0.05)


def _solved(evidence: PointsEvidence) -> bool:
    """Whether the equation for half attention was solved for these runs."""
    return over_patches(True)(evidence) and any(
        p.get("reduced_half_time") is not None for p in evidence.points
    )


RATE_CLAIMS: tuple[Claim[PointsEvidence], ...] = (
    Claim(
        "tightness of the paper's bound",
        "The paper's bound on the exponent of a local patch's half-attention time is reached.",
        "a question of this project; no source says that it is",
        "slope of log T_half in log P",
        _near_bound,
        when(
            lambda e: over_patches(True)(e) and e.bound is not None,
            slope_of("half_time", "the half-attention time"),
        ),
        "≥ max{2(U/L-1), 1}(1-κs) - 0.05",
        "The tolerance of the other exponents.",
    ),
    Claim(
        "half time beside the equation",
        "How the half-attention time of a local patch grows follows from its own feature alone, for any latents.",
        "derivations, section 'Half attention for any law of latents'",
        "slope of log (T_half / T of the equation) in log P",
        Threshold(low=-0.05, high=0.05),
        when(_solved, _beside_the_equation),
        "in [-0.05, 0.05]",
        "The tolerance of the other exponents.",
    ),
    Claim(
        "constant of local half time",
        "The half-attention time of a local patch tends to I K P/(γ(1-γ)C_a), I = ∫ dΦ/E[z³e^{zΦ}], for any latents.",
        "derivations, section 'Half attention for any law of latents'",
        "T_half / (I K P/(γ(1-γ)C_a)) for P → ∞, fitted with a term in 1/log P",
        Threshold(low=0.8, high=1.25),
        when(_solved, _constant),
        "in [0.8, 1.25]",
        "A quarter either way: a fit over eight decades says nothing finer of a limit, and what is left out may fall "
        "as slowly as P^(κc-1).",
    ),
)
