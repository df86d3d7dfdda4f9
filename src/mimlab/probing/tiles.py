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
from mimlab.probing.sums import Sums, Work

TILE = 2**19
"""Weights in a tile: 2 MB in float32, about a core's second cache."""

MOST_THREADS = 4
"""Threads whose tiles are taken at once, at most: the tile of all of them is memory beside the model's."""

GROUP = 32
"""Rows that are summed in float32 before the sum goes on in float64: equal rows would drift the same way."""

Observer = Callable[[Tensor, slice, slice, slice], None]
"""Called with the weights of a tile, (b, h, r, N), and its images, heads and patch rows."""


class RowPass(Protocol):
    """A way to exponentiate rows of logits, and to sum what the statistics need of them; see `rows`."""

    def __call__(self, block: Tensor, work: Work, masked: bool) -> None: ...


def rows(block: Tensor, work: Work, masked: bool) -> None:
    """The row pass in pure PyTorch: exponentials in place, and the sums of every map's rows.

    masked: whether a logit may be -inf, whose weight must count as 0 and not as 0 · -inf.
    """
    top = block.amax(-1, keepdim=True)
    if masked:
        top.clamp_(min=torch.finfo(top.dtype).min)  # where every patch is masked
    torch.sub(block, top, out=work.spare)
    if masked:
        work.spare.clamp_(min=-1e4)
    torch.exp(work.spare, out=block)
    torch.sum(block, -1, out=work.total)
    torch.sum(work.spare.mul_(block), -1, out=work.entropy)
    work.entropy.div_(work.total).neg_().add_(work.total.log())
    work.top.copy_(top.squeeze(-1))
    norm = torch.linalg.vector_norm(block, dim=-1)
    torch.square(norm / work.total, out=work.square)
    torch.mul(block, work.distances, out=work.spare)
    torch.sum(work.spare, -1, out=work.distance).div_(work.total)
    factors = torch.stack([work.total.reciprocal(), norm.reciprocal()], dim=1)
    for group in _cut(block.shape[1], GROUP):
        sums = torch.bmm(factors[:, :, group], block[:, group])
        work.row.add_(sums[:, 0])
        work.unit_row.add_(sums[:, 1])


def distance_rows(distances: Tensor, queries: slice) -> Tensor:
    """Distances from some queries to every patch, (r, N), cut out of the table by offset."""
    height, width = (side // 2 + 1 for side in distances.shape)
    rows = slice(queries.start // width, -(-queries.stop // width))
    # Window (u, v) of the table belongs to the query at (height - 1 - u, width - 1 - v).
    windows = distances.unfold(0, height, 1).unfold(1, width, 1)[height - rows.stop : height - rows.start]
    first = rows.start * width
    return windows.flip(0, 1).flatten(2).flatten(0, 1)[queries.start - first : queries.stop - first]


@dataclass
class Tiler:
    """Carries out attention in tiles; keeps its buffers from layer to layer.

    compile: whether the row pass in C++ may be taken, on a CPU where a compiler is found.
    """

    compile: bool = True
    _buffers: dict[tuple[object, ...], Tensor] = field(default_factory=dict)
    _last: tuple[object, Tensor] | None = None

    def attend(self, attention: Attention, observer: Observer | None = None) -> tuple[Tensor | None, Sums]:
        """The output (B, H, n, D), None where the model gave logits and makes it itself, and the sums.

        An observer sees every tile; its tiles hold all images and heads of whole grid rows.
        """
        layout, B, H = attention.layout, attention.images, attention.heads
        p, N = layout.prefix, layout.patches
        sums = Sums.zeros(B * H, layout, attention.device)
        prefix_top, prefix_log, prefix = self._prefix(attention)
        output = None
        if attention.v is not None:
            output = self._empty_output(attention)
            if p:
                output[:, :, :p] = self._prefix_queries(attention)
        row_pass = self._pass(attention)
        for images, heads, queries in self._tiles(attention, whole=observer is not None):
            b, h, r = (part.stop - part.start for part in (images, heads, queries))
            block = self._buffer("block", (b, h, r, N), attention)
            token_rows = slice(p + queries.start, p + queries.stop)
            attention.fill(block, images, heads, token_rows, slice(p, p + N))
            flat = block.view(b * h, r, N)
            first = images.start * H + heads.start
            part = sums[first : first + b * h]
            work = self._work(attention, part, queries)
            row_pass(flat, work, attention.masked)
            part.add(work)
            shares = torch.where(work.total == 0, 0, work.total.reciprocal())
            if prefix is not None:
                # Logarithm of the masses' ratio, the largest logits first: far from 0 their sums would round.
                ratio = prefix_top[images, heads, queries] - work.top.view(b, h, r)
                ratio += prefix_log[images, heads, queries] - work.total.log().view(b, h, r)
                taken = torch.sigmoid(ratio)
                part.prefix_mass += taken.sum(-1, dtype=torch.float64).flatten()
            if observer is not None:
                observer(block.mul_(shares.view(b, h, r, 1)), images, heads, queries)
                shares.fill_(1)
            if output is None:
                continue
            v = attention.wide_v[images, heads].flatten(0, 1)
            made = torch.bmm(flat, v[:, p:])
            if prefix is not None:
                shares *= (1 - taken).view(b * h, r)
                of_prefix = prefix[images, heads, queries] * taken[..., None]
                made.mul_(shares[..., None]).baddbmm_(of_prefix.view(b * h, r, p), v[:, :p])
            else:
                made.mul_(shares[..., None])
            output[images, heads, token_rows] = made.view(b, h, r, -1)
        return output, sums

    def _pass(self, attention: Attention) -> RowPass:
        fits = self.compile and attention.device.type == "cpu" and attention.dtype == torch.float32
        return compiled.rows if fits and compiled.available() else rows

    def _tiles(self, attention: Attention, whole: bool) -> Iterator[tuple[slice, slice, slice]]:
        """Images, heads and patch rows of each tile. `whole`: all images and heads, and whole rows of the grid."""
        B, H, N = attention.images, attention.heads, attention.layout.patches
        width = attention.layout.grid[1]
        limit = TILE if attention.device.type == "cpu" else 16 * TILE
        if self._pass(attention) is compiled.rows:
            limit *= min(torch.get_num_threads(), MOST_THREADS)  # each thread has a cache of its own
        if whole:
            for part in _cut(N // width, max(1, limit // (B * H * width * N))):
                yield slice(0, B), slice(0, H), slice(part.start * width, part.stop * width)
        elif limit >= H * N * N:
            yield from ((part, slice(0, H), slice(0, N)) for part in _cut(B, limit // (H * N * N)))
        else:
            count = max(1, TILE // (2 * N))  # half a tile for their distances, which all maps share
            maps = max(1, limit // (count * N))
            for part in _cut(N, count):  # rows outermost: their distances are made once
                for image in range(B):
                    for heads in _cut(H, maps):
                        yield slice(image, image + 1), heads, part

    def _prefix(self, attention: Attention) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of each patch query's prefix logits: the largest and the log-sum-exp above it, (B, H, N), and their softmax,
        (B, H, N, p), 0 where all are masked."""
        p, n = attention.layout.prefix, attention.layout.tokens
        if p == 0:
            return torch.empty(0), torch.empty(0), None
        shape = (attention.images, attention.heads, n - p, p)
        logits = torch.empty(shape, dtype=attention.dtype, device=attention.device)
        attention.fill(logits, slice(0, shape[0]), slice(0, shape[1]), slice(p, n), slice(0, p))
        top = logits.amax(-1)
        above = logits - top.clamp(min=torch.finfo(top.dtype).min)[..., None]
        weights = torch.where(top[..., None] == -torch.inf, 0, logits.softmax(-1))
        return top, above.logsumexp(-1), weights

    def _prefix_queries(self, attention: Attention) -> Tensor:
        """The output of the prefix tokens, which are no rows of the map but go on through the network."""
        p = attention.layout.prefix
        bias = None if attention.bias is None else attention.bias[:, :, :p]
        if attention.causal:
            weights = attention.logits(rows=slice(0, p)).softmax(-1)
            return weights @ attention.wide_v
        return F.scaled_dot_product_attention(
            attention.wide_q[:, :, :p], attention.wide_k, attention.wide_v, bias, scale=attention.scale
        )

    def _empty_output(self, attention: Attention) -> Tensor:
        """(B, H, n, D), in memory (B, n, H, D): what the model does next then needs no copy."""
        assert attention.v is not None
        B, H, n, D = attention.v.shape
        return torch.empty(B, n, H, D, dtype=attention.dtype, device=attention.device).transpose(1, 2)

    def _work(self, attention: Attention, part: Sums, queries: slice) -> Work:
        m, r, N = len(part.entropy), queries.stop - queries.start, attention.layout.patches
        total, top, entropy, square, distance = self._buffer("scalars", (5, m, r), attention)
        spare = self._buffer("spare", (m, r, N), attention)
        far = self._distances(attention, queries)
        return Work(far, spare, total, top, entropy, square, distance, part.row, part.unit_row)

    def _distances(self, attention: Attention, queries: slice) -> Tensor:
        """Distances from some queries to every patch; those of the last tile are kept."""
        key = (attention.layout, attention.dtype, attention.device, queries.start, queries.stop)
        if self._last is None or self._last[0] != key:
            place = ("offsets", *key[:3])
            with torch.inference_mode(False):
                if place not in self._buffers:
                    table = torch.from_numpy(attention.layout.offset_distances())
                    self._buffers[place] = table.to(attention.device, attention.dtype)
                self._last = key, distance_rows(self._buffers[place], queries).contiguous()
        return self._last[1]

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
