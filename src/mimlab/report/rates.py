"""Figure of many series over P: their exponents beside what is foretold, and where one phase ends and two begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, FAINT, INK, new_figure, note, save, styled

Record = Mapping[str, Any]
_SHAPES = {"mean-field": "o", "sampled": "s", "enumerated": "D", "dense": "^"}


def draw_rates(series: Sequence[Record], runs: Sequence[Record], path: str | Path) -> Figure:
    """Exponents of half-attention times against theory's, and first rates against (1-γ)P^Δ_p.

    Parameters
    ----------
    series
        Records with `engine`, `slope`, `slope_low`, `slope_high`, `predicted` and `bound`; null where there is none.
        Without any the first rates alone are drawn.
    runs
        Records with `patches`, `mask_ratio`, `patch_gap` and `first_rates`; null where not measured.
    path
        PNG to write. The figure is returned.
    """
    with styled():
        figure = new_figure(height=4.8)
        if series:
            left, right = figure.subplots(1, 2)
            words = [_exponents(left, series), _boundary(right, runs)]
        else:
            words = [_boundary(figure.add_subplot(), runs)]
        for axes in figure.axes:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), fontsize=10.5, handlelength=1.6)
        save(figure, path, " ".join(words))
    return figure


def _exponents(axes: Axes, series: Sequence[Record]) -> str:
    """The left panel; returns it in words."""
    axes.set_xlabel(r"theory: $1-\kappa_s$ (global: $1-\kappa_c$)")
    axes.set_ylabel("exponent of half-attention time")
    known = [s for s in series if s["slope"] is not None and s["predicted"] is not None]
    if not known:
        note(axes, "no exponent")
        return "Exponents of half-attention times: none."
    x = [s["predicted"] for s in known]
    along = np.linspace(min(x) - 0.03, max(x) + 0.03, 50)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value, 2)))
    axes.set_yticks([t for t in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 10, 20, 50)])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.plot(along, along, "--", color=FAINT, linewidth=1.5, label="theory", zorder=1)
    bounded = [s for s in known if s["bound"] is not None]
    if bounded:
        bounds = [s["bound"] for s in bounded]
        axes.plot(
            [s["predicted"] for s in bounded], bounds, "_", color=COLOURS["paper"], markersize=16,
            markeredgewidth=2, label="the paper's bound", zorder=2,
        )  # fmt: skip
    for engine in dict.fromkeys(s["engine"] for s in known):
        chosen = [s for s in known if s["engine"] == engine]
        y = np.array([s["slope"] for s in chosen])
        ends = np.array([[s["slope_low"] for s in chosen], [s["slope_high"] for s in chosen]])
        axes.errorbar(
            [s["predicted"] for s in chosen], y, yerr=np.abs(ends - y), fmt=_SHAPES[engine], color=COLOURS["own"],
            markerfacecolor="white", markersize=6, elinewidth=1, label=engine, zorder=3,
        )  # fmt: skip
    slopes = [s["slope"] for s in known]
    shown = [value for value in (*slopes, *(s["bound"] for s in bounded)) if value > 0]
    axes.set_ylim(0.85 * min(shown), 1.2 * max(shown))
    off = max(abs(s["slope"] - s["predicted"]) for s in known)
    return (
        f"Exponents of the half-attention time of {len(known)} series, from {format_number(min(slopes), 3)} to "
        f"{format_number(max(slopes), 3)}, at most {format_number(off, 2)} from the theory's; the paper's bound is up "
        f"to {format_number(max((s['bound'] for s in bounded), default=None), 3)}."
    )


def _boundary(axes: Axes, runs: Sequence[Record]) -> str:
    """The right panel; returns it in words."""
    axes.set_xlabel(r"$(1-\gamma)P^{\Delta_p}$")
    axes.set_ylabel(r"first rates: fall of $\Phi$ global" "\n" r"over rise of $\Phi$ own")
    known = [
        r
        for r in runs
        if r["first_rates"] is not None and r["first_rates"] > 0 and r["patch_gap"] is not None
    ]
    if not known:
        note(axes, "no local query")
        return "First rates: none."
    x = np.array([(1 - r["mask_ratio"]) * r["patches"] ** r["patch_gap"] for r in known])
    y, positive = (np.array([r[key] for r in known]) for key in ("first_rates", "patch_gap"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    for line in (axes.axhline, axes.axvline):
        line(1.0, color=INK, linewidth=1.0, zorder=1)
    along = np.array([x.min(), x.max()])
    axes.plot(along, along, "--", color=FAINT, linewidth=1.5, label="theory", zorder=2)
    for label, face, chosen in (
        (r"$\Delta_p \leq 0$", "white", positive <= 0),
        (r"$\Delta_p > 0$", COLOURS["gap"], positive > 0),
    ):
        if chosen.any():
            axes.plot(
                x[chosen],
                y[chosen],
                "o",
                color=COLOURS["gap"],
                markerfacecolor=face,
                markersize=5,
                label=label,
                zorder=3,
            )
    two = y > 1
    return (
        f"First rates of {len(known)} runs against (1-γ)P^Δ_p, both logarithmic; {int(two.sum())} have two phases. "
        f"(1-γ)P^Δ_p against 1 tells {int((two == (x > 1)).sum())} right, the sign of Δ_p "
        f"{int((two == (positive > 0)).sum())}."
    )
