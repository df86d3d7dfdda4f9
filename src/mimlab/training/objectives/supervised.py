"""Labels: which folder an image lies in, or which photograph a crop is from; cross-entropy of a linear layer on CLS."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from mimlab.training.crops import Batch
from mimlab.training.networks import linear
from mimlab.training.objectives.base import Objective


class Supervised(Objective):
    """classes: how many labels there are."""

    def __init__(self, encoder: Any, classes: int) -> None:
        super().__init__(encoder)
        self.head = linear(encoder.config.hidden_size, classes)

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        pixels = self.plain_view(batch, generator)
        logits = self.head(self.describe(pixels)).float()
        right = logits.argmax(-1) == batch.labels
        return {"loss": cross_entropy(logits, batch.labels), "accuracy": right.float().mean()}
