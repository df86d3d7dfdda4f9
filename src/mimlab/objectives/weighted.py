"""A weighted sum of the masked and the contrastive objective (theory, sections 3 and 6): L = Σ_p L_p + w L_cl."""

from __future__ import annotations

from dataclasses import dataclass

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs.checks import finite_number
from mimlab.runs.errors import InputError


@dataclass(frozen=True)
class WeightedSum:
    """Reconstruct masked patches and tell images apart: the masked loss of all rows and w times the contrastive one.

    Parameters
    ----------
    mask_ratio
        γ, strictly between 0 and 1; of both parts.
    contrastive_weight
        w >= 0, of the contrastive loss; the masked loss, summed over all P rows, has weight 1.
    negatives
        n, images that a view is told from.
    temperature
        τ of the softmax over similarities.
    regulariser
        λ >= 0 of the contrastive loss: w λ/2 times ‖Q‖² is added to the whole.
    name
        Name of the objective: "weighted".

    Raises InputError for numbers out of range, or where another objective is named.

    >>> WeightedSum(contrastive_weight=100).contrastive.negatives
    4
    """

    mask_ratio: float = 0.5
    contrastive_weight: float = 1.0
    negatives: int = 4
    temperature: float = 1.0
    regulariser: float = 0.0
    name: str = "weighted"

    def __post_init__(self) -> None:
        part = self.contrastive  # checks what it takes
        for name in ("mask_ratio", "negatives", "temperature", "regulariser"):
            object.__setattr__(self, name, getattr(part, name))
        weight = finite_number("objective.contrastive_weight", self.contrastive_weight)
        object.__setattr__(self, "contrastive_weight", weight)
        if weight < 0:
            raise InputError(f"objective: contrastive_weight = {weight} must be at least 0.")
        if self.name != "weighted":
            raise InputError(f"objective: name = {self.name!r} is not known here; it is 'weighted'.")

    @property
    def masked_part(self) -> MaskedReconstruction:
        """The objective that has weight 1."""
        return MaskedReconstruction(self.mask_ratio)

    @property
    def contrastive(self) -> ContrastiveLearning:
        """The objective that has weight w."""
        return ContrastiveLearning(self.mask_ratio, self.negatives, self.temperature, self.regulariser)

    def masked(self, patches: int) -> int:
        """Number of masked patches of an image or view. Raises InputError where that is none or all of them."""
        return self.masked_part.masked(patches)
