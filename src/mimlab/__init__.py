"""mimlab: how attention forms in masked image modeling, simulated exactly and judged claim by claim.

The public names load on first use, so that `import mimlab` costs nothing and needs no array library. No name
here is also a module's: importing that module would silently replace the name.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimlab.claims import judge
    from mimlab.objectives import (
        ContrastiveLearning,
        InContextLearning,
        MaskedReconstruction,
        WeightedSum,
    )
    from mimlab.probing.capture import capture
    from mimlab.probing.layout import Layout
    from mimlab.runs import InputError
    from mimlab.studies.pretrain import pretrain
    from mimlab.studies.probe import probe
    from mimlab.studies.single import simulate
    from mimlab.studies.sweep import sweep
    from mimlab.world import Latent, World

__version__ = "0.1.0"

__all__ = [
    "ContrastiveLearning",
    "InContextLearning",
    "InputError",
    "Latent",
    "Layout",
    "MaskedReconstruction",
    "WeightedSum",
    "World",
    "capture",
    "judge",
    "pretrain",
    "probe",
    "simulate",
    "sweep",
]

_HOMES = {
    "ContrastiveLearning": "mimlab.objectives",
    "InContextLearning": "mimlab.objectives",
    "InputError": "mimlab.runs",
    "Latent": "mimlab.world",
    "Layout": "mimlab.probing.layout",
    "MaskedReconstruction": "mimlab.objectives",
    "WeightedSum": "mimlab.objectives",
    "World": "mimlab.world",
    "capture": "mimlab.probing.capture",
    "judge": "mimlab.claims",
    "pretrain": "mimlab.studies.pretrain",
    "probe": "mimlab.studies.probe",
    "simulate": "mimlab.studies.single",
    "sweep": "mimlab.studies.sweep",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted([*globals(), *__all__])
