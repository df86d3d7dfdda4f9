"""Figures of the probe: statistics against depth, and head by head.

Every figure shows its baselines. Uniform attention and identity (each query attends to itself alone) are lines;
the same architecture with random weights, where it was measured, is grey. Values near a baseline are no evidence
of anything learned. A baseline so far from the data that it would flatten them is named at the edge it lies
beyond, with its value. Bands end where their statistic ends: a 95% t interval of few images can reach below 0, the
statistic cannot; tables keep the whole interval.

What would mislead: two panels read by their heights. Each has its own axis, and what fills a panel may be tiny;
only what is within rounding (_LEAST_SPAN) is drawn flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, Formatter, MaxNLocator
from numpy.typing import NDArray

from mimlab.probing.catalogue import CORE
from mimlab.report.numbers import format_number
from mimlab.report.probe_tables import (
    DEPTH,
    Curve,
    ModelRecord,
    baseline,
    bounds,
    curve,
    models_in,
    span,
    title_of,
    with_random_weights,
    within,
)
from mimlab.report.style import FAINT, INK, new_figure, note, one_scale, save, styled

Array = NDArray[np.float64]

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
RANDOM_COLOUR = "#8c8c8c"
_LINES = {"uniform": (0, (1, 1.2)), "identity": (0, (6, 2, 1, 2))}
_STYLES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)))  # a round of colours each
_LEAST_SHARE = 0.3  # of the axis, for the data; a baseline that would leave less is named at the edge
_LINE = 0.11  # of a panel's height: a line at the edge, which has room beside the data
_LEAST_SPAN = 1e-6  # of a statistic's size: below it, differences are rounding (float32: up to 5e-8)
_COLUMNS = 2
_TITLE = 28  # letters of a title that fit above a panel
_MOST_BESIDE = 4  # models that a legend in the place of a panel has room for


@dataclass(frozen=True)
class _Shown:
    """A model on a figure: its record, and how it is drawn."""

    model: ModelRecord
    colour: str
    style: Any
    shift: float  # sideways, so that the heads of several models stand beside each other


def draw_depth(
    layers: pa.Table,
    models: Sequence[ModelRecord],
    path: str | Path,
    statistics: Sequence[str] = CORE,
    before: str = "random weights",
    alike: bool = False,
) -> Figure:
    """A panel per statistic against depth: a dot per head, the mean over heads with its 95% interval over images.

    `layers` and `models` are those of `mimlab.report.probe_tables`; each model has a colour. `before`: what the
    grey ones are called, those with random weights in the table. `alike`: all panels have one scale. Written to
    `path` (PNG); the figure is returned.
    """
    shown = [
        _Shown(
            model,
            MODEL_COLOURS[index % len(MODEL_COLOURS)],
            _STYLES[index // len(MODEL_COLOURS) % len(_STYLES)],
            0.5 * ((index + 0.5) / len(models) - 0.5),
        )
        for index, model in enumerate(models)
    ]
    words = []
    with styled():
        rows = ceil(len(statistics) / _COLUMNS)
        beside = len(statistics) % _COLUMNS > 0 and len(models) <= _MOST_BESIDE
        figure = new_figure(height=2.35 * rows + (0 if beside else 0.6 + 0.25 * len(models)))
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes, statistic in zip(grid, statistics, strict=False):
            words.append(_depth_panel(axes, layers, shown, statistic, before))
        if alike:
            one_scale(grid[: len(statistics)])
        for axes in grid[: len(statistics)]:
            axes.set_xlim(0.5, 1.5 + max(record["layer"] for model in models for record in model["layers"]))
        for axes in grid[max(0, len(statistics) - _COLUMNS) : len(statistics)]:
            axes.set_xlabel(DEPTH)
        for axes in grid[len(statistics) :]:
            axes.set_axis_off()
        known = set(models_in(layers))
        with_random = any(with_random_weights(model["name"]) in known for model in models)
        drawn = [
            kind
            for kind in _LINES
            if any(np.isfinite(baseline(m, one, kind)).any() for m in models for one in statistics)
        ]
        _depth_legend(grid[-1] if beside else figure, shown, before if with_random else "", drawn)
        names = ", ".join(model["name"] for model in models)
        save(figure, path, f"Attention statistics of {names} against depth. {' '.join(words)}")
    return figure


def _depth_panel(axes: Axes, layers: pa.Table, shown: Sequence[_Shown], statistic: str, before: str) -> str:
    """Draw one statistic of all models; returns what is to be seen in words."""
    axes.set_title(fill(title_of(statistic), _TITLE), loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(_Ticks())
    words, extent = [], []
    for one in shown:
        name = one.model["name"]
        chance = curve(layers, with_random_weights(name), statistic)
        if chance:
            axes.plot(
                *_dots(chance, one.shift), ".", color=RANDOM_COLOUR, markersize=2.5, alpha=0.5, zorder=1.5
            )
            axes.plot(chance.layers + 1, chance.mean, "--", color=RANDOM_COLOUR, linewidth=1.4, zorder=2)
        found = within(curve(layers, name, statistic), *bounds(one.model, statistic))
        chance = within(chance, *bounds(one.model, statistic))
        if found:
            axes.plot(
                *_dots(found, one.shift), "o", color=one.colour, markersize=3, alpha=0.4, markeredgewidth=0
            )
            axes.fill_between(
                found.layers + 1, found.low, found.high, color=one.colour, alpha=0.25, linewidth=0
            )
            line = axes.plot(found.layers + 1, found.mean, color=one.colour, linestyle=one.style, zorder=3)[0]
            line.set(marker="o" if found.layers.size == 1 else "", markersize=6)
        extent += [found.values, chance.values]
        words.append(_seen(name, found, chance, before))
    values = np.concatenate(extent) if extent else np.array([])
    if not values.size:
        note(axes, "no finite value")
    told = _baseline_lines(axes, [one.model for one in shown], statistic, values)
    return f"{title_of(statistic)}: {'; '.join(filter(None, words)) or 'no values'}; {told}."


def _dots(found: Curve, shift: float) -> tuple[Array, Array]:
    return found.heads[:, 0] + 1 + shift, found.heads[:, 2]


def _seen(name: str, found: Curve, chance: Curve, before: str) -> str:
    if not np.isfinite(found.mean).any():
        return ""
    ends = found.mean[np.isfinite(found.mean)]
    words = f"{name} from {format_number(ends[0], 3)} in the first layer to {format_number(ends[-1], 3)} in the last"
    if np.isfinite(chance.mean).any():
        words += f", with {before} {span(chance.mean, 3)}"
    return words


def _baseline_lines(axes: Axes, models: Sequence[ModelRecord], statistic: str, values: Array) -> str:
    """Lines for uniform attention and identity, or their values at the edge; sets the axis' limits."""
    levels = {kind: [baseline(model, statistic, kind) for model in models] for kind in _LINES}
    known = {kind: np.concatenate(found) for kind, found in levels.items()}
    known = {kind: found[np.isfinite(found)] for kind, found in known.items() if np.isfinite(found).any()}
    ends = zip(*(bounds(model, statistic) for model in models), strict=True)
    bottom, top = (end(one) for end, one in zip((min, max), ends, strict=True))
    least = _least(np.concatenate([values, *known.values()]), top)
    low, high = _limits(values, known, least, (bottom, top))
    if values.size and np.ptp(values) < least:
        axes.yaxis.set_major_locator(_one_tick(values, least))
    beyond: dict[str, dict[str, list[str]]] = {"↑": {}, "↓": {}}
    for kind, found in sorted(known.items(), key=lambda one: -float(one[1].max())):
        if found.max() > high or found.min() < low:
            beyond["↑" if found.max() > high else "↓"].setdefault(span(found, 3), []).append(kind)
            continue
        drawn = set()
        for model, level in zip(models, levels[kind], strict=True):
            depth = [record["layer"] + 1 for record in model["layers"]]
            if tuple(level) in drawn or not np.isfinite(level).any():
                continue
            drawn.add(tuple(level))
            if len(set(level)) == 1:
                axes.axhline(level[0], color=INK, linestyle=_LINES[kind], linewidth=1.1, zorder=1)
            else:
                axes.step(
                    depth, level, where="mid", color=INK, linestyle=_LINES[kind], linewidth=1.1, zorder=1
                )
    margin = {arrow: 0.055 + _LINE * len(named) for arrow, named in beyond.items()}  # of the whole axis
    whole = (high - low) / (1 - sum(margin.values()))
    axes.set_ylim(low - margin["↓"] * whole, high + margin["↑"] * whole)
    for arrow, named in beyond.items():
        if named:
            lines = [f"{', '.join(kinds)} {value} {arrow}" for value, kinds in named.items()]
            _edge(axes, lines, arrow == "↑")
    return ", ".join(f"{kind} {span(found, 3)}" for kind, found in known.items()) or "no baseline"


def _edge(axes: Axes, lines: Sequence[str], above: bool) -> None:
    """Name what lies beyond the upper or the lower edge, a line each, readable over what is drawn there."""
    axes.text(
        *(0.98, 0.97 if above else 0.03),
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="top" if above else "bottom",
        fontsize=10,
        color=FAINT,
        zorder=4,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )


def _limits(
    values: Array, known: dict[str, Array], least: float, ends: tuple[float, float]
) -> tuple[float, float]:
    """Lowest and highest value shown: the data, and each baseline that leaves them room, the nearest first.

    Data that span less than `least` are given as much, none of it beyond the `ends` of what the statistic can be.
    """
    every = np.concatenate([values, *known.values()])
    if not every.size:
        return 0.0, 1.0
    if not values.size:
        return float(every.min()), float(every.max()) or 1.0
    low, high = float(values.min()), float(values.max())
    if high - low < least:
        low = max(min((low + high - least) / 2, ends[1] - least), min(ends[0], low))
        high = max(high, low + least)
    data = high - low
    for found in sorted(known.values(), key=lambda one: float(max(low - one.min(), one.max() - high))):
        wider = min(low, float(found.min())), max(high, float(found.max()))
        if data >= _LEAST_SHARE * (wider[1] - wider[0]):
            low, high = wider
    return low, high


def _least(values: Array, top: float) -> float:
    """The least span of an axis: what differs by less than this of a statistic's size differs by rounding."""
    return _LEAST_SPAN * float(np.nanmax(np.abs([*values, top if isfinite(top) else 0.0]))) or 1.0


def _one_tick(values: Array, least: float) -> FixedLocator:
    """For values that differ by rounding alone: the number that they round to."""
    unit = least / 10
    return FixedLocator([unit * round(float(values.min() + values.max()) / (2 * unit))])


class _Ticks(Formatter):
    """Labels with as many digits as tell the ticks apart, and no more."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        return format_number(value, 3)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        ticks = np.unique(values)
        if ticks.size < 2:
            return [self(value) for value in values]
        step = float(np.diff(ticks).min())
        near = [0.0 if abs(value) < 1e-6 * step else float(value) for value in values]
        if 1e-3 <= np.abs(near).max() < 1e5:
            decimals = next(n for n in range(16) if np.abs(np.round(near, n) - near).max() < 0.01 * step)
            return [f"{value:.{decimals}f}".replace("-", "−") for value in near]
        digits = next(
            n for n in range(16) if max(abs(float(f"{one:.{n}e}") - one) for one in near) < 0.01 * step
        )
        return [format_number(value, digits + 1) for value in near]


def _depth_legend(
    place: Axes | Figure, shown: Sequence[_Shown], before: str, baselines: Sequence[str]
) -> None:
    handles = [
        Line2D([], [], color=one.colour, linestyle=one.style, label=fill(one.model["name"], 24))
        for one in shown
    ]
    if before:
        chance = Line2D([], [], color=RANDOM_COLOUR, linestyle="--", linewidth=1.4, label=before)
        handles.append(chance)
    handles += [
        Line2D([], [], color=INK, linestyle=_LINES[kind], linewidth=1.1, label=kind) for kind in baselines
    ]
    title = "a dot: a head; a line: mean"
    if isinstance(place, Figure):
        place.legend(handles=handles, loc="outside lower center", ncols=2, title=title, alignment="left")
    else:
        title = title.replace("; ", "\n")
        legend = place.legend(handles=handles, loc="upper left", title=title, alignment="left")
        legend.set_in_layout(False)  # a long name must not narrow the panels


def draw_heads(
    layers: pa.Table, model: ModelRecord, path: str | Path, statistics: Sequence[str] = CORE
) -> Figure:
    """A heat map per statistic, heads (from 0) by depth (layer + 1), means over images; cells without a value are grey.

    Each panel has its own colour scale. Written to `path` (PNG); the figure is returned.
    """
    words = []
    count = max((record["layer"] for record in model["layers"]), default=0) + 1
    heads = max((record["heads"] for record in model["layers"]), default=1)
    with styled():
        rows = ceil(len(statistics) / _COLUMNS)
        figure = new_figure(height=max(2.0, min(1.4 + 0.12 * heads, 3.6)) * rows + 0.3)
        for place, statistic in enumerate(statistics, start=1):
            axes = figure.add_subplot(rows, _COLUMNS, place)
            axes.grid(False)
            words.append(_heads_panel(figure, axes, layers, model, statistic, (heads, count)))
            if place % _COLUMNS == 1:
                axes.set_ylabel("head (from 0)")
            if place > len(statistics) - _COLUMNS:
                axes.set_xlabel(DEPTH)
        save(figure, path, f"{model['name']}, heads by depth. {' '.join(words)}")
    return figure


def _heads_panel(
    figure: Figure, axes: Axes, layers: pa.Table, model: ModelRecord, statistic: str, shape: tuple[int, int]
) -> str:
    found = curve(layers, model["name"], statistic)
    cells = np.full(shape, np.nan)
    for layer, head, value in found.heads:
        cells[int(head), int(layer)] = value
    chance = curve(layers, with_random_weights(model["name"]), statistic).mean
    told = [", ".join(f"{kind} {span(baseline(model, statistic, kind), 3)}" for kind in _LINES)]
    if np.isfinite(chance).any():
        told.append(f"random weights {format_number(float(np.nanmean(chance)), 3)} (mean)")
    axes.set_title(fill(title_of(statistic), _TITLE), loc="left", pad=8 + 13 * len(told))
    above = {"transform": axes.transAxes, "fontsize": 10, "color": FAINT, "va": "bottom"}
    axes.text(0, 1.02, "\n".join(told), **above).set_in_layout(False)  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    colours = colormaps["viridis"].with_extremes(bad="#d9d9d9")
    extent = (0.5, shape[1] + 0.5, shape[0] - 0.5, -0.5)
    finite = cells[np.isfinite(cells)]
    if not finite.size:
        axes.imshow(cells, colours, extent=extent, aspect="auto", vmin=0, vmax=1)
        note(axes, "no finite value")
        return f"{title_of(statistic)}: no values; {', '.join(told)}."
    sizes = np.concatenate([finite, *(baseline(model, statistic, kind) for kind in _LINES)])
    low, high = float(finite.min()), float(finite.max())
    least = _least(sizes, bounds(model, statistic)[1])
    beside = max(0.0, least - (high - low)) / 2
    drawn = axes.imshow(
        cells,
        colours,
        extent=extent,
        aspect="auto",
        vmin=low - beside,
        vmax=high + beside,
        interpolation="nearest",
    )
    bar = figure.colorbar(drawn, ax=axes, pad=0.03, aspect=14)
    bar.outline.set_visible(False)
    bar.locator = _one_tick(finite, least) if beside else MaxNLocator(4)
    bar.formatter = _Ticks()
    bar.update_ticks()
    top = np.unravel_index(np.nanargmax(cells), shape)
    return (
        f"{title_of(statistic)}: from {format_number(low, 3)} to {format_number(high, 3)}, "
        f"highest in head {top[0]} at depth {top[1] + 1}; {', '.join(told)}."
    )
