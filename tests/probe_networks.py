"""Attention of which the logits are known, and the oracle's answer in the arrays that `mimlab.capture` gives.

Either a layer is handed q, k and v, or a float64 copy of a network tells what its layers are given. `expected_of`
takes the logits of every call and layer, and only arranges what probe_oracle.py computes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimlab.probing.layout import Layout

from . import probe_oracle as oracle

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Calls(nn.Module):
    """A layer whose attention is the function that it is given."""

    def __init__(self, attend: Way) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend(q, k, v)


class Packed(nn.Module):
    """Attention as MAE and DINO write it, or with the same projections and the fused call."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.scale, self.fused = heads, (dim // heads) ** -0.5, fused
        self.qkv, self.proj, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = (q @ k.transpose(-2, -1)) * self.scale
            x = self.drop(weights.softmax(dim=-1)) @ v
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(dim), Packed(dim, heads, fused)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm(x))


class Multihead(nn.Module):
    """nn.MultiheadAttention behind a batch-first door."""

    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.attention, self.options = nn.MultiheadAttention(16, 4, batch_first=batch_first), options

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.attention.batch_first else x.transpose(0, 1)
        y = self.attention(x, x, x, **self.options)[0]
        return y if self.attention.batch_first else y.transpose(0, 1)


def network(fused: bool, depth: int = 3) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(*(Block(16, 4, fused) for _ in range(depth))).eval()
    for block in model:
        block.attn.qkv.weight.data *= 3  # or every head is nearly uniform
    return model


def regime(name: str, layout: Layout, B: int = 3, H: int = 2, seed: int = 0) -> Tensor:
    """Logits (B, H, tokens, tokens), float64."""
    T = layout.tokens
    noise = normal(seed, B, H, T, T)
    if name == "sink":
        noise[..., : layout.prefix] += 30
    return {
        "random": noise,
        "sink": noise,
        "sharp": 30 * noise,
        "collapsed": noise[:, :, :1].expand(B, H, T, T),
        "nearly collapsed": noise[:, :, :1] + 1e-3 * noise,
        "uniform": 0 * noise,
        "identity": 200 * torch.eye(T).expand(B, H, T, T),
        "one key": 200 * torch.eye(T)[[T - 2]].expand(B, H, T, T),
    }[name]


def qkv_of(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """float32 q, k, v whose logits at the usual scale are these."""
    T = logits.shape[-1]
    q = (logits * math.sqrt(T)).float()
    return q, torch.eye(T).expand_as(q).contiguous(), normal(1, *q.shape).float()


def logits_of(q: Tensor, k: Tensor, scale: float | None = None, mask: Tensor | None = None) -> Tensor:
    """The oracle's logits of q and k (B, H, tokens, d) as they are, in whatever precision they are."""
    B, H, T, d = q.shape
    bias = torch.zeros(()) if mask is None else mask
    if bias.dtype == torch.bool:
        bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    stacked = [x.flatten(0, 1).tolist() for x in (q, k, bias.expand(B, H, T, T))]
    tables = [
        oracle.logits(*qk, d**-0.5 if scale is None else scale, b) for *qk, b in zip(*stacked, strict=True)
    ]
    return torch.tensor(tables, dtype=torch.float64).unflatten(0, (B, H))


def heads_of(packed: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """q and k (B, H, tokens, d) of a packed projection (B, tokens, 3Hd)."""
    q, k, _ = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k


def listen(model: nn.Module, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Logits of every attention in forward order, from what reaches the layers of a float64 copy."""
    twin, found = copy.deepcopy(model).double(), []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        of_torch = isinstance(module, nn.MultiheadAttention)
        into = inputs[0].transpose(0, 1) if of_torch and not module.batch_first else inputs[0]
        packed = F.linear(into, module.in_proj_weight, module.in_proj_bias) if of_torch else module.qkv(into)
        found.append(logits_of(*heads_of(packed, module.num_heads), mask=mask))

    for module in twin.modules():
        if isinstance(module, (nn.MultiheadAttention, Packed)):
            module.register_forward_pre_hook(hook)
    twin(x.double())  # with gradients on, so that nothing takes a path past its modules
    return found


def expected_of(calls: Sequence[Sequence[Tensor]], layout: Layout) -> dict[str, np.ndarray]:
    """The oracle's arrays as capture indexes them; calls[c][l] are the logits (B, H, ., .) of layer l."""
    layers = [torch.cat(own).tolist() for own in zip(*calls, strict=True)]
    heads = [[[oracle.of_table(table, layout) for table in image] for image in own] for own in layers]
    parts = [
        [[oracle.positional(tables, layout) for tables in own.transpose(0, 1).tolist()] for own in call]
        for call in calls
    ]
    found = {
        name: np.array([[[head[name] for head in image] for image in own] for own in heads]).swapaxes(0, 1)
        for name in heads[0][0][0]
    }
    for name in parts[0][0][0]:
        found[name] = np.array([[[head[name] for head in own] for own in call] for call in parts])
    found["head_diversity"] = np.array([[oracle.head_diversity(i, layout) for i in own] for own in layers]).T
    by_head = [list(zip(*own, strict=True)) for own in layers]
    found["offsets"] = np.array([[oracle.offsets(tables, layout) for tables in own] for own in by_head])
    return found
