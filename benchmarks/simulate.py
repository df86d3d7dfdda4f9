"""Benchmarks of the simulator: `python benchmarks/simulate.py [ROW ...] [--quick] [--seed N] [--table]`.

Each row measures one promise about speed and keeps its raw numbers, with machine, commit and command, in
benchmarks/results/ROW.json; `--table` writes what those files say into docs/benchmarks.md. Nothing else may use the
machine meanwhile. The row against-dense needs PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from against_dense import against_dense
from cost import sampled_cost
from engines import mean_field, sampled
from processes import help_page, scale
from record import RESULTS, ROOT, Row, Setting, result_of
from tables import refresh

from mimlab.runs.tables import write_json

ROWS: dict[str, Row] = {
    "mean-field": mean_field,
    "scale": scale,
    "sampled": sampled,
    "sampled-cost": sampled_cost,
    "against-dense": against_dense,
    "help": help_page,
}


def main() -> int:
    """Run the rows asked for, or all; 1 where one could not run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; kept only where --results says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--table", action="store_true", help="measure nothing; rewrite the table in the page")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if given.quick and given.results is None and not given.table:
        parser.error("--quick measures nothing worth keeping; say where with --results DIR")
    folder = given.results or RESULTS
    if given.table:
        refresh(given.page, folder, list(ROWS))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in given.rows or ROWS if not _run(name, Setting(given.seed, given.quick, folder))]
    return 1 if failed else 0


def _run(name: str, setting: Setting) -> bool:
    options = ["--quick"] * setting.quick + [f"--seed {setting.seed}"] * (setting.seed != 0)
    try:
        result = result_of(
            name, ROWS[name], setting, " ".join(["python benchmarks/simulate.py", name, *options])
        )
    except ModuleNotFoundError as error:
        print(f"{name}: not measured, {error}", file=sys.stderr)
        return False
    write_json(setting.folder / f"{name}.json", result)
    for target in result["targets"]:
        print(f"{name}: {target['goal']}: {target['measured']}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
