"""The relaxed one-layer model carried out literally, one vector at a time: slow, and independent of the package.

The relations, with e_p positions, v_{k,j} features, ξ noise, M the mask, H heads:

    X_q  = z_j v_{k,j} + σ ξ_q,   j the area of (q + roll) mod P in cluster k
    M(X)_q = X_q visible, 0 masked
    attn^h_{p→q} = exp(l_q) / Σ_r exp(l_r),   l_q = (e_p + c M(X)_p)ᵀ Q_h (M(X)_q + e_q),   r over all P
    F_p  = (1/H) Σ_h V_h Σ_q attn^h_{p→q} M(X)_q
    loss = ½ mean over images of Σ_{p∈M} ‖F_p - X_p‖²
    F    = (1/P) Σ_p F_p,   s(i, j) = ⟨F(first view of i), F(second view of j)⟩
    contrastive loss = -τ mean over images of log(e^{s(i, i)/τ} / (e^{s(i, i)/τ} + Σ_j e^{s(i, j)/τ})) + ½ λ ‖Q‖²

Nothing is vectorised over patches, heads or images, and no gradient is written down: ``slope`` differs the
loss as it stands. The cases that the tests share stand at the end.
"""

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Two clusters that differ in number, size and place of their areas; five areas, four of them local; tiny.
TWO = np.array([[0, 0, 0, 1, 1, 2], [0, 1, 1, 0, 2, 3]])
MANY = np.array([[0, 0, 1, 2, 3, 4, 4]])
TINY = np.array([[0, 0, 1, 1, 2]])


@dataclass(frozen=True)
class Oracle:
    """The numbers of one model and its images."""

    area_of: NDArray[np.int64]  # (K, P)
    e: Array  # (P, d)
    v: Array  # (K, areas, d)
    Q: Array  # (H, d, d)
    V: Array  # (H, d, d)
    cluster: NDArray[np.int64]  # (n,)
    latent: Array  # (n, areas)
    roll: NDArray[np.int64]  # (n,)
    mask: NDArray[np.bool_]  # (n, P)
    noise: Array | None  # (n, P, d)
    sigma: float = 0.0
    content: float = 0.0

    @property
    def patches(self) -> int:
        """P."""
        return len(self.e)

    def change(self, **fields) -> "Oracle":
        """A copy with some fields replaced."""
        return replace(self, **fields)

    def X(self, i: int) -> list[Array]:
        """The patches of image i."""
        found = []
        for q in range(self.patches):
            k = int(self.cluster[i])
            j = int(self.area_of[k][(q + int(self.roll[i])) % self.patches])
            x = float(self.latent[i][j]) * self.v[k][j]
            if self.sigma:
                x = x + self.sigma * self.noise[i][q]
            found.append(x)
        return found

    def MX(self, i: int) -> list[Array]:
        """The patches of image i, zero where masked."""
        return [np.zeros_like(x) if self.mask[i][q] else x for q, x in enumerate(self.X(i))]

    def attention_of(self, i: int, h: int, p: int) -> list[float]:
        """attn^h_{p→q} in image i, for each q."""
        seen = self.MX(i)
        query = (self.e[p] + self.content * seen[p]) @ self.Q[h]
        weights = [exp(query @ (seen[q] + self.e[q])) for q in range(self.patches)]
        return [weight / sum(weights) for weight in weights]

    def attention(self) -> Array:
        """(n, H, P, P)."""
        images, heads, positions = range(len(self.cluster)), range(len(self.Q)), range(self.patches)
        return np.array([[[self.attention_of(i, h, p) for p in positions] for h in heads] for i in images])

    def F(self, i: int, p: int) -> Array:
        """The output of row p in image i."""
        seen, F = self.MX(i), np.zeros(self.e.shape[1])
        for h in range(len(self.Q)):
            pooled = np.zeros_like(F)
            for q, attn in enumerate(self.attention_of(i, h, p)):
                pooled = pooled + attn * seen[q]
            F = F + self.V[h] @ pooled / len(self.Q)
        return F

    def outputs(self) -> list[Array]:
        """(1/P) Σ_p F_p of each image, over masked and visible p alike."""
        rows = range(self.patches)
        return [sum(self.F(i, p) for p in rows) / self.patches for i in range(len(self.cluster))]

    def loss(self) -> float:
        """½ Σ_{p∈M} ‖F_p - X_p‖², mean over the images."""
        total = 0.0
        for i in range(len(self.cluster)):
            X = self.X(i)
            for p in range(self.patches):
                if not self.mask[i][p]:
                    continue
                F = self.F(i, p)
                total += 0.5 * sum((f - x) ** 2 for f, x in zip(F, X[p], strict=True))
        return total / len(self.cluster)

    def slope(self, name: str, step: float = 1e-5) -> Array:
        """∂loss/∂ the field ``name``, entry by entry, by central differences."""
        at = getattr(self, name)
        found = np.zeros_like(at)
        for index in np.ndindex(at.shape):
            there = []
            for side in (step, -step):
                moved = at.copy()
                moved[index] += side
                there.append(self.change(**{name: moved}).loss())
            found[index] = (there[0] - there[1]) / (2 * step)
        return found

    def variances(self) -> tuple[float, float]:
        """FP and PP: the variance over keys of a logit's content and position parts, mean over the rest."""
        fp, pp = [], []
        for h in range(len(self.Q)):
            for p in range(self.patches):
                row = self.e[p] @ self.Q[h]
                pp.append(spread([row @ self.e[q] for q in range(self.patches)]))
                for i in range(len(self.cluster)):
                    fp.append(spread([row @ x for x in self.MX(i)]))
        return sum(fp) / len(fp), sum(pp) / len(pp)


def told_apart(
    first: Oracle, outputs: list[Array], negatives: NDArray[np.int64], tau: float, decay: float
) -> float:
    """The contrastive loss of first views; ``outputs``: of the second views, whatever made them."""
    total = 0.0
    for i, F in enumerate(first.outputs()):
        own = exp(float(F @ outputs[i]) / tau)
        others = [exp(float(F @ outputs[j]) / tau) for j in negatives[i]]
        total -= tau * log(own / (own + sum(others)))
    return total / len(first.cluster) + decay / 2 * float(sum(q * q for q in first.Q.ravel()))


def told_apart_slope(first: Oracle, name: str, *of_loss, step: float = 1e-5) -> Array:
    """∂ of that loss / ∂ the field ``name`` of the first views alone, entry by entry, by central differences."""
    at = getattr(first, name)
    found = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        there = []
        for side in (step, -step):
            moved = at.copy()
            moved[index] += side
            there.append(told_apart(first.change(**{name: moved}), *of_loss))
        found[index] = (there[0] - there[1]) / (2 * step)
    return found


def spread(numbers: list[float]) -> float:
    """The variance of equally likely numbers."""
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 for number in numbers) / len(numbers)


# What a test compares it with. Imports are here so that the definition above needs nothing of the package.


def world_of(area_of=TWO, masked=3, low=0.5, high=1.5, **relax):
    """A relaxed world on ``area_of`` with uniform latents."""
    from mimlab.dynamics.relax import Relaxation
    from mimlab.dynamics.relaxed import RelaxedWorld
    from mimlab.world.latent import Latent

    return RelaxedWorld(np.array(area_of), Latent(low=low, high=high), masked, Relaxation(**relax))


def images_of(world, images=3, seed=0):
    """Some images of the world."""
    from mimlab.dynamics.relaxed import draw_images

    return draw_images(world, np.random.default_rng(seed), images)


def model_of(world, seed=0, scale=0.7):
    """The model with Q drawn at random, and V where it is trained; positions too, a little off their start."""
    import torch

    from mimlab.dynamics.relaxed import RelaxedAttention

    model = RelaxedAttention(world, seed=seed)
    generator = np.random.default_rng(seed + 1)
    with torch.no_grad():
        model.Q.copy_(torch.tensor(scale * generator.normal(size=tuple(model.Q.shape))))
        if world.relax.value_matrix:
            model.V.add_(torch.tensor(0.3 * generator.normal(size=tuple(model.V.shape))))
        if world.relax.positions == "learned":
            model.positions.add_(torch.tensor(0.2 * generator.normal(size=tuple(model.positions.shape))))
    return model


def plain(tensor) -> Array:
    """A tensor's numbers, or an array's, as a copy."""
    return np.array(tensor.detach().numpy() if hasattr(tensor, "detach") else tensor)


def oracle_of(world, model, images) -> Oracle:
    """The oracle with the numbers of a model and images."""
    return Oracle(
        area_of=np.array(world.area_of),
        e=plain(model.positions),
        v=plain(model.features),
        Q=plain(model.Q),
        V=plain(model.V),
        cluster=plain(images.cluster),
        latent=plain(images.latent),
        roll=plain(images.roll),
        mask=plain(images.mask),
        noise=None if images.noise is None else plain(images.noise),
        sigma=world.relax.noise,
        content=world.relax.content_in_query,
    )
