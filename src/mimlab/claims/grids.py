"""Claims about many worlds together: where one phase ends and two begin, and which area decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from mimlab.claims.claim import Claim, Measurement, Threshold
from mimlab.claims.rows import PAPER
from mimlab.claims.surveys import share

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class GridEvidence:
    """``runs``: a record per local query of a world, with `patches, mask_ratio, area_size`, and either `patch_gap` and
    `first_rates` (initial fall of Phi_global over initial rise of Phi_own), or, where which area is the largest is in
    question, `global_size, largest_size` (of the areas but the own one) and `largest_rates` (the fastest fall of any
    over the rise of the own)."""

    runs: Sequence[Record]

    def having(self, *names: str) -> list[Record]:
        """Runs in which every named quantity was measured."""
        return [r for r in self.runs if all(r.get(n) is not None and isfinite(r[n]) for n in names)]


def finite_size(run: Record, size: float) -> float:
    """(1-γ) C²/(P C_a): the first fall of an area of C patches over the first rise of the own, to leading order."""
    return float((1 - run["mask_ratio"]) * (size / run["patches"]) * (size / run["area_size"]))


def _agree(
    needed: tuple[str, ...], right: Callable[[Record], bool], words: str
) -> Callable[[GridEvidence], Measurement | None]:
    def measure(evidence: GridEvidence) -> Measurement | None:
        runs = evidence.having(*needed)
        return share(sum(map(right, runs)), len(runs), words) if runs else None

    return measure


def _by_size(run: Record) -> bool:
    """Whether (1-γ) P^Δ_p says two phases."""
    return bool((1 - run["mask_ratio"]) * run["patches"] ** run["patch_gap"] > 1)


def _where_rules_differ(evidence: GridEvidence) -> Measurement | None:
    runs = evidence.having(*_GAP)
    differ = [r for r in runs if _by_size(r) != (r["patch_gap"] > 0)]
    if not runs:
        return None
    right = sum((r["first_rates"] > 1) == _by_size(r) for r in differ)
    return share(right, len(differ), "worlds in which the two rules differ go with (1-γ) P^Δ_p")


_GAP = ("patch_gap", "first_rates")
_SIZES = ("global_size", "largest_size", "largest_rates")
_NINE_TENTHS = (
    "Nine of ten, as on photographs. The interval takes the worlds of a grid as independent draws of such worlds; it "
    "speaks of that grid, for a grid far from the boundary is easy."
)

GRID_CLAIMS: tuple[Claim[GridEvidence], ...] = (
    Claim(
        "sign of the gap over worlds",
        "Whether a local patch learns in one phase or two is the sign of Δ_p.",
        f"{PAPER}, Δ > 0 against Δ < 0",
        "share of worlds with two phases exactly if Δ_p > 0",
        Threshold(low=0.9),
        _agree(
            _GAP, lambda r: (r["first_rates"] > 1) == (r["patch_gap"] > 0), "worlds go with the sign of Δ_p"
        ),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
    Claim(
        "finite-size boundary over worlds",
        "At finite P the boundary between one phase and two is (1-γ) P^Δ_p = 1.",
        "derivations, section 'Decoupling at the start'",
        "share of worlds with two phases exactly if (1-γ) P^Δ_p > 1",
        Threshold(low=0.9),
        _agree(
            _GAP,
            lambda r: (r["first_rates"] > 1) == _by_size(r),
            "worlds go with (1-γ) P^Δ_p against 1",
        ),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
    Claim(
        "boundary where the two rules differ",
        "Where Δ_p > 0 but (1-γ) P^Δ_p < 1, or the reverse, it is the second that tells one phase from two.",
        "derivations, section 'Decoupling at the start'",
        "share, of the worlds in which the two rules differ, that go with (1-γ) P^Δ_p",
        Threshold(low=0.9),
        _where_rules_differ,
        "≥ 0.9",
        "Nine of ten, as on photographs; worlds in which the rules agree say nothing of which is right.",
    ),
    Claim(
        "largest area decides the phases",
        "There are two phases exactly if (1-γ)C²/(P C_a) > 1 for the largest area C besides the own one, whatever its "
        "number.",
        "own derivation: the loss does not know which area is called global",
        "share of worlds with two phases exactly if (1-γ)C_max²/(P C_a) > 1",
        Threshold(low=0.9),
        _agree(
            _SIZES,
            lambda r: (r["largest_rates"] > 1) == (finite_size(r, r["largest_size"]) > 1),
            "worlds go with the size of the largest other area",
        ),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
    Claim(
        "area 0 decides the phases",
        "There are two phases exactly if (1-γ)C_0²/(P C_a) > 1 for area 0, the one that is called global.",
        f"{PAPER}, read to the letter where the global area is not the largest",
        "share of worlds with two phases exactly if (1-γ)C_0²/(P C_a) > 1",
        Threshold(low=0.9),
        _agree(
            _SIZES,
            lambda r: (r["largest_rates"] > 1) == (finite_size(r, r["global_size"]) > 1),
            "worlds go with the size of area 0",
        ),
        "≥ 0.9",
        _NINE_TENTHS,
    ),
)
