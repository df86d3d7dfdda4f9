"""Attention statistics where rows, whatever their position, are of a few kinds: the maps of contrastive learning.

Class r of rows has `rows[r]` queries, and all of them the same row: one logit on each key of cell c, of which there are
`cells[c]`. The cost does not depend on P.

What would give wrong numbers: rows that treat their own position or area apart; that is `blocks.BlockMap`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mimlab.runs.errors import InputError
from mimlab.statistics.grouped import Floats, GroupedMap
from mimlab.statistics.terms import effective_rank_of


@dataclass(frozen=True, eq=False)
class ClassMap(GroupedMap):
    """Attention of R classes of rows over C cells of keys; the fields become read-only float64 arrays.

    rows: (R,) queries of each class, > 0. cells: (C,) keys of each cell, >= 1, as many in all as queries. logits:
    (..., R, C), on one key of each cell. Numbers of queries and keys need not be whole.

    Raises InputError where shapes or totals disagree, a number is too small, or a logit is not finite.

    >>> apart = ClassMap([2, 2], [2, 2], np.array([[0.0, -99.0], [-99.0, 0.0]]))
    >>> print(f"{apart.nmi():.4f} {apart.diversity():.4f} {apart.effective_rank():.4f}")
    0.5000 0.6667 2.0000
    """

    rows: Floats
    cells: Floats
    logits: Floats

    def __post_init__(self) -> None:
        R, C = np.size(self.rows), np.size(self.cells)
        shapes = {"rows": (R,), "cells": (C,), "logits": (*np.shape(self.logits)[:-2], R, C)}
        for name, shape in shapes.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not array.size or not np.all(np.isfinite(array)):
                raise InputError(f"{name} of shape {array.shape} must be finite numbers of shape {shape}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if not (np.all(self.rows > 0) and np.all(self.cells >= 1)):
            raise InputError("rows and cells: leave out empty classes of rows, and cells without a key")
        if not np.isclose(self.rows.sum(), self.cells.sum(), rtol=1e-9):
            raise InputError(
                f"rows count {self.rows.sum():g} queries and cells {self.cells.sum():g} keys; every patch is both"
            )

    def effective_rank(self) -> Floats:
        """Effective rank, within [1, min(R, C)]: all other singular values are 0. Shape (...)."""
        whole = np.sqrt(self.rows)[:, None] * self._weights * np.sqrt(self.cells)
        rank: Floats = effective_rank_of(np.linalg.svdvals(whole))
        return rank

    @property
    def _population(self) -> Floats:
        return self.rows

    @property
    def _keys(self) -> Floats:
        return self.cells

    @cached_property
    def _multiplicity(self) -> Floats:
        return np.broadcast_to(self.cells, (self.rows.size, self.cells.size))

    @property
    def _logits(self) -> Floats:
        return self.logits

    def _by_class(self, groups: Floats) -> Floats:
        return groups

    def _as_keys(self, per_class: Floats) -> Floats:
        return per_class[..., None, :]
