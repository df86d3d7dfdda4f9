"""ViT-B/16 with random weights, and the ways to have its attention statistics: by mimlab, and as users do today.

Today's two ways run the unfused ("eager") model, which makes every table of weights. One returns them all
(`output_attentions=True`) and computes the statistics afterwards, the other computes them in forward hooks and keeps no
table. Both compute the nine statistics of `core` with whole-tensor operations on the float32 weights, no pair of
queries taken on its own; their table of distances is made before the clock starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

import mimlab

PATCH = 16
Statistics = dict[str, Tensor]
"""(images, layers, heads) by name."""


@dataclass(frozen=True)
class Case:
    """Square images of so many pixels a side, so many at once, and a ViT of so many layers."""

    pixels: int
    images: int
    layers: int
    width: int = 768
    heads: int = 12

    @property
    def tokens(self) -> int:
        """The patches and CLS."""
        return (self.pixels // PATCH) ** 2 + 1


@dataclass
class Network:
    """The fused and the unfused model, of equal weights, and the images they are given."""

    case: Case
    seed: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @cached_property
    def pixels(self) -> Tensor:
        """Random images."""
        case = self.case
        drawn = torch.Generator().manual_seed(self.seed)
        images = torch.randn(case.images, 3, case.pixels, case.pixels, generator=drawn)
        return images.to(self.device, self.dtype)

    @cached_property
    def fused(self) -> nn.Module:
        """Under "sdpa"."""
        return self._model("sdpa")

    @cached_property
    def unfused(self) -> nn.Module:
        """Under "eager"."""
        return self._model("eager")

    @cached_property
    def distances(self) -> Tensor:
        """Between patches, in pixels: (patches, patches)."""
        side = self.case.pixels // PATCH
        places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double() * PATCH
        return torch.cdist(places, places).to(self.device, torch.float32)

    def _model(self, attention: str) -> nn.Module:
        case = self.case
        config = ViTConfig(
            image_size=case.pixels,
            patch_size=PATCH,
            hidden_size=case.width,
            num_hidden_layers=case.layers,
            num_attention_heads=case.heads,
            intermediate_size=4 * case.width,
        )
        torch.manual_seed(self.seed)
        model = ViTModel._from_config(config, attn_implementation=attention)
        return model.eval().to(self.device, self.dtype)

    def way(self, name: str) -> Callable[[], Statistics]:
        """One forward pass: "plain", "eager", "hooks", or a statistic set and a method, as "core, tiles"."""
        if name in ("eager", "hooks"):
            _ = self.unfused, self.distances
            return self._eager if name == "eager" else self._hooks
        _ = self.fused, self.pixels
        return self._plain if name == "plain" else lambda: self._captured(*name.split(", "))

    @torch.inference_mode()
    def _plain(self) -> Statistics:
        self.fused(self.pixels)
        return {}

    @torch.inference_mode()
    def _captured(self, statistics: str, method: str) -> Statistics:
        with mimlab.capture(self.fused, statistics, method=method) as capture:
            self.fused(self.pixels)
        return {name: torch.from_numpy(capture[name]) for name in capture.statistics}

    @torch.inference_mode()
    def _eager(self) -> Statistics:
        weights = self.unfused(self.pixels, output_attentions=True).attentions
        return _by_layer([statistics_of(table, self.distances) for table in weights])

    @torch.inference_mode()
    def _hooks(self) -> Statistics:
        found: list[Statistics] = []

        def hook(module: nn.Module, given: Any, output: tuple[Tensor, Tensor]) -> None:
            found.append(statistics_of(output[1], self.distances))

        modules = [part for name, part in self.unfused.named_modules() if name.endswith(".attention")]
        handles = [module.register_forward_hook(hook) for module in modules]
        try:
            self.unfused(self.pixels)
        finally:
            for handle in handles:
                handle.remove()
        return _by_layer(found)


def statistics_of(weights: Tensor, distances: Tensor) -> Statistics:
    """The statistics of `core` of whole tables of weights (B, H, n, n), CLS first; each (B, H)."""
    weights = weights.float()
    a = weights[..., 1:, 1:]
    a = a / a.sum(-1, keepdim=True)
    N = a.shape[-1]
    mean = a.mean(-2)
    entropy = -torch.xlogy(a, a).sum(-1).mean(-1)
    mean_row_entropy = -torch.xlogy(mean, mean).sum(-1)
    information = mean_row_entropy - entropy
    norms = a.norm(dim=-1, keepdim=True)
    directions = (a / norms).sum(-2)
    pairs = N * (N - 1)
    distance = (a * distances).sum(-1).mean(-1)
    return {
        "distance": distance,
        "distance_ratio": distance / distances.mean(),
        "entropy": entropy,
        "information": information,
        "mean_row_entropy": mean_row_entropy,
        "nmi": information / (math.log(N) * mean_row_entropy).sqrt(),
        "diversity": 1 - (directions.square().sum(-1) - N) / pairs,
        "spread": 2 * N * (norms.square().sum((-2, -1)) - N * mean.square().sum(-1)) / pairs,
        "prefix_mass": weights[..., 1:, 0].mean(-1),
    }


def _by_layer(layers: list[Statistics]) -> Statistics:
    return {name: torch.stack([layer[name] for layer in layers], dim=1) for name in layers[0]}
