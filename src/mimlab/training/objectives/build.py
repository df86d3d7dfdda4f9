"""The objective of a run, from its configuration: encoder, heads, and where the encoder starts."""

from __future__ import annotations

from typing import Any

from mimlab.training.checkpoints import load_encoder
from mimlab.training.config import PretrainConfig
from mimlab.training.draws import seeded
from mimlab.training.networks import build_encoder
from mimlab.training.objectives.base import Objective
from mimlab.training.objectives.contrastive import MoCoV3, SimCLR
from mimlab.training.objectives.distillation import DINO
from mimlab.training.objectives.masked import MAE, SimMIM
from mimlab.training.objectives.pair import Pair
from mimlab.training.objectives.supervised import Supervised
from mimlab.training.sources import class_count


def build_objective(config: PretrainConfig) -> Objective:
    """The objective that a run trains, in training mode, its weights drawn from the seed.

    With `start` the encoder begins with another run's weights; momentum encoders begin as its copies. Parts of the
    encoder that this objective does not use (the mask token of one that masks nothing in it) are frozen, so that
    nothing waits for their gradient. Raises InputError for a start that does not fit.
    """
    encoder = build_encoder(config.network, config.seed)
    if config.objective.start is not None:
        load_encoder(encoder, config.objective.start)
    encoder.embeddings.mask_token.requires_grad_("simmim" in config.objective.names)
    objectives = [_one(name, encoder, config) for name in config.objective.names]
    objective = objectives[0]
    if len(objectives) == 2:
        weight: Any = config.objective.weight  # a pair has one
        objective = Pair(objectives[0], objectives[1], weight)
    objective.train()
    return objective


def _one(name: str, encoder: Any, config: PretrainConfig) -> Objective:
    asked: Any = config.objective  # keys that this objective uses are filled in
    with seeded(config.seed, name, "heads"):
        match name:
            case "simmim":
                return SimMIM(encoder, config.network, asked.mask_ratio, asked.mask, asked.norm_pixels)
            case "mae":
                options = (asked.mask_ratio, asked.mask, asked.norm_pixels)
                return MAE(encoder, config.network, *options, seed=config.seed)
            case "simclr":
                return SimCLR(encoder, asked.temperature)
            case "moco-v3":
                return MoCoV3(encoder, asked.temperature, asked.momentum)
            case "dino":
                return DINO(encoder, asked.temperature, asked.momentum)
            case "supervised":
                return Supervised(encoder, class_count(config))
    raise ValueError(f"there is no objective {name}")
