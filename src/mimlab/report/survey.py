"""Figure of many local queries of photographs against their information gap (theory, sections 5 and 9).

The theory's lines are those of constant latents, to leading order in P, for the median P of the queries:

    Phi_global at half attention = -1/2 log(1 + 2(1-gamma) P^Delta_p)
    first fall of Phi_global / first rise of Phi_own = (1-gamma) P^Delta_p

The boundary of the phases is where the second is 1; with some hundred patches that is right of Delta_p = 0. A
query of a photograph with another P has another line: read the lines as a guide, verdicts from the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, FAINT, INK, new_figure, note, save, styled

Array = NDArray[np.float64]


def draw_survey(queries: Sequence[Mapping[str, Any]], path: str | Path, mask_ratio: float) -> Figure:
    """Depth of decoupling, and the first rates that decide on the phases, of local queries against Delta_p.

    Parameters
    ----------
    queries
        A record per local query: `patches`, `patch_gap` (Delta_p), `first_rates` (initial fall of Phi_global
        over initial rise of Phi_own: two phases above 1; null where not measured) and `phi_global_at_half`
        (null where attention never reached a half). Other keys are not drawn.
    path
        PNG to write. The figure is returned.
    mask_ratio
        gamma of the runs, in (0, 1).
    """
    gaps, rates, depths, sizes = (
        np.array([np.nan if query[key] is None else query[key] for query in queries], dtype=np.float64)
        for key in ("patch_gap", "first_rates", "phi_global_at_half", "patches")
    )
    patches = float(np.median(sizes)) if sizes.size else np.nan
    along = np.linspace(gaps.min(initial=0.0) - 0.05, gaps.max(initial=0.0) + 0.05, 200)
    foretold = (1 - mask_ratio) * patches**along
    with styled():
        figure = new_figure(height=4.4)
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
            axes.set_xlabel(r"information gap $\Delta_p$")
            axes.set_xlim(along[0], along[-1])
        left.set_ylabel(r"$\Phi$ global at half attention")
        right.set_ylabel(r"first rates: fall of $\Phi$ global" "\n" r"over rise of $\Phi$ own")
        right.set_yscale("log")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
        right.yaxis.set_minor_locator(NullLocator())
        right.axhline(1.0, color=INK, linewidth=1.0, zorder=1, label="boundary of the phases")
        _dots(left, gaps, depths, rates)
        _dots(right, gaps, rates, rates)
        if np.isfinite(patches):
            label = f"theory, P = {format_number(patches)} (median)"
            for axes, heights in (left, -0.5 * np.log1p(2 * foretold)), (right, foretold):
                axes.plot(along, heights, "--", color=FAINT, linewidth=1.5, label=label, zorder=2)
        named = {line.get_label(): line for axes in (left, right) for line in axes.get_lines()}
        legend = {label: line for label, line in named.items() if not str(label).startswith("_")}
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=2, columnspacing=1.2)
        save(figure, path, _describe(gaps, rates, depths, sizes, mask_ratio))
    return figure


def _dots(axes: Axes, gaps: Array, heights: Array, rates: Array) -> None:
    """A dot per query that has a place on these axes, its shape the phases that its first rates tell."""
    shown = np.isfinite(gaps) & np.isfinite(heights)
    if axes.get_yscale() == "log":
        shown &= heights > 0
    if not shown.any():
        note(axes, "no finite value")
    colour = COLOURS["gap"]
    for label, shape, face, chosen in (
        ("one phase", "o", "white", rates <= 1),
        ("two phases", "v", colour, rates > 1),
        ("first rates not measured", "x", colour, np.isnan(rates)),
    ):
        if (shown & chosen).any():
            dots = axes.plot(gaps[shown & chosen], heights[shown & chosen], shape, color=colour, label=label)[
                0
            ]
            dots.set(markersize=6.5, markerfacecolor=face, markeredgewidth=1.4, alpha=0.85, zorder=3)


def _describe(gaps: Array, rates: Array, depths: Array, sizes: Array, mask_ratio: float) -> str:
    if not gaps.size:
        return "Local queries of photographs against their information gap: no queries."
    known = np.isfinite(rates)
    two = rates > 1
    by_sign = int((two == (gaps > 0))[known].sum())
    by_boundary = int((two == ((1 - mask_ratio) * sizes**gaps > 1))[known].sum())
    unreached = int(np.isnan(depths).sum())
    words = [
        f"{gaps.size} local queries of photographs against their information gap Δ_p, from "
        f"{format_number(gaps.min(), 3)} to {format_number(gaps.max(), 3)}, with the theory's lines for "
        f"{format_number(float(np.median(sizes)))} patches."
    ]
    if np.isfinite(depths).any():
        ends = (format_number(float(end(depths)), 3) for end in (np.nanmin, np.nanmax))
        words.append(f"Left: Φ of the global area at half attention, between {' and '.join(ends)}.")
    if unreached:
        words.append(f"{unreached} never reached half attention.")
    if known.any():
        words.append(
            f"Right, logarithmic: fall of the global Φ over rise of the own Φ at first; {int(two.sum())} of "
            f"{int(known.sum())} are above 1 (two phases). The sign of Δ_p tells {by_sign} of these right, "
            f"(1-γ) P^Δ_p against 1 {by_boundary}."
        )
    return " ".join(words)
