"""Engine "dense": one layer of softmax attention on explicit images, by autograd (theory, sections 1 and 2).

The honest baseline. Features v_{k,j} and position encodings e_p are vectors of R^d, images are arrays of
patches, Q is a d x d matrix, and PyTorch differentiates the loss. Nothing is lumped and no gradient is
written down, so agreement with the other engines tests both. Its one liberty: a masked patch is the zero
vector, so content is multiplied at the visible patches only. The softmax runs over all P positions.

Exact up to sampling: each step draws fresh images, so Q carries the noise of stochastic gradient descent,
less the smaller the learning rate and the larger the batch. Loss and attention are means over fixed
evaluation images and have their error, too. Misuse: where the learning rate is not small, the run is no
gradient flow; rows that were not trained keep Phi = Upsilon = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan

import numpy as np
import torch
from numpy.typing import NDArray

from mimlab.dynamics.dense_images import DenseWorld, MiniBatch, draw
from mimlab.runs.errors import InputError

Array = NDArray[np.float64]
Seed = int | np.random.SeedSequence

EVALUATION = 512  # images on which an observed row is measured
PIECE = 2**21  # numbers in the largest array of one pass; larger ones leave the cache and are slower


def orthonormal(size: int, basis: str, seed: Seed | np.random.Generator) -> Array:
    """``size`` orthonormal rows of R^size: a random rotation, or for "canonical" the coordinate axes."""
    if basis == "canonical":
        return np.eye(size)
    if basis == "random":
        return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0])
    raise InputError(f"dense: basis = {basis!r} is not known; give random or canonical.")


class DenseAttention:
    """The layer F_p = Σ_q attn_{p→q} M(X)_q, attn = softmax_q(e_pᵀQ(M(X)_q + e_q)), with Q(0) = 0.

    Nothing depends on the orthonormal basis. The default is random: tokens then have no zero coordinate, so
    neither a mistake nor a speed can come from sparsity.

    Tensors: ``positions`` (P, d); ``features`` (clusters, most areas, d), zero where a cluster has fewer;
    ``Q`` (d, d). Where ``rows`` is None below, all P rows are meant.
    """

    def __init__(
        self,
        world: DenseWorld,
        *,
        basis: str = "random",
        seed: Seed | np.random.Generator = 0,
        dtype: str = "float64",
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise InputError(f"dense: dtype = {dtype!r} is not known; give float64 or float32.")
        self.world = world
        self.dtype = getattr(torch, dtype)
        axes = orthonormal(world.space, basis, seed)
        features = np.zeros((world.clusters, int(world.features.max()), world.space))
        there = np.arange(features.shape[1]) < world.features[:, None]
        features[there] = axes[world.patches :][: there.sum()]
        self.axes = torch.tensor(axes, dtype=self.dtype)
        self.positions = self.axes[: world.patches]
        self.features = torch.tensor(features, dtype=self.dtype)
        self.Q = torch.zeros(world.space, world.space, dtype=self.dtype)

    def loss_and_gradient(
        self, batch: MiniBatch, rows: Sequence[int] | None = None
    ) -> tuple[float, torch.Tensor]:
        """½ Σ_{p∈M} ‖F_p - X_p‖² over p in ``rows``, mean over the batch, and its gradient in Q: (d, d)."""
        Q = self.Q.detach().requires_grad_()
        outputs = self._rows_of(Q, rows)
        # What all images share is differentiated once, by the gradient that a few images at a time add up.
        queries, upsilon = (tensor.detach().requires_grad_() for tensor in outputs)
        total = 0.0
        for piece in batch.pieces(self._images_a_pass(len(queries))):
            _, losses = self._reconstruct(queries, upsilon, piece, rows)
            loss = losses.sum() * (batch.weight / len(batch))
            loss.backward()
            total += loss.item()
        torch.autograd.backward(outputs, [queries.grad, upsilon.grad])
        return total, Q.grad

    def descend(self, batch: MiniBatch, learning_rate: float, rows: Sequence[int] | None = None) -> float:
        """One step Q ← Q - η ∇L on the batch; returns the loss before it."""
        loss, gradient = self.loss_and_gradient(batch, rows)
        self.Q.sub_(gradient, alpha=learning_rate)
        return loss

    def reconstruct(self, batch: MiniBatch, rows: Sequence[int] | None = None) -> tuple[Array, Array]:
        """attn_{p→q}, masked q included: (images, rows, P), and ½ 1{p∈M} ‖F_p - X_p‖²: (images, rows)."""
        with torch.no_grad():
            queries, upsilon = self._rows_of(self.Q, rows)
            pieces = batch.pieces(self._images_a_pass(len(queries)))
            parts = [self._reconstruct(queries, upsilon, piece, rows) for piece in pieces]
            attention, losses = (torch.cat(tensors).double() for tensors in zip(*parts, strict=True))
        return attention.numpy(), losses.numpy()

    def correlations(self, rows: Sequence[int] | None = None) -> tuple[Array, Array]:
        """Phi (rows, clusters, most areas), NaN where a cluster has fewer, and Upsilon (rows, P), from Q; means over
        heads, where there are several."""
        with torch.no_grad():
            Q = self.Q.reshape(-1, *self.Q.shape[-2:]).mean(dim=0)
            queries, upsilon = self._rows_of(Q, rows)
            phi = torch.einsum("rd,kjd->rkj", queries, self.features).double().numpy()
        missing = np.arange(phi.shape[2]) >= self.world.features[:, None]
        return np.where(missing, nan, phi), upsilon.double().numpy()

    def logit_variances(self, batch: MiniBatch) -> tuple[Array, float]:
        """Variance over the keys of e_pᵀQM(X)_q, mean over rows, of each image, and the same of e_pᵀQe_q: FP and PP of
        theory, section 8, with its parts exact."""
        P, found = self.world.patches, []
        with torch.no_grad():
            queries, upsilon = self._rows_of(self.Q, None)
            for piece in batch.pieces(self._images_a_pass(len(queries))):
                content = self._patches(piece, np.nonzero(~piece.mask)[1].reshape(len(piece), -1))
                logits = queries @ content.transpose(1, 2)  # 0 at the masked patches, which are left out
                found.append((logits.square().sum(2) / P - (logits.sum(2) / P).square()).mean(dim=1))
        return torch.cat(found).double().numpy(), float(upsilon.var(dim=1, correction=0).mean())

    def draw(self, generator: np.random.Generator, images: int, hidden: int | None = None) -> MiniBatch:
        """Fresh images of its world, as ``draw``."""
        return draw(self.world, generator, images, hidden)

    def evaluated(
        self, rows: Sequence[int], seeds: Sequence[np.random.SeedSequence], images: int
    ) -> Sequence[MiniBatch]:
        """What rows are measured on: of each row images of its own, whichever others there are. Its position is masked
        in all of them, and clusters have equal shares."""
        drawn = [self.draw(np.random.default_rng(seeds[row]), images, row) for row in rows]
        return [replace(one, cluster=np.arange(images) % self.world.clusters) for one in drawn]

    def measured(self, looked_at: Sequence[MiniBatch], rows: Sequence[int]) -> tuple[RowMeasure, ...]:
        """The rows on their images."""
        return tuple(measure(self, images, row) for images, row in zip(looked_at, rows, strict=True))

    def area_at(self, batch: MiniBatch, where: NDArray[np.int64]) -> NDArray[np.int64]:
        """The area that lies at each of the positions ``where``, (images, n) or (1, n); shape (images, n)."""
        return np.asarray(self.world.area_of[batch.cluster[:, None], where])

    def own_noise(self, batch: MiniBatch, row: int) -> Array | float:
        """What no reconstruction of a patch can get below, besides masks that hide its area: nothing here."""
        return 0.0

    def _rows_of(self, Q: torch.Tensor, rows: Sequence[int] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """e_pᵀQ, shape (rows, d), and e_pᵀQe_q, shape (rows, P): the logits' part common to all images. Of several
        heads the rows follow one another, head by head."""
        queries = ((self.positions if rows is None else self.positions[list(rows)]) @ Q).reshape(
            -1, Q.shape[-1]
        )
        return queries, queries @ self.positions.T

    def _images_a_pass(self, rows: int) -> int:
        visible = self.world.patches - self.world.masked
        return max(1, PIECE // max(rows * self.world.patches, visible * self.world.space))

    def _patches(
        self, batch: MiniBatch, where: NDArray[np.int64], features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """X_q = z_j v_{k,j} at the positions ``where`` (images, n), of these features or others; (images, n, d)."""
        cluster = batch.cluster[:, None]
        area = self.area_at(batch, where)
        latent = torch.tensor(np.take_along_axis(batch.latent, area, axis=1), dtype=self.dtype)
        shown = area if batch.token is None else np.take_along_axis(batch.token, area, axis=1)
        vectors = self.features if features is None else features
        return vectors[torch.as_tensor(cluster), torch.as_tensor(shown)].mul_(latent[..., None])

    def _reconstruct(
        self, queries: torch.Tensor, upsilon: torch.Tensor, batch: MiniBatch, rows: Sequence[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention (images, rows, P) and losses (images, rows), as ``reconstruct``, for autograd."""
        images, chosen = len(batch), np.arange(self.world.patches) if rows is None else np.asarray(rows)
        target = self._patches(batch, np.broadcast_to(chosen, (images, len(chosen))))
        visible = np.nonzero(~batch.mask)[1].reshape(images, -1)
        content = self._patches(batch, visible)
        at = torch.as_tensor(visible)[:, None, :].expand(-1, len(queries), -1)
        logits = upsilon.expand(images, -1, -1).scatter_add(2, at, queries @ content.transpose(1, 2))
        attention = torch.softmax(logits, dim=2)
        residual = torch.baddbmm(target, attention.gather(2, at), content, beta=-1)  # F - X
        masked = torch.as_tensor(batch.mask[:, chosen])
        return attention, 0.5 * torch.linalg.vecdot(residual, residual) * masked


@dataclass(frozen=True)
class RowMeasure:
    """A row on given images: loss with the factor 1{p∈M}, the least that it can be there, attention by area.

    Attention is conditional on p masked and its own area not wholly masked; NaN where no image is such.
    Standard errors (of loss, loss - floor and the two) are over these images, of this one network.
    """

    loss: float
    floor: float
    attention_own: float
    attention_global: float
    loss_se: float
    excess_se: float
    attention_own_se: float
    attention_global_se: float


def measure(model: DenseAttention, batch: MiniBatch, row: int) -> RowMeasure:
    """Measure one row on a batch."""
    areas = model.area_at(batch, np.arange(model.world.patches)[None, :])  # (images, P)
    own, visible, masked = areas[:, [row]], ~batch.mask, batch.mask[:, row]
    hopeful = masked & (visible & (areas == own)).any(axis=1)
    z = np.take_along_axis(batch.latent, own, axis=1)[:, 0]
    attention, losses = (array[:, 0] for array in model.reconstruct(batch, [row]))
    floors = 0.5 * z**2 * (masked & ~hopeful) + model.own_noise(batch, row) * masked
    on_own, on_global = (
        (attention * (visible & (areas == area))).sum(axis=1)[hopeful] for area in (own, np.zeros_like(own))
    )
    loss, loss_se = mean_and_error(batch.weight * losses)
    floor, excess_se = (
        float(np.mean(batch.weight * floors)),
        mean_and_error(batch.weight * (losses - floors))[1],
    )
    (own_mean, own_se), (global_mean, global_se) = mean_and_error(on_own), mean_and_error(on_global)
    return RowMeasure(loss, floor, own_mean, global_mean, loss_se, excess_se, own_se, global_se)


@np.errstate(over="ignore", invalid="ignore")  # of a run that flies apart
def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean and its standard error; NaN where there are too few values."""
    mean = float(values.mean()) if len(values) else nan
    return mean, float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else nan


@dataclass(frozen=True, eq=False)
class DenseRecord:
    """The observed rows after ``step`` steps; ``time`` is learning rate x steps."""

    step: int
    time: float
    phi: Array  # (rows, clusters, most areas), NaN where a cluster has fewer
    upsilon: Array  # (rows, P)
    measures: tuple[RowMeasure, ...]  # one per row


@dataclass(frozen=True, eq=False)
class DenseRun:
    """Records of ``rows``; ``status``: "finished", "stopped" (by the caller's condition) or "diverged"; the network as
    it was left."""

    rows: tuple[int, ...]
    records: tuple[DenseRecord, ...]
    status: str
    model: DenseAttention


def train_dense(
    world: DenseWorld,
    *,
    learning_rate: float,
    steps: int,
    batch: int,
    seed: int,
    rows: Sequence[int] | None = None,
    record: Iterable[int] = (),
    stop: Callable[[DenseRecord], bool] | None = None,
    observe: Sequence[int] | None = None,
    conditional: bool = False,
    evaluation: int = EVALUATION,
    basis: str = "random",
    dtype: str = "float64",
    network: Callable[[Seed], DenseAttention] | None = None,
) -> DenseRun:
    """Gradient descent from Q = 0, each step on ``batch`` fresh images.

    Parameters
    ----------
    learning_rate, steps
        η and the number of steps.
    rows
        Query positions to train; None is the whole P x P attention. The draws do not depend on it.
    record
        Steps to record; the first state (step 0) and the last always are.
    stop
        Asked at each record after the first; True ends the run.
    observe
        Rows to record, by default those trained. Each costs a pass over ``evaluation`` images a record.
    conditional
        For one row: masks are drawn given that its position is masked, and the loss is weighted by the chance
        of that. The expectation is the same, and no image is wasted.
    evaluation
        Images on which an observed row is measured, the same at each record (``DenseAttention.evaluated``).
    basis, dtype
        "random" or "canonical"; "float64" or "float32".
    network
        Makes another network than the plain one from a seed; basis and dtype are then its own affair.

    Raises InputError for rows that are no positions, and for numbers out of range.
    """
    trained = None if rows is None else _positions(world, "rows", rows)
    every = tuple(range(world.patches))
    observed = _positions(world, "observe", observe) if observe is not None else trained or every
    if not (isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"dense: learning_rate = {learning_rate} must be a finite positive number.")
    for name, number in (("steps", steps), ("batch", batch), ("evaluation", evaluation)):
        if number < 1:
            raise InputError(f"dense: {name} = {number} must be at least 1.")
    if conditional and (trained is None or len(trained) > 1):
        raise InputError("dense: masks can be conditional on one position only; give rows = [position].")

    seeds = np.random.SeedSequence(seed).spawn(2 + world.patches)
    generator = np.random.default_rng(seeds[0])
    model = network(seeds[1]) if network else DenseAttention(world, basis=basis, seed=seeds[1], dtype=dtype)

    looked_at = model.evaluated(observed, seeds[2:], evaluation)

    def look(step: int) -> DenseRecord:
        measures = model.measured(looked_at, observed)
        return DenseRecord(step, step * learning_rate, *model.correlations(observed), measures)

    records, due = [look(0)], {*record, steps}
    for step in range(1, steps + 1):
        images = model.draw(generator, batch, trained[0] if trained and conditional else None)
        loss = model.descend(images, learning_rate, trained)
        if not isfinite(loss) or (step in due and not bool(torch.isfinite(model.Q).all())):
            return DenseRun(observed, tuple(records), "diverged", model)
        if step in due:
            records.append(look(step))
            if stop is not None and stop(records[-1]):
                return DenseRun(observed, tuple(records), "stopped", model)
    return DenseRun(observed, tuple(records), "finished", model)


def _positions(world: DenseWorld, name: str, rows: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(int(row) for row in rows)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= row < world.patches for row in chosen):
        raise InputError(f"dense: {name} = {list(rows)}; give distinct positions, 0 to {world.patches - 1}.")
    return chosen
