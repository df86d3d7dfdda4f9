"""Figures of the information gap of photographs (theory, section 9).

The gap of a local patch p is Delta_p = log_P(C_1² / (P C_a)); above 0 the theory predicts two phases of
learning, below it one. At P = 196 the crossover is smooth: a patch near 0 is neither. Shares count local
patches, not areas, and the pooled histogram weighs each photograph by its local patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, FAINT, INK, new_figure, note, save, styled

Levels = NDArray[np.float64]  # (distinct values, 2): Delta_p, and the local patches that have it

GAP_LABEL = r"information gap of a local patch, $\Delta_p$"
_BIN = 0.05  # width of a bin; 0 is an edge, so that no bin mixes the two predictions
_MOST_STRIPS = 40  # photographs with a strip of their own: more would not be legible


def draw_gap(reports: Sequence[Mapping[str, Any]], path: str | Path) -> Figure:
    """Distribution of Delta_p: a histogram over all photographs and, if they are several, a strip each.

    Parameters
    ----------
    reports
        A record per photograph: `name`; `patch_gaps`, pairs of a value of Delta_p and the number of local
        patches that have it (any order, may be empty); `information_gap`, the paper's Delta of that
        photograph, or null.
    path
        PNG to write. The figure is returned.

    Raises
    ------
    ValueError
        Without any report.
    """
    if not reports:
        raise ValueError("no photograph to draw the information gap of")
    levels = [np.array(report["patch_gaps"], dtype=np.float64).reshape(-1, 2) for report in reports]
    pooled = np.concatenate(levels)
    papers = [report.get("information_gap") for report in reports]
    strips = min(len(reports), _MOST_STRIPS) if len(reports) > 1 else 0
    with styled():
        figure = new_figure(height=3.5 + (0.9 + 0.3 * strips if strips else 0.0))
        heights = [2.4, 0.4 + 0.3 * strips] if strips else [1.0]
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        _histogram(panels[0], pooled, papers[0] if len(reports) == 1 else None)
        if strips:
            names = [report["name"] for report in reports[:strips]]
            _strips(panels[1], names, levels[:strips], papers[:strips])
            if len(reports) > strips:
                left_out = f"the first {strips} of {len(reports)} photographs"
                panels[1].set_title(left_out, loc="left", fontsize=10.5, color=FAINT)
        panels[0].set_xlim(*_limits(pooled, papers))
        panels[-1].set_xlabel(GAP_LABEL)
        save(figure, path, _describe(reports, pooled))
    return figure


def two_phase_share(levels: Levels) -> float:
    """Share of local patches with Delta_p > 0, in [0, 1]; NaN without local patches."""
    patches = levels[:, 1].sum()
    return float(levels[levels[:, 0] > 0, 1].sum() / patches) if patches else np.nan


def _limits(pooled: Levels, papers: Sequence[float | None]) -> tuple[float, float]:
    """All values, with room on both sides of 0 for what the theory predicts there."""
    values = [*pooled[:, 0].tolist(), *(paper for paper in papers if paper is not None), -0.35, 0.35]
    return min(values) - 0.07, max(values) + 0.07


def _histogram(axes: Axes, levels: Levels, paper: float | None) -> None:
    axes.axvline(0.0, color=INK, linewidth=1.2)
    axes.set_ylabel("share of\nlocal patches")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    shares = "", ""
    if levels.size:
        gaps, patches = levels.T
        first, last = np.floor(gaps.min() / _BIN), np.floor(gaps.max() / _BIN) + 1
        edges = (_BIN * np.arange(first, last + 1)).tolist()
        weights = patches / patches.sum()
        axes.hist(gaps, edges, weights=weights, color=COLOURS["gap"], edgecolor="white", linewidth=0.8)
        above = two_phase_share(levels)
        shares = f" · {1 - above:.0%}", f" · {above:.0%}"
    else:
        note(axes, "no local patches")
    top = axes.get_xaxis_transform()
    for text, side in (f"one phase{shares[0]}  ", "right"), (f"  two phases{shares[1]}", "left"):
        axes.text(0.0, 1.03, text, transform=top, ha=side, va="bottom")
    if paper is not None:
        mark = axes.plot([paper], [0.0], "D", color=COLOURS["paper"], markersize=9, clip_on=False, zorder=4)[
            0
        ]
        mark.set_label(rf"the paper's $\Delta$ = {format_number(paper, 3)}")
        axes.legend(loc="best")


def _strips(
    axes: Axes, names: Sequence[str], levels: Sequence[Levels], papers: Sequence[float | None]
) -> None:
    """A line per photograph: a dot per value of Delta_p, its size the share of patches that have it."""
    axes.axvline(0.0, color=INK, linewidth=1.2)
    for row, (values, paper) in enumerate(zip(levels, papers, strict=True)):
        if values.size:
            gaps, patches = values.T
            sizes = 12 + 200 * patches / patches.sum()
            dots = axes.scatter(gaps, np.full(gaps.size, row), sizes, COLOURS["gap"], alpha=0.75)
            dots.set(linewidths=0, label="local patches (larger: more)")
        else:
            axes.text(0.0, row, "  no local patches", va="center", color=FAINT)
        if paper is not None:
            mark = axes.plot([paper], [row], "D", color=COLOURS["paper"], markersize=6)[0]
            mark.set_label(r"the paper's $\Delta$")
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=10.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=2)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _describe(reports: Sequence[Mapping[str, Any]], pooled: Levels) -> str:
    subject = f"photograph {reports[0]['name']}" if len(reports) == 1 else f"{len(reports)} photographs"
    if not pooled.size:
        return f"Information gap of {subject}: no local patches."
    told = [report["information_gap"] for report in reports if report.get("information_gap") is not None]
    paper = f" The paper's Δ is {format_number(told[0], 3)}." if len(reports) == len(told) == 1 else ""
    low, high = (format_number(float(end), 3) for end in (pooled[:, 0].min(), pooled[:, 0].max()))
    above = two_phase_share(pooled)
    return (
        f"Information gap of the {format_number(pooled[:, 1].sum())} local patches of {subject}: from {low} "
        f"to {high}; {above:.0%} above 0 (two phases), {1 - above:.0%} not (one phase).{paper}"
    )
