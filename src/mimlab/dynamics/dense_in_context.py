"""The in-context copy task on the dense engine: what an area shows is drawn, and its first patch is never masked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimlab.dynamics.dense_images import DenseWorld, MiniBatch
from mimlab.runs.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InContextWorld(DenseWorld):
    """Areas of one cluster that show tokens of a ``vocabulary``: area j token j mod V with probability ``in_weights``,
    else any, uniformly. ``masked`` of the patches that are not the first of their area are hidden.

    Raises InputError for several clusters, and where more patches are masked than are not the first of their area.
    """

    vocabulary: int
    in_weights: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters > 1:
            raise InputError("dense: tokens are common to all images; give one cluster.")
        object.__setattr__(self, "context", np.unique(self.area_of[0], return_index=True)[1])
        if self.masked > self.patches - len(self.context):
            raise InputError(f"dense: {self.masked} patches masked, the context among them; mask fewer.")

    @property
    def features(self) -> NDArray[np.int64]:
        """V, as one cluster's number of features."""
        return np.array([self.vocabulary])

    @property
    def copies(self) -> list[int]:
        """The patches that may be masked."""
        found: list[int] = np.setdiff1d(np.arange(self.patches), self.context).tolist()
        return found

    def tokens(self, generator: np.random.Generator, images: int) -> NDArray[np.int64]:
        """The token that each area shows; (images, areas)."""
        areas = int(self.areas[0])
        own = np.broadcast_to(np.arange(areas) % self.vocabulary, (images, areas))
        drawn = generator.integers(self.vocabulary, size=own.shape)
        return np.where(generator.random(own.shape) < self.in_weights, own, drawn)

    def shown(self, phi: Array) -> Array:
        """Φ of what each area shows, mean over images: (..., V) to (..., areas)."""
        own = phi[..., np.arange(int(self.areas[0])) % self.vocabulary]
        mean: Array = self.in_weights * own + (1 - self.in_weights) * phi.mean(axis=-1, keepdims=True)
        return mean


def shares(world: DenseWorld, images: MiniBatch, phi: Array, upsilon: Array) -> tuple[float, float]:
    """Strength of FP and of PP in the logits (theory, section 8): mean over rows, and of FP over images, of the
    variance over q of the content's part and of the position's. phi: (rows, 1, V); upsilon: (rows, P)."""
    area = world.area_of[0]
    token = np.arange(int(world.areas[0]))[None] if images.token is None else images.token
    seen, strength = token[:, area], images.latent[:, area] * ~images.mask  # (images, P)
    content = [(row[seen] * strength).var(axis=1).mean() for row in phi[:, 0]]
    return float(np.mean(content)), float(upsilon.var(axis=1).mean())
