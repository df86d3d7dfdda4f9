"""A page: one HTML file that holds its figures, needs no network, and opens years later; no script without widgets.

Everything that comes from outside is escaped. A figure's alternative text is the description that it was
drawn with; a picture without one is refused, since the page could not be read by those who do not see it. A
figure that several verdicts name is embedded once, and named by its number afterwards.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

from mimlab.report.markup import capital, command_block, definitions, prose, table
from mimlab.report.numbers import ABSENT, format_interval, format_number
from mimlab.report.stylesheet import STYLESHEET
from mimlab.report.widgets import Widget, scripts, styles

VERDICTS = {"holds": "✓", "fails": "✗", "inconclusive": "?"}
_STANDING = {"threshold": "Threshold", "reason": "Why there", "source": "Source"}  # often alike on all worlds


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
        evidence, its figure and the command that runs it again. What several verdicts have in common, such as
        the threshold, is said once. Two more keys are shown where they are there: `label` (what the world is) and
        `expected` (the verdict expected on it).
    figures
        PNG files as this package draws them; relative paths start at the page's folder.
    rows
        Evidence as a table: a record per row, the first row's keys are the columns.
    details
        Pairs of a term and its text, such as ("Source", ...), ("Threshold", ...).
    command
        The command that makes this part again.
    widget
        What a reader can move.

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
    widget: Widget | None = None

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
        f'<p class="lead">{prose(lead)}</p>' if lead else "",
        f"{command_block(command)}</header>",
        "<main>",
        _verdict_table(parts),
        _contents(parts),
        *(page.section(anchor, section) for anchor, section in parts),
        "</main>",
        f"<footer><h2>About this run</h2>{definitions(list(facts.items()))}</footer>" if facts else "",
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    widgets = [section.widget for section in sections if section.widget is not None]
    body.append(scripts(widgets))
    document = _document(title, lead, "\n".join(filter(None, body)), STYLESHEET + styles(widgets))
    target.write_text(document, encoding="utf-8")


def _document(title: str, lead: str, body: str, styles: str) -> str:
    described = f'<meta name="description" content="{escape(lead)}">\n' if lead else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n{described}"
        f"<style>{styles}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


@dataclass
class _Page:
    """What a page remembers while it is written: its folder, and the number of each figure in it."""

    folder: Path
    numbers: dict[Path, int]

    def section(self, anchor: str, section: Section) -> str:
        common = _common(section.verdicts)
        parts = [
            f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(capital(section.heading))}</h2>',
            f"<p>{prose(section.sentence)}</p>" if section.sentence else "",
            section.widget.markup() if section.widget else "",
            definitions([*section.details, *common.values()]),
            *(self.figure(path) for path in section.figures),
            table(section.rows),
            *(self.verdict(record, section, common) for record in section.verdicts),
            command_block(section.command),
            "</section>",
        ]
        return "\n".join(filter(None, parts))

    def verdict(self, record: Mapping[str, Any], section: Section, common: Container[str]) -> str:
        """One judged claim, without what the section has said: its heading, its statement, what is `common`."""
        title = record.get("world") or capital(record["claim"])
        named = title.casefold() != section.heading.casefold()
        statement = record.get("statement")
        details = [
            ("World", record.get("label")),
            ("Measured", f"{record.get('quantity') or 'value'} = {_interval(record)}"),
            *((term, record.get(key)) for key, term in _STANDING.items() if key not in common),
            ("Evidence", record.get("evidence")),
        ]
        parts = [
            f"<h3>{prose(title) if named else ''} {_badge(record['verdict'])} {_expectation(record)}</h3>",
            f"<p>{prose(statement)}</p>" if statement and statement != section.sentence else "",
            definitions([(term, text) for term, text in details if text]),
            self.figure(record["figure"]) if record.get("figure") else "",
            command_block(record.get("command")),
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


def _common(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Of several verdicts: the standing details that are the same for all, by key."""
    if len(records) < 2:
        return {}
    told = {key: (term, records[0].get(key)) for key, term in _STANDING.items()}
    return {
        key: (term, text)
        for key, (term, text) in told.items()
        if text and all(record.get(key) == text for record in records)
    }


def _verdict_table(parts: Sequence[tuple[str, Section]]) -> str:
    """A row per section that judges: how often each verdict, what was measured, and whether it surprised."""
    records = [record for _, section in parts for record in section.verdicts]
    if not records:
        return ""
    counts = Counter(record["verdict"] for record in records)
    tally = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
    rows = "".join(
        f'<tr><th scope="row"><a href="#{anchor}">{escape(capital(section.heading))}</a></th>'
        f"<td>{_badges(section.verdicts)}</td><td>{_measured(section.verdicts)}</td></tr>"
        for anchor, section in parts
        if section.verdicts
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Verdicts">'
        f'<table><caption>Verdicts: {tally}.</caption><thead><tr><th scope="col">Claim</th>'
        f'<th scope="col">Verdict</th><th scope="col">Measured</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _badges(records: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(record["verdict"] for record in records)
    many = len(records) > 1
    return " ".join(_badge(one, counts[one] if many else None) for one in VERDICTS if counts[one])


def _measured(records: Sequence[Mapping[str, Any]]) -> str:
    """The value with its interval, or why there is none, or the range of several values; then the worlds that
    surprised."""
    values = [record["value"] for record in records if record.get("value") is not None]
    if len(records) == 1:
        shown = _interval(records[0]) if values else prose(records[0].get("evidence") or ABSENT)
    else:
        ends = [format_number(end, 3) for end in (min(values), max(values))] if values else [ABSENT]
        shown = " to ".join(dict.fromkeys(ends))
    told = [record for record in records if record.get("expected")]
    surprises = [record for record in told if record["expected"] != record["verdict"]]
    if surprises:
        names = ", ".join(str(record.get("world") or record["claim"]) for record in surprises)
        shown += f'<br><span class="faint">not as expected: {prose(names)}</span>'
    elif told:
        shown += '<br><span class="faint">as expected</span>'
    return shown


def _expectation(record: Mapping[str, Any]) -> str:
    expected = record.get("expected")
    if not expected:
        return ""
    words = "as expected" if expected == record["verdict"] else f"expected: {expected}"
    return f'<span class="faint">{prose(words)}</span>'


def _contents(parts: Sequence[tuple[str, Section]]) -> str:
    """Links to the sections that the overview of verdicts does not link to."""
    others = [(anchor, part.heading) for anchor, part in parts if not part.verdicts]
    if not others or len(parts) < 2:
        return ""
    items = "".join(
        f'<li><a href="#{anchor}">{escape(capital(heading))}</a></li>' for anchor, heading in others
    )
    title = "Contents" if len(others) == len(parts) else "Also on this page"
    return f'<nav aria-label="{title}"><b>{title}</b><ul>{items}</ul></nav>'


def _badge(verdict: str, count: int | None = None) -> str:
    words = verdict if count is None else f"{verdict} {count}"
    return f'<span class="badge {verdict}"><span aria-hidden="true">{VERDICTS[verdict]}</span> {words}</span>'


def _interval(record: Mapping[str, Any]) -> str:
    return escape(format_interval(record.get("value"), record.get("low"), record.get("high"), digits=3))


def _anchors(headings: Sequence[str]) -> list[str]:
    """A distinct id for each heading, of letters that any link can hold."""
    anchors: list[str] = []
    for heading in headings:
        plain = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
        numbered = (f"{plain}-{number}" for number in count(2))
        anchors.append(plain if plain not in anchors else next(one for one in numbered if one not in anchors))
    return anchors
