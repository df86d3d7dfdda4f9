"""Images of a simulator's world (theory, section 1), so that theory and a real network meet on the same data.

A cluster k is drawn uniformly, then for each of its areas a latent z_j; every patch p shows X_p = z_j v_{k,j}, j being
its area. The features v_{k,j} are orthonormal over all clusters and areas, in the D = 3 patch_size² values that
`mimlab.training.masks.patches_of` gives of a patch: a random rotation, so that they look like noise. Standardised as
`mimlab.training.views` does, pixels are c z_j v_{k,j}, with the largest c that keeps them in [0, 1].

The world numbers patches area by area. On the grid they are numbered along the Z-order curve, so that an area is a
compact piece of the image. "shifted" departs from the theory: each image's areas are moved together, round the edges,
by a random offset, and a feature no longer belongs to a position.

What would mislead: cuts, mirrors and resizing of these images, which mix patches; `Batch.rendered` keeps views from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from mimlab.runs.errors import InputError
from mimlab.training.config import AREAS
from mimlab.training.crops import Batch
from mimlab.training.draws import generator
from mimlab.training.masks import image_of
from mimlab.training.views import MEAN, STD, to_unit
from mimlab.world.world import World


class RenderedWorld:
    """A source of images (3, grid · patch_size, grid · patch_size); labels are clusters.

    seed: of the world: features, and partitions where they are random. draws_seed: of clusters, latents and shifts,
    `seed` unless given. purpose: images of another purpose are other images of the same world. An epoch counts as one
    image of each cluster: images never run out.

    features: (clusters, areas, D) float64. area_of: (clusters, patches) int64, patches row by row. scale: c.
    Raises InputError where the world is a photograph's, its patches are not grid² or its features more than D.
    """

    def __init__(
        self,
        world: World,
        grid: int,
        patch_size: int,
        batch_size: int = 64,
        seed: int = 0,
        purpose: str = "training",
        areas: str = "fixed",
        draws_seed: int | None = None,
    ) -> None:
        if world.image is not None:
            raise InputError("data.world is a photograph's, which has areas but no features; give area_sizes")
        if areas not in AREAS:
            raise InputError(f'data.areas = "{areas}" is not known; give one of {", ".join(AREAS)}')
        if world.patches_total != grid**2:
            raise InputError(
                f"data.world has {world.patches_total} patches, and the network's images {grid**2} ({grid} x {grid}); "
                "change world, image_size or patch_size so that they agree"
            )
        self.grid, self.patch_size, self.batch_size = grid, patch_size, batch_size
        self.latent, self.areas, self.purpose = world.latent, areas, purpose
        self.draws_seed = seed if draws_seed is None else draws_seed
        self.images = self.classes = world.clusters
        layout = world.layout(seed)
        labels = np.stack([layout.partition_of(k).all_labels() for k in range(world.clusters)])
        self.area_of: NDArray[np.int64] = labels[:, _places(grid)]
        self.features = _features(world.clusters, int(labels.max()) + 1, 3 * patch_size**2, seed)
        self.scale = _scale(self.features * world.latent.support[1])

    def batch(self, number: int) -> Batch:
        draws = np.random.default_rng(
            generator(self.draws_seed, number, self.purpose, "world").initial_seed()
        )
        clusters = draws.integers(self.classes, size=self.batch_size)
        latents = self.latent.sample(draws, (self.batch_size, self.features.shape[1]))
        areas = self.area_of[clusters].reshape(-1, self.grid, self.grid)
        if self.areas == "shifted":
            offsets = draws.integers(self.grid, size=(self.batch_size, 2))
            areas = np.stack([np.roll(one, at, (0, 1)) for one, at in zip(areas, offsets, strict=True)])
        shown = areas.reshape(self.batch_size, -1)
        z = np.take_along_axis(latents, shown, axis=1)
        contents = torch.from_numpy(self.scale * z[..., None] * self.features[clusters[:, None], shown])
        pixels = to_unit(image_of(contents, self.patch_size)).clamp(0, 1)  # of rounding, no more
        return Batch(pixels.float(), torch.from_numpy(clusters), rendered=True)

    def batches(self, numbers: Iterable[int]) -> Iterator[Batch]:
        return map(self.batch, numbers)


def _places(grid: int) -> NDArray[np.int64]:
    """The place of each patch, row by row, along the Z-order curve: bits of row and column interleaved."""
    rows, columns = np.divmod(np.arange(grid**2), grid)
    bits = np.arange(grid.bit_length())[:, None]
    code = (((columns >> bits) & 1) << 2 * bits).sum(axis=0) + (((rows >> bits) & 1) << (2 * bits + 1)).sum(
        axis=0
    )
    return np.argsort(np.argsort(code))


def _features(clusters: int, areas: int, size: int, seed: int) -> NDArray[np.float64]:
    """Orthonormal vectors (clusters, areas, size), uniform over the rotations."""
    count = clusters * areas
    if count > size:
        raise InputError(
            f"data.world has {count} features ({clusters} clusters of {areas} areas), and a patch only {size} values "
            "to be orthogonal in; give fewer, or a larger patch_size"
        )
    draws = np.random.default_rng(generator(seed, "features").initial_seed())
    rotated, upper = np.linalg.qr(draws.standard_normal((size, count)))
    return (rotated * np.sign(np.diag(upper))).T.reshape(clusters, areas, size)


def _scale(largest: NDArray[np.float64]) -> float:
    """The largest c for which c times these patches (..., D) stay in [0, 1] as pixels, as then all smaller ones do."""
    mean, deviation = (np.tile(one, largest.shape[-1] // 3) for one in (MEAN, STD))  # colours come last
    room = np.where(largest > 0, 1 - mean, mean)
    return float((room / np.maximum(np.abs(largest) * deviation, np.finfo(float).tiny)).min())
