"""The relaxed runs of ``mimlab reproduce``: two of the survival table's, which needs an hour (docs/relaxations.md)."""

from __future__ import annotations

from mimlab.runs import merge, read_toml
from mimlab.studies.survival import BASE
from mimlab.studies.worlds import Run

_BASE = read_toml(BASE)

RELAXED_RUNS: tuple[Run, ...] = (
    Run(
        "relaxed-base",
        "the survival table's base, nothing relaxed: every claim that speaks of it holds",
        _BASE,
    ),
    Run(
        "relaxed-signs",
        "the same with latents of random sign: position takes the place of the feature (prediction R1)",
        merge(_BASE, {"relax": {"signed_latents": 0.5}}),
        expected={
            **dict.fromkeys(
                ("convergence", "area-wide attention", "features exceed positions", "two phases"), "fails"
            ),
            **dict.fromkeys(("small position correlations", "range of decoupling"), "inconclusive"),
        },
    ),
)
