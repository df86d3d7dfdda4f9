"""The command line that runs a configuration again."""

from __future__ import annotations

import shlex
from typing import Any

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import to_mapping
from mimlab.world.world import World


def command_for(config: SimulationConfig, out: str) -> str:
    """``mimlab simulate`` with a flag for every key that is not at its default.

    >>> command_for(SimulationConfig(World(area_sizes=(6, 2, 2))), "runs/small")
    'mimlab simulate --area-sizes 6 2 2 --out runs/small'
    """
    given = to_mapping(config)
    default = to_mapping(SimulationConfig(World(area_sizes=(1, 1))))
    del default["world"]["area_sizes"]
    words = ["mimlab", "simulate", *_flags(given, default, ""), "--out", out]
    return shlex.join(words)


def _flags(given: dict[str, Any], default: dict[str, Any], prefix: str) -> list[str]:
    words: list[str] = []
    for key, value in given.items():
        if value == default.get(key):
            continue
        if isinstance(value, dict):
            # The keys of [world], [objective] and [dynamics] are flags by themselves, a table below them prefixes its.
            below = f"{key}-" if key == "latent" else ""
            words += _flags(value, {} if key == "latent" else default.get(key, {}), below)
            continue
        items = value if isinstance(value, list) else [value]
        words += [f"--{prefix}{key.replace('_', '-')}", *(str(item) for item in items)]
    return words
