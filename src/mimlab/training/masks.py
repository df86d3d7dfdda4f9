"""Which patches are hidden: uniformly at random, or in blocks; in every image the same number of them.

Blocks are those of BEiT (Bao et al. 2021, algorithm 1): rectangles of random area and aspect at random places, one on
another, until enough is covered. There the last block decides how many are covered; here patches of the last block
are dropped at random, so that every image has exactly its number, which MAE's encoder needs.
"""

from __future__ import annotations

import random

import torch
from torch import Generator, Tensor

SMALLEST_BLOCK = 16 / 196
"""Share of the patches: BEiT's 16 of 14 × 14."""
NARROWEST = 0.3
"""Least aspect of a block; the largest is its inverse."""


def masked_count(patches: int, mask_ratio: float) -> int:
    """How many of the patches are masked: the nearest number, at least one masked and one visible.

    >>> masked_count(64, 0.6), masked_count(4, 0.99)
    (38, 3)
    """
    return min(max(round(patches * mask_ratio), 1), patches - 1)


def random_masks(batch: int, grid: int, count: int, generator: Generator) -> Tensor:
    """(batch, grid²) bool on the CPU, `count` of each row true, every choice of them equally likely."""
    order = torch.rand(batch, grid**2, generator=generator).argsort(-1)
    return torch.zeros(batch, grid**2, dtype=torch.bool).scatter_(1, order[:, :count], True)


def block_masks(batch: int, grid: int, count: int, generator: Generator) -> Tensor:
    """(batch, grid²) bool on the CPU, `count` of each row true, in rectangles."""
    seeds = torch.randint(2**62, (batch,), generator=generator).tolist()
    masks = torch.zeros(batch, grid, grid, dtype=torch.bool)
    for mask, seed in zip(masks, seeds, strict=True):
        _cover(mask, count, random.Random(seed))
    return masks.flatten(1)


def _cover(mask: Tensor, count: int, draws: random.Random) -> None:
    """Lay blocks on an empty (grid, grid) mask until `count` of it is true."""
    grid, covered = len(mask), 0
    smallest = max(1, round(SMALLEST_BLOCK * grid**2))
    while covered < count:
        area = draws.uniform(smallest, max(smallest, count - covered))
        aspect = NARROWEST ** draws.uniform(-1, 1)
        high, wide = (
            min(max(round(side), 1), grid) for side in ((area * aspect) ** 0.5, (area / aspect) ** 0.5)
        )
        top, left = draws.randint(0, grid - high), draws.randint(0, grid - wide)
        block = mask[top : top + high, left : left + wide]
        new = (~block).nonzero().tolist()
        draws.shuffle(new)
        for row, column in new[: count - covered]:
            block[row, column] = True
        covered += min(len(new), count - covered)


def ordered_noise(masks: Tensor) -> Tensor:
    """Noise (batch, patches) float32 in [0, 2) by which ViTMAE masks just these patches and keeps the others in
    order: it takes the patches by increasing noise, the visible ones first."""
    patches = masks.shape[1]
    return masks.float() + torch.arange(patches, device=masks.device) / patches


def patches_of(pixels: Tensor, patch_size: int) -> Tensor:
    """(B, 3, s, s) as (B, patches, patch_size² · 3): patches row by row, in each its pixels, colours last."""
    batch, channels, height, width = pixels.shape
    grid = (height // patch_size, width // patch_size)
    split = pixels.reshape(batch, channels, grid[0], patch_size, grid[1], patch_size)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid[0] * grid[1], patch_size**2 * channels)


def image_of(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patches_of` for square images: (B, 3, s, s)."""
    batch, count, _ = patches.shape
    grid = round(count**0.5)
    split = patches.reshape(batch, grid, grid, patch_size, patch_size, -1)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, grid * patch_size, grid * patch_size)
