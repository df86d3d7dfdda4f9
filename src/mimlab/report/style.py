"""One look for all figures: sizes, fonts, a colour for each quantity, and saving with a description.

Colours are those of Okabe and Ito, told apart with any colour vision; a quantity keeps its colour on every
figure. Text is large for its paper (12 pt on 6.4 in) because a page shows the same figure on a telephone,
360 px wide. Only matplotlib's object-oriented interface is used: no figure outlives its variable, no window
system is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 6.4  # inches
DPI = 170
INK = "#222222"
FAINT = "#6b6b6b"

COLOURS = {
    "own": "#0072B2",
    "global": "#D55E00",
    "other": "#009E73",
    "position": "#CC79A7",
    "loss": "#222222",
    "half_time": "#0072B2",
    "final_stage": "#009E73",
    "gap": "#56B4E9",
    "paper": "#D55E00",
    "guide": "#6b6b6b",
}
PHASE_COLOURS = {"decoupling": "#E69F00", "growth": "#56B4E9", "convergence": "#999999"}
PHASE_ALPHA = 0.18

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 12,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "axes.unicode_minus": True,
    "savefig.facecolor": "white",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside this: the project's look, whatever the user's own matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float = 3.9, width: float = WIDTH) -> Figure:
    """An empty figure (inches) that makes room for its own labels."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def caption(axes: Axes, text: str) -> None:
    """What the figure is about, small, above its left edge."""
    if text:
        axes.set_title(text, loc="left", fontsize=10.5, color=FAINT, pad=22)


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why nothing is drawn."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)


def one_scale(panels: Iterable[Axes]) -> None:
    """Give all panels the vertical scale that holds each of theirs."""
    known = list(panels)
    lows, highs = zip(*(axes.get_ylim() for axes in known), strict=True)
    for axes in known:
        axes.set_ylim(min(lows), max(highs))


def save(figure: Figure, path: str | Path, description: str, trim: bool = False) -> None:
    """Write `figure` as a PNG that carries `description`; folders are made as needed.

    `trim` cuts the blank above and below that pictures of a fixed shape leave; the width stays. Raises
    ValueError where `path` does not end in .png: other formats could not carry the description.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"figures are written as PNG, not as {target.name!r}: end the path in .png")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _drawn_part(figure) if trim else None
    figure.savefig(target, bbox_inches=part, metadata={"Description": description, "Software": "mimlab"})


def _drawn_part(figure: Figure, margin: float = 0.06) -> Bbox:
    """The whole width, from the lowest to the highest thing drawn (inches)."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return Bbox.from_extents(0, max(0, drawn.y0 - margin), width, min(height, drawn.y1 + margin))
