"""The networks that are trained: transformers' models, built from configurations, with weights drawn from a seed.

The encoder is a ViTModel with a mask token, pre-norm, its weights N(0, 0.02²), so that attention starts close to
uniform. Positions are fixed (two-dimensional sines and cosines, or random directions) or learned. A
ViTMAEForPreTraining is put around an encoder rather than beside it: it runs the encoder's own blocks, embeddings and
norm, so that what it trains is what is watched, saved and shared with another objective.

Two things in transformers (5.23) would go wrong silently. A ViTMAE built from its configuration has positions that
are all zero, in encoder and decoder, since the general initialisation runs last; here they are set. And ViTMAE
shuffles its tokens by noise of its own even where it masks nothing; here the noise is always given
(`mimlab.training.masks`).
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from mimlab.probing.hugging import FIXED_POSITIONS, quiet
from mimlab.probing.position_queries import query_by_position
from mimlab.training.config import NetworkConfig
from mimlab.training.draws import generator, seeded
from mimlab.training.masks import masked_count

SPREAD = 0.02
"""Standard deviation of initial weights."""


def sincos_positions(grid: int, width: int) -> Tensor:
    """Positions of CLS (zero) and grid² patches, row by row: (1, 1 + grid², width) float32, width a multiple of 4.

    The first half of the channels encodes the column x, the second the row y: sin(x ω_k), then cos(x ω_k), for
    ω_k = 10000^(-4k/width), as in MoCo v3 and MAE.
    """
    rates = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [places.flatten()[:, None] * rates for places in (columns, rows)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], -1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches])[None].float()


def _sizes(network: NetworkConfig) -> dict[str, Any]:
    """What the configurations of encoder and MAE have in common."""
    return {
        "hidden_size": network.width,
        "num_attention_heads": network.heads,
        "intermediate_size": 4 * network.width,
        "image_size": network.image_size,
        "patch_size": network.patch_size,
        "initializer_range": SPREAD,
        "layer_norm_eps": 1e-6,
    }


def build_encoder(network: NetworkConfig, seed: int) -> Any:
    """A ViTModel without pooler: takes pixel_values (B, 3, s, s), gives last_hidden_state (B, 1 + patches, width)."""
    config = ViTConfig(num_hidden_layers=network.depth, **_sizes(network))
    with seeded(seed, "encoder"), quiet():
        encoder: Any = ViTModel(config, add_pooling_layer=False, use_mask_token=True)
    _set_positions(encoder.embeddings.position_embeddings, network, seed)
    setattr(encoder.config, FIXED_POSITIONS, network.positions != "learned")
    if not network.content_in_query:
        query_by_position(encoder)
    return encoder.train()


def build_mae(network: NetworkConfig, encoder: Any, mask_ratio: float, norm_pixels: bool, seed: int) -> Any:
    """A ViTMAEForPreTraining around the encoder, whose parameters it shares, with a decoder of its own.

    Of the patches, as many are masked as `mimlab.training.masks.masked_count` says.
    """
    patches = network.grid**2
    config = ViTMAEConfig(
        **_sizes(network),
        num_hidden_layers=1,  # the encoder's blocks take their place
        decoder_hidden_size=network.decoder_width,
        decoder_num_hidden_layers=network.decoder_depth,
        decoder_num_attention_heads=network.decoder_heads,
        decoder_intermediate_size=4 * network.decoder_width,
        # transformers rounds the visible patches down: the half keeps that from rounding off one of them
        mask_ratio=(masked_count(patches, mask_ratio) - 0.5) / patches,
        norm_pix_loss=norm_pixels,
    )
    with seeded(seed, "decoder"), quiet():
        mae: Any = ViTMAEForPreTraining(config)
        nn.init.normal_(mae.decoder.mask_token, std=SPREAD)
        nn.init.trunc_normal_(mae.decoder.decoder_pos_embed, std=SPREAD)
    _set_positions(mae.decoder.decoder_pos_embed, network, seed)
    mae.vit.layers, mae.vit.layernorm = encoder.layers, encoder.layernorm
    for part in ("patch_embeddings", "cls_token", "position_embeddings"):
        setattr(mae.vit.embeddings, part, getattr(encoder.embeddings, part))
    return mae.train()


def drawn_positions(grid: int, width: int, orthogonal: bool, seed: int) -> Tensor:
    """Positions of CLS (zero) and grid² patches in random directions, (1, 1 + grid², width) float32, as long as those
    of sines and cosines, sqrt(width / 2); orthogonal to each other, for grid² <= width, or independent."""
    drawn = torch.randn(grid**2, width, generator=generator(seed, "positions"), dtype=torch.float64)
    directions = torch.linalg.qr(drawn.T).Q.T if orthogonal else nn.functional.normalize(drawn, dim=-1)
    patches = directions * (width / 2) ** 0.5
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches])[None].float()


def _set_positions(positions: nn.Parameter, network: NetworkConfig, seed: int) -> None:
    """Fixed positions, or those that were drawn with the weights, to be learned."""
    learned = network.positions == "learned"
    if not learned:
        width = positions.shape[-1]
        fixed = (
            sincos_positions(network.grid, width)
            if network.positions == "sincos"
            else drawn_positions(network.grid, width, network.positions == "orthogonal", seed)
        )
        with torch.no_grad():
            positions.copy_(fixed)
    positions.requires_grad_(learned)


def frozen_copy(module: nn.Module) -> Any:
    """The same network with weights of its own, which no gradient changes: to follow by momentum."""
    return deepcopy(module).requires_grad_(False)


def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow ← momentum · slow + (1 - momentum) · fast, parameter by parameter; buffers are left to each."""
    with torch.no_grad():
        for mine, other in zip(slow.parameters(), fast.parameters(), strict=True):
            mine.lerp_(other, 1 - momentum)


def perceptron(
    sizes: tuple[int, ...], norm: bool = True, last_norm: bool = False, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers of these sizes with batch norm (`norm`) and activation between; `last_norm`: batch norm without
    scale and shift at the end. Weights N(0, 0.02²), as the encoder's."""
    layers: list[nn.Module] = []
    for place, (inner, outer) in enumerate(pairwise(sizes), start=1):
        last = place == len(sizes) - 1
        layers.append(linear(inner, outer, bias=not (last_norm if last else norm)))
        if not last:
            layers += [nn.BatchNorm1d(outer)] * norm + [activation()]
        elif last_norm:
            layers.append(nn.BatchNorm1d(outer, affine=False))
    return nn.Sequential(*layers)


def linear(inner: int, outer: int, bias: bool = True) -> nn.Linear:
    """A linear layer with weights N(0, 0.02²) and no offset to begin with."""
    layer = nn.Linear(inner, outer, bias)
    nn.init.normal_(layer.weight, std=SPREAD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
