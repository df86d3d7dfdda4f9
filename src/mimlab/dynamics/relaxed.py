"""Engine "dense" with the model's assumptions relaxed (docs/relaxations.md): each key of ``Relaxation`` as explicit
vectors, matrices and images, differentiated by PyTorch.

Nothing is derived here either. The loss is that of theory, section 2, for whatever images, features, positions, heads
and matrices there are; without a relaxation it is the plain layer's to rounding. Rows do not decouple in general, so
all are trained together. Misuse: as for the plain layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mimlab.dynamics.dense import Array, DenseAttention, Seed
from mimlab.dynamics.dense_images import MiniBatch
from mimlab.dynamics.relax import Relaxation
from mimlab.dynamics.relaxed_images import Images, RelaxedWorld, draw_images

__all__ = ["Images", "Relaxation", "RelaxedAttention", "RelaxedWorld", "draw_images"]

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of adam


class RelaxedAttention(DenseAttention):
    """The layer F_p = mean_h V_h Σ_q attn^h_{p→q} M(X)_q, whose queries are e_p + c M(X)_p, and its optimizer.

    Tensors: ``positions`` (P, d), ``features`` (clusters, most areas, d), ``Q`` and ``V`` (heads, d, d); those that are
    trained require gradients. ``start``: standard deviation of the entries of Q at the start.
    """

    def __init__(self, world: RelaxedWorld, *, seed: Seed = 0, start: float = 0.0) -> None:
        relax, d = world.relax, world.space
        generator = np.random.default_rng(seed)
        super().__init__(world, seed=generator)
        axes = self.axes.numpy()
        self.relax = relax
        self.features = torch.tensor(_features(self.features.numpy(), axes[-1], world))
        positions = _positions(relax.positions, world.patches, generator) @ axes[: world.patches]
        self.positions = torch.tensor(positions, requires_grad=relax.positions == "learned")
        Q = axes.T @ (start * generator.standard_normal((relax.heads, d, d))) @ axes if start else None
        self.Q = torch.zeros(relax.heads, d, d, dtype=self.dtype) if Q is None else torch.tensor(Q)
        self.Q.requires_grad_()
        identity = torch.eye(d, dtype=self.dtype)
        self.V = identity.repeat(relax.heads, 1, 1).requires_grad_(relax.value_matrix > 0)
        # What is trained, its learning rate relative to Q's, and what it decays to.
        trained = ((self.Q, 1.0, 0.0), (self.V, relax.value_matrix, identity), (self.positions, 1.0, None))
        self._trained = [one for one in trained if one[0].requires_grad]
        self._memory = [(torch.zeros_like(one[0]), torch.zeros_like(one[0])) for one in self._trained]
        self._steps = 0

    def patches(self, images: Images) -> torch.Tensor:
        """X, (images, P, d)."""
        every = np.broadcast_to(np.arange(self.world.patches), images.mask.shape)
        return self._patches(images, every)

    def attention(self, images: Images) -> torch.Tensor:
        """attn^h_{p→q}, masked q included: (images, heads, P, P)."""
        return self._look(*self._rows_of(self.Q, None), images, None)[0]

    def loss(self, images: MiniBatch, rows: Sequence[int] | None = None) -> torch.Tensor:
        """½ Σ_{p∈M} ‖F_p - X_p‖² over p in ``rows``, by default all; mean over the images, weighted, for autograd."""
        queries, upsilon = self._rows_of(self.Q, rows)
        pieces = images.pieces(self._images_a_pass(len(queries)))
        total = sum(self._reconstruct(queries, upsilon, piece, rows)[1].sum() for piece in pieces)
        return torch.as_tensor(total * (images.weight / len(images)))

    def shares(self, images: Images) -> dict[str, float]:
        """The variances FP and PP of the logits (theory, section 8), heads averaged; their shares are of the sum."""
        fp, pp = self.logit_variances(images)
        return {"fp": float(fp.mean()), "pp": pp}

    def descend(self, batch: MiniBatch, learning_rate: float, rows: Sequence[int] | None = None) -> float:
        """One step of the optimizer on the batch; returns the loss before it."""
        for tensor, *_ in self._trained:
            tensor.grad = None
        loss = self.loss(batch, rows)
        loss.backward()
        with torch.no_grad():
            self._update(learning_rate)
        return float(loss.detach())

    def draw(self, generator: np.random.Generator, images: int, hidden: int | None = None) -> Images:
        """Fresh images of its world, as ``draw_images``."""
        assert isinstance(self.world, RelaxedWorld)
        return draw_images(self.world, generator, images, hidden)

    def area_at(self, batch: MiniBatch, where: NDArray[np.int64]) -> NDArray[np.int64]:
        """The area that lies at each of the positions ``where`` in these images; shape (images, n)."""
        assert isinstance(batch, Images)
        return super().area_at(batch, (where + batch.roll[:, None]) % self.world.patches)

    def own_noise(self, batch: MiniBatch, row: int) -> Array | float:
        """½ σ² ‖ξ_p‖² of each image: nothing tells it."""
        noise = getattr(batch, "noise", None)
        return 0.0 if noise is None else 0.5 * self.relax.noise**2 * (noise[:, row] ** 2).sum(axis=1)

    def _patches(
        self, batch: MiniBatch, where: NDArray[np.int64], features: torch.Tensor | None = None
    ) -> torch.Tensor:
        content, noise = super()._patches(batch, where, features), getattr(batch, "noise", None)
        if noise is not None:
            content.add_(torch.tensor(noise[np.arange(len(batch))[:, None], where]), alpha=self.relax.noise)
        return content

    def _contents(self, batch: MiniBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Every patch as coordinates (images, P, B) in a basis (B, d): that of the features, which are few, where there
        is no noise."""
        every = np.broadcast_to(np.arange(self.world.patches), batch.mask.shape)
        basis = self.features.flatten(0, 1)
        if self.relax.noise:
            return self._patches(batch, every), torch.eye(self.world.space, dtype=self.dtype)
        axes = torch.eye(len(basis), dtype=self.dtype).unflatten(0, self.features.shape[:2])
        return self._patches(batch, every, axes), basis

    def _look(
        self, queries: torch.Tensor, upsilon: torch.Tensor, batch: MiniBatch, rows: Sequence[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention (images, heads, rows, P); patches, and what is seen of them, in a basis; the basis."""
        contents, basis = self._contents(batch)
        seen = contents.masked_fill(torch.as_tensor(batch.mask)[..., None], 0.0)
        queries = queries @ basis.T
        if self.relax.content_in_query:
            known = self.relax.content_in_query * (seen if rows is None else seen[:, list(rows)])[:, None]
            asked = basis @ self.Q  # v_jᵀQ_h, (heads, B, d)
            queries = queries + (known @ (asked @ basis.T)).flatten(1, 2)
            upsilon = upsilon + (known @ (asked @ self.positions.T)).flatten(1, 2)
        queries, upsilon = (each.expand(len(batch), -1, -1) for each in (queries, upsilon))
        attention = torch.softmax(torch.baddbmm(upsilon, queries, seen.mT), dim=2)
        return attention.unflatten(1, (self.relax.heads, -1)), contents, seen, basis

    def _reconstruct(
        self, queries: torch.Tensor, upsilon: torch.Tensor, batch: MiniBatch, rows: Sequence[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention, mean over heads, and losses, as the plain layer's."""
        attention, contents, seen, basis = self._look(queries, upsilon, batch, rows)
        mask = torch.as_tensor(batch.mask)
        if rows is not None:
            contents, mask = contents[:, list(rows)], mask[:, list(rows)]
        F = attention @ seen[:, None]  # (images, heads, rows, B)
        if self.relax.value_matrix:
            residual = (F @ (basis @ self.V.mT)).mean(dim=1) - contents @ basis
            squares = residual.square().sum(dim=2)
        else:
            residual = F.mean(dim=1) - contents
            other = residual if self.relax.noise else residual @ (basis @ basis.T)
            squares = torch.linalg.vecdot(other, residual)
        mean = attention.mean(dim=1) if self.relax.heads > 1 else attention.squeeze(1)
        return mean, 0.5 * squares * mask

    def _update(self, learning_rate: float) -> None:
        """One step along the gradients that are there."""
        relax = self.relax
        self._steps += 1
        for (tensor, rate, rest), (first, second) in zip(self._trained, self._memory, strict=True):
            assert tensor.grad is not None
            step = tensor.grad
            if relax.optimizer == "adam":
                first.lerp_(step, 1 - BETAS[0])
                second.mul_(BETAS[1]).addcmul_(step, step, value=1 - BETAS[1])
                mean, square = (m / (1 - b**self._steps) for m, b in zip((first, second), BETAS, strict=True))
                step = mean / (square.sqrt() + EPSILON)
            elif relax.momentum:
                step = first.mul_(relax.momentum).add_(step)
            if relax.weight_decay and rest is not None:
                step = step + relax.weight_decay * (tensor - rest)
            tensor.sub_(step, alpha=rate * learning_rate)


def _features(features: Array, common: Array, world: RelaxedWorld) -> Array:
    """Features (clusters, most areas, d) as the relaxation has them, from orthonormal ones."""
    rho, result = world.relax.coherence, features.copy()
    for k, areas in enumerate(world.areas):
        if rho:
            result[k, :areas] = (1 - rho) ** 0.5 * features[k, :areas] + rho**0.5 * common
        pairs = (areas - 1) // 2
        for pair in range(round(world.relax.shared_features * pairs)):
            result[k, 2 * pair + 2] = result[k, 2 * pair + 1]
    return result


def _positions(kind: str, patches: int, generator: np.random.Generator) -> Array:
    """Position encodings in the basis of the orthonormal ones: (P, P), rows of norm 1."""
    if kind == "random":
        table = generator.standard_normal((patches, patches))
    elif kind == "sincos":
        half = patches // 2
        angles = np.arange(patches)[:, None] * 10_000.0 ** (-2 * np.arange(half) / patches)
        table = np.zeros((patches, patches))
        table[:, : 2 * half] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    else:
        return np.eye(patches)
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True))
