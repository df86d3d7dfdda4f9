"""Figure of the probe on the simulator's own layer: statistics over training time, by both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mimlab.report.numbers import format_number
from mimlab.report.style import COLOURS, new_figure, save, styled

_CURVES = {"nmi": ("NMI", COLOURS["own"]), "diversity": ("diversity", COLOURS["global"])}


def draw_agreement(
    time: ArrayLike, nmi: ArrayLike, probed: Sequence[Mapping[str, Any]], path: str | Path
) -> Figure:
    """The simulator's NMI as a line over `time` (times above 0 are drawn), the probe's measurements as dots.

    probed: records with `time, nmi, diversity`. Written to `path` (PNG); the figure is returned.
    """
    with styled():
        figure = new_figure(height=3.2)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.plot(time, nmi, color=COLOURS["own"], label="NMI, simulator")
        shown = [one for one in probed if one["time"] > 0]
        for name, (said, colour) in _CURVES.items():
            values = [one[name] for one in shown]
            style = "o" if name == "nmi" else "o--"
            axes.plot(
                [one["time"] for one in shown], values, style, color=colour, markersize=5, linewidth=1.2,
                label=f"{said}, probe",
            )  # fmt: skip
        axes.set_xlabel("training time")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        told = "; ".join(
            f"at time {format_number(one['time'], 3)} NMI {format_number(one['nmi'], 3)}, diversity "
            f"{format_number(one['diversity'], 3)}"
            for one in probed
        )
        save(
            figure,
            path,
            f"The simulator's own layer while it learns, measured by the probe: {told}. The probe's NMI lies on the "
            "simulator's line.",
        )
    return figure
