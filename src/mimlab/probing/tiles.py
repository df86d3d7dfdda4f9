"""Attention row block by row block: the statistics' sums and the layer's output from one pass over the weights.

A tile is some query rows of some maps. Its logits are made, its rows become weights over the patch columns in
place, the sums of `mimlab.probing.sums` are taken, and the same weights times the values are the layer's output:
attention is computed once, and memory is a few tiles whatever the number of tokens.

The softmax is taken over the patch columns alone, so that a prefix token that takes nearly everything (an attention
sink) costs no precision; the prefix columns come back by log-sum-exp, in the output and as `prefix_mass`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F

from mimlab.probing import compiled
from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.layout import Layout
from mimlab.probing.sums import Sums

TILE = 2**19
"""Weights in a tile: 2 MB in float32, about a core's second cache."""

Observer = Callable[[Tensor, slice, slice, slice], None]
"""Called with the weights of a tile, (b, h, r, N), and its images, heads and patch rows."""


class RowPass(Protocol):
    """A way to turn rows of logits into weights, and to sum what the statistics need of them."""

    def __call__(
        self, block: Tensor, first: int, layout: Layout, distances: Tensor, scalars: Tensor, vectors: Tensor
    ) -> None: ...


def rows(
    block: Tensor, first: int, layout: Layout, distances: Tensor, scalars: Tensor, vectors: Tensor
) -> None:
    """Softmax of rows in place, and their sums, in pure PyTorch.

    block: (m, r, N), rows first.. of m maps: logits that become weights. distances: by offset, as
    `Layout.offset_distances`. Written: scalars (4, m, r): log-sum-exp, entropy, squared norm and distance of each
    row; vectors (2, m, N): the sum over the rows of the weights, and of the weights divided by their norms.
    """
    lse, entropy, square, distance = scalars
    torch.logsumexp(block, -1, out=lse)
    block.sub_(lse[..., None])
    weights = block.exp()
    block.clamp_(min=-1e4)  # a masked key: 0 · -1e4 is 0
    torch.linalg.vecdot(weights, block, out=entropy)
    entropy.neg_()
    torch.linalg.vecdot(weights, weights, out=square)
    far = distance_rows(layout, distances, first, block.shape[1])
    distance.copy_(torch.matmul(weights.transpose(0, 1), far[..., None]).squeeze(-1).t())
    both = torch.stack([torch.ones_like(square), square.rsqrt()], dim=1)
    vectors.copy_(torch.bmm(both, weights).transpose(0, 1))
    block.copy_(weights)


def distance_rows(layout: Layout, distances: Tensor, first: int, count: int) -> Tensor:
    """Distances from queries first.. to every patch, (count, N), read off the table of offsets."""
    height, width = layout.grid
    query = torch.arange(first, first + count, device=distances.device)
    y, x = query // width, query % width
    down = torch.arange(height, device=distances.device) - y[:, None] + height - 1
    right = torch.arange(width, device=distances.device) - x[:, None] + width - 1
    return distances[down[:, :, None], right[:, None, :]].flatten(1)


@dataclass
class Tiler:
    """Carries out attention in tiles; keeps its buffers from layer to layer.

    row_pass: None chooses the compiled one on a CPU where a compiler is found, else PyTorch's.
    """

    row_pass: RowPass | None = None
    _buffers: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def attend(self, attention: Attention, observer: Observer | None = None) -> tuple[Tensor | None, Sums]:
        """The output (B, H, n, D), None where the model gave logits and makes it itself, and the sums.

        An observer sees every tile; its tiles hold all images and heads of whole grid rows.
        """
        layout, B, H = attention.layout, attention.images, attention.heads
        p, N = layout.prefix, layout.patches
        sums = Sums.zeros(B * H, layout, attention.device)
        distances = self._distances(attention)
        mass, prefix = self._prefix(attention)
        output = None
        if attention.v is not None:
            output = self._empty_output(attention)
            if p:
                output[:, :, :p] = self._prefix_queries(attention)
        for images, heads, queries in self._tiles(attention, whole=observer is not None):
            b, h, r = (part.stop - part.start for part in (images, heads, queries))
            block = self._buffer("block", (b, h, r, N), attention)
            token_rows = slice(p + queries.start, p + queries.stop)
            attention.fill(block, images, heads, token_rows, slice(p, p + N))
            flat = block.view(b * h, r, N)
            scalars = self._buffer("scalars", (4, b * h, r), attention)
            vectors = self._buffer("vectors", (2, b * h, N), attention)
            self._pass(attention)(flat, queries.start, layout, distances, scalars, vectors)
            maps = slice(images.start * H + heads.start, images.start * H + heads.start + b * h)
            part = sums[maps]
            for total, of_rows in zip((part.entropy, part.square, part.distance), scalars[1:], strict=True):
                total += of_rows.sum(-1, dtype=torch.float64)
            part.row += vectors[0]
            part.unit_row += vectors[1]
            if prefix is not None:
                lse = scalars[0].view(b, h, r)
                taken = torch.sigmoid(mass[images, heads, queries] - lse)
                part.prefix_mass += taken.sum(-1, dtype=torch.float64).flatten()
            if observer is not None:
                observer(block, images, heads, queries)
            if output is not None:
                assert attention.v is not None
                v = attention.v[images, heads].reshape(b * h, p + N, -1)
                made = torch.bmm(flat, v[:, p:])
                if prefix is not None:
                    made.mul_((1 - taken).view(b * h, r, 1))
                    shares = prefix[images, heads, queries] * taken[..., None]
                    made.baddbmm_(shares.reshape(b * h, r, p), v[:, :p])
                output[images, heads, token_rows] = made.view(b, h, r, -1)
        return output, sums

    def _pass(self, attention: Attention) -> RowPass:
        if self.row_pass is not None:
            return self.row_pass
        fits = attention.device.type == "cpu" and attention.dtype == torch.float32
        return compiled.rows if fits and compiled.available() else rows

    def _tiles(self, attention: Attention, whole: bool) -> Iterator[tuple[slice, slice, slice]]:
        """Images, heads and patch rows of each tile. `whole`: all images and heads, and whole rows of the grid."""
        B, H, N = attention.images, attention.heads, attention.layout.patches
        width = attention.layout.grid[1]
        limit = TILE if attention.device.type == "cpu" else 16 * TILE
        if whole:
            count = width * max(1, limit // (B * H * width * N))
            yield from ((slice(0, B), slice(0, H), part) for part in _cut(N, count))
        elif limit >= H * N * N:
            yield from ((part, slice(0, H), slice(0, N)) for part in _cut(B, limit // (H * N * N)))
        else:
            maps = max(1, limit // (N * N))
            for image in range(B):
                for heads in _cut(H, min(maps, H)):
                    for part in _cut(N, max(1, limit // N)):
                        yield slice(image, image + 1), heads, part

    def _prefix(self, attention: Attention) -> tuple[Tensor, Tensor | None]:
        """Log-sum-exp of each patch query's prefix logits, (B, H, N), and their softmax, (B, H, N, p)."""
        p, n = attention.layout.prefix, attention.layout.tokens
        if p == 0:
            return torch.empty(0), None
        shape = (attention.images, attention.heads, n - p, p)
        logits = torch.empty(shape, dtype=attention.dtype, device=attention.device)
        attention.fill(logits, slice(0, shape[0]), slice(0, shape[1]), slice(p, n), slice(0, p))
        return logits.logsumexp(-1), logits.softmax(-1)

    def _prefix_queries(self, attention: Attention) -> Tensor:
        """The output of the prefix tokens, which are no rows of the map but go on through the network."""
        p = attention.layout.prefix
        assert attention.q is not None and attention.k is not None and attention.v is not None
        bias = None if attention.bias is None else attention.bias[:, :, :p]
        if attention.causal:
            weights = attention.logits(rows=slice(0, p)).softmax(-1)
            return weights @ attention.v
        return F.scaled_dot_product_attention(
            attention.q[:, :, :p], attention.k, attention.v, bias, scale=attention.scale
        )

    def _empty_output(self, attention: Attention) -> Tensor:
        """(B, H, n, D), in memory (B, n, H, D): what the model does next then needs no copy."""
        assert attention.v is not None
        B, H, n, D = attention.v.shape
        return torch.empty(B, n, H, D, dtype=attention.v.dtype, device=attention.device).transpose(1, 2)

    def _distances(self, attention: Attention) -> Tensor:
        key = ("distances", attention.layout, attention.dtype, attention.device)
        if key not in self._buffers:
            table = torch.from_numpy(attention.layout.offset_distances())
            self._buffers[key] = table.to(attention.device, attention.dtype).contiguous()
        return self._buffers[key]

    def _buffer(self, name: str, shape: tuple[int, ...], attention: Attention) -> Tensor:
        """Memory for a tile: a fresh one for each would cost as much as a product."""
        key, size = (name, attention.dtype, attention.device), math.prod(shape)
        found = self._buffers.get(key)
        if found is None or found.numel() < size:
            with torch.inference_mode(False):  # else it could not be written outside of that mode
                found = torch.empty(size, dtype=attention.dtype, device=attention.device)
            self._buffers[key] = found
        return found[:size].view(shape)


def _cut(total: int, size: int) -> Iterator[slice]:
    """0..total in pieces of at most `size`, about equal."""
    pieces = max(1, math.ceil(total / max(1, size)))
    for piece in range(pieces):
        yield slice(total * piece // pieces, total * (piece + 1) // pieces)
