"""Self-distillation without labels, DINO (Caron et al. 2021): a student predicts what its slow copy says of another
view.

Both have a head whose last layer compares with K prototypes, s = normalised output · normalised prototypes:

    P_t = softmax((s_t - c) / τ_t) of the teacher's two views,   P_v = softmax(s_v / τ) of every view of the student's
    L = mean over pairs t ≠ v and over images of -Σ_k P_t,k log P_v,k

The centre c follows the mean of s_t with momentum 0.9; it keeps one prototype from winning all, the low temperature
τ_t (0.04) keeps all from winning alike. The log has the entropy of P_t, at most log K, and the mean of the divergence
KL(P_t ‖ mean P_t), near 0 when the teacher says the same of all images: the loss alone does not show a collapse.

Left out of the published recipe: the rise of τ_t during the first epochs, the last layer kept fixed in the first,
solarised views. Views are SimCLR's, of (0.4, 1) of a crop's area; `local_views` more of half the side and of (0.05,
0.4) are multi-crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import log_softmax, softmax

from mimlab.training.crops import Batch
from mimlab.training.networks import SPREAD, follow, frozen_copy, perceptron
from mimlab.training.objectives.base import Objective, cosines, momentum_at

GLOBAL, LOCAL = (0.4, 1.0), (0.05, 0.4)
TEACHER_TEMPERATURE = 0.04
CENTRE_MOMENTUM = 0.9


class Prototypes(nn.Module):  # type: ignore[misc]
    """Three layers to a small vector, and its cosine with each of `count` prototypes: (B, width) to (B, count)."""

    def __init__(self, width: int, count: int, size: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.layers = perceptron((width, hidden, hidden, size), norm=False, activation=nn.GELU)
        self.prototypes = nn.Parameter(torch.randn(count, size) * SPREAD)

    def forward(self, described: Tensor) -> Tensor:
        return cosines(self.layers(described), self.prototypes)


class DINO(Objective):
    """Student, teacher and centre.

    temperature: the student's. momentum: the teacher's at the start; it rises to 1. prototypes: K. size: of the vector
    that is compared with them. local_views: small views beside the two large ones.
    """

    def __init__(
        self,
        encoder: Any,
        temperature: float = 0.1,
        momentum: float = 0.996,
        prototypes: int = 1024,
        size: int = 64,
        local_views: int = 0,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.momentum, self.local_views = temperature, momentum, local_views
        patch = encoder.config.patch_size
        self.local_side = max(self.image_size // 2 // patch, 1) * patch
        self.head = Prototypes(encoder.config.hidden_size, prototypes, size)
        self.slow_encoder, self.slow_head = frozen_copy(encoder), frozen_copy(self.head)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.centre: Tensor
        self._seen: list[Tensor] = []

    def loss(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        shown = [self.strong_view(batch, self.image_size, generator, GLOBAL) for _ in range(2)]
        with torch.no_grad():
            teacher = torch.stack([self.teach(view) for view in shown])
        student = [self.head(self.describe(view)) for view in shown]
        for _ in range(self.local_views):
            view = self.strong_view(batch, self.local_side, generator, LOCAL)
            student.append(self.head(self.describe(view, interpolate_pos_encoding=True)))
        if self.training:
            self._seen.append(teacher.mean((0, 1)))
        return distilled(student, teacher, self.centre, self.temperature)

    def teach(self, view: Tensor) -> Tensor:
        """The teacher's (B, K) of a view."""
        said: Tensor = self.slow_head(self.slow_encoder(view).last_hidden_state[:, 0])
        return said

    def after_step(self, progress: float) -> None:
        momentum = momentum_at(self.momentum, progress)
        follow(self.slow_encoder, self.encoder, momentum)
        follow(self.slow_head, self.head, momentum)
        if self._seen:
            self.centre.lerp_(_mean_of_processes(torch.stack(self._seen).mean(0)), 1 - CENTRE_MOMENTUM)
            self._seen.clear()


def distilled(
    student: Sequence[Tensor], teacher: Tensor, centre: Tensor, temperature: float
) -> dict[str, Tensor]:
    """The loss of the student's views (B, K) each, the first two being the teacher's, (2, B, K); and what the log has
    on collapse."""
    wide = torch.promote_types(teacher.dtype, torch.float32)
    target = softmax((teacher.detach().to(wide) - centre) / TEACHER_TEMPERATURE, -1)
    terms = [
        -(target[t] * log_softmax(said.to(wide) / temperature, -1)).sum(-1).mean()
        for t in range(2)
        for v, said in enumerate(student)
        if v != t
    ]
    entropy, mean = _entropy(target).mean(), target.mean((0, 1))
    return {
        "loss": torch.stack(terms).mean(),
        "teacher_entropy": entropy,
        "teacher_divergence": _entropy(mean) - entropy,
    }


def _entropy(share: Tensor) -> Tensor:
    return torch.special.entr(share).sum(-1)


def _mean_of_processes(value: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    torch.distributed.all_reduce(value)
    return value / torch.distributed.get_world_size()
