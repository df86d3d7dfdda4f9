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


def scale_command_for(config: SimulationConfig, low: float, high: float, points: int, out: str) -> str:
    """``mimlab scale`` of a configuration over a range of P. Engine and stop are always said: scale has defaults of its
    own for them.

    >>> from mimlab import World
    >>> config = SimulationConfig(World(patches=100, global_exponent=0.9, local_exponent=0.3))
    >>> scale_command_for(config, 100, 1e4, 5, "runs/s").split(" --out")[0].split("--local-exponent 0.3 ")[1]
    '--engine sampled --stop-attention 0.99'
    """
    words = write_flags(config)
    at = words.index("--patches")
    words[at : at + 2] = ["--patches", f"{low:g}", f"{high:g}", "--points", str(points)]
    for flag, value in (
        ("--engine", config.dynamics.engine),
        ("--stop-attention", config.dynamics.stop_attention),
    ):
        if flag not in words:
            words += [flag, str(value)]
    return shlex.join(["mimlab", "scale", *words, "--out", out])
