"""What the loop, the watching and the evaluation ask of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import cos, pi
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from mimlab.training import views
from mimlab.training.crops import Batch


class Objective(nn.Module, ABC):  # type: ignore[misc]
    """A loss on images, and the encoder that it trains.

    encoder: transformers' ViTModel, which takes standardised pixel_values (B, 3, image_size, image_size).
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size: int = encoder.config.image_size

    @abstractmethod
    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Scalars of a batch of crops: "loss", which is minimised, and others without gradient, for the log."""

    def forward(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return self.loss(batch, generator)

    def after_step(self, progress: float) -> None:
        """After each step of the optimizer; progress: the share of the run that is done, in (0, 1]."""

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the networks inside, each where it is called."""
        for part in self.children():
            part.compile(*args, **options)

    def prepare(self, pixels: Tensor) -> Tensor:
        """pixel_values of crops (B, 3, S, S) in [0, 1]: their middle, standardised; nothing is drawn."""
        return views.standardise(views.centre(pixels, self.image_size))

    def plain_view(self, batch: Batch, generator: Generator) -> Tensor:
        """pixel_values (B, 3, image_size, image_size) of a batch: cut and mirrored at random; rendered images as they
        are."""
        if batch.rendered:
            return views.standardise(batch.pixels)
        return views.standardise(views.plain(batch.pixels, self.image_size, generator))

    def strong_view(
        self, batch: Batch, side: int, generator: Generator, scale: tuple[float, float]
    ) -> Tensor:
        """pixel_values (B, 3, side, side) of a batch, augmented; of rendered images whole copies with half of their
        patches hidden, the views of theory, section 6."""
        if batch.rendered:
            return views.hidden(views.standardise(batch.pixels), self.encoder.config.patch_size, generator)
        return views.standardise(views.strong(batch.pixels, side, generator, scale))

    def describe(self, pixel_values: Tensor, **options: Any) -> Tensor:
        """The encoder's output for CLS: (B, width)."""
        hidden: Tensor = self.encoder(pixel_values, **options).last_hidden_state
        return hidden[:, 0]


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each of (m, size) with each of (n, size): (m, n), in float32 or better whatever autocast says, since
    low temperatures magnify what rounding leaves."""
    wide = torch.promote_types(one.dtype, torch.float32)
    with torch.autocast(one.device.type, enabled=False):
        return normalize(one.to(wide), dim=-1) @ normalize(other.to(wide), dim=-1).T


def momentum_at(start: float, progress: float) -> float:
    """The momentum of a slow copy, from `start` to 1 along half a cosine, as in BYOL, MoCo v3 and DINO.

    >>> momentum_at(0.99, 0.0), momentum_at(0.99, 1.0)
    (0.99, 1.0)
    """
    return 1 - (1 - start) * (1 + cos(pi * progress)) / 2
