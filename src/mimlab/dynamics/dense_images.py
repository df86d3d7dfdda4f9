"""What the engine "dense" trains on: its world, and images of it with their masks, drawn afresh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mimlab.runs.errors import InputError

Array = NDArray[np.float64]

LARGEST_SPACE = 12_000  # d; Q, its gradient and the basis then hold about 1 GB each


class LatentLaw(Protocol):
    """What the engine needs of the law of z_j; ``mimlab.world.latent.Latent`` has it."""

    def sample(self, generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        """Independent latents of the given shape."""


@dataclass(frozen=True, eq=False)
class DenseWorld:
    """``area_of[k, q]``: area of patch q in cluster k, 0 the global one; ``masked`` of P patches are hidden.

    Raises InputError where areas are not numbered 0, 1, ... without a gap, where none or all patches are
    masked, or where Q would not fit in memory.

    >>> from mimlab.world.latent import Latent
    >>> DenseWorld(np.array([[0, 0, 1, 1]]), Latent(low=1, high=1), masked=2).space
    6
    """

    area_of: NDArray[np.int64]
    latent: LatentLaw
    masked: int
    context = np.empty(0, dtype=np.int64)  # patches that are never masked

    def __post_init__(self) -> None:
        table = np.asarray(self.area_of)
        object.__setattr__(self, "area_of", table)
        if table.ndim != 2 or not table.size or not np.issubdtype(table.dtype, np.integer):
            raise InputError(
                f"dense: area_of is {table.dtype} {table.shape}; give integers (clusters, patches)."
            )
        for k, areas in enumerate(table):
            if not np.array_equal(np.unique(areas), np.arange(areas.max() + 1)):
                raise InputError(f"dense: number the areas of cluster {k} 0, 1, ... and leave none empty.")
        if not 0 < self.masked < self.patches:
            raise InputError(f"dense: {self.masked} of {self.patches} patches masked; mask some, leave some.")
        if self.space > LARGEST_SPACE:
            raise InputError(
                f"dense: Q would be {self.space} x {self.space} (patches + features), "
                f"at most {LARGEST_SPACE}; use engine = sampled."
            )

    @property
    def clusters(self) -> int:
        """K."""
        return len(self.area_of)

    @property
    def patches(self) -> int:
        """P."""
        return int(self.area_of.shape[1])

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """N_k; shape (clusters,)."""
        return np.asarray(self.area_of.max(axis=1) + 1)

    @property
    def space(self) -> int:
        """d = P + number of features: the least dimension in which all of them are orthogonal."""
        return self.patches + int(self.features.sum())

    @property
    def features(self) -> NDArray[np.int64]:
        """Features of each cluster, one an area; shape (clusters,)."""
        return self.areas

    def tokens(self, generator: np.random.Generator, images: int) -> NDArray[np.int64] | None:
        """The feature that each area shows, (images, areas); None where that is its own."""


@dataclass(frozen=True, eq=False)
class MiniBatch:
    """Images, as what they are made from, and their masks.

    ``weight`` is the probability of the event that the masks are conditioned on: it times a mean over the
    batch estimates the expectation.
    """

    cluster: NDArray[np.int64]  # (images,)
    latent: Array  # (images, most areas of a cluster)
    mask: NDArray[np.bool_]  # (images, P), True where masked, in as many places in each image
    weight: float = 1.0
    token: NDArray[np.int64] | None = None  # (images, areas) feature that each area shows; None: its own

    def __len__(self) -> int:
        return len(self.cluster)

    def pieces(self, images: int) -> Iterator[Self]:
        """The same, a few images at a time."""
        each: dict[str, Any] = {name: a for name, a in vars(self).items() if isinstance(a, np.ndarray)}
        for start in range(0, len(self), images):
            yield replace(self, **{name: value[start : start + images] for name, value in each.items()})


def draw(
    world: DenseWorld, generator: np.random.Generator, images: int, hidden: int | None = None
) -> MiniBatch:
    """Fresh images: clusters and masks uniform, latents by their law; ``hidden``: given that it is masked."""
    cluster = generator.integers(world.clusters, size=images)
    latent = world.latent.sample(generator, (images, int(world.areas.max())))
    mask = draw_masks(world, generator, images, hidden)
    weight = 1.0 if hidden is None else world.masked / (world.patches - len(world.context))
    return MiniBatch(cluster, latent, mask, weight, world.tokens(generator, images))


def draw_masks(
    world: DenseWorld, generator: np.random.Generator, images: int, hidden: int | None = None
) -> NDArray[np.bool_]:
    """Masks (images, P), uniform, as in ``draw``."""
    order = generator.random((images, world.patches))
    order[:, world.context] = 2.0
    if hidden is not None:
        order[:, hidden] = -1.0
    first = np.argpartition(order, world.masked - 1, axis=1)[:, : world.masked]
    mask = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(mask, first, True, axis=1)
    return mask
