"""The survival table as it was computed last (docs/relaxations.md), for the page of ``reproduce``: it takes an hour.

`benchmarks/record_survival.py` keeps the tables of the sweeps in ``recorded``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mimlab.runs.tables import read_json, read_table
from mimlab.studies.outcomes import Outcome
from mimlab.studies.survival import survival_command

RECORDED = Path(__file__).with_name("recorded")
TABLE, RECORD = "survival.parquet", "survival.json"
NEVER = "–"


def recorded_survival() -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Rows of survival.parquet as they were kept, and where they are from; None where there are none."""
    if not (RECORDED / TABLE).is_file():
        return None
    return read_table(RECORDED / TABLE).to_pylist(), read_json(RECORDED / RECORD)


def by_key(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row per key and a column per claim: where the claim fails first, with "?" before where it is first undecided,
    and a dash where neither happens. Of a key of words the values are listed at which it fails, or is undecided.

    >>> record = {"claim": "c", "axis": "relax.noise", "side": "above", "fails_at": "3", "inconclusive_at": "1"}
    >>> by_key([record])
    [{'key': 'noise', 'c': '?1, 3'}]
    """
    claims = list(dict.fromkeys(record["claim"] for record in records))
    rows = []
    for axis in dict.fromkeys(record["axis"] for record in records):
        row = {"key": axis.rpartition(".")[2]}
        for claim in claims:
            here = [one for one in records if (one["axis"], one["claim"]) == (axis, claim)]
            found = [word for one in here for word in _ends(one)]
            row[claim] = ", ".join(found) or (NEVER if here else "")
        rows.append(row)
    return rows


def _ends(record: Mapping[str, Any]) -> list[str]:
    fails, undecided = record["fails_at"], record["inconclusive_at"]
    if fails is None or undecided is None or record["side"] == "each":
        return [word for word, value in ((f"?{undecided}", undecided), (fails, fails)) if value is not None]
    order = [step.split(" ")[0] for step in record.get("verdicts", f"{undecided} ; {fails} ").split("; ")]
    return [f"?{undecided}", fails] if order.index(undecided) < order.index(fails) else [fails]


def as_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of docs/relaxations.md."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def survived(_: Path) -> Outcome:
    """The job: a section with the table."""
    from mimlab.report import Section

    kept = recorded_survival()
    if kept is None:
        return Outcome("survival")
    records, record = kept
    sentence = (
        "Each key of [relax] was moved alone from a base where all claims hold; the strength at which each claim fails "
        f"first in most of {record['seeds']} seeds, with ? where it cannot be decided first; a dash: up to the last "
        f"strength neither. Recorded on {record['date'][:10]} at commit {record['commit'][:12]}, not run now."
    )
    section = Section(
        "Survival: the theory with its assumptions relaxed",
        sentence,
        rows=by_key(records),
        command=survival_command("runs/survival", "survival.toml"),
    )
    return Outcome("survival", sections=[section])
