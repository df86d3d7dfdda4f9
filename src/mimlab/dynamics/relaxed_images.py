"""Images of a relaxed world: latents that are signed or correlated, areas that roll, blocks of masks, noisy patches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mimlab.dynamics.dense_images import DenseWorld, MiniBatch, draw, draw_masks
from mimlab.dynamics.relax import Relaxation

Array = NDArray[np.float64]


class Law(Protocol):
    """What is needed of the law of |z_j|; ``mimlab.world.latent.Latent`` has it."""

    def sample(self, generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        """Independent latents of the given shape."""

    def quantile(self, u: Array) -> Array:
        """Its inverse distribution function."""


@dataclass(frozen=True)
class RelaxedLatents:
    """Latents (images, areas) of ``law``, by a Gaussian copula of one common factor in each image, then signed."""

    law: Law
    relax: Relaxation

    def sample(self, generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        """Latents of the given shape."""
        common, signed = self.relax.latent_correlation, self.relax.signed_latents
        if common:
            scores = common**0.5 * generator.standard_normal((shape[0], 1))
            scores = scores + (1 - common) ** 0.5 * ndtri(generator.random(shape))
            z = self.law.quantile(ndtr(scores))
        else:
            z = self.law.sample(generator, shape)
        return np.where(generator.random(shape) < signed, -z, z) if signed else z


@dataclass(frozen=True, eq=False)
class RelaxedWorld(DenseWorld):
    """A world whose images and features are those of a relaxation."""

    latent: Any
    relax: Relaxation = field(default_factory=Relaxation)

    @property
    def space(self) -> int:
        """d: that of the plain world, and one more for what coherent features have in common."""
        return super().space + (self.relax.coherence > 0)

    @cached_property
    def plain(self) -> DenseWorld:
        """The world whose clusters, latents and uniform masks are drawn."""
        return DenseWorld(self.area_of, RelaxedLatents(self.latent, self.relax), self.masked)


@dataclass(frozen=True, eq=False)
class Images(MiniBatch):
    """Images whose areas are rolled, patch q being in the area that (q + roll) mod P has; ``noise``: each patch's ξ."""

    roll: NDArray[np.int64] = field(kw_only=True)  # (images,)
    noise: Array | None = field(default=None, kw_only=True)  # (images, P, d)


def draw_images(
    world: RelaxedWorld, generator: np.random.Generator, n: int, hidden: int | None = None
) -> Images:
    """Fresh images; ``hidden``: given that it is masked. Without a relaxation those of ``draw``, number for number."""
    images, P, relax = draw(world.plain, generator, n, hidden), world.patches, world.relax
    roll, noise = np.zeros(n, dtype=np.int64), None
    block = relax.mask_shape == "block"
    mask = relaxed_masks(world, generator, n, hidden) if block else images.mask
    if reach := round(relax.jitter * P):
        roll = generator.integers(-reach, reach + 1, size=n)
    if relax.noise:
        noise = generator.standard_normal((n, P, world.space)) / world.space**0.5
    return Images(images.cluster, images.latent, mask, images.weight, images.token, roll=roll, noise=noise)


def relaxed_masks(
    world: RelaxedWorld, generator: np.random.Generator, n: int, hidden: int | None = None
) -> NDArray[np.bool_]:
    """Masks (n, P) of the world's shape; ``hidden``: given that it is masked."""
    if world.relax.mask_shape != "block":
        return draw_masks(world.plain, generator, n, hidden)
    # Given that a position is masked, it is each of the block's with equal chance.
    first = generator.integers(world.patches if hidden is None else world.masked, size=n)
    first = first if hidden is None else hidden - first
    return np.asarray((np.arange(world.patches) - first[:, None]) % world.patches < world.masked)
