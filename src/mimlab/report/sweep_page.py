"""The page of a sweep, with its figures: what was varied, where claims hold, where each fails first, what never ran."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mimlab.report.numbers import ABSENT, format_number
from mimlab.report.page import Section, write_page
from mimlab.report.sweeps import draw_curves, draw_plane, draw_verdict_planes, draw_verdicts
from mimlab.runs.axes import label

SEED = "seed"
_LISTED = 12  # values of an axis that are named


def write_sweep_page(folder: Path, rows: pa.Table, summary: Mapping[str, Any]) -> None:
    """Draw a sweep's figures into `folder`/figures and write its report.html, from what its run directory holds."""
    (folder / "figures").mkdir(exist_ok=True)
    sections = [_axes(summary), *_figures(folder, rows, summary)]
    if summary["survival"]:
        sections.append(_survival(summary))
    if summary["verdicts"]:
        sections.append(
            Section(
                "Verdicts",
                "At how many points each claim holds, fails, or cannot be decided; at the others it does not speak. "
                "What was measured at each point is in rows.parquet.",
                rows=summary["verdicts"],
            )
        )
    if summary["failures"]:
        sections.append(_failures(summary))
    statuses = ", ".join(f"{number} {status}" for status, number in summary["statuses"].items())
    write_page(
        folder / "report.html",
        "A sweep",
        f"{summary['points']} points, {summary['design']}: {statuses}.",
        sections,
        summary["command"],
        {key.capitalize(): summary[key] for key in ("seed", "seconds", "versions")},
    )


def _axes(summary: Mapping[str, Any]) -> Section:
    designs = {
        "grid": "Every combination of the values was run.",
        "random": "Values were drawn independently, uniform in each range, or of the values of a list.",
        "one-at-a-time": "From the base each axis was left alone; the other keys stayed where they were.",
    }
    rows = []
    for axis in summary["axes"]:
        values = [label(tuple(v) if isinstance(v, list) else v) for v in axis["values"]]
        shown = values if len(values) <= _LISTED else [*values[: _LISTED - 2], "…", values[-1]]
        base = summary["base"][axis["key"]]
        rows.append(
            {
                "axis": axis["key"],
                "values": ", ".join(shown),
                "number": len(values),
                "spacing": axis["spacing"],
                "base": ABSENT if base is None else label(base),
            }
        )
    return Section("Axes", designs[summary["design"]], rows=rows)


def _figures(folder: Path, rows: pa.Table, summary: Mapping[str, Any]) -> list[Section]:
    """Curves for one axis, or for each where they are varied alone; else maps over the first two."""
    claims = [record["claim"] for record in summary["verdicts"]]
    keys = [axis["key"] for axis in summary["axes"] if axis["key"] != SEED] or [SEED]
    alone = summary["design"] == "one-at-a-time"
    if alone or len(keys) == 1:
        sections = []
        for number, key in enumerate(keys):
            part = rows.filter((pc.field("axis") == key) | pc.field("axis").is_null()) if alone else rows
            files = [f"figures/curves_{number}.png", f"figures/verdicts_{number}.png"]
            draw_curves(part, key, folder / files[0])
            draw_verdicts(part, key, claims, folder / files[1])
            words = f"What was measured, and the verdict of most points, along {key}."
            sections.append(Section(f"Along {key}", words, figures=files))
        return sections
    x, y, *others = keys
    files = ["figures/plane.png", "figures/verdicts.png"]
    draw_plane(rows, x, y, folder / files[0])
    draw_verdict_planes(rows, x, y, claims, folder / files[1])
    words = "Medians, and verdicts of most points, over the first two axes"
    words += f"; all values of {', '.join(others)} are taken together." if others else "."
    return [Section(f"Over {x} and {y}", words, figures=files)]


def _survival(summary: Mapping[str, Any]) -> Section:
    names = {
        "claim": "claim",
        "axis": "axis",
        "base": "from",
        "until": "to",
        "at_base": "at the base",
        "fails_at": "fails first at",
        "inconclusive_at": "inconclusive first at",
        "silent_at": "silent first at",
        "verdicts": "verdicts",
    }
    rows = [{title: record[key] or ABSENT for key, title in names.items()} for record in summary["survival"]]
    return Section(
        "Survival",
        "From the base along each axis: the first value at which the claim fails in most seeds, at which it cannot be "
        "decided in most, and at which it does not speak of the run or there is none. A dash: up to the last value "
        "there is no such. An axis of words has no order, and each of its values is a path of its own.",
        rows=rows,
    )


def _failures(summary: Mapping[str, Any]) -> Section:
    rows = [
        {
            "point": record["point"],
            "values": ", ".join(f"{key} = {_shown(value)}" for key, value in record["values"].items()),
            "status": record["status"],
            "why": record["error"] or ABSENT,
        }
        for record in summary["failures"]
    ]
    return Section(
        "What did not run", "The first points that did not; the others are in rows.parquet.", rows=rows
    )


def _shown(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else label(value)
