"""The two pages of the project: of a single run, and of the claims that `mimlab reproduce` judges.

Both only arrange what they are given. Headings and sentences for the figures of a run stand in one table
here, so that a figure is introduced by the same words wherever it appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mimlab.report.numbers import format_number
from mimlab.report.page import Section, write_page

FIGURES = {
    "correlations": (
        "Correlations",
        "What the query has learned: feature-position correlations Φ and position-position correlations Υ, "
        "in units of the attention logit. Bands are ±2 standard errors, where the engine has any.",
    ),
    "attention": (
        "Attention",
        "Where the query attends, when it is masked and its own area is not wholly masked.",
    ),
    "excess_loss": (
        "Loss",
        "The query's share of the loss above its floor, the least that attention can reach, beside 1/t.",
    ),
    "photograph": (
        "Attention over the photograph",
        "The attention from the outlined patch to every patch. Each panel has its own scale.",
    ),
    "segmentation": ("Areas of the photograph", "Patches of like appearance form the areas of this world."),
    "exponents": (
        "Exponents",
        "How times grow with the number of patches P. The lines of the theory and of the paper show slopes; "
        "their heights mean nothing.",
    ),
    "gap": (
        "Information gap",
        "The information gap of each local patch: below 0 the theory predicts one phase, above it two.",
    ),
    "survey": (
        "Local patches of photographs",
        "Local queries of photographs against their information gap. Left, how deep the largest area was pushed down "
        "at half attention; right, how fast it falls at first over how fast the own area rises: above 1, two phases. "
        "The theory's boundary between one phase and two is where its line crosses 1, right of Δ_p = 0.",
    ),
}

_MOST_SIZES = 12  # different sizes of areas that are named
_STATUS = {
    "stopped": "The run ended when attention reached its target.",
    "finished": "All steps of gradient descent were done.",
    "horizon": "The run ended at its time limit, before attention reached its target.",
    "diverged": "The run diverged; the tables hold what came before.",
}


def simulation_page(
    path: str | Path,
    summary: Mapping[str, Any],
    figures: Mapping[str, Sequence[str | Path]],
    command: str,
    title: str = "One simulated run",
) -> None:
    """Page of one run, from its summary and its figures.

    `figures` maps a kind of figure (a key of `FIGURES`, or any other name) to its files; relative paths
    start at the page's folder. Verdicts are those of `summary["claims"]`.
    """
    sections = []
    for kind, files in figures.items():
        heading, sentence = FIGURES.get(kind, (kind.replace("_", " ").capitalize(), ""))
        sections.append(Section(heading, sentence, figures=files))
    phases = summary.get("phases") or []
    if phases:
        rows = [{key: phase[key] for key in ("query", "name", "start", "end")} for phase in phases]
        sections.append(Section("Phases", "Detected from the trajectory of each query.", rows=rows))
    sections += claim_sections(summary.get("claims") or [])
    status = str(summary.get("status", ""))
    lead = _STATUS.get(status, status) + _half_time(summary)
    write_page(path, title, lead, sections, command, summary_facts(summary))


def _half_time(summary: Mapping[str, Any]) -> str:
    """When half attention was reached and, of several queries, by which."""
    half_time, queries = summary.get("half_time"), summary.get("queries") or []
    if half_time is None:
        return ""
    first = next((facts["query"] for facts in queries if facts["half_time"] == half_time), None)
    who = f"by query {first} " if len(queries) > 1 and first is not None else ""
    return f" Half attention is reached {who}at time {format_number(half_time)}."


def reproduce_page(
    path: str | Path,
    verdicts: Sequence[Mapping[str, Any]],
    command: str,
    facts: Mapping[str, Any],
    lead: str = "Each claim of the theory, judged on worlds where it should hold and where it should not.",
    sections: Sequence[Section] = (),
) -> None:
    """Page of many claims: those of `sections` that have a widget, a section for each claim, in order of first
    appearance, then the other `sections`."""
    movable = [section for section in sections if section.widget is not None]
    others = [section for section in sections if section.widget is None]
    write_page(
        path,
        "What masked image modeling learns",
        lead,
        [*movable, *claim_sections(verdicts), *others],
        command,
        facts,
    )


def claim_sections(verdicts: Sequence[Mapping[str, Any]]) -> list[Section]:
    """A section per claim, holding its verdict on every world."""
    by_claim: dict[str, list[Mapping[str, Any]]] = {}
    for record in verdicts:
        by_claim.setdefault(record["claim"], []).append(record)
    return [
        Section(claim, records[0].get("statement") or "", verdicts=records)
        for claim, records in by_claim.items()
    ]


def summary_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader needs to place the run, in words; what the summary lacks is left out."""
    names = {
        "patches": "Patches P",
        "area_sizes": "Area sizes",
        "global_exponent": "Global exponent κc",
        "local_exponent": "Local exponent κs",
        "information_gap": "Information gap Δ",
        "objective": "Objective",
        "mask_ratio": "Mask ratio γ",
        "vocabulary": "Vocabulary V",
        "in_weights": "Own tokens w",
        "fp_share": "FP share",
        "pp_share": "PP share",
        "latent": "Latents",
        "loss_floor": "Loss floor",
        "phi_global_at_half_over_log_patches": "Φ global at half time / log P",
        "seed": "Seed",
        "seconds": "Seconds",
        "versions": "Versions",
    }
    facts = {label: summary[key] for key, label in names.items() if summary.get(key) is not None}
    if sizes := summary.get("area_sizes"):
        runs = [f"{size} × {count}" if count > 1 else str(size) for size, count in sizes[:_MOST_SIZES]]
        left_out = sum(count for _, count in sizes[_MOST_SIZES:])
        facts["Area sizes"] = ", ".join(runs) + (f" and {left_out} more areas" if left_out else "")
    if isinstance(latent := summary.get("latent"), Sequence):
        low, high = min(latent), max(latent)
        facts["Latents"] = low if low == high else f"{format_number(low)} to {format_number(high)}"
    return facts
