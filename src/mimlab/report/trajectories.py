"""Figures of one run against time: correlations, attention and excess loss of one query.

They draw the columns of `trajectory.parquet` as they are: Phi and Upsilon in units of the logit, attention
conditional on the query masked and its own area not wholly masked (theory, section 5), time in units of
learning rate x steps. Nothing is measured here but the half time of a query that `summary` does not speak
of, read by interpolation between two recorded rows for the mark on the figure; take numbers from the tables,
not from a mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mimlab.report.numbers import format_number
from mimlab.report.style import (
    COLOURS,
    FAINT,
    PHASE_ALPHA,
    PHASE_COLOURS,
    WIDTH,
    caption,
    new_figure,
    note,
    save,
    styled,
)

Columns = dict[str, NDArray[np.float64]]
TIME_LABEL = "time (learning rate × steps)"
_FEW = 12  # recorded rows below which each is marked


@dataclass(frozen=True)
class Curve:
    """A column of the trajectory and how it is drawn; `spoken` is its name in the description."""

    column: str
    label: str
    spoken: str
    colour: str
    style: str = "-"


_CORRELATIONS = (
    Curve("phi_own", r"$\Phi$ own area", "Φ of the own area", COLOURS["own"]),
    Curve("phi_global", r"$\Phi$ global area", "Φ of the global area", COLOURS["global"]),
    Curve("phi_other_max", r"$\Phi$ others, max", "the largest other Φ", COLOURS["other"], "-."),
    Curve("upsilon_max", r"$|\Upsilon|$ positions, max", "the largest |Υ|", COLOURS["position"], ":"),
)
_ATTENTION = (
    Curve("attention_own", "on own area", "attention on the own area", COLOURS["own"]),
    Curve("attention_global", "on global area", "attention on the global area", COLOURS["global"]),
)


def rows_of(trajectory: pa.Table, query: int) -> Columns:
    """The rows of one query in order of time, as float64 columns; null becomes NaN.

    Raises ValueError where the table has no row of `query`.
    """
    chosen = np.asarray(trajectory["query"].to_numpy(zero_copy_only=False)) == query
    if not chosen.any():
        known = sorted(set(trajectory["query"].to_pylist()))
        raise ValueError(f"the trajectory has no row of query {query}; it has {known[:10]}")
    columns = {
        name: np.asarray(trajectory[name].to_numpy(zero_copy_only=False), dtype=np.float64)[chosen]
        for name in trajectory.column_names
    }
    order = np.argsort(columns["time"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def half_time_of(rows: Columns, summary: Mapping[str, Any]) -> float | None:
    """First time the query's attention on its own area is 0.5; None if it never is.

    `summary["half_time"]` speaks of the first local query alone: it is taken where this query reaches 0.5
    between the same two recorded times, otherwise the two rows are interpolated.
    """
    time, attention = rows["time"], rows["attention_own"]
    reached = np.flatnonzero(attention >= 0.5)
    if not reached.size:
        return None
    around = [max(int(reached[0]) - 1, 0), int(reached[0])]
    told = summary.get("half_time")
    if told is not None and time[around[0]] <= told <= time[around[1]]:
        return float(told)
    return float(np.interp(0.5, attention[around], time[around]))


def draw_correlations(
    trajectory: pa.Table,
    summary: Mapping[str, Any],
    path: str | Path,
    query: int,
    prediction: float | None = None,
) -> Figure:
    """Phi (own, global, largest other area) and Upsilon (largest) against time.

    Phases are shaded and the half time marked. `prediction`: Phi_global expected at half attention, -½ log(1
    + 2(1-γ)C₁²/(P·C_a)) (theory, section 5), drawn as a dashed line. Bands are ±2 standard errors where the
    engine has them. Written to `path` (PNG); the figure is returned. Raises ValueError where the table has
    no row of `query`.
    """
    rows = rows_of(trajectory, query)
    curves = _present(rows, _CORRELATIONS, joined=r"$\Phi$ own = global area")
    extra = []
    with styled():
        figure, axes = _over_time(rows, summary, query)
        _draw(axes, rows, curves)
        axes.axhline(0.0, color=FAINT, linewidth=0.8, zorder=1)
        if prediction is not None and np.isfinite(prediction):
            label = r"theory: $\Phi$ global at half"
            axes.axhline(prediction, color=COLOURS["global"], linestyle="--", linewidth=1.3, label=label)
            extra.append(
                f"The theory expects Φ of the global area at {format_number(prediction)} at half attention."
            )
        axes.set_ylabel(r"correlation $\Phi$, $\Upsilon$ (logit)")
        marks = _mark(axes, rows, summary, query)
        _legend(figure, axes)
        save(figure, path, _describe("Feature and position correlations", rows, curves, [*extra, *marks]))
    return figure


def draw_attention(trajectory: pa.Table, summary: Mapping[str, Any], path: str | Path, query: int) -> Figure:
    """Attention of one query on its own and on the global area against time, each in [0, 1].

    Bands are ±2 standard errors where the engine has them. Written to `path` (PNG); the figure is returned.
    Raises ValueError where the table has no row of `query`.
    """
    rows = rows_of(trajectory, query)
    curves = _present(rows, _ATTENTION, joined="on own = global area")
    with styled():
        figure, axes = _over_time(rows, summary, query)
        _draw(axes, rows, curves)
        axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("attention on the area")
        marks = _mark(axes, rows, summary, query)
        _legend(figure, axes)
        save(figure, path, _describe("Attention", rows, curves, marks))
    return figure


def draw_excess_loss(
    trajectory: pa.Table, summary: Mapping[str, Any], path: str | Path, query: int
) -> Figure:
    """Loss of one row above its floor against time, both logarithmic, beside a line that falls as 1/t.

    Rows where the excess is not positive, or the time is 0, have no place on the axes and are left out.
    Written to `path` (PNG); the figure is returned. Raises ValueError where the table has no row of `query`.
    """
    recorded = rows_of(trajectory, query)
    shown = (recorded["time"] > 0) & (recorded["excess_loss"] > 0)
    rows = {name: values[shown] for name, values in recorded.items()}
    curves = _present(rows, (Curve("excess_loss", "excess loss", "excess loss", COLOURS["loss"]),))
    with styled():
        figure, axes = _over_time(recorded, summary, query, logarithmic=True)
        axes.set_yscale("log")
        _draw(axes, rows, curves)
        if curves:
            end = rows["time"][-1]
            late = rows["time"] >= end / 10
            below = 0.55 * np.min(
                (rows["time"] * rows["excess_loss"])[late]
            )  # so that the guide never crosses it
            times = np.array([max(axes.get_xlim()[0], end / 10), end])
            if times[0] < end:
                guide = axes.plot(times, below / times, label=r"$\propto 1/t$")[0]
                guide.set(color=COLOURS["guide"], linewidth=1.3)
        axes.set_ylabel(r"excess loss $L_p - L_{p,\mathrm{low}}$")
        marks = _mark(axes, recorded, summary, query)
        _legend(figure, axes)
        save(figure, path, _describe("Excess loss over its floor", rows, curves, marks))
    return figure


def _over_time(
    rows: Columns, summary: Mapping[str, Any], query: int, logarithmic: bool | None = None
) -> tuple[Figure, Axes]:
    """Axes whose time is logarithmic, from where the query begins to move, if rows are enough for it."""
    figure = new_figure()
    axes = figure.add_subplot()
    time = rows["time"]
    positive = time[time > 0]
    if logarithmic is None:
        logarithmic = positive.size >= 3 and positive[-1] > 10 * positive[0]
    if logarithmic:
        axes.set_xscale("log")
    if positive.size:
        end = positive[-1]
        left = max(positive[0], min(_first_movement(rows) / 3, end / 100)) if logarithmic else 0.0
        axes.set_xlim(left if left < end else end / 10, end)
    axes.set_xlabel(TIME_LABEL)
    caption(axes, _about(summary, query))
    return figure, axes


def _first_movement(rows: Columns) -> float:
    """First time at which a correlation or attention is a hundredth of its whole way from where it began.

    A solver's first steps are tiny: without this, most of a logarithmic axis would show nothing. All figures
    of a query begin at the same time.
    """
    moved = np.zeros(rows["time"].size, dtype=bool)
    for curve in _present(rows, (*_CORRELATIONS, *_ATTENTION)):
        way = np.abs(rows[curve.column] - rows[curve.column][0])
        moved |= way > 0.01 * np.nanmax(way, initial=0.0)
    return float(rows["time"][np.argmax(moved)]) if moved.any() else float(rows["time"][-1])


def _about(summary: Mapping[str, Any], query: int) -> str:
    names = {
        "patches": "P",
        "global_exponent": "κc",
        "local_exponent": "κs",
        "information_gap": "Δ",
        "mask_ratio": "γ",
    }
    known = [
        f"{name} = {format_number(summary[key], 3)}"
        for key, name in names.items()
        if summary.get(key) is not None
    ]
    return "   ".join([*known, f"query {query}"])


def _present(rows: Columns, curves: Sequence[Curve], joined: str = "") -> list[Curve]:
    """The curves that have a finite value; own and global merge where they are one area."""
    present = [curve for curve in curves if np.isfinite(rows.get(curve.column, np.nan)).any()]
    if len(present) > 1:
        first, second = (rows[curve.column] for curve in present[:2])
        if np.array_equal(first, second, equal_nan=True):
            own = present[0]
            present[:2] = [Curve(own.column, joined, f"{own.spoken}, here the global one", own.colour)]
    return present


def _draw(axes: Axes, rows: Columns, curves: Sequence[Curve]) -> None:
    """The curves, each with a band of ±2 standard errors where there are any."""
    if not curves:
        note(axes, "no finite value that these axes can show")
    marker = "o" if rows["time"].size < _FEW else ""
    for curve in curves:
        values = rows[curve.column]
        line = axes.plot(rows["time"], values, curve.style, color=curve.colour, label=curve.label)[0]
        line.set(marker=marker, markersize=4)
        error = rows.get(f"{curve.column}_se")
        if error is not None and np.isfinite(error).any():
            low, high = values - 2 * error, values + 2 * error
            if axes.get_yscale() == "log":
                low = np.maximum(low, 1e-3 * values)
            axes.fill_between(rows["time"], low, high, color=curve.colour, alpha=0.25, linewidth=0)


def _mark(axes: Axes, rows: Columns, summary: Mapping[str, Any], query: int) -> list[str]:
    """Shade the query's phases and mark its half time; returns the same in words."""
    words = []
    left, right = axes.get_xlim()
    for phase in summary.get("phases") or []:
        if phase["query"] != query:
            continue
        start = left if phase["start"] is None else phase["start"]
        end = right if phase["end"] is None else phase["end"]
        visible = max(start, left), min(end, right)
        if visible[0] >= visible[1]:
            continue
        _shade(axes, phase["name"], *visible)
        words.append(f"Phase {phase['name']} from time {format_number(start)} to {format_number(end)}.")
    half_time = half_time_of(rows, summary)
    if half_time is not None and half_time > 0:
        label = f"half time {format_number(half_time)}"
        axes.axvline(half_time, color=FAINT, linestyle=(0, (4, 2)), linewidth=1.2, label=label)
        words.append(f"Attention on the own area reaches one half at time {format_number(half_time)}.")
    return words


def _shade(axes: Axes, name: str, start: float, end: float) -> None:
    """A shaded span with its name above, or in the legend where the span is too narrow for it."""
    colour = PHASE_COLOURS.get(name, FAINT)
    span = axes.axvspan(start, end, facecolor=colour, alpha=PHASE_ALPHA, linewidth=0, zorder=0)
    span.set_gid(f"phase:{name}")
    place = axes.transScale.transform(
        np.array([[start, 1.0], [end, 1.0], *([x, 1.0] for x in axes.get_xlim())])
    )
    share = (place[1, 0] - place[0, 0]) / (place[3, 0] - place[2, 0])
    if 0.085 * len(name) < share * (WIDTH - 1.0):  # inches: a letter's width at 10.5 pt against the span's
        middle = axes.transScale.inverted().transform([(place[0, 0] + place[1, 0]) / 2, 0.0])[0]
        above = axes.get_xaxis_transform()
        axes.text(middle, 1.02, name, transform=above, ha="center", va="bottom", fontsize=10.5, color=FAINT)
    else:
        span.set_label(f"phase: {name}")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    lines_first = sorted(zip(handles, labels, strict=True), key=lambda pair: isinstance(pair[0], Patch))
    if lines_first:
        handles, labels = map(list, zip(*lines_first, strict=True))
        columns = min(3, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2)


def _describe(subject: str, rows: Columns, curves: Sequence[Curve], extra: Sequence[str]) -> str:
    if not curves:
        return f"{subject} against time: nothing to draw."
    start, end = (format_number(value) for value in (rows["time"][0], rows["time"][-1]))
    ends = []
    for curve in curves:
        values = rows[curve.column][np.isfinite(rows[curve.column])]
        ends.append(f"{curve.spoken} goes from {format_number(values[0])} to {format_number(values[-1])}")
    return " ".join([f"{subject} against time from {start} to {end}: {'; '.join(ends)}.", *extra])
