"""Parts of a page that answer to a reader: sliders over recorded runs, a photograph that can be clicked.

A widget is controls in HTML, hidden until its script runs, and plain data beside them. Each script of a page is
embedded once, Plotly too, so that the page opens without a network; a page without widgets has no script at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

_HOME = Path(__file__).parent
_SHARED = "widgets"
_DIGITS = 6  # significant, of a number in a page; more than a reader sees


@dataclass(frozen=True)
class Widget:
    """An interactive part of a page.

    Parameters
    ----------
    kind
        Its script, `kind`.js of this room.
    controls
        HTML of what it shows and is moved by; the script finds its parts by the attributes `name` and `data-shown`.
    data
        What the script draws: texts, whole numbers, floats as `short` gives them, lists and mappings of such.
    without
        What a reader without JavaScript is told to look at instead.
    plotly
        Whether the script draws with Plotly.
    """

    kind: str
    controls: str
    data: Mapping[str, Any]
    without: str
    plotly: bool = False

    def markup(self) -> str:
        """The controls, hidden, the data, and the words for readers without JavaScript."""
        data = json.dumps(self.data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        escaped = data.replace("<", r"\u003c")
        return (
            f'<div class="widget" data-kind="{self.kind}" hidden>\n{self.controls}\n'
            f'<script type="application/json">{escaped}</script></div>\n'
            f'<noscript><p class="faint">{escape(self.without)}</p></noscript>'
        )


def short(values: Iterable[float | None]) -> list[float | None]:
    """Numbers as a page holds them, to six significant digits; null for what is none.

    >>> short([0.123456789, float("nan"), None, 2.0])
    [0.123457, None, None, 2.0]
    """
    return [None if x is None or not math.isfinite(x) else float(f"{x:.{_DIGITS}g}") for x in values]


def slider(kind: str, name: str, label: str) -> str:
    """A labelled slider and the words for where it stands; its script says how far it goes."""
    own = f"{kind}.{name}"
    return (
        f'<div class="control"><label for="{own}">{escape(label)}</label>'
        f'<input type="range" id="{own}" name="{name}" min="0" max="0" value="0">'
        f'<output for="{own}" data-shown="{name}"></output></div>'
    )


def choice(kind: str, name: str, label: str) -> str:
    """A labelled list to choose from; its script fills it."""
    own = f"{kind}.{name}"
    return (
        f'<div class="control"><label for="{own}">{escape(label)}</label>'
        f'<select id="{own}" name="{name}"></select></div>'
    )


def shown(terms: Sequence[tuple[str, str, str]]) -> str:
    """A table of what the script says: of each row a name to find it by, its words in HTML, and a colour or none."""
    rows = ""
    for name, words, colour in terms:
        head = (
            f'<th scope="row" class="keyed"><span class="swatch {colour}"></span>'
            if colour
            else '<th scope="row">'
        )
        rows += f'<tr>{head}{words}</th><td class="number" data-shown="{name}"></td></tr>'
    return f'<table class="shown"><tbody>{rows}</tbody></table>'


def scripts(widgets: Sequence[Widget]) -> str:
    """What makes the widgets of a page work, each piece once; nothing where there are none."""
    if not widgets:
        return ""
    pieces = []
    if any(widget.plotly for widget in widgets):
        from plotly.offline import get_plotlyjs

        pieces.append(get_plotlyjs())
    kinds = dict.fromkeys(widget.kind for widget in widgets)
    pieces += [(_HOME / f"{name}.js").read_text(encoding="utf-8") for name in (_SHARED, *kinds)]
    ended = [re.sub("</(?=script)", r"<\\/", piece, flags=re.IGNORECASE) for piece in pieces]
    return "\n".join(f"<script>{piece}</script>" for piece in ended)


def styles(widgets: Sequence[Widget]) -> str:
    """The look of widgets, where there are any."""
    return (_HOME / f"{_SHARED}.css").read_text(encoding="utf-8") if widgets else ""
