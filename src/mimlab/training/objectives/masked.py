"""Masked image modeling: hidden patches are reconstructed from the visible ones, and only those count.

    L = mean over masked patches p and their D = patch_size² · 3 values d of (prediction_pd - target_pd)²

`SimMIM` (Xie et al. 2022): the encoder sees all patches, hidden ones as a mask token, and a linear layer predicts.
That is the theory's own setting (section 2). `MAE` (He et al. 2022): the encoder sees the visible patches alone, a
decoder sees mask tokens too; transformers' ViTMAEForPreTraining does the work.

Pixels are standardised by channel. SimMIM's paper takes the absolute error; here both take the square, as the theory
and MAE do. With `norm_pixels` the target is standardised within each patch, mean and variance (divided by D - 1, with
1e-6 added) over its D values, so that losses with and without it cannot be compared.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from mimlab.training.config import NetworkConfig
from mimlab.training.crops import Batch
from mimlab.training.masks import block_masks, masked_count, ordered_noise, patches_of, random_masks
from mimlab.training.networks import build_mae, linear
from mimlab.training.objectives.base import Objective


class Masked(Objective):
    """What the two have in common: views, masks, targets and the loss.

    mask_ratio: share of the patches that are hidden, rounded to a number of patches. mask: "random" or "block".
    """

    def __init__(
        self,
        encoder: Any,
        network: NetworkConfig,
        mask_ratio: float,
        mask: str = "random",
        norm_pixels: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.patch_size, self.grid = network.patch_size, network.grid
        self.masked = masked_count(network.grid**2, mask_ratio)
        self.draw_masks = {"random": random_masks, "block": block_masks}[mask]
        self.norm_pixels = norm_pixels

    @abstractmethod
    def predict(self, pixel_values: Tensor, masks: Tensor) -> Tensor:
        """Predicted values of all patches, (B, patches, D)."""

    def masks(self, batch: int, generator: Generator) -> Tensor:
        """(batch, patches) bool, true where hidden, the same number in each row."""
        return self.draw_masks(batch, self.grid, self.masked, generator)

    def target(self, pixel_values: Tensor) -> Tensor:
        """What is to be predicted, (B, patches, D)."""
        patches = patches_of(pixel_values, self.patch_size)
        if not self.norm_pixels:
            return patches
        variance, mean = torch.var_mean(patches, -1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def reconstruct(self, pixel_values: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Target and prediction, each (B, patches, D), for `masks` as `self.masks` draws them."""
        return self.target(pixel_values), self.predict(pixel_values, masks)

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        pixels = self.plain_view(batch, generator)
        masks = self.masks(len(pixels), generator).to(pixels.device)
        return {"loss": masked_error(*self.reconstruct(pixels, masks), masks)}


class SimMIM(Masked):
    """Mask tokens in the encoder and a linear head."""

    def __init__(self, encoder: Any, network: NetworkConfig, *options: Any) -> None:
        super().__init__(encoder, network, *options)
        self.head = linear(network.width, 3 * network.patch_size**2)

    def predict(self, pixel_values: Tensor, masks: Tensor) -> Tensor:
        hidden = self.encoder(pixel_values, bool_masked_pos=masks).last_hidden_state
        predicted: Tensor = self.head(hidden[:, 1:])
        return predicted


class MAE(Masked):
    """Visible patches alone in the encoder; mask tokens in a decoder.

    mae: transformers' model around the encoder, whose parameters it shares. seed: of the decoder's weights.
    """

    def __init__(
        self,
        encoder: Any,
        network: NetworkConfig,
        mask_ratio: float,
        *options: Any,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, network, mask_ratio, *options)
        self.mae = build_mae(network, encoder, mask_ratio, self.norm_pixels, seed)

    def predict(self, pixel_values: Tensor, masks: Tensor) -> Tensor:
        predicted: Tensor = self.mae(pixel_values, noise=ordered_noise(masks)).logits
        return predicted


def masked_error(target: Tensor, predicted: Tensor, masks: Tensor) -> Tensor:
    """Mean squared error over the masked patches, in float32 or better.

    >>> target, predicted = torch.zeros(1, 2, 3), torch.tensor([[[1.0] * 3, [9.0] * 3]])
    >>> masked_error(target, predicted, torch.tensor([[True, False]]))
    tensor(1.)
    """
    wide = torch.promote_types(predicted.dtype, torch.float32)
    error = (predicted.to(wide) - target).square().mean(-1)
    return (error * masks).sum() / masks.sum()
