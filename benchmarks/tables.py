"""The benchmark page: its tables and notes are made from the results kept, and stand between marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimlab.runs.tables import read_json

BEGIN = "<!-- written by `python {script} --table`; do not edit -->"
END = "<!-- end of what is written -->"
LIBRARIES = {"torch": "PyTorch"}
MET = {True: "", False: " (missed)", None: ""}


def refresh(page: Path, script: str, text: str) -> None:
    """Put ``text`` between the marks of ``script``. Raises ValueError without the marks."""
    begin = BEGIN.format(script=script)
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{page} has no place for the table; it needs the lines {begin!r} and {END!r}.")
    page.write_text(f"{before}{begin}\n{text}{END}{after}", encoding="utf-8")


def block(folder: Path, names: Sequence[str]) -> str:
    """The table and the notes of all results in ``folder``, in the order of ``names``."""
    results = [read_json(path) for name in names if (path := folder / f"{name}.json").exists()]
    lines = ["", "| target | measured | machine | command |", "|---|---|---|---|"]
    for result in results:
        for target in result["targets"]:
            machine = machine_of(result, *["torch"] * (result["name"] == "against-dense"))
            cells = (target["goal"], target["measured"] + MET[target["met"]], machine)
            lines.append("| " + " | ".join([*cells, f"`{result['command']}`"]) + " |")
    for result in results:
        lines += ["", f"**{result['name']}** ({origin_of(result)}). " + " ".join(result["notes"])]
    return "\n".join([*lines, "", ""])


def origin_of(result: dict[str, Any]) -> str:
    """When a result was measured, of which code and with which seed."""
    code, _, modified = result["commit"].partition("-")
    changed = " with changes" if modified else ""
    return f"{result['date'][:10]}, commit {code[:12]}{changed}, seed {result['seed']}"


def machine_of(result: dict[str, Any], *packages: str) -> str:
    """The machine in a few words, with the versions of Python, NumPy and the packages named."""
    machine = result["machine"]
    shown = {"python": "Python", "numpy": "NumPy", **{name: LIBRARIES.get(name, name) for name in packages}}
    versions = ", ".join(f"{title} {machine[name]}" for name, title in shown.items())
    return f"{machine['cores']} cores, {machine['cpu']}, {machine['memory_gib']:.0f} GiB; {versions}"
