"""Stand-ins for the tests of training: a small objective, a source of noise, and a run that can be killed.

As a script: `python training_standins.py FOLDER [STEP]` trains in FOLDER, and ends itself by SIGKILL at STEP.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from mimlab.training.checkpoints import Journal
from mimlab.training.config import (
    DataConfig,
    NetworkConfig,
    ObjectiveConfig,
    PretrainConfig,
    TrainingConfig,
    WatchingConfig,
)
from mimlab.training.draws import generator
from mimlab.training.loop import Outcome, pretrain

STEPS = 12


def small(steps: int = STEPS, seed: int = 0, **training: Any) -> PretrainConfig:
    options = {"steps": steps, "blr": 0.05, "accelerator": "cpu"} | training
    return PretrainConfig(
        ObjectiveConfig("simmim"),
        NetworkConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2, decoder_width=16),
        DataConfig(batch_size=4),
        TrainingConfig(**options),
        WatchingConfig(interval=5, checkpoints=4),
        seed,
    )


def tiny_encoder(**options: Any) -> ViTModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes | {"image_size": 8, "patch_size": 4, "hidden_dropout_prob": 0.1} | options)
    return ViTModel(config, add_pooling_layer=False, use_mask_token=True)


class Reconstruction(nn.Module):
    """Pixels from masked patches; with dropout, a moving average and batch norm's buffers beside the weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder, self.head = tiny_encoder(), nn.Linear(16, 48)
        self.norm = nn.BatchNorm1d(48)
        self.register_buffer("average", torch.zeros(48))

    def loss(self, batch: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        mask = torch.rand(len(batch), 4, generator=draws) < 0.5
        hidden = self.encoder(batch, bool_masked_pos=mask.long()).last_hidden_state[:, 1:]
        patches = batch.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(len(batch), 4, 48)
        guess = self.norm(self.head(hidden).flatten(0, 1)).view_as(patches)
        loss = (guess - patches).square().mean()
        return {"loss": loss, "masked": mask.float().mean()}

    def after_step(self, progress: float) -> None:
        with torch.no_grad():
            self.average.lerp_(self.head.bias, 0.5 * progress)


class Noise:
    """Batches of noise with a common part, which can be learned."""

    images = 8

    def __init__(self, size: int = 4, bad: int | None = None) -> None:
        self.size, self.bad = size, bad

    def batches(self, numbers: Iterator[int]) -> Iterator[Tensor]:
        for number in numbers:
            draws = generator(0, number, "noise")
            pixels = torch.rand(self.size, 3, 8, 8, generator=draws) + torch.arange(8.0) / 4
            yield pixels * (float("nan") if number == self.bad else 1)


def trained(
    folder: Path, config: PretrainConfig | None = None, source: Any = None, **options: Any
) -> tuple[Outcome, Reconstruction]:
    config = config or small()
    objective = Reconstruction(config.seed)
    outcome = pretrain(objective, source or Noise(config.data.batch_size), config, folder, **options)
    return outcome, objective


def killed_at(folder: Path, step: int | None = None) -> None:
    """Train with a state after every step, a journal beside the log, and draws of its own when it looks."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "looks.jsonl")

    def look(done: int, objective: Any) -> None:
        objective.eval()
        torch.rand(3)
        journal.add({"step": done, "sum": float(sum(value.sum() for value in objective.parameters()))})

    class Killing(Noise):
        def batches(self, numbers: Iterator[int]) -> Iterator[Tensor]:
            for number in numbers:
                if number == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield from super().batches(iter([number]))

    trained(folder, None, Killing(), on_step=look, save_seconds=0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    killed_at(where, int(sys.argv[2]) if len(sys.argv) > 2 else None)
