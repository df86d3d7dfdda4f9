"""Figures of pretraining against step: loss and learning rate, statistics layer by layer, runs beside each other.

Steps are drawn on a scale that is logarithmic from 1 on and has a place for 0, the network before training, marked
with a ring: what a network reads before it learned anything belongs to every curve. Depth is counted from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mimlab.report.numbers import format_number
from mimlab.report.pretrain_tables import (
    Array,
    Log,
    PretrainRun,
    Series,
    layers_in,
    series,
    share_series,
)
from mimlab.report.probe_shares import COMPONENT_COLOURS
from mimlab.report.probe_tables import ModelRecord, baseline, title_of
from mimlab.report.probes import MODEL_COLOURS
from mimlab.report.style import COLOURS, FAINT, INK, new_figure, note, one_scale, save, styled

SHOWN = ("nmi", "positional_nmi", "diversity", "distance", "mean_row_entropy", "prefix_mass")
"""Statistics that are drawn against step."""
STRONG = ("PP", "FP")
"""Shares of logit variance that stand out."""
_COLUMNS = 2
_SMOOTHED = 60  # points of the mean over neighbouring records
_KINDS = {"uniform": (0, (1, 1.2)), "identity": (0, (6, 2, 1, 2))}


@dataclass(frozen=True)
class _Line:
    label: str
    colour: Any
    series: Series
    style: Any = "-"
    faint: bool = False

    @property
    def width(self) -> float:
        return 1.1 if self.faint else 1.8


def draw_loss(log: Log, path: str | Path) -> Figure:
    """Loss and learning rate against step, both linear in step; a heavy line is the mean of neighbouring records.

    `log` has records with `step, loss, lr`; those without a finite loss are left out. Written to `path` (PNG); the
    figure is returned.
    """
    kept = [one for one in log if isinstance(one.get("loss"), int | float) and np.isfinite(one["loss"])]
    steps, losses, rates = (
        np.array([one.get(key, np.nan) for one in kept], dtype=np.float64) for key in ("step", "loss", "lr")
    )
    with styled():
        figure = new_figure(height=4.6)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.set_ylabel("loss")
        below.set_ylabel("learning rate")
        below.set_xlabel("step")
        below.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if not kept:
            note(above, "no finite loss")
            save(figure, path, "Loss against step: no finite loss.")
            return figure
        if losses.min() > 0 and losses.max() > 5 * losses.min():
            above.set_yscale("log")
            above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            above.yaxis.set_minor_locator(NullLocator())
            above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value, 2)))
        marker = "." if len(kept) == 1 else None  # a line of one point is not seen
        above.plot(steps, losses, color=COLOURS["loss"], linewidth=0.8, alpha=0.35, marker=marker)
        parts = [
            part for part in np.array_split(np.arange(len(kept)), min(_SMOOTHED, len(kept))) if part.size
        ]
        above.plot(*([one[part].mean() for part in parts] for one in (steps, losses)), color=COLOURS["loss"])
        below.plot(steps, rates, color=COLOURS["own"])
        ends = [format_number(one, 3) for one in (losses[0], losses[parts[-1]].mean())]
        top = int(np.nanargmax(rates)) if np.isfinite(rates).any() else 0
        told = (
            f"Loss from {ends[0]} at step {steps[0]:.0f} to {ends[1]} around step {steps[-1]:.0f}; the learning rate "
            f"is highest at step {steps[top]:.0f}, {format_number(rates[top], 3)}."
        )
        save(figure, path, told)
    return figure


def draw_layers(
    statistics: pa.Table,
    model: ModelRecord,
    path: str | Path,
    shown: Sequence[str] = SHOWN,
    marks: Sequence[int] = (),
) -> Figure:
    """A panel per statistic against step: a line per layer, mean over heads, its band from lowest to highest head.

    Dotted and dash-dotted: uniform attention and identity, where they lie near. marks: steps with a vertical line, of
    alarms. Written to `path` (PNG); the figure is returned.
    """
    layers = layers_in(statistics)
    colours = colormaps["viridis"](np.linspace(0, 0.88, max(len(layers), 2)))
    panels = {
        name: [
            _Line(f"depth {layer + 1}", colour, series(statistics, name, layer))
            for layer, colour in zip(layers, colours, strict=False)
        ]
        for name in shown
    }
    levels = {name: {kind: baseline(model, name, kind) for kind in _KINDS} for name in shown}
    return _draw_panels(
        {title_of(name): lines for name, lines in panels.items()}, path, levels.values(), marks
    )


def draw_outputs(statistics: pa.Table, path: str | Path, marks: Sequence[int] = ()) -> Figure:
    """Deviation and effective rank of the outputs against step. Written to `path` (PNG); the figure is returned."""
    panels = {}
    for end, name in (("deviation", "Deviation of outputs"), ("rank", "Effective rank of outputs")):
        kinds = (("mean", "mean over patches", COLOURS["own"], "-"), ("cls", "CLS", COLOURS["global"], "--"))
        lines = [
            _Line(label, colour, series(statistics, f"{kind}_{end}"), style)
            for kind, label, colour, style in kinds
        ]
        panels[name] = [line for line in lines if line.series]
    return _draw_panels(panels, path, marks=marks)


def draw_shares_through_training(shares: pa.Table, path: str | Path, marks: Sequence[int] = ()) -> Figure:
    """A panel per layer: shares of logit variance against step, with 95% intervals over crops; PP and FP stand out.

    marks: as of `draw_layers`. Written to `path` (PNG); the figure is returned.
    """
    panels = {
        f"depth {layer + 1}": [
            _Line(name, COMPONENT_COLOURS[name], share_series(shares, name, layer), faint=name not in STRONG)
            for name in sorted(COMPONENT_COLOURS, key=STRONG.__contains__)  # what is strong is drawn last
        ]
        for layer in layers_in(shares)
    }
    return _draw_panels(panels, path, marks=marks, title="Share of logit variance", alike=True)


def draw_runs(runs: Sequence[PretrainRun], statistic: str, path: str | Path) -> Figure:
    """A panel per layer of one statistic against step, a line per run, with uniform attention and identity.

    Written to `path` (PNG); the figure is returned.
    """
    layers = sorted({layer for run in runs for layer in layers_in(run.statistics)})
    panels, levels = {}, []
    for layer in layers:
        lines = [
            _Line(run.name, _colour(place), series(run.statistics, statistic, layer))
            for place, run in enumerate(runs)
        ]
        panels[f"depth {layer + 1}"] = [line for line in lines if line.series]
        values = {
            kind: np.concatenate([baseline(run.model, statistic, kind)[layer : layer + 1] for run in runs])
            for kind in _KINDS
        }
        levels.append(values)
    return _draw_panels(panels, path, levels, title=title_of(statistic))


def _colour(place: int) -> str:
    return MODEL_COLOURS[place % len(MODEL_COLOURS)]


def _draw_panels(
    panels: Mapping[str, Sequence[_Line]],
    path: str | Path,
    levels: Any = (),
    marks: Sequence[int] = (),
    title: str = "",
    alike: bool = False,
) -> Figure:
    """Lines against step, a panel each; one legend below. alike: all panels have one scale."""
    words = []
    known = list(levels) or [{} for _ in panels]
    with styled():
        rows = ceil(len(panels) / _COLUMNS)
        figure = new_figure(height=2.35 * rows + 0.9)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True).ravel()
        for axes, (name, lines), baselines in zip(grid, panels.items(), known, strict=False):
            axes.set_title(name, loc="left")
            words.append(_panel(axes, name, lines, baselines, marks))
        if alike:
            one_scale(grid[: len(panels)])
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[max(0, len(panels) - _COLUMNS) : len(panels)]:
            axes.set_xlabel("step")
            axes.xaxis.set_tick_params(labelbottom=True)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        unique = {line.label: line for lines in panels.values() for line in lines}
        handles = [
            Line2D([], [], color=line.colour, linestyle=line.style, linewidth=line.width, label=name)
            for name, line in unique.items()
        ]
        start = Line2D(
            [], [], color=FAINT, marker="o", fillstyle="none", linestyle="", label="before training"
        )
        handles.append(start)
        handles += [
            Line2D([], [], color=INK, linestyle=style, linewidth=1.1, label=kind)
            for kind, style in _KINDS.items()
            if any(line.get_gid() == kind for axes in grid for line in axes.lines)
        ]
        if marks:
            handles.append(Line2D([], [], color=INK, linewidth=1.2, label="alarm"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.2)
        subject = f"{title} against step" if title else "Against step"
        save(figure, path, f"{subject}. {' '.join(words)}")
    return figure


def _panel(
    axes: Axes, name: str, lines: Sequence[_Line], baselines: Mapping[str, Array], marks: Sequence[int]
) -> str:
    """Draw the lines of one panel; returns what is to be seen in words."""
    told, values = [], []
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    for line in lines:
        one = line.series
        if not one:
            continue
        shade = 0.08 if line.faint else 0.15
        axes.fill_between(one.steps, one.low, one.high, color=line.colour, alpha=shade, linewidth=0)
        axes.plot(one.steps, one.mean, color=line.colour, linestyle=line.style, linewidth=line.width)
        before = one.steps == 0
        axes.plot(one.steps[before], one.mean[before], "o", color=line.colour, fillstyle="none", markersize=6)
        finite = np.flatnonzero(np.isfinite(one.mean))
        ends = (format_number(one.mean[place], 3) for place in (finite[0], finite[-1]))
        told.append(f"{line.label} from {' to '.join(ends)}")
        values += [one.low, one.high]
    if not told:
        note(axes, "no finite value")
        return f"{name}: no values."
    every = np.concatenate(values)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    size = max(abs(low), abs(high)) or 1.0
    if high - low < 0.01 * size:
        low, high = low - 0.005 * size, high + 0.005 * size
    for kind, found in baselines.items():
        for level in np.unique(found[np.isfinite(found)]):
            if low - 0.5 * (high - low) <= level <= high + 0.5 * (high - low):
                axes.axhline(level, color=INK, linestyle=_KINDS[kind], linewidth=1.1, zorder=1, gid=kind)
                low, high = min(low, level), max(high, level)
        if np.isfinite(found).any():
            told.append(f"{kind} {format_number(float(np.nanmean(found)), 3)}")
    for mark in marks:
        axes.axvline(mark, color=INK, linewidth=1.2, alpha=0.7, zorder=1)
    last = max(int(line.series.steps[-1]) for line in lines if line.series)
    axes.set_xticks([0, *10.0 ** np.arange(np.log10(max(last, 1)) + 1e-9)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.25, max(last * 1.15, 1.5))
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    return f"{name}: {', '.join(told)}."
