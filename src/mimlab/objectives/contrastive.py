"""Contrastive learning of two masked views (theory, section 6): the objective and its mask."""

from __future__ import annotations

from dataclasses import dataclass

from mimlab.objectives.masked import checked_ratio, masked_patches
from mimlab.runs.checks import finite_number, whole_number
from mimlab.runs.errors import InputError


@dataclass(frozen=True)
class ContrastiveLearning:
    """Tell two masked views of one image from views of others, by the mean output of all rows.

    Parameters
    ----------
    mask_ratio
        γ, strictly between 0 and 1; each view masks round(mask_ratio * P) patches of its own.
    negatives
        n, images that a view is told from.
    temperature
        τ of the softmax over similarities.
    regulariser
        λ >= 0; half of it times ‖Q‖² is added to the loss.
    name
        Name of the objective: "contrastive".

    Raises InputError for numbers out of range, or where another objective is named.

    >>> ContrastiveLearning(mask_ratio=0.5).masked(196)
    98
    """

    mask_ratio: float = 0.5
    negatives: int = 4
    temperature: float = 1.0
    regulariser: float = 0.0
    name: str = "contrastive"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask_ratio", checked_ratio(self.mask_ratio))
        for name in ("temperature", "regulariser"):
            object.__setattr__(self, name, finite_number(f"objective.{name}", getattr(self, name)))
        object.__setattr__(self, "negatives", whole_number("objective.negatives", self.negatives))
        if self.temperature <= 0:
            raise InputError(f"objective: temperature = {self.temperature} must be positive.")
        if self.regulariser < 0:
            raise InputError(f"objective: regulariser = {self.regulariser} must be at least 0.")
        if self.name != "contrastive":
            raise InputError(f"objective: name = {self.name!r} is not known here; it is 'contrastive'.")

    def masked(self, patches: int) -> int:
        """Number of masked patches of a view. Raises InputError where that is none or all of them."""
        return masked_patches(self.mask_ratio, patches)
