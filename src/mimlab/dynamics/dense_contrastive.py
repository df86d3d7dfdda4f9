"""Contrastive learning on the dense engine: two views of explicit images, told apart by autograd (theory, section 6).

Nothing is lumped and no gradient is written down; the layer is the relaxed one, which unrelaxed is the paper's. All P
rows are trained, at masked and at visible positions alike. An image is one, with its latents, places and noise; its two
views differ in their masks. Its negatives are other images of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint

from mimlab.dynamics.dense import RowMeasure, Seed, mean_and_error
from mimlab.dynamics.dense_images import MiniBatch
from mimlab.dynamics.relaxed import RelaxedAttention
from mimlab.dynamics.relaxed_images import Images, RelaxedWorld, relaxed_masks
from mimlab.objectives.contrastive import ContrastiveLearning

SETS = (
    8  # of evaluation images, whose negatives are of the same set: the loss has its error from their spread
)


@dataclass(frozen=True, eq=False)
class Views(Images):
    """Images seen twice. As they stand they are the first views, told from the second views of their negatives."""

    other_mask: NDArray[np.bool_] = field(kw_only=True)  # (images, P), of the second view
    negatives: NDArray[np.int64] = field(kw_only=True)  # (images, n), which images

    @property
    def second(self) -> Views:
        """The same images under the other mask."""
        return replace(self, mask=self.other_mask)


class ContrastiveAttention(RelaxedAttention):
    """The relaxed layer, trained to tell images apart by the mean output of all its rows."""

    def __init__(
        self, world: RelaxedWorld, objective: ContrastiveLearning, *, seed: Seed = 0, start: float = 0.0
    ) -> None:
        super().__init__(world, seed=seed, start=start)
        self.objective = objective

    def draw(
        self, generator: np.random.Generator, images: int, hidden: int | None = None, sets: int = 1
    ) -> Views:
        """Fresh images and both masks, of which none is conditional; each image's negatives are distinct others of its
        set, one of ``sets`` of equal size."""
        assert isinstance(self.world, RelaxedWorld)
        seen = super().draw(generator, images)
        other = relaxed_masks(self.world, generator, images)
        each, place = images // sets, np.arange(images)[:, None]
        away = 1 + generator.choice(each - 1, self.objective.negatives, replace=False)
        negatives = place - place % each + (place + away) % each
        return Views(**vars(seen), other_mask=other, negatives=negatives)

    def losses(self, views: Views) -> torch.Tensor:
        """-τ log π₊ of each image, without the regulariser, for autograd. What is told apart is differentiated, what it
        is told from is not."""
        F = self.outputs(views)
        with torch.no_grad():
            others = self.outputs(views.second)
        shown = torch.cat([others[:, None], others[torch.as_tensor(views.negatives)]], dim=1)
        similarity = torch.einsum("id,isd->is", F, shown) / self.objective.temperature
        return -self.objective.temperature * torch.log_softmax(similarity, dim=1)[:, 0]

    def penalty(self) -> torch.Tensor:
        """λ/2 ‖Q‖², of all heads."""
        return self.objective.regulariser / 2 * self.Q.square().sum()

    def loss(self, images: MiniBatch, rows: Sequence[int] | None = None) -> torch.Tensor:
        """The whole loss, mean over the images. Its rows meet in the output: all are trained."""
        assert isinstance(images, Views) and rows is None
        return self.losses(images).mean() + self.penalty()

    def outputs(self, images: Images) -> torch.Tensor:
        """F = (1/P) Σ_p F_p over all rows, (images, d), for autograd."""
        queries, upsilon = self._rows_of(self.Q, None)
        pieces = list(images.pieces(self._images_a_pass(len(queries))))
        if len(pieces) == 1:
            return self._output(queries, upsilon, images)
        # Many maps at once would not fit in memory: a piece's is computed again when its gradient is due.
        kept = [checkpoint(self._output, queries, upsilon, one, use_reentrant=False) for one in pieces]
        return torch.cat(kept)

    def _output(self, queries: torch.Tensor, upsilon: torch.Tensor, images: MiniBatch) -> torch.Tensor:
        attention, _, seen, basis = self._look(queries, upsilon, images, None)
        pooled = attention.mean(dim=2) @ seen  # (images, heads, B)
        return torch.einsum("ihb,hbd->id", pooled, basis @ self.V.mT) / self.relax.heads

    def evaluated(
        self, rows: Sequence[int], seeds: Sequence[np.random.SeedSequence], images: int
    ) -> Sequence[MiniBatch]:
        """What all rows are measured on, whichever they are."""
        return [self.draw(np.random.default_rng(seeds[0]), images, sets=SETS)]

    def measured(self, looked_at: Sequence[MiniBatch], rows: Sequence[int]) -> tuple[RowMeasure, ...]:
        """The loss, which is that of all rows, and each row's attention, mean over both views, masked or visible."""
        (views,) = looked_at
        assert isinstance(views, Views)
        with torch.no_grad():
            losses, penalty = self.losses(views).numpy(), float(self.penalty())
        loss, loss_se = mean_and_error(losses.reshape(SETS, -1).mean(axis=1))
        both = (views, views.second)
        first, second = (self.reconstruct(view, rows)[0] * ~view.mask[:, None] for view in both)
        shown = (first + second) / 2  # attention on what is visible, (images, rows, P)
        areas = self.area_at(views, np.arange(self.world.patches)[None, :])  # (images, P)
        found = []
        for place, row in enumerate(rows):
            (own, own_se), (everywhere, error) = (
                mean_and_error((shown[:, place] * (areas == area)).sum(axis=1))
                for area in (areas[:, [row]], 0)
            )
            found.append(RowMeasure(loss + penalty, nan, own, everywhere, loss_se, nan, own_se, error))
        return tuple(found)
