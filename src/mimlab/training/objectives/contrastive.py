"""Contrastive learning: two views of one image are to be told from those of the other images in the forward pass.

`SimCLR` (Chen et al. 2020), with z the 2B normalised projections of CLS, p(i) the other view of i's image:

    L = mean_i -log( exp(z_i·z_p(i)/τ) / Σ_{k≠i} exp(z_i·z_k/τ) )

`MoCoV3` (Chen, Xie and He 2021), with queries q from encoder, projector and predictor, keys k without gradient from a
slow copy of encoder and projector, each of either view, normalised:

    L = ctr(q₁, k₂) + ctr(q₂, k₁),   ctr(q, k) = -2τ mean_i log( exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ) )

Both take SimCLR's views, where MoCo v3 treats its two slightly differently and solarises some; and the patch
projection is trained, which MoCo v3 leaves at random for the sake of large batches.

What would mislead: losses of different batch sizes. The negatives are those of one forward pass in one process, so
accumulation makes no more of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from mimlab.training.crops import Batch
from mimlab.training.networks import follow, frozen_copy, perceptron
from mimlab.training.objectives.base import Objective, cosines, momentum_at

SCALE = (0.15, 1.0)
"""Share of a crop's area in a view."""


class SimCLR(Objective):
    """A projector of two layers on CLS, and the normalised temperature-scaled cross-entropy."""

    def __init__(self, encoder: Any, temperature: float = 0.2, size: int = 128) -> None:
        super().__init__(encoder)
        width = encoder.config.hidden_size
        self.temperature = temperature
        self.projector = perceptron((width, 4 * width, size), last_norm=True)

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        pair = torch.cat(_two_views(self, batch, generator))  # one pass, one batch norm
        one, other = self.projector(self.describe(pair)).chunk(2)
        return _with_accuracy(*nt_xent(one, other, self.temperature))


class MoCoV3(Objective):
    """A slow copy of encoder and projector gives the keys.

    momentum: of the slow copy at the start; it rises to 1.
    """

    def __init__(
        self, encoder: Any, temperature: float = 0.2, momentum: float = 0.99, size: int = 256
    ) -> None:
        super().__init__(encoder)
        width = encoder.config.hidden_size
        self.temperature, self.momentum = temperature, momentum
        self.projector = perceptron((width, 4 * width, 4 * width, size), last_norm=True)
        self.predictor = perceptron((size, 4 * width, size), last_norm=True)
        self.slow_encoder, self.slow_projector = frozen_copy(encoder), frozen_copy(self.projector)

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        pair = _two_views(self, batch, generator)
        queries = [self.predictor(self.projector(self.describe(view))) for view in pair]
        with torch.no_grad():
            keys = [self.keys(view) for view in pair]
        first, found = info_nce(queries[0], keys[1], self.temperature)
        second, also = info_nce(queries[1], keys[0], self.temperature)
        return _with_accuracy(first + second, torch.cat([found, also]))

    def keys(self, view: Tensor) -> Tensor:
        """The slow copy's projections of a view."""
        hidden = self.slow_encoder(view).last_hidden_state
        keys: Tensor = self.slow_projector(hidden[:, 0])
        return keys

    def after_step(self, progress: float) -> None:
        momentum = momentum_at(self.momentum, progress)
        follow(self.slow_encoder, self.encoder, momentum)
        follow(self.slow_projector, self.projector, momentum)


def _two_views(objective: Objective, batch: Batch, generator: Generator) -> list[Tensor]:
    return [objective.strong_view(batch, objective.image_size, generator, SCALE) for _ in range(2)]


def _with_accuracy(loss: Tensor, found: Tensor) -> dict[str, Tensor]:
    """top1: share of the views whose partner is the most similar."""
    return {"loss": loss, "top1": found.float().mean()}


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """SimCLR's loss of two views (B, size) each, and of all 2B whether the partner is the most similar."""
    every = torch.cat([one, other])
    logits = cosines(every, every) / temperature
    logits = logits.masked_fill(torch.eye(len(every), dtype=torch.bool, device=every.device), -torch.inf)
    partner = torch.arange(len(every), device=every.device).roll(len(one))
    return cross_entropy(logits, partner), logits.argmax(-1) == partner


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """MoCo v3's ctr of (B, size) each, key i being query i's, and of each whether its key is the most similar."""
    logits = cosines(queries, keys) / temperature
    own = torch.arange(len(queries), device=queries.device)
    return 2 * temperature * cross_entropy(logits, own), logits.argmax(-1) == own
