"""The command line that the benchmarks share: choose rows, run them, keep their results, write the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from record import RESULTS, ROOT, NotHere, Row, Setting, result_of
from tables import refresh

from mimlab.runs.tables import write_json

Block = Callable[[Path, Sequence[str]], str]
"""What the page says of the results of these names in a folder."""


def main(script: str, description: str, rows: Mapping[str, Row], block: Block) -> int:
    """Run the rows asked for, or all; 1 where one could not run. Each keeps its result in ROW.json."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[1])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows)}; default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; kept only where --results says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--table", action="store_true", help="measure nothing; rewrite the table in the page")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(rows):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    if given.quick and given.results is None and not given.table:
        parser.error("--quick measures nothing worth keeping; say where with --results DIR")
    folder = given.results or RESULTS
    if given.table:
        refresh(given.page, script, block(folder, list(rows)))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(given.seed, given.quick, folder)
    options = ["--quick"] * given.quick + [f"--seed {given.seed}"] * (given.seed != 0)
    missing = False
    for name in given.rows or rows:
        command = " ".join([f"python {script}", name, *options])
        try:
            result = result_of(name, rows[name], setting, command)
        except (ModuleNotFoundError, NotHere) as error:
            print(f"{name}: not measured, {error}", file=sys.stderr)
            missing = True
            continue
        write_json(folder / f"{name}.json", result)
        for target in result["targets"]:
            print(f"{name}: {target['goal']}: {target['measured']}", flush=True)
    return int(missing)
