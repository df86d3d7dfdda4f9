"""Figures of how a quantity grows as a power of another: points, the fitted power, the powers foretold.

Mostly a time against the number of patches; the ratio of correlations against the size of an area, too.

A fit is passed as its slope and interval; the line is drawn through the centre of the points (the mean of
both logarithms), as a least-squares line in these two variables runs. A fit in another variable, say P/C_a,
keeps its slope but not that property: on worlds whose C_a is rounded the line may then miss the points by
the rounding. The guides show slopes alone. Their heights are chosen so that they do not cover the fit, and
mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from mimlab.report.numbers import format_interval, format_number
from mimlab.report.style import COLOURS, FAINT, new_figure, note, save, styled

_TIMES = {"half_time": "half time", "final_stage": "from half attention to stop"}
_RATIOS = {"upsilon_over_phi": "largest |Υ| / Φ own"}
_RISE = 0.07  # of a guide above the fit or the guide below it, as a share of the axis


def draw_exponents(
    points: Sequence[Mapping[str, Any]],
    fits: Sequence[Mapping[str, Any]],
    path: str | Path,
    x: str = "patches",
    x_label: str = "patches P",
) -> Figure:
    """Each quantity against P, or against another key of the points, a panel each, with its fit and the slopes it is
    compared with.

    Parameters
    ----------
    points
        Records with `patches` (or what `x` names; > 0), `quantity` and `value`: "half_time" and "final_stage"
        are times in units of learning rate × steps, "upsilon_over_phi" and any other quantity has no unit. A
        value that is null, not finite or not positive is left out.
    fits
        Records with `quantity`, `slope`, `low`, `high` (its interval), `predicted` (the theory's slope) and
        `bound` (the paper's upper bound on it); each but the first may be null or absent.
    path
        PNG to write. The figure is returned.
    x, x_label
        The key of a point that stands on the horizontal axis, and what it is called there.
    """
    fitted = {fit["quantity"]: fit for fit in fits}
    quantities = list(dict.fromkeys([*(point["quantity"] for point in points), *fitted]))
    columns = min(2, max(1, len(quantities)))
    words = []
    with styled():
        figure = new_figure(height=4.3 * max(1, ceil(len(quantities) / columns)))
        if not quantities:
            note(figure.add_subplot(), "no points")
        for place, quantity in enumerate(quantities, start=1):
            axes = figure.add_subplot(ceil(len(quantities) / columns), columns, place)
            chosen = [point for point in points if point["quantity"] == quantity]
            words.append(_panel(axes, quantity, chosen, fitted.get(quantity, {}), x, x_label))
        save(figure, path, " ".join(words) or "Exponents: no points.")
    return figure


def _panel(
    axes: Axes,
    quantity: str,
    points: Sequence[Mapping[str, Any]],
    fit: Mapping[str, Any],
    x: str,
    x_label: str,
) -> str:
    """Draw one quantity; returns the panel in words."""
    name = _TIMES.get(quantity) or _RATIOS.get(quantity) or quantity.replace("_", " ")
    colour = COLOURS.get(quantity, COLOURS["own"])
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"{name}\n(learning rate × steps)" if quantity in _TIMES else name)
    subject = f"{name} against {x_label.replace('$', '')}"
    usable = [p for p in points if p["value"] is not None and np.isfinite(p["value"]) and p["value"] > 0]
    if not usable:
        note(axes, "no finite value")
        return f"{subject}: no finite value."
    usable.sort(key=lambda point: point[x])
    places, values = (np.array([float(p[key]) for p in usable]) for key in (x, "value"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(places, values, "o", color=colour, markersize=5.5, label="runs", zorder=3)
    if len(usable) > 1:
        axes.set_ylim(*_limits(places, values, fit))
        _lines(axes, places, values, fit, colour)
    _ticks(axes.xaxis, *axes.get_xlim())
    _ticks(axes.yaxis, *axes.get_ylim())
    axes.legend(loc="upper center", bbox_to_anchor=(0.42, -0.2), fontsize=10.5, handlelength=1.6)
    first, last = (f"{format_number(values[i])} at {format_number(places[i])}" for i in (0, -1))
    return f"{subject}, both logarithmic: from {first} to {last}; {_slopes(fit)}."


def _ticks(axis: Axis, low: float, high: float) -> None:
    """Powers of ten; where they would be few, 2 and 5 times them as well, as plain numbers."""
    if high < 200 * low and low > 1e-3 and high < 1e5:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value, 2)))
    else:
        axis.set_major_locator(LogLocator(numticks=7 if isinstance(axis, YAxis) else 6))
    axis.set_minor_locator(NullLocator())


def _lines(
    axes: Axes,
    places: NDArray[np.float64],
    values: NDArray[np.float64],
    fit: Mapping[str, Any],
    colour: str,
) -> None:
    """The fit and its interval through the points' centre; the guides, from above the first."""
    along = np.geomspace(places[0], places[-1], 50)
    centre = float(np.exp(np.log(places).mean())), float(np.exp(np.log(values).mean()))

    def power(slope: float, through: tuple[float, float] = centre) -> NDArray[np.float64]:
        heights: NDArray[np.float64] = through[1] * (along / through[0]) ** slope
        return heights

    if fit.get("slope") is not None:
        axes.plot(along, power(fit["slope"]), color=colour, label=f"fit: slope {_slope(fit)}")
        if fit.get("low") is not None and fit.get("high") is not None:
            edges = power(fit["low"]), power(fit["high"])
            axes.fill_between(
                along, np.minimum(*edges), np.maximum(*edges), color=colour, alpha=0.2, linewidth=0
            )
    bottom, top = axes.get_ylim()
    foot = float(values[0])
    for key, label, style in (("predicted", "theory", "--"), ("bound", "paper's bound", ":")):
        if fit.get(key) is not None:
            foot *= (top / bottom) ** _RISE
            text = f"{label}: slope {format_number(fit[key], 3)}"
            axes.plot(
                along, power(fit[key], (places[0], foot)), style, color=FAINT, linewidth=1.5, label=text
            )


def _limits(
    places: NDArray[np.float64], values: NDArray[np.float64], fit: Mapping[str, Any]
) -> tuple[float, float]:
    """The points' range with room for guides: a steep one leaves the axes rather than flatten the points, but points
    that are flat beside what the theory foretold look flat."""
    foretold = abs(fit.get("predicted") or 0.0) * np.log(places.max() / places.min())
    low, high = np.log(values.min()), np.log(values.max())
    span = max(high - low, foretold / 3, 1.6)
    blank = (span - (high - low)) / 2
    return float(np.exp(low - blank - 0.12 * span)), float(np.exp(high + blank + 0.3 * span))


def _slopes(fit: Mapping[str, Any]) -> str:
    """What is known of the slope and of what it is compared with, in words."""
    known = [f"fitted slope {_slope(fit)}"] if fit.get("slope") is not None else ["no fit"]
    for key, words in (("predicted", "theory"), ("bound", "the paper's bound")):
        if fit.get(key) is not None:
            known.append(f"{words} {format_number(fit[key], 3)}")
    return ", ".join(known)


def _slope(fit: Mapping[str, Any]) -> str:
    """The slope with its interval, to three decimals: more of a slope means nothing."""
    slope, low, high = (
        None if fit.get(key) is None else round(fit[key], 3) for key in ("slope", "low", "high")
    )
    return format_interval(slope, low, high, digits=3)
