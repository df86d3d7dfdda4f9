"""Two objectives on one encoder: L = (1 - w) L_first + w L_second, each on its own views of the same crops."""

from __future__ import annotations

from torch import Generator, Tensor

from mimlab.training.crops import Batch
from mimlab.training.objectives.base import Objective


class Pair(Objective):
    """first, second: objectives on the same encoder. weight: w, of the second."""

    def __init__(self, first: Objective, second: Objective, weight: float) -> None:
        if first.encoder is not second.encoder:
            raise ValueError("a pair has one encoder")
        super().__init__(first.encoder)
        self.first, self.second, self.weight = first, second, weight

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        one, other = self.first.loss(batch, generator), self.second.loss(batch, generator)
        total = {"loss": (1 - self.weight) * one["loss"] + self.weight * other["loss"]}
        parts = {f"{name}_first": value.detach() for name, value in one.items()}
        return total | parts | {f"{name}_second": value.detach() for name, value in other.items()}

    def after_step(self, progress: float) -> None:
        self.first.after_step(progress)
        self.second.after_step(progress)
