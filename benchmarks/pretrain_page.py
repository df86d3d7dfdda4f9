"""What the page says of pretraining's speed; rows that were not measured are left open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tables

AT_LEAST = {"cpu": 1.0, "gpu": 1.3}
"""Images per second over a plain loop."""
AT_MOST = 0.05
"""Time of looks over that of training."""
GPU_ROW = "pretrain-gpu"
OPEN = "**{name}**: open; `python benchmarks/pretrain.py {name}` fills it."


def block(folder: Path, names: Sequence[str]) -> str:
    """The table and the notes of all results in `folder`, then the rows that are open."""
    text = tables.block(folder, names)
    missing = [OPEN.format(name=name) for name in names if not (folder / f"{name}.json").exists()]
    return text + "".join(f"{line}\n\n" for line in missing)
