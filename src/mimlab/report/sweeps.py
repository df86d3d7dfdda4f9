"""Figures of a sweep: what was measured along an axis or over a plane of two, and where each claim holds.

Rows that share a place, as those of several seeds or of axes that are not drawn, are there as dots on curves; a plane
shows their median, a map of verdicts what most of them say.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mimlab.claims.survival import SILENT, vote
from mimlab.report.numbers import format_number
from mimlab.report.style import FAINT, INK, new_figure, note, save, styled

SAME = 1e-3
"""Relative difference below which the values of a map are taken as one."""

QUANTITIES = {
    "half_time": ("half-attention time", "#0072B2"),
    "attention_own": ("final own attention", "#009E73"),
    "phi_own": ("final Φ own", "#CC79A7"),
    "phi_global": ("final Φ global", "#D55E00"),
}
"""Columns that are drawn, what they are called, and their colours."""
_VERDICTS = {"holds": "#009E73", "fails": "#D55E00", "inconclusive": "#F0E442", SILENT: "#e3e3e3"}
_LABELLED = 6  # places on an axis of a map that are named
_FEW = 60  # distinct places that a line joins
_LONGEST = 22  # letters of a place's name


class _Places:
    """The values of an axis in order, numbers ascending, and each row's position among them."""

    def __init__(self, rows: pa.Table, key: str) -> None:
        values = rows[key].to_pylist()
        known = dict.fromkeys(value for value in values if value is not None)
        self.numbers = all(isinstance(value, int | float) for value in known)
        self.values = sorted(known) if self.numbers else list(known)
        order = {value: i for i, value in enumerate(self.values)}
        self.of_row = np.array([order.get(value, -1) for value in values])
        self.logarithmic = (
            self.numbers
            and len(self.values) > 2
            and self.values[0] > 0
            and self.values[-1] / self.values[0] >= 50
        )

    def __len__(self) -> int:
        return len(self.values)

    def along(self) -> np.ndarray:
        """Where the values stand on an axis: numbers at themselves, words at 0, 1, ..."""
        return (
            np.array(self.values, dtype=float) if self.numbers else np.arange(len(self.values), dtype=float)
        )

    def names(self) -> list[str]:
        """The values in words, short."""
        names = [format_number(v, 3) if self.numbers else str(v) for v in self.values]
        return [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names]

    def label_map(self, axes: Axes, which: str) -> None:
        """Name some of the places of a map whose columns or rows they are."""
        every = max(1, ceil(len(self) / _LABELLED))
        shown = range(0, len(self), every)
        names = self.names()
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_ticks([float(i) for i in shown], labels=[names[i] for i in shown])
        if which == "x" and max((len(names[i]) for i in shown), default=0) > 8:
            axes.tick_params(axis="x", rotation=30)


def draw_curves(rows: pa.Table, key: str, path: str | Path) -> Figure:
    """Each quantity along one axis of a sweep: a dot per point, and a line through the medians.

    rows: a sweep's table, or the part of it that belongs to the axis `key`. path: PNG to write; the figure is returned.
    """
    places = _Places(rows, key)
    words = []
    with styled():
        figure = new_figure(height=6.4)
        for at, (quantity, (name, colour)) in enumerate(QUANTITIES.items(), start=1):
            axes = figure.add_subplot(2, 2, at)
            axes.set_title(name, loc="left", fontsize=10.5, color=FAINT)
            axes.set_xlabel(key, fontsize=10.5)
            values = _numbers(rows, quantity)
            known = np.isfinite(values) & (places.of_row >= 0)
            if not known.any():
                note(axes, "no value")
                words.append(f"{name}: no value.")
                continue
            along = places.along()
            axes.plot(
                along[places.of_row[known]], values[known], "o", color=colour, markersize=3.5, alpha=0.7
            )
            medians = _medians(values, places.of_row, len(places))
            if len(places) <= _FEW:
                axes.plot(along, medians, color=colour, linewidth=1.4)
            _scales(axes, places, values[known])
            told = medians[np.isfinite(medians)]
            words.append(f"{name}: {format_number(told[0])} first, {format_number(told[-1])} last.")
        ends = f"{places.names()[0]} to {places.names()[-1]}" if len(places) else "no value"
        save(figure, path, f"Sweep along {key}, {ends}. " + " ".join(words))
    return figure


def draw_plane(rows: pa.Table, x: str, y: str, path: str | Path) -> Figure:
    """Each quantity over two axes of a sweep: a map of medians, or coloured dots where places are scattered."""
    across, up = _Places(rows, x), _Places(rows, y)
    words = []
    with styled():
        figure = new_figure(height=6.2)
        for at, (quantity, (name, _)) in enumerate(QUANTITIES.items(), start=1):
            axes = figure.add_subplot(2, 2, at)
            axes.set_title(name, loc="left", fontsize=10.5, color=FAINT)
            _name_axes(axes, x, y)
            values = _numbers(rows, quantity)
            known = values[np.isfinite(values)]
            if not known.size:
                note(axes, "no value")
                words.append(f"{name}: no value.")
                continue
            low, high = float(known.min()), float(known.max())
            if high - low <= SAME * abs(
                high
            ):  # what the solver leaves, such as where runs stop at one attention
                low, high = low - SAME * abs(low), high + SAME * abs(high)
            norm = LogNorm(low, high) if low > 0 and high / low > 20 else Normalize(low, high)
            if _scattered(across, up, rows):
                drawn: Any = axes.scatter(
                    across.along()[across.of_row], up.along()[up.of_row], c=values, s=9, norm=norm
                )
                _scatter_scales(axes, across, up)
            else:
                cells = _medians(values, across.of_row + len(across) * up.of_row, len(across) * len(up))
                shape = cells.reshape(len(up), len(across))
                drawn = axes.imshow(shape, origin="lower", aspect="auto", norm=norm, interpolation="nearest")
                across.label_map(axes, "x")
                up.label_map(axes, "y")
            axes.grid(False)
            figure.colorbar(drawn, ax=axes).ax.tick_params(labelsize=9)
            words.append(f"{name}: {format_number(low)} to {format_number(high)}.")
        save(figure, path, f"Sweep over {x} and {y}. " + " ".join(words))
    return figure


def draw_verdicts(rows: pa.Table, key: str, claims: Sequence[str], path: str | Path) -> Figure:
    """What most points say of each claim along one axis: a line per claim, a column per value."""
    places = _Places(rows, key)
    with styled():
        figure = new_figure(height=1.7 + 0.32 * max(1, len(claims)))
        axes = figure.add_subplot()
        votes = [_votes(rows, claim, places.of_row, len(places)) for claim in claims]
        if votes and len(places):
            _map(axes, np.array(votes))
            axes.set_yticks(range(len(claims)), labels=list(claims), fontsize=10)
            axes.invert_yaxis()
            places.label_map(axes, "x")
        else:
            note(axes, "no claim speaks of these points")
        axes.set_xlabel(key)
        _legend(figure)
        words = [f"{claim}: {_run_lengths(line, places)}." for claim, line in zip(claims, votes, strict=True)]
        save(figure, path, f"Verdicts along {key}. " + " ".join(words))
    return figure


def draw_verdict_planes(rows: pa.Table, x: str, y: str, claims: Sequence[str], path: str | Path) -> Figure:
    """What most points say of each claim over two axes: a map per claim, or dots where places are scattered."""
    across, up = _Places(rows, x), _Places(rows, y)
    scattered = _scattered(across, up, rows)
    with styled():
        figure = new_figure(height=0.8 + 2.7 * max(1, ceil(len(claims) / 2)))
        words = []
        for at, claim in enumerate(claims, start=1):
            axes = figure.add_subplot(ceil(len(claims) / 2), 2, at)
            axes.set_title(claim, loc="left", fontsize=10.5, color=FAINT)
            _name_axes(axes, x, y)
            if scattered:
                said = [one or SILENT for one in rows[f"claim:{claim}:verdict"].to_pylist()]
                colours = [_VERDICTS[one] for one in said]
                axes.scatter(across.along()[across.of_row], up.along()[up.of_row], c=colours, s=9)
                _scatter_scales(axes, across, up)
            else:
                said = _votes(rows, claim, across.of_row + len(across) * up.of_row, len(across) * len(up))
                _map(axes, np.array(said).reshape(len(up), len(across)))
                across.label_map(axes, "x")
                up.label_map(axes, "y")
            counts = [f"{said.count(one)} {one}" for one in _VERDICTS if said.count(one)]
            words.append(f"{claim}: {', '.join(counts)}.")
        if not claims:
            note(figure.add_subplot(), "no claim speaks of these points")
        _legend(figure)
        save(figure, path, f"Verdicts over {x} and {y}. " + " ".join(words))
    return figure


def _numbers(rows: pa.Table, name: str) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in rows[name].to_pylist()], dtype=float)


def _medians(values: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """The median of what is known at each place; nan where nothing is."""
    found = np.full(count, np.nan)
    for at in np.unique(place[place >= 0]):
        here = values[(place == at) & np.isfinite(values)]
        if here.size:
            found[at] = np.median(here)
    return found


def _votes(rows: pa.Table, claim: str, place: np.ndarray, count: int) -> list[str]:
    gathered: list[list[str | None]] = [[] for _ in range(count)]
    for at, verdict in zip(place, rows[f"claim:{claim}:verdict"].to_pylist(), strict=True):
        if at >= 0:
            gathered[at].append(verdict)
    return [vote(verdicts) for verdicts in gathered]


def _map(axes: Axes, verdicts: np.ndarray) -> None:
    order = list(_VERDICTS)
    numbers = np.vectorize(order.index)(verdicts)
    colours = ListedColormap(list(_VERDICTS.values()))
    axes.imshow(
        numbers,
        origin="lower",
        aspect="auto",
        cmap=colours,
        norm=Normalize(-0.5, len(order) - 0.5),
        interpolation="nearest",
    )
    axes.grid(False)


def _legend(figure: Figure) -> None:
    patches = [
        Patch(facecolor=colour, edgecolor=INK, linewidth=0.4, label=name)
        for name, colour in _VERDICTS.items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=10)


def _scales(axes: Axes, places: _Places, values: np.ndarray) -> None:
    if places.logarithmic:
        axes.set_xscale("log")
    if not places.numbers:
        places.label_map(axes, "x")
    if values.min() > 0 and values.max() / values.min() > 20:
        axes.set_yscale("log")


def _scatter_scales(axes: Axes, across: _Places, up: _Places) -> None:
    for places, which in ((across, "x"), (up, "y")):
        if places.logarithmic:
            (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        if not places.numbers:
            places.label_map(axes, which)


def _name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)


def _scattered(across: _Places, up: _Places, rows: pa.Table) -> bool:
    """Whether the points fill no grid, as those that are drawn at random."""
    return len(across) * len(up) > 2 * len(rows)


def _run_lengths(votes: Sequence[str], places: _Places) -> str:
    """Verdicts along an axis in words, equal neighbours taken together."""
    names, parts = places.names(), []
    starts = [i for i, said in enumerate(votes) if i == 0 or said != votes[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(votes)], strict=True):
        parts.append(f"{votes[start]} {names[start]}" + (f" to {names[end - 1]}" if end - start > 1 else ""))
    return ", ".join(parts[:12]) + (", ..." if len(parts) > 12 else "")
