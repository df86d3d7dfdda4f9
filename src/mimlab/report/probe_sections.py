"""Sections that pages of the probe are made of: tables by layer, the overview, warnings, the glossary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mimlab.probing.catalogue import CATALOGUE, CORE
from mimlab.report.markup import capital
from mimlab.report.numbers import format_interval, format_number
from mimlab.report.page import Section
from mimlab.report.probe_tables import (
    Array,
    ModelRecord,
    baseline,
    curve,
    layout_of,
    models_in,
    span,
    statistics_in,
    title_of,
    with_random_weights,
)

_DIGITS = 3  # of means
_BASELINES = {"uniform": "uniform", "identity": "identity", "random": "random logits"}


def layer_rows(model: ModelRecord, layers: pa.Table) -> list[dict[str, Any]]:
    """A row per layer, then one per baseline; a column per statistic. Means with their intervals, as text."""
    name = model["name"]
    by_layer: dict[int, dict[str, Any]] = {
        record["layer"]: {"depth": record["layer"] + 1} for record in model["layers"]
    }
    below: dict[str, dict[str, Any]] = {kind: {"depth": said} for kind, said in _BASELINES.items()}
    chance: dict[str, Any] = {"depth": "random weights"}
    for statistic in statistics_in(layers.filter(pc.field("model") == name)):
        title = title_of(statistic)
        found = curve(layers, name, statistic)
        for layer, *ends in zip(found.layers, found.mean, found.low, found.high, strict=True):
            mean, low, high = (None if np.isnan(one) else float(one) for one in ends)
            unbroken = format_interval(mean, low, high, _DIGITS).replace(" ", "\u00a0")
            by_layer[int(layer)][title] = unbroken
        for kind, row in below.items():
            row[title] = span(baseline(model, statistic, kind), _DIGITS)
        chance[title] = span(curve(layers, with_random_weights(name), statistic).mean, _DIGITS)
    for record in model["layers"]:
        by_layer[record["layer"]]["module"] = record["module"]
    measured = with_random_weights(name) in models_in(layers)
    return [*by_layer.values(), *below.values(), *([chance] if measured else [])]


def overview(models: Sequence[ModelRecord], layers: pa.Table) -> Section:
    """A row per model: the mean of each core statistic over its layers."""
    rows = []
    for model in models:
        row: dict[str, Any] = {
            "model": model["name"],
            "patches": _patches(model),
            "layers": len(model["layers"]),
        }
        for statistic in statistics_in(layers):
            if statistic in CORE:
                row[title_of(statistic)] = _mean(curve(layers, model["name"], statistic).mean)
        rows.append(row)
    return Section(
        "Means over all layers",
        "Mean over layers, heads and images. Layers often differ more than models do: read the figures first.",
        rows=rows,
    )


def glossary(models: Sequence[ModelRecord], layers: pa.Table) -> Section:
    """Every statistic of the table: name, formula, range, direction, caution, and its values for three attentions."""
    return Section(
        "Glossary",
        "a_ij is the weight of query i on key j, both patches (softmax over the patches only), w_ij the same over all "
        "tokens, ā the mean row, H the entropy in nats, N the number of patches, pos in pixels. Uniform: all weights "
        "equal. Identity: each query attends to itself alone. Random logits: the softmax of independent standard "
        "normal logits, for large N; not a model with random weights.",
        details=[_entry(name, models) for name in statistics_in(layers)],
    )


def _entry(name: str, models: Sequence[ModelRecord]) -> tuple[str, str]:
    known = CATALOGUE.get(name)
    values = ", ".join(
        f"{said} {span(np.concatenate([baseline(model, name, kind) for model in models]))}"
        for kind, said in _BASELINES.items()
    )
    if known is None:
        return name, f"As in the published code after which it is named. {capital(values)}."
    caution = f" Caution: {known.caution}." if known.caution else ""
    return (
        title_of(name),
        f"In tables: {name}. Formula: {known.formula}. Range: {known.range}. Higher: {known.higher}. {capital(values)}."
        + caution,
    )


def cautions_section(warnings: Sequence[str]) -> list[Section]:
    """The warnings, where there are any."""
    rows = [{"warning": one} for one in warnings]
    return (
        [Section("Warnings", "What these numbers cannot say, or say otherwise than usual.", rows=rows)]
        if rows
        else []
    )


def skipped_section(skipped: Sequence[Sequence[str]], run: str = "") -> list[Section]:
    """Files that could not be used and why, where there are any."""
    rows = [{"file": file, "reason": reason} for file, reason in skipped]
    heading = f"Skipped images of {run}" if run else "Skipped images"
    return [Section(heading, f"{counted(len(rows), 'file')} could not be used.", rows=rows)] if rows else []


def model_facts(models: Sequence[ModelRecord]) -> dict[str, Any]:
    """What each model is, in a line."""
    facts = {}
    for model in models:
        prefix = span(record["prefix"] for record in model["layers"])
        heads = span(record["heads"] for record in model["layers"])
        grids = dict.fromkeys("×".join(map(str, record["grid"])) for record in model["layers"])
        sizes = dict.fromkeys(
            "×".join(f"{side:g}" for side in record["patch_size"]) for record in model["layers"]
        )
        windows = span(record["windows"] for record in model["layers"])
        facts[f"Model {model['name']}"] = (
            f"{len(model['layers'])} layers, {heads} heads, {format_number(model['parameters'], 3)} parameters; "
            f"{' or '.join(grids)} patches of {' or '.join(sizes)} pixels "
            f"after {prefix} prefix {'token' if prefix == '1' else 'tokens'}"
            + (f", {windows} windows" if windows != "1" else "")
        )
    return facts


def _patches(model: ModelRecord) -> str:
    return span(layout_of(record).patches for record in model["layers"])


def _mean(values: Array) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def counted(number: int, word: str) -> str:
    """A number and what it counts."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def listed(names: Iterable[str]) -> str:
    """Names in a row, the last after "and"."""
    *first, last = list(names)
    return f"{', '.join(first)} and {last}" if first else last
