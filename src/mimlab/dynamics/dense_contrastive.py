"""Contrastive learning on the dense engine: explicit images, autograd (theory, section 6). A check for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mimlab.dynamics.dense import DenseAttention
from mimlab.dynamics.dense_images import MiniBatch
from mimlab.objectives.contrastive import ContrastiveLearning


@dataclass(frozen=True, eq=False)
class Views:
    """Images and two masks of each. View ``first`` is told from view ``second`` of ``negatives`` (images, n)."""

    first: MiniBatch
    second: MiniBatch
    negatives: NDArray[np.int64]


def contrastive_loss_and_gradient(
    model: DenseAttention, views: Views, objective: ContrastiveLearning
) -> tuple[float, torch.Tensor]:
    """The loss, regulariser included, and its gradient in Q, (d, d). What is told apart is differentiated, what it is
    told from is not."""
    Q = model.Q.detach().requires_grad_()
    F = model.pooled(Q, views.first)
    with torch.no_grad():
        others = model.pooled(Q, views.second)
    rivals = others[torch.as_tensor(views.negatives)]  # (images, n, d)
    similarity = torch.cat(
        [torch.linalg.vecdot(F, others)[:, None], torch.einsum("id,ind->in", F, rivals)], dim=1
    )
    tau = objective.temperature
    loss = -tau * torch.log_softmax(similarity / tau, dim=1)[:, 0].mean()
    loss = loss + objective.regulariser / 2 * Q.square().sum()
    loss.backward()
    return loss.item(), Q.grad
