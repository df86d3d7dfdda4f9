"""A row's areas written out one by one, for the engines that treat each area on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimlab.objectives.draws import Draws
from mimlab.world.row import Row

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ViewColumns:
    """One view: its columns are its areas, in the order of the view; cells reordered by ``order`` lie by column."""

    share: float
    order: Array  # (cells,)
    starts: Array | None  # (areas,) first cell of each area in that order; None: one cell per area
    phi: Array  # (areas,)
    own: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Cells of the row, each like area with cells of its own; the views share the cells and group them."""

    size: Array  # (cells,)
    upsilon: Array  # (cells,)
    n_upsilon: int
    views: tuple[ViewColumns, ...]

    def draws(self, counts: Array, latents: tuple[Array, ...], weight: Array) -> tuple[Draws, ...]:
        """Plain draws of every view from visible counts per cell (draws, cells) and latents per area, one array
        (draws, areas) a view."""
        hidden = masked_counts(self, counts)
        result = []
        for view, z in zip(self.views, latents, strict=True):
            ordered = counts[:, view.order].astype(float)
            starts = view.starts
            per_area = ordered if starts is None else np.add.reduceat(ordered, starts, axis=1)
            solvable = (per_area[:, view.own] > 0).astype(float)
            upsilon = self.upsilon[view.order]
            result.append(
                Draws(view.share, weight, ordered, starts, upsilon, view.phi, z, hidden, view.own, solvable)
            )
        return tuple(result)


def masked_counts(columns: Columns, counts: Array) -> Array:
    """Masked patches per Upsilon, the query's own first; shape (draws, n_upsilon)."""
    hidden = columns.size - counts
    result = np.zeros((len(counts), columns.n_upsilon))
    order = np.argsort(columns.upsilon, kind="stable")
    index, starts = np.unique(columns.upsilon[order], return_index=True)
    result[:, index] = np.add.reduceat(hidden[:, order], starts, axis=1)
    result[:, 0] = 1.0
    return result


def columns_of(row: Row) -> Columns:
    """Write out a row's areas."""
    owner = np.repeat(np.arange(len(row.cell_size)), row.cell_count)
    size, upsilon = row.cell_size[owner], row.cell_upsilon[owner]
    views = []
    for view in row.views:
        if row.grouped:  # cell c is area c, cell_count[c] times
            views.append(ViewColumns(view.share, np.arange(len(owner)), None, view.area_phi[owner], view.own))
            continue
        order = np.argsort(view.cell_area, kind="stable")
        starts = np.flatnonzero(np.diff(view.cell_area[order], prepend=-1))
        single = None if len(starts) == len(order) else starts
        views.append(ViewColumns(view.share, order, single, view.area_phi, view.own))
    return Columns(size, upsilon, len(row.upsilon_tied), tuple(views))
