"""What an expectation over masks and latents is taken over: weighted draws of visible patches and latents.

Every engine states its expectation as a Draws for each view of the row; one kernel (``objectives.kernel``) serves all.
A column is one area, or (mean field) a ``crowd`` of like areas with one latent, its counts summed over the crowd.
Where many areas are alike and each is one cell, they need no column: ``Merged`` holds their sums over areas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Merged:
    """Sums over like areas j, carried to nodes v in z: sum_j u_j f(z_j) = sum_v counts_v f(node_v), and the same for
    ``pairs`` with u_j². Exact for discrete latents, to ~1e-12 for continuous ones (docs/derivations.md); weights may be
    negative."""

    counts: Array  # (draws, nodes), or (1, nodes) where all draws share them
    pairs: Array  # likewise
    z: Array  # (nodes,)
    phi: Array  # (nodes,) index of the Phi
    upsilon: Array  # (nodes,) index of the Upsilon


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of one view, all conditional on the query being masked.

    ``counts`` are unmasked patches per cell; cells are ordered by column, ``starts`` the first cell of each column
    (None: one cell per column). ``masked`` counts masked patches per Upsilon, the query among them.
    """

    share: float  # weight of the view
    weight: Array  # (draws,) sums to 1
    counts: Array  # (draws, cells), or (1, cells) where all draws share them
    starts: Array | None  # (columns,)
    cell_upsilon: Array  # (cells,)
    phi: Array  # (columns,)
    z: Array  # (draws, columns)
    masked: Array  # (draws, n_upsilon)
    own: int  # column of the query's own area
    solvable: Array  # (draws,) 1.0 where some patch of the own area is visible, else 0.0
    crowd: Array | None = None  # (columns,)
    merged: Merged | None = None

    def split(self, entries: int) -> list[Draws]:
        """The draws in blocks of at most about ``entries`` (draws x columns or cells); weights keep their sum of 1
        over all blocks."""
        draws = len(self.weight)
        width = max(self.counts.shape[1], self.z.shape[1], self.masked.shape[1])
        size = max(1, entries // width)
        if draws <= size:
            return [self]
        return [self._some(slice(first, first + size)) for first in range(0, draws, size)]

    def _some(self, chosen: slice) -> Draws:
        merged = self.merged
        if merged is not None and len(merged.counts) > 1:
            merged = replace(merged, counts=merged.counts[chosen], pairs=merged.pairs[chosen])
        return replace(
            self,
            weight=self.weight[chosen],
            counts=self.counts[chosen] if len(self.counts) > 1 else self.counts,
            z=self.z[chosen],
            masked=self.masked[chosen],
            solvable=self.solvable[chosen],
            merged=merged,
        )

    @cached_property
    def blank(self) -> Array | None:
        """Columns of which nothing is visible; shape (draws or 1, columns), None where there are none."""
        visible = self.counts
        if self.starts is not None:
            visible = np.add.reduceat(visible, self.starts, axis=-1)
        blank = visible == 0
        return blank if blank.any() else None

    @cached_property
    def solved(self) -> Array:
        """Weights of the solvable draws; shape (draws,)."""
        solved: Array = self.weight * self.solvable
        return solved

    @cached_property
    def z_own_squared(self) -> Array:
        """Squared latent of the query's own area; shape (draws,)."""
        squared: Array = np.square(self.z[:, self.own])
        return squared

    @cached_property
    def cell_column(self) -> Array:
        """Column of each cell; shape (cells,)."""
        if self.starts is None:
            return np.arange(self.counts.shape[1])
        ends = np.append(self.starts[1:], self.counts.shape[1])
        return np.repeat(np.arange(len(self.starts)), ends - self.starts)
