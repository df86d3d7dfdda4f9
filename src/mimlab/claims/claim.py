"""What a claim is, and how a measurement with an interval becomes a verdict.

A verdict is never read off a point: "holds" needs the whole interval inside the threshold's band, "fails" the whole
interval outside, anything else is "inconclusive". What could not be measured is inconclusive too, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Generic, TypeVar

Evidence = TypeVar("Evidence")


@dataclass(frozen=True)
class Measurement:
    """A value with its 95% interval; ``value`` None where it could not be taken. ``evidence``: a sentence."""

    value: float | None
    low: float | None
    high: float | None
    evidence: str

    @staticmethod
    def missing(why: str) -> Measurement:
        """A measurement that could not be taken."""
        return Measurement(None, None, None, why)


@dataclass(frozen=True)
class Threshold:
    """The band [low, high] in which the claim holds; why it is there stands in the claim."""

    low: float = -inf
    high: float = inf

    def verdict(self, measurement: Measurement) -> str:
        """ "holds", "fails" or "inconclusive"."""
        low, high = measurement.low, measurement.high
        if low is None or high is None or not (isfinite(low) and isfinite(high)):
            return "inconclusive"
        if self.low <= low and high <= self.high:
            return "holds"
        if high < self.low or low > self.high:
            return "fails"
        return "inconclusive"

    def __str__(self) -> str:
        if self.low == -inf:
            return f"≤ {self.high:.4g}"
        if self.high == inf:
            return f"≥ {self.low:.4g}"
        return f"in [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Claim(Generic[Evidence]):
    """A statement that tables can bear out or not.

    ``measure`` returns None where the claim does not speak of the evidence. A threshold that depends on the evidence
    (a predicted exponent, the paper's range) is a function of it; ``rule`` then says in words what it is.
    """

    name: str
    statement: str
    source: str
    quantity: str
    threshold: Threshold | Callable[[Evidence], Threshold]
    measure: Callable[[Evidence], Measurement | None]
    rule: str
    reason: str

    def judge(self, evidence: Evidence) -> Verdict | None:
        """The verdict on this evidence; None where the claim does not speak of it."""
        measurement = self.measure(evidence)
        if measurement is None:
            return None
        threshold = self.threshold if isinstance(self.threshold, Threshold) else self.threshold(evidence)
        return Verdict(self, measurement, threshold, threshold.verdict(measurement))


@dataclass(frozen=True)
class Verdict:
    """A claim, judged."""

    claim: Claim[Any]
    measurement: Measurement
    threshold: Threshold
    verdict: str
    query: int | None = None  # the row that it speaks of, where it speaks of one

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as summary.json holds it."""
        return {
            "claim": self.claim.name,
            "query": self.query,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "quantity": self.claim.quantity,
            "value": self.measurement.value,
            "low": self.measurement.low,
            "high": self.measurement.high,
            "threshold": str(self.threshold),
            "reason": self.claim.reason,
            "verdict": self.verdict,
            "evidence": self.measurement.evidence,
        }
