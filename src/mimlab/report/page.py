"""A page: one HTML file that holds its figures, needs no script and no network, and opens years later.

Everything that comes from outside is escaped. A figure's alternative text is the description that it was
drawn with; a picture without one is refused, since the page could not be read by those who do not see it. A
figure that several verdicts name is embedded once, and named by its number afterwards.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

from mimlab.report.numbers import ABSENT, format_interval, format_number
from mimlab.report.stylesheet import STYLESHEET

VERDICTS = {"holds": "✓", "fails": "✗", "inconclusive": "?"}


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Parameters
    ----------
    heading, sentence
        What the part is called, and what it says in a sentence.
    verdicts
        Records of the claims judged here, with the keys `claim, statement, source, quantity, value, low,
        high, threshold, reason, verdict, evidence, world, command, figure`; all but `claim` and `verdict`
        may be missing or null. Each is shown with a badge, what was measured, the threshold and why, the
        evidence, its figure and the command that runs it again.
    figures
        PNG files as this package draws them; relative paths start at the page's folder.
    rows
        Evidence as a table: a record per row, the first row's keys are the columns.
    details
        Pairs of a term and its text, such as ("Source", ...), ("Threshold", ...).
    command
        The command that makes this part again.

    Raises
    ------
    ValueError
        Where a verdict is none of holds, fails, inconclusive.
    """

    heading: str
    sentence: str
    verdicts: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[str | Path] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    details: Sequence[tuple[str, str]] = ()
    command: str | None = None

    def __post_init__(self) -> None:
        for record in self.verdicts:
            if record["verdict"] not in VERDICTS:
                said, known = record["verdict"], ", ".join(VERDICTS)
                raise ValueError(f"claim {record['claim']!r}: the verdict is {said!r}, not one of {known}")


def write_page(
    path: str | Path,
    title: str,
    lead: str,
    sections: Sequence[Section],
    command: str,
    facts: Mapping[str, Any],
) -> None:
    """Write one self-contained page: lead, verdicts, contents, the sections, then `facts` about the run.

    `command` is the line that made it. Raises ValueError for a figure without a description, OSError where a
    figure cannot be read or the page not written.
    """
    target = Path(path)
    page = _Page(target.parent, {})
    anchors = _anchors([section.heading for section in sections])
    parts = list(zip(anchors, sections, strict=True))
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>{_command(command)}</header>',
        "<main>",
        _verdict_table(parts),
        _contents(parts),
        *(page.section(anchor, section) for anchor, section in parts),
        "</main>",
        f"<footer><h2>About this page</h2>{_definitions(list(facts.items()))}</footer>" if facts else "",
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_document(title, lead, "\n".join(filter(None, body))), encoding="utf-8")


def _document(title: str, lead: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<meta name="description" content="{escape(lead)}">\n'
        f"<style>{STYLESHEET}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


@dataclass
class _Page:
    """What a page remembers while it is written: its folder, and the number of each figure in it."""

    folder: Path
    numbers: dict[Path, int]

    def section(self, anchor: str, section: Section) -> str:
        parts = [
            f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(section.heading)}</h2>',
            f"<p>{escape(section.sentence)}</p>" if section.sentence else "",
            _definitions(section.details),
            *(self.figure(path) for path in section.figures),
            _table(section.rows),
            *(self.verdict(record, section) for record in section.verdicts),
            _command(section.command),
            "</section>",
        ]
        return "\n".join(filter(None, parts))

    def verdict(self, record: Mapping[str, Any], section: Section) -> str:
        """One judged claim; its statement only where the section has not said it."""
        statement = record.get("statement")
        details = [
            ("Measured", f"{record.get('quantity') or 'value'} = {_interval(record)}"),
            ("Threshold", record.get("threshold")),
            ("Why there", record.get("reason")),
            ("Evidence", record.get("evidence")),
            ("Source", record.get("source")),
        ]
        parts = [
            f"<h3>{escape(record.get('world') or record['claim'])} {_badge(record['verdict'])}</h3>",
            f"<p>{escape(statement)}</p>" if statement and statement != section.sentence else "",
            _definitions([(term, text) for term, text in details if text]),
            self.figure(record["figure"]) if record.get("figure") else "",
            _command(record.get("command")),
        ]
        return f"<article>{''.join(filter(None, parts))}</article>"

    def figure(self, path: str | Path) -> str:
        """The picture inside the page, or its number where the page holds it already."""
        file = (self.folder / path).resolve()
        if file in self.numbers:
            number = self.numbers[file]
            return f'<p class="faint">See <a href="#figure.{number}">figure {number}</a>.</p>'
        number = self.numbers[file] = len(self.numbers) + 1
        width, height, description = _picture(file)
        data = b64encode(file.read_bytes()).decode("ascii")
        return (
            f'<figure id="figure.{number}"><img src="data:image/png;base64,{data}" width="{width}" '
            f'height="{height}" alt="{escape(description)}">'
            f"<figcaption>Figure {number}</figcaption></figure>"
        )


def _picture(file: Path) -> tuple[int, int, str]:
    """Width and height in pixels, and the description that the figure was saved with."""
    from PIL import Image

    with Image.open(file, formats=["PNG"]) as image:
        description = str(image.info.get("Description", "")).strip()
        if not description:
            raise ValueError(f"figure {file.name} has no description: draw it with mimlab.report")
        return image.width, image.height, description


def _verdict_table(parts: Sequence[tuple[str, Section]]) -> str:
    judged = [(anchor, record) for anchor, section in parts for record in section.verdicts]
    if not judged:
        return ""
    counts = Counter(record["verdict"] for _, record in judged)
    tally = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
    rows = "".join(
        f'<tr><th scope="row"><a href="#{anchor}">{escape(record["claim"])}</a>'
        f'<br><span class="faint">{escape(record.get("world") or "")}</span></th>'
        f"<td>{_badge(record['verdict'])}</td><td>{_interval(record)}</td></tr>"
        for anchor, record in judged
    )
    return (
        f'<table><caption>Verdicts: {tally}.</caption><thead><tr><th scope="col">Claim</th>'
        f'<th scope="col">Verdict</th><th scope="col">Measured</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _contents(parts: Sequence[tuple[str, Section]]) -> str:
    items = "".join(f'<li><a href="#{anchor}">{escape(part.heading)}</a></li>' for anchor, part in parts)
    return f'<nav aria-label="Contents"><b>Contents</b><ul>{items}</ul></nav>' if len(parts) > 1 else ""


def _badge(verdict: str) -> str:
    return (
        f'<span class="badge {verdict}"><span aria-hidden="true">{VERDICTS[verdict]}</span> {verdict}</span>'
    )


def _interval(record: Mapping[str, Any]) -> str:
    return escape(format_interval(record.get("value"), record.get("low"), record.get("high"), digits=3))


def _command(command: str | None) -> str:
    return f"<pre><code>{escape(command)}</code></pre>" if command else ""


def _definitions(pairs: Sequence[tuple[str, Any]]) -> str:
    items = "".join(f"<dt>{escape(term)}</dt><dd>{_text(value)}</dd>" for term, value in pairs)
    return f"<dl>{items}</dl>" if items else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the first row's keys; wide tables scroll by themselves, not the page."""
    if not rows:
        return ""
    columns = list(rows[0])
    head = "".join(f'<th scope="col">{escape(column.replace("_", " "))}</th>' for column in columns)
    lines = ""
    for row in rows:
        lines += f"<tr>{''.join(_cell(row.get(column)) for column in columns)}</tr>"
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Evidence">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    return f'<td class="number">{_text(value)}</td>' if _is_number(value) else f"<td>{_text(value)}</td>"


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    return format_number(value) if _is_number(value) else escape(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _anchors(headings: Sequence[str]) -> list[str]:
    """A distinct id for each heading, of letters that any link can hold."""
    anchors: list[str] = []
    for heading in headings:
        plain = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
        numbered = (f"{plain}-{number}" for number in count(2))
        anchors.append(plain if plain not in anchors else next(one for one in numbered if one not in anchors))
    return anchors
