"""The pretraining runs that ``mimlab reproduce --with-training`` judges the paper by.

Every run is the laptop preset of its objective, changed as `settings` says, once for each of `SEEDS`. Those on
photographs compare objectives; those on rendered worlds ask which departure from the theory's layer decides what
attention goes by (docs/position-or-content.md), one departure each. A claim is expected to hold unless `expected` says
otherwise; both were written before the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimlab.runs import build, merge
from mimlab.training.config import PretrainConfig
from mimlab.training.presets import with_preset

SEEDS = (0, 1, 2)
FP, PP = "holds", "fails"
"""What "FP exceeds PP" is expected to say."""


@dataclass(frozen=True)
class TrainingRun:
    """A run, once for each seed.

    settings: as TOML has them, over the laptop preset. start: the run from whose encoder, of the same seed, it starts.
    full: left out unless asked for. expected: the verdict on "FP exceeds PP", of runs that are judged by it.
    """

    name: str
    label: str
    settings: Mapping[str, Any]
    start: str | None = None
    full: bool = False
    expected: str | None = None

    def config(self, seed: int, folder: Path) -> PretrainConfig:
        """The configuration of a seed; runs lie in `folder`."""
        begun = {} if self.start is None else {"start": str(folder / run_folder(self.start, seed))}
        given = merge({"objective": begun, "seed": seed}, self.settings)
        return build(PretrainConfig, with_preset("laptop", given), self.name)


def run_folder(name: str, seed: int) -> str:
    """What the folder of a run is called."""
    return f"{name}-seed-{seed}"


def _objective(name: str, **more: Any) -> dict[str, Any]:
    return {"objective": {"name": name, **more}}


PHOTOGRAPHS = (
    TrainingRun("simmim", "masked, mask tokens in the encoder", _objective("simmim"), expected=PP),
    TrainingRun("simclr", "contrastive", _objective("simclr")),
    TrainingRun("supervised", "which photograph", _objective("supervised")),
    TrainingRun(
        "simclr-after-simmim", "contrastive, started from simmim", _objective("simclr"), start="simmim"
    ),
    TrainingRun("mae", "masked, the encoder sees visible patches alone", _objective("mae"), full=True),
    TrainingRun("moco-v3", "contrastive, momentum encoder", _objective("moco-v3"), full=True),
    TrainingRun("dino", "distilled from itself", _objective("dino"), full=True),
    TrainingRun(
        "moco-v3-after-simmim",
        "contrastive, momentum encoder, started from simmim",
        _objective("moco-v3"),
        start="simmim",
        full=True,
    ),
    TrainingRun(
        "simmim+simclr",
        "masked and contrastive, half and half",
        _objective("simmim", second="simclr"),
        full=True,
    ),
    TrainingRun(
        "simmim-after-simmim",
        "masked, started from simmim: what starting anew does by itself",
        _objective("simmim"),
        start="simmim",
        full=True,
    ),
)

_WORLD = {
    "area_sizes": [32, 8, 8, 8, 8],
    "clusters": 3,
    "latent": {"low": 0.5, "high": 1.5},
}
_LAYER = {"depth": 1, "heads": 1, "positions": "orthogonal", "content_in_query": False}
"""As near to the theory's layer as a vision transformer comes."""


@dataclass(frozen=True)
class _Departure:
    """network: other than `_LAYER`. areas, training: as in the configuration."""

    name: str
    label: str
    expected: str
    network: Mapping[str, Any] = field(default_factory=dict)
    areas: str = "fixed"
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> TrainingRun:
        settings = {
            **_objective("simmim"),
            "network": {**_LAYER, **self.network},
            "data": {"world": _WORLD, "areas": self.areas},
            "training": dict(self.training),
        }
        return TrainingRun(self.name, self.label, settings, full=True, expected=self.expected)


_VIT = {"depth": 4, "heads": 3, "positions": "sincos", "content_in_query": True}
WORLDS = tuple(
    one.run
    for one in (
        _Departure("world", "the theory's world and, as far as can be, its layer", FP),
        _Departure("world-sgd", "gradient descent", FP, training={"optimizer": "sgd", "blr": 2.0}),
        _Departure("world-sincos", "positions not orthogonal", FP, {"positions": "sincos"}),
        _Departure("world-learned", "positions learned", FP, {"positions": "learned"}),
        _Departure("world-content", "content in the query", FP, {"content_in_query": True}),
        _Departure("world-depth", "four layers", FP, {"depth": 4}),
        _Departure("world-shifted", "areas that move", PP, areas="shifted"),
        _Departure("world-vit", "all of these but moving areas", FP, _VIT),
        _Departure("world-vit-shifted", "all of these", PP, _VIT, "shifted"),
    )
)
RUNS = (*PHOTOGRAPHS, *WORLDS)
