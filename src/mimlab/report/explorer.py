"""The explorer: sliders over recorded worlds, what a query learns in each, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mimlab.report.markup import table
from mimlab.report.page import Section
from mimlab.report.widgets import Widget, choice, short, shown, slider

MOMENTS = 72
"""Recorded times of a run that the page keeps."""
MEASURES = ("attention_own", "attention_global", "phi_own", "phi_global")
_FACTS = (
    *("objective", "information_gap", "global_exponent", "mask_ratio", "latent", "half_time"),
    *("first_rates", "predicted_rates", "phases", "command"),
)


def explorer_section(
    heading: str, sentence: str, courses: pa.Table, runs: Sequence[Mapping[str, Any]], patches: int
) -> Section:
    """The explorer as a part of a page.

    Parameters
    ----------
    courses
        A row per run and recorded time, by run and time: `run` (an index into `runs`), `time`, the columns of
        `MEASURES`, null where an engine has none their standard errors with `_se` behind their names, and `phase`, the
        name of the one that the time lies in.
    runs
        Of each run `objective, information_gap, global_exponent, mask_ratio, latent` ([L, U]), `half_time`,
        `first_rates` (initial fall of Φ_global / initial rise of Φ_own) and `predicted_rates` (the theory's for z = 1),
        each null where there is none, `phases` (`name, start, end` of each) and `command`. The values of an
        objective's runs form a whole grid.
    patches
        P, the same in all.

    Raises ValueError where a run has no recorded times.
    """
    shown_runs = [
        _course(courses, index) | {key: run[key] for key in _FACTS} for index, run in enumerate(runs)
    ]
    widget = Widget(
        "explorer",
        _controls(shown_runs),
        {"patches": patches, "runs": shown_runs},
        "The sliders need JavaScript; the figures of the claims below show single runs.",
        plotly=True,
    )
    return Section(heading, sentence, widget=widget)


def kept(count: int) -> list[int]:
    """Which of so many recorded times a page keeps: the first, the last, and evenly between.

    >>> kept(3), len(kept(1000)), kept(1000)[-1]
    ([0, 1, 2], 72, 999)
    """
    places = np.linspace(0, count - 1, min(count, MOMENTS)).round()
    return [int(place) for place in places]


def _course(courses: pa.Table, index: int) -> dict[str, Any]:
    rows = courses.filter(pc.equal(courses["run"], index))
    if not rows.num_rows:
        raise ValueError(f"run {index} has no recorded times")
    rows = rows.take(kept(rows.num_rows))
    course: dict[str, Any] = {name: short(rows[name].to_pylist()) for name in ("time", *MEASURES)}
    course["phase"] = rows["phase"].to_pylist()
    for name in MEASURES:
        errors = short(rows[f"{name}_se"].to_pylist())
        if any(error is not None for error in errors):
            course[f"{name}_se"] = errors
    return course


def _controls(runs: Sequence[Mapping[str, Any]]) -> str:
    kind = "explorer"
    rows = [
        {
            "objective": run["objective"],
            "information_gap": run["information_gap"],
            "γ": run["mask_ratio"],
            "latents": " to ".join(f"{end:g}" for end in dict.fromkeys(run["latent"])),
            "half time": run["half_time"],
            "phases": ", ".join(phase["name"] for phase in run["phases"]) or None,
            "own area at the end": run["attention_own"][-1],
            "global area at the end": run["attention_global"][-1],
        }
        for run in runs
    ]
    controls = [
        choice(kind, "objective", "Objective"),
        choice(kind, "latent", "Latents z"),
        slider(kind, "gap", "Information gap Δ"),
        slider(kind, "ratio", "Mask ratio γ"),
        slider(kind, "moment", "Time"),
    ]
    terms = [
        ("attention_own", "Attention on the own area", "own"),
        ("attention_global", "Attention on the global area", "global"),
        ("phi_own", "Φ<sub>own</sub>", "own"),
        ("phi_global", "Φ<sub>global</sub>", "global"),
    ]
    return (
        f'<div class="controls">{"".join(controls)}</div>\n'
        '<div class="plot" role="img" data-shown="plot"></div>\n'
        '<ul class="phases" data-shown="phases"></ul>\n'
        f'{shown(terms)}\n<p class="said" role="status" data-shown="said"></p>\n'
        '<pre><code data-shown="command"></code></pre>\n'
        f"<details><summary>All {len(rows)} runs as a table</summary>{table(rows)}</details>"
    )
