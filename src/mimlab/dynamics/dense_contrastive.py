"""Contrastive learning on the dense engine: explicit images, autograd (theory, section 6). A check for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mimlab.dynamics.dense import DenseAttention, MiniBatch
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
    F = pooled(model, Q, views.first)
    with torch.no_grad():
        others = pooled(model, Q, views.second)
    rivals = others[torch.as_tensor(views.negatives)]  # (images, n, d)
    similarity = torch.cat(
        [torch.linalg.vecdot(F, others)[:, None], torch.einsum("id,ind->in", F, rivals)], dim=1
    )
    tau = objective.temperature
    loss = -tau * torch.log_softmax(similarity / tau, dim=1)[:, 0].mean()
    loss = loss + objective.regulariser / 2 * Q.square().sum()
    loss.backward()
    return loss.item(), Q.grad


def pooled(model: DenseAttention, Q: torch.Tensor, batch: MiniBatch) -> torch.Tensor:
    """F(X) = (1/P) Σ_p Σ_{q visible} attn_{p→q} X_q, (images, d)."""
    queries, upsilon = model._rows_of(Q, None)
    images = len(batch)
    visible = np.nonzero(~batch.mask)[1].reshape(images, -1)
    content = model._patches(batch, visible)
    at = torch.as_tensor(visible)[:, None, :].expand(-1, len(queries), -1)
    logits = upsilon.expand(images, -1, -1).scatter_add(2, at, queries @ content.transpose(1, 2))
    attention = torch.softmax(logits, dim=2).gather(2, at)
    return (attention @ content).mean(dim=1)
