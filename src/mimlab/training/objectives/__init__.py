"""What is learned from images: masked, contrastive, self-distilled and supervised objectives, and weighted pairs.

Each is an `Objective`: an encoder of transformers', whatever heads it needs, and a loss of a batch. All that is drawn
for a loss comes from the generator that is given, all that is learned is in the `state_dict`, so that a run can be
cut off and go on.
"""

from mimlab.training.objectives.base import Objective
from mimlab.training.objectives.build import build_objective

__all__ = ["Objective", "build_objective"]
