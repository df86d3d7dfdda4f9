"""Figures of pretraining over seeds: objectives by depth, shares of logit variance by run, layers against step.

A dot is a run, a line the mean over seeds; rings are networks with random weights. Tables have the columns that
`mimlab.studies.trained` gives them: `run, seed, step, layer` and `statistic, value` or `component, share`. Runs stand
beside each other at each depth, so that those that agree do not hide one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mimlab.report.numbers import format_number
from mimlab.report.probe_shares import COMPONENT_COLOURS
from mimlab.report.probe_tables import title_of
from mimlab.report.probes import MODEL_COLOURS
from mimlab.report.style import FAINT, INK, new_figure, save, styled

Array = NDArray[np.float64]

BY_DEPTH = ("nmi", "diversity", "distance_ratio")
SHARES = ("PP", "FP")
_SPREAD = 0.6
"""Of a depth, for the runs beside each other."""
_DASHES = ("-", (0, (3, 1.2)))
"""Of the first round of colours, and of the second."""


def draw_objectives(looks: pa.Table, runs: Sequence[str], path: str | Path) -> Figure:
    """Three statistics against depth at the end of each run; written to `path` (PNG), the figure is returned.

    The first of the runs begins with random weights: rings are its start, mean over seeds.
    """
    words = []
    with styled():
        figure = new_figure(height=8.6)
        panels = figure.subplots(len(BY_DEPTH), 1, sharex=True)
        for axes, statistic in zip(panels, BY_DEPTH, strict=True):
            chosen = looks.filter(pc.field("statistic") == statistic)
            told = []
            for place, run in enumerate(runs):
                values = _by_layer(chosen.filter(pc.field("run") == run), "value", last=True)
                told.append(f"{run} {format_number(float(values.mean()), 2)}")
                colour = MODEL_COLOURS[place % len(MODEL_COLOURS)]
                dashes = _DASHES[place // len(MODEL_COLOURS) % len(_DASHES)]
                shift = _SPREAD * ((place + 0.5) / len(runs) - 0.5)
                _dots(axes, _depths(values) + shift, values, run, color=colour, linestyle=dashes)
            start = _by_layer(chosen.filter(pc.field("run") == runs[0]), "value", last=False)
            axes.plot(
                _depths(start), start.mean(0), "o", color=FAINT, fillstyle="none", label="random weights"
            )
            axes.set_ylabel(title_of(statistic))
            words.append(f"{title_of(statistic)}, mean over depth: {', '.join(told)}.")
        panels[-1].set_xlabel("depth")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, columnspacing=1.2, handlelength=2.4
        )
        save(figure, path, f"Objectives by depth at the end of training, a dot a seed. {' '.join(words)}")
    return figure


def _dots(axes: Axes, at: NDArray[np.floating[Any]], values: Array, label: str, **line: Any) -> None:
    """A dot per seed (seeds, layers) and the mean as a line."""
    axes.plot(at, values.mean(0), label=label, linewidth=1.3, zorder=2, **line)
    for one in values:
        axes.plot(at, one, "o", color=line["color"], markersize=4, zorder=3)


def _depths(values: Array) -> NDArray[np.int64]:
    return np.arange(1, values.shape[-1] + 1)


def draw_shares_of_runs(shares: pa.Table, runs: Sequence[str], path: str | Path) -> Figure:
    """PP and FP at the end of each run, means over layers: a row a run, a dot a seed, a bar the mean."""
    words = []
    with styled():
        figure = new_figure(height=1.4 + 0.55 * len(runs))
        axes = figure.subplots()
        for row, run in enumerate(runs):
            told = []
            for shift, component in zip((-0.17, 0.17), SHARES, strict=True):
                chosen = shares.filter((pc.field("run") == run) & (pc.field("component") == component))
                values = _by_layer(chosen, "share", last=True).mean(1)
                colour, at = COMPONENT_COLOURS[component], row + shift
                axes.barh(
                    at, values.mean(), 0.3, color=colour, alpha=0.45, label=component if row == 0 else None
                )
                axes.plot(values, np.full(len(values), at), "o", color=colour, markersize=4.5, zorder=3)
                told.append(f"{component} {format_number(float(values.mean()), 2)}")
            words.append(f"{run}: {', '.join(told)}.")
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.set_yticks(range(len(runs)), labels=list(runs))
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlabel("share of logit variance, mean over layers and heads")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=2)
        save(figure, path, f"What attention goes by at the end of training, a dot a seed. {' '.join(words)}")
    return figure


def draw_order_of_layers(looks: pa.Table, run: str, path: str | Path) -> Figure:
    """NMI of each layer, as a share of its last value, against step: mean over seeds, and each seed faintly."""
    chosen = looks.filter((pc.field("run") == run) & (pc.field("statistic") == "nmi"))
    layers = sorted(chosen["layer"].unique().to_pylist())
    with styled():
        figure = new_figure(height=4.2)
        axes = figure.subplots()
        axes.set_xscale("symlog", linthresh=1, linscale=0.6)
        axes.axhline(0.5, color=INK, linewidth=1.0, zorder=1)
        words = []
        for place, layer in enumerate(layers):
            colour = MODEL_COLOURS[place % len(MODEL_COLOURS)]
            steps, values = _courses(chosen.filter(pc.field("layer") == layer))
            relative = values / values[:, -1:]
            for one in relative:
                axes.plot(steps, one, color=colour, linewidth=0.8, alpha=0.5)
            axes.plot(steps, relative.mean(0), color=colour, label=f"depth {layer + 1}")
            half = steps[np.argmax(relative.mean(0) >= 0.5)]
            words.append(f"depth {layer + 1} by step {half}")
        axes.set_xlabel("step")
        axes.set_ylabel("NMI over its last value")
        figure.legend(loc="outside lower center", ncols=4)
        save(figure, path, f"NMI of {run} by layer: half of its last value is reached at {', '.join(words)}.")
    return figure


def _courses(table: pa.Table) -> tuple[NDArray[np.int64], Array]:
    """Steps that every seed has, so that one that ended early hides no other, and values (seeds, steps)."""
    seeds = len(table["seed"].unique())
    counts = table.group_by("step").aggregate([("seed", "count")])
    common = counts.filter(pc.field("seed_count") == seeds)["step"]
    table = table.filter(pc.is_in(table["step"], common.combine_chunks()))
    ordered = table.sort_by([("seed", "ascending"), ("step", "ascending")])
    steps = ordered["step"].to_numpy().reshape(seeds, -1)
    return steps[0], ordered["value"].to_numpy().reshape(seeds, -1)


def _by_layer(table: pa.Table, column: str, last: bool) -> Array:
    """Values at the last or first step, (seeds, layers)."""
    steps = table["step"].to_numpy()
    step = steps.max() if last else steps.min()
    ordered = table.filter(pc.field("step") == step).sort_by([("seed", "ascending"), ("layer", "ascending")])
    values: Array = ordered[column].to_numpy().reshape(len(ordered["seed"].unique()), -1)
    return values
