"""Figure of a weighted sum of two objectives: where a local row's attention ends, against the weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, FAINT, new_figure, note, save, styled

_SIGMAS = 2.365  # 95% of Student's t with 7 degrees of freedom


def draw_ladder(rungs: Sequence[Mapping[str, Any]], path: str | Path, balance: float | None = None) -> Figure:
    """Attention of a local row on its own and on the global area at the end of each run, with 95% intervals.

    Parameters
    ----------
    rungs
        Records with `contrastive_weight` (> 0), `attention_own`, `attention_global` and their standard errors, `_se`
        (null where not known).
    path
        PNG to write. The figure is returned.
    balance
        The weight at which theory has both alike; not drawn where it is null or not finite.
    """
    weights = [float(rung["contrastive_weight"]) for rung in rungs]
    words = ["A local row's attention at the end against the weight of the contrastive loss, logarithmic."]
    with styled():
        figure = new_figure(height=4.0)
        axes = figure.add_subplot()
        axes.set_xlabel("weight w of the contrastive loss")
        axes.set_ylabel("attention of a local row at the end")
        axes.set_ylim(-0.03, 1.03)
        if rungs:
            axes.set_xscale("log")
            axes.set_xticks(weights, [format_number(weight) for weight in weights])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            note(axes, "no runs")
        for area in ("own", "global"):
            values, errors = (
                np.array([np.nan if rung[key] is None else rung[key] for rung in rungs], dtype=float)
                for key in (f"attention_{area}", f"attention_{area}_se")
            )
            bars = _SIGMAS * np.nan_to_num(errors)
            axes.errorbar(
                weights, values, bars, fmt="o-", color=COLOURS[area], capsize=3, label=f"{area} area"
            )
            told = (f"{format_number(v)} at {format_number(w)}" for v, w in zip(values, weights, strict=True))
            words.append(f"On the {area} area: {', '.join(told)}.")
        if balance is not None and isfinite(balance):
            axes.axvline(balance, linestyle="--", color=FAINT, label="equal shares, theory")
            words.append(f"Theory has equal shares at {format_number(balance)}.")
        axes.legend(loc="center left")
        save(figure, path, " ".join(words))
    return figure
