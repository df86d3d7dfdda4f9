"""How a run is optimised step by step: how many steps, at which learning rate, and what decays.

Step t of T (from 1) takes the mean gradient of accum_iter x processes batches and has the learning rate
blr x images of a step / 256 x t / W up to the end of the warm-up W, then x (1 + cos(pi (t - 1 - W) / (T - W))) / 2.

What would mislead: `blr` taken for the learning rate. It is that of 256 images a step, as MAE's users know it.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from mimlab.training.config import PretrainConfig

WITHOUT_DECAY = ("token", "position", "pos_embed")


def total_steps(config: PretrainConfig, images: int) -> int:
    """Steps of a whole run over so many images."""
    if config.training.epochs is None:
        return config.training.steps or 1
    return max(1, math.ceil(config.training.epochs * images / config.images_per_step))


def learning_rate(config: PretrainConfig, step: int, images: int) -> float:
    """The learning rate of a step, the first being 1.

    >>> from mimlab.training.config import TrainingConfig
    >>> config = PretrainConfig(training=TrainingConfig(steps=100, blr=0.4))
    >>> [round(learning_rate(config, step, 13), 4) for step in (1, 10, 11, 56, 100)]
    [0.01, 0.1, 0.1, 0.05, 0.0]
    """
    training, steps = config.training, total_steps(config, images)
    peak = training.blr * config.images_per_step / 256
    if training.warmup_epochs is None:
        warmup = (training.warmup or 0) * steps
    else:
        warmup = min(training.warmup_epochs * images / config.images_per_step, steps)
    if step <= warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - 1 - int(warmup)) / (steps - int(warmup)))) / 2


def parameter_groups(objective: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that are trained, in two groups: matrices decay; biases, norms, positions and tokens do not."""
    trained = [(name, value) for name, value in objective.named_parameters() if value.requires_grad]
    plain = [value.ndim < 2 or any(part in name for part in WITHOUT_DECAY) for name, value in trained]
    return [
        {
            "params": [value for (_, value), one in zip(trained, plain, strict=True) if one is group],
            "weight_decay": decay,
        }
        for group, decay in ((False, weight_decay), (True, 0.0))
    ]
