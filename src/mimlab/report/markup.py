"""Pieces of HTML that every page is made of: text, terms, tables, commands. Everything from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mimlab.report.numbers import ABSENT, format_number

_COLUMNS = {
    "global_exponent": "κc",
    "local_exponent": "κs",
    "information_gap": "Δ",
    "final_stage": "half time to stop",
    "phi_global_at_half": "Φ global at half time",
    "upsilon_over_phi": "largest |Υ| / Φ own",
}
_LONG = 24  # letters from which a cell of a table needs room of its own


def prose(text: str) -> str:
    """Escaped text with its formulas set: C_a and P^(1-κ) as sub- and superscripts, a minus before a number.

    Only a single letter takes a subscript, and only a word can be one: names such as stop_attention or of files
    stay as they are.

    >>> prose("Δ_p > -0.5, P^(1-κs)")
    'Δ<sub>p</sub> &gt; −0.5, P<sup>1-κs</sup>'
    """
    marked = re.sub(r"\b([A-ZΔΥΦκ])_([a-z]+)\b(?!\.\w)", r"\1<sub>\2</sub>", escape(text))
    marked = re.sub(r"\^\(((?:[^()]|\([^()]*\))*)\)", r"<sup>\1</sup>", marked)
    marked = re.sub(r"\^(\w+(?:<sub>\w+</sub>)?)", r"<sup>\1</sup>", marked)
    return re.sub(r"(?<![\w)\]-])-(?=[\d.½Δ])", "−", marked)


def capital(text: str) -> str:
    """`text` as a heading begins."""
    return text[:1].upper() + text[1:]


def command_block(command: str | None) -> str:
    """A command line; it may wrap, but not within a flag."""
    if not command:
        return ""
    flags = re.sub(r"(?<!\S)(--[\w-]+)", r'<span class="flag">\1</span>', escape(command))
    return f"<pre><code>{flags}</code></pre>"


def definitions(pairs: Sequence[tuple[str, Any]]) -> str:
    """Terms and what is to be said of each; nothing where there are none."""
    items = "".join(f"<dt>{prose(term)}</dt><dd>{_text(value)}</dd>" for term, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the first row's keys; wide tables scroll by themselves, not the page."""
    if not rows:
        return ""
    columns = list(rows[0])
    head = "".join(
        f'<th scope="col">{escape(_COLUMNS.get(column, column.replace("_", " ")))}</th>' for column in columns
    )
    lines = ""
    for row in rows:
        lines += f"<tr>{''.join(_cell(row.get(column)) for column in columns)}</tr>"
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Evidence">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if _is_number(value):
        return f'<td class="number">{_text(value)}</td>'
    text = _text(value)
    return f'<td class="words">{text}</td>' if len(text) > _LONG else f"<td>{text}</td>"


def _text(value: Any) -> str:
    """Numbers, words, and simple collections of them, as people write them."""
    if value is None:
        return ABSENT
    if _is_number(value):
        return format_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(name))} {_text(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return prose(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
