"""Presets: whole configurations for three machines, by objective; whatever the user gives goes on top.

`laptop` is two cores and two or three minutes, as tried on photographs. `workstation` is one GPU and some hours, sizes
between the two, of which nothing was published. `imagenet` is a node of eight GPUs with a ViT-B, its epochs, warm-up,
learning rates, images a step and scales of crops as published, and what else docs/pretrain.md says is not; blr is for
256 images a step as everywhere here, where SimMIM and DeiT count 512.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimlab.runs import InputError, merge

Table = Mapping[str, Any]


def _of(steps: int, batch_size: int, blr: float) -> Table:
    return {"training": {"steps": steps, "blr": blr}, "data": {"batch_size": batch_size}}


def _published(
    epochs: int, warmup_epochs: int, blr: float, images: int, scale: tuple[float, float], **training: Any
) -> Table:
    """images: of one step, over eight GPUs with 128 in a forward pass."""
    rounds = images // (8 * 128)
    schedule = {"epochs": epochs, "warmup_epochs": warmup_epochs, "blr": blr, "accum_iter": rounds}
    return {"training": schedule | training, "data": {"scale": list(scale)}}


_VIT_B = {"image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12}
_DECODER = {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}
_GPU = {"precision": "bfloat16", "compile": True, "accelerator": "cuda"}

COMMON: Mapping[str, Table] = {
    "laptop": {},
    "workstation": {
        "network": {
            **{"image_size": 96, "patch_size": 8, "width": 384, "depth": 12, "heads": 6},
            **{"decoder_width": 192, "decoder_depth": 4, "decoder_heads": 6},
        },
        "data": {"crop": [96, 256], "workers": 8},
        "training": _GPU,
        "watching": {"interval": 200, "checkpoints": 12, "log_interval": 10},
    },
    "imagenet": {
        "network": _VIT_B | _DECODER,
        "data": {"crop": [160, 300], "batch_size": 128, "workers": 10},
        "training": _GPU | {"devices": 8},
        "watching": {"interval": 2000, "checkpoints": 16, "log_interval": 50},
    },
}
OBJECTIVES: Mapping[str, Mapping[str, Table]] = {
    "laptop": {
        "simmim": _of(750, 64, 8e-3),
        "mae": _of(900, 128, 3e-3),
        "simclr": _of(300, 128, 3e-3),
        "moco-v3": _of(300, 128, 3e-3),
        "dino": _of(300, 128, 3e-3),
        "supervised": _of(330, 128, 3e-3),
    },
    "workstation": {
        "simmim": _of(30_000, 256, 1e-3),
        "mae": _of(30_000, 512, 5e-4),
        "simclr": _of(15_000, 512, 5e-4),
        "moco-v3": _of(15_000, 512, 5e-4),
        "dino": _of(15_000, 256, 5e-4),
        "supervised": _of(15_000, 512, 5e-4),
    },
    "imagenet": {
        "simmim": _published(800, 20, 5e-5, 2048, (0.67, 1.0)),
        "mae": merge(_published(800, 40, 1.5e-4, 4096, (0.2, 1.0)), {"objective": {"norm_pixels": True}}),
        "simclr": _published(300, 40, 1.5e-4, 4096, (0.08, 1.0), weight_decay=0.1),
        "moco-v3": _published(300, 40, 1.5e-4, 4096, (0.08, 1.0), weight_decay=0.1),
        "dino": _published(300, 10, 5e-4, 1024, (0.25, 1.0), weight_decay=0.04),
        "supervised": _published(300, 5, 2.5e-4, 1024, (0.08, 1.0)),
    },
}
PRESETS = tuple(COMMON)

_INSTEAD = {"steps": "epochs", "epochs": "steps", "warmup": "warmup_epochs", "warmup_epochs": "warmup"}


def with_preset(name: str, given: Table) -> dict[str, Any]:
    """What was given, a mapping as TOML has it, laid over a preset for its objective.

    Steps that are given take the place of a preset's epochs, a share of warm-up that of its warm-up epochs, and the
    other way round. Raises InputError for a preset that is not known, and for `imagenet` without a folder of images.

    >>> with_preset("laptop", {"objective": {"name": "mae"}, "training": {"steps": 10}})["training"]
    {'steps': 10, 'blr': 0.003}
    """
    if name not in COMMON:
        raise InputError(f"--preset {name} is not known; give one of {', '.join(PRESETS)}")
    asked = given.get("objective", {}).get("name", "simmim")
    base = merge(COMMON[name], OBJECTIVES[name].get(asked, {}))
    training: Any = base.get("training", {})
    instead = {_INSTEAD[key] for key in given.get("training", {}) if key in _INSTEAD}
    base["training"] = {key: value for key, value in training.items() if key not in instead}
    whole = merge(base, given)
    if name == "imagenet" and "images" not in given.get("data", {}):
        raise InputError("--preset imagenet trains on a folder of images; give --images DIR")
    return whole
