"""Figure of the shares of logit variance: signed bars per layer (theory, section 8).

Estimates are unbiased, so a small share can come out negative; such bars stand below zero and are never
clipped. The whiskers are the mean of the heads' 95% intervals over images, never too narrow for the mean over
heads. The shares of a layer add up to 1, "rest" included: a layer of noise is all rest. Uniform attention and
identity are no baselines here, they have no variance of logits to share.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mimlab.report.numbers import format_number
from mimlab.report.probe_tables import DEPTH, ModelRecord, curve, models_in, with_random_weights
from mimlab.report.style import INK, new_figure, save, styled

COMPONENT_COLOURS = {
    "PP": "#0072B2",
    "key position": "#56B4E9",
    "FP": "#D55E00",
    "key content": "#E69F00",
    "query content x key position": "#CC79A7",
    "FF": "#009E73",
    "rest": "#c9c9c9",
}
_BAR = 0.84


def draw_shares(shares: pa.Table, model: ModelRecord, path: str | Path) -> Figure:
    """Stacked shares per layer, mean over heads, each with its interval; below, the same with random weights.

    `shares` has the columns `model, layer, module, head, component, share, low, high`. Written to `path` (PNG);
    the figure is returned. Raises ValueError where the table has no row of the model.
    """
    known = models_in(shares)
    names = [name for name in (model["name"], with_random_weights(model["name"])) if name in known]
    if model["name"] not in names:
        raise ValueError(f"the table of shares has no row of {model['name']}")
    words = []
    with styled():
        figure = new_figure(height=3.1 * len(names) + 1.3)
        panels = figure.subplots(len(names), 1, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, name in zip(panels, names, strict=True):
            title = name if name == model["name"] else "random weights"
            axes.set_title(title, loc="left")
            axes.set_ylabel("share of logit variance")
            words.append(f"{title}: {_stack(axes, shares, name)}.")
        panels[-1].set_xlabel(DEPTH)
        panels[-1].xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=1.2
        )
        save(figure, path, f"Shares of logit variance by layer; means over layers: {' '.join(words)}")
    return figure


def _stack(axes: Axes, shares: pa.Table, name: str) -> str:
    """Bars of each component, positive ones upwards and negative ones downwards; their means in words."""
    found = {
        component: curve(shares, name, component, "share", "component") for component in COMPONENT_COLOURS
    }
    layers = np.unique(np.concatenate([one.layers for one in found.values()]))
    ends = {+1: np.zeros(layers.size), -1: np.zeros(layers.size)}
    words = []
    for place, (component, one) in enumerate(found.items()):
        if not one:
            continue
        at = np.searchsorted(layers, one.layers)
        value = np.nan_to_num(one.mean)
        base = np.where(value < 0, ends[-1][at], ends[+1][at])
        axes.bar(
            layers[at] + 1,
            value,
            _BAR,
            base,
            color=COMPONENT_COLOURS[component],
            label=component,
            linewidth=0,
        )
        side = layers[at] + 1 + _BAR * ((place + 0.5) / len(found) - 0.5)
        _whiskers(axes, side, base + value, one.low - one.mean, one.high - one.mean)
        for sign, end in ends.items():
            end[at] += np.where(sign * value > 0, value, 0.0)
        words.append(f"{component} {format_number(float(np.nanmean(one.mean)), 3)}")
    for height in (0.0, 1.0):
        axes.axhline(height, color=INK, linewidth=0.9, zorder=3)
    return ", ".join(words)


def _whiskers(
    axes: Axes,
    at: NDArray[np.float64],
    end: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> None:
    known = np.isfinite(low) & np.isfinite(high)
    axes.vlines(at[known], (end + low)[known], (end + high)[known], color=INK, linewidth=1.1, zorder=4)
