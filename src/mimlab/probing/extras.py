"""What `all` adds to the core: attention by relative offset, the diversity of heads, and the positional part.

An observer of tiles (mimlab.probing.tiles), each of which holds all images and all heads of a few rows of the
grid: so heads can be compared, and images averaged, without a table of all weights.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.catalogue import CATALOGUE, CORE, RADII
from mimlab.probing.layout import Layout
from mimlab.probing.sums import Sums, Work, finish
from mimlab.probing.tiles import distance_rows, rows


@dataclass(eq=False)
class Extras:
    """Sums over the tiles of one call: offsets (B, H, 2gh - 1, 2gw - 1), heads (B,), and the mean map's sums.

    distances: in pixels, by offset, as `Layout.offset_distances`. positional: the mean map alone is summed.
    """

    attention: Attention
    positional: bool
    distances: Tensor
    offsets: Tensor
    head_cosines: Tensor
    mean_map: Sums

    @classmethod
    def of(cls, attention: Attention, positional: bool = False) -> "Extras":
        """Nothing summed yet."""
        layout, B, H, device = attention.layout, attention.images, attention.heads, attention.device
        height, width = layout.grid
        return cls(
            attention,
            positional,
            torch.from_numpy(layout.offset_distances()).to(device, attention.dtype),
            torch.zeros(B, H, 2 * height - 1, 2 * width - 1, dtype=torch.float64, device=device),
            torch.zeros(B, dtype=torch.float64, device=device),
            Sums.zeros(layout.windows * H, layout, device),
        )

    def observe(self, weights: Tensor, images: slice, heads: slice, queries: slice) -> None:
        """Add a tile: all images and heads, some whole rows of the grid."""
        if not self.positional:
            self._add_offsets(weights, queries.start // self.attention.layout.grid[1])
            self._add_heads(weights)
        self._add_mean_map(weights, queries.start)

    def _add_heads(self, weights: Tensor) -> None:
        units = weights / weights.norm(dim=-1, keepdim=True)
        H = weights.shape[1]
        pairs = units.sum(1).square().sum(-1, dtype=torch.float64) - H  # over ordered pairs of heads
        self.head_cosines += pairs.sum(-1) / (H * (H - 1) or torch.nan)

    def _add_offsets(self, weights: Tensor, first: int) -> None:
        """Weights by the offset of their key from their query, rows of the grid from `first` on.

        A row padded to 2w numbers and read in rows of 2w - 1 stands one place further right than the one before it:
        so the queries of a row of the grid, the last one first, have equal offsets in equal places.
        """
        B, H, r, _ = weights.shape
        height, w = self.attention.layout.grid
        by_query = weights.view(B, H, r // w, w, height, w).flip(3).transpose(3, 4)
        shifted = F.pad(by_query, (0, w)).flatten(-2)[..., : w * (2 * w - 1)].unflatten(-1, (w, 2 * w - 1))
        for y, row in enumerate(shifted.sum(-2, dtype=torch.float64).unbind(2), start=first):
            self.offsets[:, :, height - 1 - y : 2 * height - 1 - y] += row

    def _add_mean_map(self, weights: Tensor, first: int) -> None:
        """The map averaged over images: of each window, where attention is windowed."""
        layout = self.attention.layout
        _, H, r, N = weights.shape
        mean = weights.view(-1, layout.windows, H, r, N).mean(0).view(-1, r, N)
        far = distance_rows(self.distances, slice(first, first + r))
        total, top, entropy, square, distance = mean.new_empty(5, len(mean), r)
        sums, spare = self.mean_map, torch.empty_like(mean)
        work = Work(far, spare, total, top, entropy, square, distance, sums.row, sums.unit_row)
        rows(mean.log_(), work, masked=True)
        sums.add(work)

    def finish(self) -> dict[str, Tensor]:
        """positional_* (windows, H); unless only those: locality_r (B, H), head_diversity (B,), offsets (B, H, ...), of
        sum 1."""
        layout = self.attention.layout
        means = finish(self.mean_map, layout)
        positional = {f"positional_{name}": means[name] for name in CORE if f"positional_{name}" in CATALOGUE}
        if self.positional:
            return positional
        offsets = self.offsets / layout.patches
        steps = torch.from_numpy(Layout(layout.grid).offset_distances()).to(offsets.device)
        near = {f"locality_{radius}": (offsets * (steps <= radius)).sum((-2, -1)) for radius in RADII}
        return {
            **near,
            "head_diversity": (1 - self.head_cosines / layout.patches).clamp(min=0),
            **positional,
            "offsets": offsets,
        }
