"""The runs that ``mimlab reproduce`` judges copying in context by; they need PyTorch (docs/in-context.md)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mimlab.claims.catalogue import claims_of_rows
from mimlab.claims.claim import Measurement, Threshold, Verdict
from mimlab.studies.worlds import Run

_DYNAMICS = {
    "engine": "dense",
    "integrator": "descent",
    "learning_rate": 4.0,
    "steps": 300,
    "draws": 64,
    "stop_attention": 0.96,
}

RUNS: tuple[Run, ...] = (
    Run(
        "copy-in-context",
        "a sequence of 16 tokens and its repetition, drawn anew in every image: copying goes by position",
        {"world": {"area_sizes": [2] * 16}, "objective": {"name": "in-context"}, "dynamics": _DYNAMICS},
        ("correlations", "attention"),
    ),
    Run(
        "copy-from-weights",
        "areas of 8 patches whose tokens are tied to them, as in masked reconstruction: features tell, too",
        {
            "world": {"area_sizes": [8] * 4},
            "objective": {"name": "in-context", "in_weights": 1.0},
            "dynamics": _DYNAMICS,
        },
        ("correlations",),
        {"copying goes by position": "fails"},
    ),
)


def without_torch(objective: str) -> list[dict[str, Any]] | None:
    """The verdicts on a dense run where PyTorch is not installed, all inconclusive; None where it is."""
    if find_spec("torch") is not None:
        return None
    missing = Measurement.missing("needs PyTorch, which is not installed: the extra 'dense'")
    return [
        Verdict(claim, missing, claim.threshold, "inconclusive").as_dict()
        for claim in claims_of_rows(objective)
        if isinstance(claim.threshold, Threshold)
    ]
