"""The simulator's layer as a network that the probe can be attached to (theory, sections 1 and 4).

One head of attention whose query is the position alone: the logit of key q is Φ of its area times its latent, plus Υ
of its position. Content comes from an image, through a convolution over patches, as in any vision transformer. Every
area has a feature of its own, one channel of one pixel; the image has all latents at their mean and no mask, which is
what the trajectory's `nmi` and `entropy` speak of.

Rows that were not run are those of their class with the patches exchanged: exact, by the symmetry of areas of one
size. What would mislead: worlds whose clusters differ, or a run without a row for every class; both are refused.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mimlab.runs import InputError
from mimlab.studies.single import Simulation

Array = NDArray[np.float64]

PATCH = 4  # pixels


class OneLayer(nn.Module):  # type: ignore[misc]
    """One head on images of square patches: q = e_pᵀQ, keys and values are contents and positions side by side."""

    def __init__(self, Phi: Array, Upsilon: Array) -> None:
        super().__init__()
        channels = 3 * PATCH**2
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH, bias=False)
        self.patches.weight = nn.Parameter(torch.eye(channels).reshape(channels, 3, PATCH, PATCH))
        contents = np.zeros((len(Phi), channels))
        contents[:, : Phi.shape[1]] = Phi
        self.Q = nn.Parameter(torch.tensor(np.hstack([contents, Upsilon]), dtype=torch.float32))

    def forward(self, pixels: Tensor) -> Tensor:
        """Outputs of all patches, (B, 1, P, channels + P), of images (B, 3, h, w)."""
        content = self.patches(pixels).flatten(2).mT
        keys = torch.cat([content, torch.eye(len(self.Q)).expand(len(pixels), -1, -1)], dim=2)[:, None]
        return nn.functional.scaled_dot_product_attention(self.Q.expand_as(keys), keys, keys, scale=1.0)


def one_layer(simulation: Simulation, time: float) -> tuple[OneLayer, Tensor]:
    """The layer as it was at a time of the table of correlations, in eval mode, and the mean image (1, 3, h, w).

    Raises InputError where a row is not known, clusters differ, P is no square, or areas are more than channels.
    """
    base, side = simulation.layout.partitions[0], isqrt(simulation.layout.patches)
    labels = base.all_labels()
    if not simulation.layout.shared or side**2 != len(labels) or base.areas > 3 * PATCH**2:
        raise InputError(
            f"one_layer: {len(labels)} patches in {base.areas} areas; a square of patches in at most {3 * PATCH**2} "
            "areas is needed, the same in all clusters"
        )
    Phi, Upsilon = np.zeros((len(labels), base.areas)), np.zeros((len(labels), len(labels)))
    rows = {_class(labels, run.row.query): _row(simulation, run.row.query, time) for run in simulation.rows}
    for patch in range(len(labels)):
        if _class(labels, patch) not in rows:
            raise InputError(f'one_layer: the row of patch {patch} was not run; simulate with query = "all"')
        query, phi, upsilon = rows[_class(labels, patch)]
        areas, patches = _exchanged(labels, patch, query)
        Phi[patch], Upsilon[patch] = phi[areas], upsilon[patches]
    image = np.zeros((side, side, 3 * PATCH**2))
    image.reshape(len(labels), -1)[np.arange(len(labels)), labels] = simulation.config.world.latent.mean
    pixels = image.reshape(side, side, 3, PATCH, PATCH).transpose(2, 0, 3, 1, 4).reshape(3, side * PATCH, -1)
    return OneLayer(Phi, Upsilon).eval(), torch.tensor(pixels[None], dtype=torch.float32)


def _class(labels: NDArray[np.int64], patch: int) -> tuple[bool, int]:
    """Queries of one class are interchangeable: both in the global area, or in local ones of one size."""
    area = labels[patch]
    return bool(area == 0), int(np.sum(labels == area))


def _row(simulation: Simulation, query: int, time: float) -> tuple[int, Array, Array]:
    """The query, its Φ of every area, and its Υ of every patch."""
    table = simulation.correlations
    table = table.filter((pc.field("query") == query) & (pc.field("time") == time))
    found = []
    for kind in ("feature", "position"):
        entries = table.filter(pc.field("kind") == kind).sort_by("target")
        found.append(np.asarray(entries["value"].to_numpy(), dtype=np.float64))
    sizes = simulation.layout.partitions[0].areas, simulation.layout.patches
    if tuple(map(len, found)) != sizes:
        raise InputError(f"one_layer: the table of correlations does not list row {query} at time {time:g}")
    return query, found[0], found[1]


def _exchanged(
    labels: NDArray[np.int64], patch: int, query: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Areas and patches in the place of which the row of `query` has what the row of `patch` is to have."""
    areas, patches = np.arange(labels.max() + 1), np.arange(len(labels))
    here, there = labels[patch], labels[query]
    areas[[here, there]] = there, here
    own, other = np.flatnonzero(labels == here), np.flatnonzero(labels == there)
    patches[own], patches[other] = other, own
    at = patches[patch]  # stands now for this patch: let the query itself
    patches[patches == query], patches[patch] = at, query
    return areas, patches
