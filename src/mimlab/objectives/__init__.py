"""What is learned: loss, closed-form gradient and attention of one lumped row (theory, section 3)."""

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.in_context import InContextLearning
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.objectives.weighted import WeightedSum

__all__ = ["ContrastiveLearning", "InContextLearning", "MaskedReconstruction", "WeightedSum"]
