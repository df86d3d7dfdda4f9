"""One call of self-attention, as it was caught: where it happened, and its logits, block by block.

Either the model gave queries, keys and values (a fused call), or it had made the whole table of logits itself
and was about to take their softmax. Both give logits in float32 or better, whatever the model computes in:
scale, position bias and mask included. A block of logits is made when it is asked for; no table of all of
them is.

Maps are numbered image by image, head by head. With windowed attention every window counts as an image here;
`layout.windows` consecutive ones make a real image.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch

from mimlab.probing.layout import Layout

Tensor: TypeAlias = torch.Tensor


@dataclass(frozen=True, eq=False)
class Attention:
    """A call of self-attention over n tokens, the prefix first.

    module: the name of the module that called. layer: its place in the forward pass, from 0.
    q, k, v: (B, H, n, D) as the model has them; or `given`: (B, H, n, n), the model's own logits.
    bias: added to the logits after scaling, expanded to (B, H, n, n) without memory; boolean: False is masked.
    """

    module: str
    layer: int
    layout: Layout
    scale: float = 1.0
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False
    given: Tensor | None = None

    @property
    def _source(self) -> Tensor:
        source = self.q if self.given is None else self.given
        assert source is not None
        return source

    @property
    def images(self) -> int:
        """B; windows of an image count one by one."""
        return int(self._source.shape[0])

    @property
    def heads(self) -> int:
        """H."""
        return int(self._source.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._source.device

    @property
    def dtype(self) -> torch.dtype:
        """What the logits are in: float64 where the model is, else float32."""
        return torch.float64 if self._source.dtype == torch.float64 else torch.float32

    @cached_property
    def wide_q(self) -> Tensor:
        """Queries in `dtype`, contiguous."""
        return self._wide(self.q)

    @cached_property
    def wide_k(self) -> Tensor:
        """Keys in `dtype`, contiguous."""
        return self._wide(self.k)

    @cached_property
    def wide_v(self) -> Tensor:
        """Values in `dtype`, contiguous."""
        return self._wide(self.v)

    def _wide(self, operand: Tensor | None) -> Tensor:
        assert operand is not None
        return operand.to(self.dtype).contiguous()

    @property
    def masked(self) -> bool:
        """Whether a logit may be -inf: nothing says so of a bias, so any bias may hold one."""
        return self.causal or self.bias is not None or self.given is not None

    def logits(self, images: slice = slice(None), rows: slice = slice(None)) -> Tensor:
        """Logits of some images and query tokens over all tokens, (b, H, r, n); prefix tokens are counted."""
        columns = slice(0, self._source.shape[-2])
        rows = slice(*rows.indices(columns.stop))
        images = slice(*images.indices(self.images))
        shape = (images.stop - images.start, self.heads, rows.stop - rows.start, columns.stop)
        block = torch.empty(shape, dtype=self.dtype, device=self.device)
        return self.fill(block, images, slice(0, self.heads), rows, columns)

    def rows_of(self, images: slice, index: Tensor) -> Tensor:
        """Logits of chosen query tokens of each image, index (b, r), over all tokens: (b, H, r, n)."""
        images = slice(*images.indices(self.images))
        b, heads, n = images.stop - images.start, self.heads, self._source.shape[-2]

        def chosen(table: Tensor) -> Tensor:
            wide = index[:, None, :, None].expand(b, heads, index.shape[1], table.shape[-1])
            return table.gather(2, wide)

        if self.given is not None:
            return chosen(self.given[images]).to(self.dtype)
        q, k = self.wide_q[images], self.wide_k[images]
        block = torch.matmul(chosen(q), k.transpose(-1, -2)) * self.scale
        if self.bias is not None:
            bias = chosen(self.bias[images])
            block = _biased(block, bias)
        if self.causal:
            later = torch.arange(n, device=self.device) > index[:, None, :, None]
            block = block.masked_fill(later, -torch.inf)
        return block

    def fill(self, block: Tensor, images: slice, heads: slice, rows: slice, columns: slice) -> Tensor:
        """Write logits into `block` (b, h, r, c), contiguous, and return it.

        Slices have plain ends and count all tokens; they take whole images with all heads, or some heads of one image.
        """
        where = (images, heads, rows, columns)
        if self.given is not None:
            return block.copy_(self.given[where])
        b, h, r, c = block.shape
        q = self.wide_q[images, heads].flatten(0, 1)[:, rows]
        k = self.wide_k[images, heads].flatten(0, 1)[:, columns]
        flat = block.view(b * h, r, c)
        torch.baddbmm(flat, q, k.transpose(1, 2), beta=0, alpha=self.scale, out=flat)
        if self.bias is not None:
            _biased(block, self.bias[where])
        if self.causal:
            token = torch.arange(self._source.shape[-2], device=self.device)
            block.masked_fill_(token[columns] > token[rows, None], -torch.inf)
        return block


def _biased(block: Tensor, bias: Tensor) -> Tensor:
    """Add a bias to logits in place, or take out what a boolean mask does not allow."""
    if bias.dtype == torch.bool:
        return block.masked_fill_(~bias, -torch.inf)
    return block.add_(bias)
