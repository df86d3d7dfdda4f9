"""What one pass over an attention map leaves, and the statistics that follow from it (theory, section 7).

Over the patch queries i = 1..N with weights a_i over the patch keys: the sums of H(a_i), ‖a_i‖², the distance
Σ_j a_ij ‖pos_i - pos_j‖ and the mass on prefix tokens, and the vectors Σ_i a_i and Σ_i a_i/‖a_i‖. That is 2N + 4
numbers for a map of N² weights, kept in float64 whatever the weights are in.

information, diversity and spread are differences of such sums. Near collapse they cancel: what float32 weights leave
is below about 1e-6 (nats of information; diversity and spread the same). They are never below 0.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from mimlab.probing.attention import Tensor
from mimlab.probing.layout import Layout


class Work(NamedTuple):
    """What a row pass reads and writes beside m maps' block of r rows, (m, r, N).

    distances: d_ij of the rows' queries in pixels, (r, N). spare: as large as the block.
    Written: for each row, (m, r): total, the sum of the exponentials left in the block (the weights are the block over
    it); top, the largest logit; entropy, square, distance: H(a), ‖a‖², Σ_j a_j d_j. For each map, (m, N):
    row, unit_row: sums over the rows of a and of a/‖a‖.
    """

    distances: Tensor
    spare: Tensor
    total: Tensor
    top: Tensor
    entropy: Tensor
    square: Tensor
    distance: Tensor
    row: Tensor
    unit_row: Tensor


@dataclass(eq=False)
class Sums:
    """Sums over the patch queries of M maps, float64: scalars (M,), vectors (M, N)."""

    entropy: Tensor
    square: Tensor
    distance: Tensor
    prefix_mass: Tensor
    row: Tensor
    unit_row: Tensor

    @classmethod
    def zeros(cls, maps: int, layout: Layout, device: torch.device) -> "Sums":
        """Sums over no query yet."""
        scalars = torch.zeros(4, maps, dtype=torch.float64, device=device)
        vectors = torch.zeros(2, maps, layout.patches, dtype=torch.float64, device=device)
        return cls(*scalars, *vectors)

    def add(self, work: Work) -> None:
        """Add what a row pass found row by row; it has added to the vectors itself."""
        self.entropy += work.entropy.sum(-1, dtype=torch.float64)
        self.square += work.square.sum(-1, dtype=torch.float64)
        self.distance += work.distance.sum(-1, dtype=torch.float64)

    def __getitem__(self, maps: slice) -> "Sums":
        """The sums of some maps, sharing memory."""
        return Sums(*(getattr(self, field.name)[maps] for field in fields(self)))


def finish(sums: Sums, layout: Layout) -> dict[str, Tensor]:
    """The core statistics of each map, (M,) float64; nan where a map has too few patches to have one.

    Formulas, units and ranges: `mimlab.probing.catalogue`.
    """
    N = layout.patches
    mean_row = sums.row / N
    H_mean = torch.special.entr(mean_row).sum(-1)
    entropy = sums.entropy / N
    information = (H_mean - entropy).clamp(min=0)
    scale = (math.log(N) * H_mean).sqrt()
    nmi = torch.where(scale > 0, information / torch.where(scale > 0, scale, 1.0), 0.0)
    pairs = N * (N - 1) or math.nan
    cosines = (sums.unit_row.square().sum(-1) - N) / pairs
    squares = 2 * (N * sums.square - sums.row.square().sum(-1)) / pairs
    distance = sums.distance / N
    return {
        "distance": distance,
        "distance_ratio": distance / (layout.uniform_distance() or math.nan),
        "entropy": entropy,
        "information": information,
        "mean_row_entropy": H_mean,
        "nmi": torch.where(H_mean.isnan(), H_mean, nmi),
        "diversity": (1 - cosines).clamp(min=0),
        "spread": squares.clamp(min=0),
        "prefix_mass": sums.prefix_mass / N,
    }
