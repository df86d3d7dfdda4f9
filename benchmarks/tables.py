"""The benchmark page: its table and notes are made from the results kept, and stand between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimlab.runs.tables import read_json

BEGIN = "<!-- written by `python benchmarks/simulate.py --table`; do not edit -->"
END = "<!-- end of what is written -->"
MET = {True: "", False: " (missed)", None: ""}


def refresh(page: Path, folder: Path, names: Sequence[str]) -> None:
    """Rewrite what stands between the marks from the results in ``folder``. Raises ValueError without the marks."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{page} has no place for the table; it needs the lines {BEGIN!r} and {END!r}.")
    page.write_text(f"{before}{BEGIN}\n{block(folder, names)}{END}{after}", encoding="utf-8")


def block(folder: Path, names: Sequence[str]) -> str:
    """The table and the notes of all results in ``folder``, in the order of ``names``."""
    results = [read_json(path) for name in names if (path := folder / f"{name}.json").exists()]
    lines = ["", "| target | measured | machine | command |", "|---|---|---|---|"]
    for result in results:
        for target in result["targets"]:
            cells = (target["goal"], target["measured"] + MET[target["met"]], machine_of(result))
            lines.append("| " + " | ".join([*cells, f"`{result['command']}`"]) + " |")
    for result in results:
        code, _, modified = result["commit"].partition("-")
        changed = " with changes" if modified else ""
        when = f"{result['date'][:10]}, commit {code[:12]}{changed}, seed {result['seed']}"
        lines += ["", f"**{result['name']}** ({when}). " + " ".join(result["notes"])]
    return "\n".join([*lines, "", ""])


def machine_of(result: dict[str, Any]) -> str:
    """The machine in a few words."""
    machine = result["machine"]
    versions = [f"Python {machine['python']}", f"NumPy {machine['numpy']}"]
    if result["name"] == "against-dense":
        versions.append(f"PyTorch {machine['torch']}")
    return (
        f"{machine['cores']} cores, {machine['cpu']}, {machine['memory_gib']:.0f} GiB; {', '.join(versions)}"
    )
