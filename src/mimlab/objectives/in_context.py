"""The in-context copy task: masked reconstruction where what an area shows is drawn anew in every image."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from mimlab.runs.checks import finite_number, whole_number
from mimlab.runs.errors import InputError


@dataclass(frozen=True)
class InContextLearning:
    """Copy what an area shows from where it was seen in the same image (docs/in-context.md).

    Every area shows one token of a vocabulary that all areas share. Its first patch is the context and is never masked;
    of the other patches, the copies, round(mask_ratio * copies) are masked, uniformly, and reconstructed.

    Parameters
    ----------
    mask_ratio
        γ, in (0, 1]; here of the copies.
    vocabulary
        V, how many tokens there are, each with a feature of its own.
    in_weights
        Probability that an area shows a token of its own, the same in all images (area j: token j mod V), which weights
        can store; else it is drawn uniformly. 0: nothing to store. 1: what masked reconstruction learns from.
    name
        Name of the objective: "in-context".

    Raises InputError for numbers out of range, or where another objective is named.

    >>> InContextLearning(mask_ratio=0.5).masked(patches=64, areas=32)
    16
    """

    mask_ratio: float = 0.75
    vocabulary: int = 16
    in_weights: float = 0.0
    name: str = "in-context"

    def __post_init__(self) -> None:
        for name in ("mask_ratio", "in_weights"):
            object.__setattr__(self, name, finite_number(f"objective.{name}", getattr(self, name)))
        object.__setattr__(self, "vocabulary", whole_number("objective.vocabulary", self.vocabulary))
        if not 0 < self.mask_ratio <= 1:
            raise InputError(f"objective: mask_ratio = {self.mask_ratio} must lie in (0, 1].")
        if not 0 <= self.in_weights <= 1:
            raise InputError(f"objective: in_weights = {self.in_weights} must lie in [0, 1].")
        if self.name != "in-context":
            raise InputError(f"objective: name = {self.name!r} is not known here; it is 'in-context'.")

    def masked(self, patches: int, areas: int) -> int:
        """Number of masked patches of so many areas. Raises InputError where that is none."""
        copies = patches - areas
        masked = round(self.mask_ratio * copies)
        if masked < 1:
            raise InputError(
                f"objective: mask_ratio = {self.mask_ratio} masks none of {copies} copies (patches that are not the "
                "first of their area); raise it, or give areas of two patches and more."
            )
        return masked

    def query_masked(self, patches: int, areas: int) -> float:
        """P(p in M) of a copy: γ as realised."""
        return self.masked(patches, areas) / (patches - areas)


def copying_half_time(patches: int, ratio: float) -> float:
    """(P + 3 log P + 3/2)/γ: when a copy attends half to its source, at z = 1 and a large vocabulary; γ as realised.

    The integral of dA/dt = γA²(1-A)³ from 1/P to 1/2 (docs/in-context.md). It does not depend on the area's size.
    """
    return (patches + 3 * log(patches) + 1.5) / ratio
