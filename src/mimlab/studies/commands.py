"""The command line that runs a configuration again."""

from __future__ import annotations

import shlex

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs.flags import write_flags


def command_for(config: SimulationConfig, out: str) -> str:
    """``mimlab simulate`` with a flag for every key that is not at its default.

    >>> from mimlab import World
    >>> command_for(SimulationConfig(World(area_sizes=(6, 2, 2))), "runs/small")
    'mimlab simulate --area-sizes 6 2 2 --out runs/small'
    """
    return shlex.join(["mimlab", "simulate", *write_flags(config), "--out", out])
