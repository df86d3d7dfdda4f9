"""Sections of pretraining's pages: where statistics began and ended, and what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mimlab.report.page import Section
from mimlab.report.pretrain_tables import PretrainRun, layers_in, series, steps_in
from mimlab.report.probe_tables import title_of

_STATISTICS = ("nmi", "positional_nmi", "diversity", "distance", "entropy")
_EVALUATION = {
    "knn": "kNN",
    "linear": "linear probe",
    "chance": "chance",
    "model": "loss, masked patches",
    "image_mean": "loss of the image mean",
    "nearest_patch": "loss of the nearest patch",
}


def ends_section(runs: Sequence[PretrainRun]) -> Section:
    """Two rows per run: means over layers at the end, and at the start."""
    rows = []
    for run in runs:
        steps = steps_in(run.statistics)
        for step in dict.fromkeys((steps[-1], steps[0])):
            values = {title_of(name): _mean_at(run, name, step) for name in _STATISTICS}
            rows.append(_named(run, runs) | {"step": step} | values)
    return Section(
        "At the end, and at the start",
        "Mean over layers, heads and held-out crops. Layers differ more than this tells: read the figures. What is as "
        "at the start was not learned.",
        rows=rows,
    )


def _named(run: PretrainRun, runs: Sequence[PretrainRun]) -> dict[str, Any]:
    """The run's name, where there are several."""
    return {"run": run.name} if len(runs) > 1 else {}


def _mean_at(run: PretrainRun, name: str, step: int) -> float | None:
    found = [series(run.statistics, name, layer) for layer in layers_in(run.statistics)]
    values = [float(value) for one in found for value in one.mean[one.steps == step]]
    return float(np.mean(values)) if values else None


def evaluation_section(runs: Sequence[PretrainRun]) -> list[Section]:
    """What was learned, checkpoint by checkpoint; of several runs the first and the last."""
    rows = []
    for run in runs:
        records = sorted(run.summary["evaluation"], key=lambda one: one["step"] or 0)
        kept = records if len(runs) == 1 else [*records[:1], *records[1:][-1:]]
        rows += [_named(run, runs) | dict(record) for record in kept]
    if not rows:
        return []
    present = [key for key in _EVALUATION if any(row.get(key) is not None for row in rows)]
    first = ["run", "step"] if len(runs) > 1 else ["step"]
    shown = [
        {key: row[key] for key in first} | {_EVALUATION[key]: row.get(key) for key in present} for row in rows
    ]
    said = (
        "Which photograph is a crop from? Top-1 share by the nearest neighbours and by a linear map of the frozen, "
        "averaged outputs, on grey, standardised crops; the crops that are known and those asked for are from "
        "different halves of each held-out photograph. "
    )
    guessed = (
        "Reconstruction: mean squared error over hidden patches of held-out crops, beside that of two guesses, the "
        "mean colour of what is visible and the nearest visible patch. "
    )
    return [
        Section(
            "Was anything learned?",
            (said if {"knn", "linear"} & set(present) else "")
            + (guessed if "model" in present else "")
            + "The first step is the network before training, which tells photographs apart too.",
            rows=shown,
        )
    ]
