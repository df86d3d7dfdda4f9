"""Figure of diversity in theory beside that of networks: a row for each world and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mimlab.report.numbers import format_number
from mimlab.report.probe_tables import title_of
from mimlab.report.style import COLOURS, FAINT, INK, new_figure, save, styled

STATISTICS = ("nmi", "diversity")
KIND_COLOURS = {"masked": COLOURS["own"], "contrastive": COLOURS["global"], "other": COLOURS["other"]}
_NETWORKS = {
    "simmim": "masked",
    "mae": "masked",
    "simclr": "contrastive",
    "moco-v3": "contrastive",
    "dino": "other",
    "supervised": "other",
}
"""Networks that are shown, where they are there, and what trained them."""


def draw_diversity(records: Sequence[Mapping[str, Any]], looks: pa.Table | None, path: str | Path) -> Figure:
    """Theory above, networks below; written to `path` (PNG), the figure is returned.

    records: of maps, with `label, objective` and, for each of `STATISTICS`, its value, `NAME_start` and `NAME_bound`
    (None where there is none). looks: `run, seed, step, layer, statistic, value` of networks; None: theory alone.
    """
    present = set() if looks is None else set(looks["run"].unique().to_pylist())
    networks = [name for name in _NETWORKS if name in present]
    labels = [_short(record["label"]) for record in records] + networks
    words = []
    with styled():
        figure = new_figure(height=1.9 + 0.34 * len(labels))
        panels = figure.subplots(1, len(STATISTICS), sharey=True)
        for axes, statistic in zip(panels, STATISTICS, strict=True):
            told = [_theory(axes, row, record, statistic) for row, record in enumerate(records)]
            told += [
                _network(axes, len(records) + row, name, looks, statistic)
                for row, name in enumerate(networks)
            ]
            words.append(f"{title_of(statistic)}: {'; '.join(told)}.")
            if networks:
                axes.axhline(len(records) - 0.5, color=FAINT, linewidth=1.0)
            axes.set_xlim(-0.05, 1.05)
            axes.set_xlabel(title_of(statistic))
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(range(len(labels)), labels=labels)
        panels[0].set_ylim(len(labels) - 0.4, -0.6)
        figure.legend(handles=_legend(bool(networks)), loc="outside lower center", ncols=2)
        save(figure, path, f"Diversity of attention, in theory and in networks. {' '.join(words)}")
    return figure


def _short(label: str) -> str:
    """What the axis has room for: the objective is a colour."""
    words = label.partition(", ")[2].removesuffix(", from a random start")
    return words.partition(":")[0].replace(
        "stopped at a third of the local patches' half-attention time", "early"
    )


def _theory(axes: Axes, row: int, record: Mapping[str, Any], statistic: str) -> str:
    """A map: its value as a diamond, its start as a ring, its bound in black. Returns them in words."""
    colour, value = KIND_COLOURS[record["objective"]], float(record[statistic])
    axes.plot(record[f"{statistic}_start"], row, "o", color=FAINT, fillstyle="none", markersize=6)
    axes.plot(value, row, "D", color=colour, markersize=6, zorder=3)
    told = f"{record['label']} {format_number(value, 3)}"
    bound = record.get(f"{statistic}_bound")
    if bound is None:
        return told
    axes.plot(bound, row, "|", color=INK, markersize=15, markeredgewidth=1.8, zorder=4)
    return f"{told}, at least {format_number(float(bound), 3)}"


def _network(axes: Axes, row: int, name: str, looks: pa.Table, statistic: str) -> str:
    """A network at its last step: a dot for each layer, mean over seeds. Returns their range in words."""
    mine = looks.filter((pc.field("run") == name) & (pc.field("statistic") == statistic))
    last = mine.filter(pc.field("step") == pc.max(mine["step"]).as_py())
    means = last.group_by("layer").aggregate([("value", "mean")])["value_mean"].to_numpy()
    axes.plot(means, np.full(len(means), row), "o", color=KIND_COLOURS[_NETWORKS[name]], markersize=5)
    return f"network {name}, layers from {format_number(means.min(), 3)} to {format_number(means.max(), 3)}"


def _legend(networks: bool) -> list[Line2D]:
    shapes: list[dict[str, Any]] = [
        {"marker": "D", "color": KIND_COLOURS["masked"], "label": "layer, masked"},
        {"marker": "D", "color": KIND_COLOURS["contrastive"], "label": "layer, contrastive"},
        {"marker": "|", "color": INK, "markersize": 12, "markeredgewidth": 1.8, "label": "least value"},
        {"marker": "o", "color": FAINT, "fillstyle": "none", "label": "start"},
    ]
    if networks:
        shapes += [
            {"marker": "o", "color": colour, "label": f"network, {kind}"}
            for kind, colour in KIND_COLOURS.items()
        ]
    return [Line2D([], [], linestyle="none", **shape) for shape in shapes]
