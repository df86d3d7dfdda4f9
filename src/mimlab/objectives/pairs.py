"""Contrastive loss, gradient and attention (theory, section 6), over classes of rows, for given pairs of views.

The query is a position alone and the pooling symmetric, so a row's gradient is one function of that row's own entries
and of F, whichever row it is: rows differ only where they start apart. A class r of rows that are alike has the share
w_r of all P. Per view of an image of cluster k, with areas j and u_c visible of the s_c patches of cell c,

    A_{r,j} = Σ_{c in j} u_c e^{Υ_{r,c} + z_j Φ_{r,j}} / Z_r     Z_r over all P patches, masked ones at e^Υ
    f_j     = z_j Σ_r w_r A_{r,j}                                 F(X) = Σ_j f_j v_{k,j}
    Sim     = Σ_j f_j f'_j where the clusters are one, else 0
    B_j     = (1 - π₊) f⁺⁺_j - Σ_s π_s f^s_j                      over negatives s of the cluster of X⁺; π: the softmax
    -∂L/∂Φ_{p→j} = (1/P) E[ z_j A_j (z_j B_j - G) ] - λ Φ         G = Σ_i z_i B_i A_i, all of X⁺
    -∂L/∂Υ_{p→q} = (1/P) E[ attn_q (z_j B_j 1{q visible} - G) ] - λ Υ

The velocity returned is that of ONE entry of ONE row: the total over tied entries and rows, over their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.kernel import sums_by_index

Array = np.ndarray

LARGEST_BLOCK = 200_000
"""Entries (rows x images x cells) that are evaluated at once."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Positions that no cluster tells apart, and the unknowns of a row. An unknown stands for all that name it.

    size: (C,) positions of each cell. upsilon: (C,) unknown of each cell, from 0. area: (K, C) column of the area that
    holds each cell, in each cluster. phi: (K, J) unknown of each area, from 0; -1 where a cluster has fewer.
    """

    size: Array
    upsilon: Array
    area: Array
    phi: Array

    @property
    def patches(self) -> int:
        """P."""
        return int(self.size.sum())

    @cached_property
    def phi_tied(self) -> Array:
        """Areas that each unknown stands for; shape (n_phi,)."""
        return np.bincount(self.phi[self.phi >= 0])

    @cached_property
    def upsilon_tied(self) -> Array:
        """Positions that each unknown stands for; shape (n_upsilon,)."""
        return np.bincount(self.upsilon, self.size)

    @cached_property
    def tied(self) -> Array:
        """Entries of a row that each unknown of its state stands for; shape (n_phi + n_upsilon,)."""
        return np.concatenate([self.phi_tied, self.upsilon_tied]).astype(float)

    @cached_property
    def single(self) -> bool:
        """Whether each cell is an area, the same in every cluster."""
        return len(self.size) == self.phi.shape[1] and bool((self.area == np.arange(len(self.size))).all())


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images seen twice. View 0 of an image is told from view 1 of its negatives by its own view 1.

    cluster: (D,). latent: (D, J), of the areas of its cluster. visible: (2, D, C) patches in each cell. negatives:
    (D, n), which images.
    """

    cluster: Array
    latent: Array
    visible: Array
    negatives: Array

    def __len__(self) -> int:
        return len(self.cluster)


@dataclass(frozen=True, eq=False)
class PairsEvaluation:
    """Classes of rows, measured. loss: with the regulariser. velocity: (R, unknowns). attention: (R, K, J), mean over
    the images of the cluster and both views; nan where there is no such area or image."""

    loss: float
    velocity: Array
    attention: Array


@dataclass(frozen=True, eq=False)
class PairsObjective:
    """The contrastive objective of classes of rows over given pairs. share: (R,), of all rows, of sum 1."""

    cells: Cells
    pairs: Pairs
    objective: ContrastiveLearning
    share: Array

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def evaluate(self, state: Array) -> PairsEvaluation:
        """Loss, velocity and attention at ``state``, (R, n_phi + n_upsilon). Not finite where float64 cannot hold what
        it implies: a run then diverges."""
        cells, pairs, objective = self.cells, self.pairs, self.objective
        first, second = self._attention(state, 0), self._attention(state, 1)
        f, other = (self._pooled(attention) for attention in (first, second))
        loss, B = contrast(f, other, pairs, objective)

        pull = pairs.latent * B  # z_j B_j, (D, J)
        G = np.einsum("rdj,dj->rd", first, pull)
        total = np.concatenate(
            [
                self._phi_sums(pairs.latent * first * (pull - G[..., None])),
                self._upsilon_sums(state, pull, G),
            ],
            axis=1,
        )
        velocity = total / (cells.patches * len(pairs) * cells.tied) - objective.regulariser * state
        squares = cells.patches * float(self.share @ (state**2 @ cells.tied))
        return PairsEvaluation(
            loss + objective.regulariser / 2 * squares, velocity, self._by_cluster((first + second) / 2)
        )

    def _blocks(self, rows: int) -> Iterator[slice]:
        """The images, a few at a time."""
        size = max(1, LARGEST_BLOCK // (rows * self.pairs.visible.shape[2]))
        return (slice(start, start + size) for start in range(0, len(self.pairs), size))

    def _weights(self, state: Array, view: int, images: slice) -> tuple[Array, Array]:
        """Attention by cell on visible patches and on masked ones, each (R, images, C)."""
        cells, pairs = self.cells, self.pairs
        n_phi = len(cells.phi_tied)
        cluster = pairs.cluster[images]
        area = cells.area[cluster]  # (images, C)
        z = np.take_along_axis(pairs.latent[images], area, axis=1)
        Phi = state[:, :n_phi][:, np.take_along_axis(cells.phi[cluster], area, axis=1)]
        Upsilon = state[:, n_phi:][:, None, cells.upsilon]
        visible = pairs.visible[view, images]
        masked = cells.size - visible
        logit = np.where(visible > 0, z * Phi + Upsilon, -np.inf)  # what is not there sets no scale
        blank = np.where(masked > 0, Upsilon, -np.inf)
        shift = np.maximum(logit, blank).max(axis=-1, keepdims=True)
        seen, hidden = visible * np.exp(logit - shift), masked * np.exp(blank - shift)
        Z = (seen + hidden).sum(axis=-1, keepdims=True)
        return seen / Z, hidden / Z

    def _attention(self, state: Array, view: int) -> Array:
        """A of every class of rows in a view, (R, D, J)."""
        found = np.empty((len(state), *self.pairs.latent.shape))
        for images in self._blocks(len(state)):
            seen, _ = self._weights(state, view, images)
            found[:, images] = seen if self.cells.single else self._by_area(seen, images)
        return found

    def _by_area(self, by_cell: Array, images: slice) -> Array:
        """Sums over the cells of each area; (R, images, C) to (R, images, J)."""
        areas = np.arange(self.cells.phi.shape[1])
        found = np.empty((*by_cell.shape[:2], len(areas)))
        for k in np.unique(self.pairs.cluster[images]):
            here = self.pairs.cluster[images] == k
            inside = self.cells.area[k][:, None] == areas
            found[:, here] = by_cell[:, here] @ inside.astype(float)
        return found

    def _pooled(self, attention: Array) -> Array:
        """f, (D, J)."""
        pooled: Array = self.pairs.latent * np.einsum("r,rdj->dj", self.share, attention)
        return pooled

    def _phi_sums(self, values: Array) -> Array:
        """Sums over images and tied areas of values (R, D, J); shape (R, n_phi)."""
        cells = self.cells
        by_area = self._sums(values)
        known = cells.phi >= 0
        return sums_by_index(by_area[:, known], cells.phi[known], len(cells.phi_tied))

    def _sums(self, values: Array) -> Array:
        """Sums of values (R, D, J) over the images of each cluster; shape (R, K, J)."""
        clusters = len(self.cells.area)
        member = (self.pairs.cluster == np.arange(clusters)[:, None]).astype(float)
        sums: Array = np.einsum("kd,rdj->rkj", member, values, optimize=True)
        return sums

    def _upsilon_sums(self, state: Array, pull: Array, G: Array) -> Array:
        """Sums over images and tied positions; shape (R, n_upsilon)."""
        cells, pairs = self.cells, self.pairs
        by_cell = np.zeros((len(state), len(cells.size)))
        for images in self._blocks(len(state)):
            seen, hidden = self._weights(state, 0, images)
            there = np.take_along_axis(pull[images], cells.area[pairs.cluster[images]], axis=1)
            by_cell += np.einsum("rdc,dc->rc", seen, there)
            by_cell -= np.einsum("rdc,rd->rc", seen + hidden, G[:, images])
        return sums_by_index(by_cell, cells.upsilon, len(cells.upsilon_tied))

    def _by_cluster(self, attention: Array) -> Array:
        """Means over the images of each cluster, nan where there is no such area or image."""
        number = np.bincount(self.pairs.cluster, minlength=len(self.cells.area)).astype(float)
        means = self._sums(attention) / np.where(number > 0, number, np.nan)[:, None]
        return np.where(self.cells.phi >= 0, means, np.nan)


def contrast(f: Array, other: Array, pairs: Pairs, objective: ContrastiveLearning) -> tuple[float, Array]:
    """The loss without the regulariser, and B, (D, J), from the pooled outputs of both views, (D, J)."""
    tau = objective.temperature
    same = pairs.cluster[pairs.negatives] == pairs.cluster[:, None]  # (D, n)
    rivals = other[pairs.negatives]  # (D, n, J)
    similarity = np.concatenate(
        [np.einsum("dj,dj->d", f, other)[:, None], same * np.einsum("dj,dnj->dn", f, rivals)], axis=1
    )
    scaled = (similarity - similarity.max(axis=1, keepdims=True)) / tau
    chance = np.exp(scaled)
    total = chance.sum(axis=1, keepdims=True)
    loss = float(tau * np.mean(np.log(total[:, 0]) - scaled[:, 0]))
    chance /= total
    B = chance[:, 1:].sum(axis=1)[:, None] * other  # 1 - π₊ without its cancellation
    B -= np.einsum("dn,dnj->dj", chance[:, 1:] * same, rivals)
    return loss, B
