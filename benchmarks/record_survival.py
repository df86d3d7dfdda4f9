"""Keep what the sweeps of the survival table found: `python benchmarks/record_survival.py SURVIVAL ADAM`.

Copies survival.parquet of `mimlab.studies.survival.survival_command`'s run and rows.parquet of both runs into the
package, from where `mimlab reproduce` shows the table, and writes beside them from which code, when and on which
machine.
--commit: of the code that ran, where it is not the one that is checked out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from record import commit, machine

from mimlab.runs.tables import read_json, write_json
from mimlab.studies.survived import RECORD, RECORDED, TABLE


def main(arguments: list[str], home: Path = RECORDED) -> int:
    """Keep the tables of two runs in `home`; 2 where one is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("survival", type=Path)
    parser.add_argument("adam", type=Path)
    parser.add_argument("--commit", default=None)
    given = parser.parse_args(arguments)
    tables = {
        TABLE: given.survival / TABLE,
        "survival-rows.parquet": given.survival / "rows.parquet",
        "survival-adam.parquet": given.adam / "rows.parquet",
    }
    for path in tables.values():
        if not path.is_file():
            print(f"{path} is not there; give the two sweeps of mimlab.studies.survival", file=sys.stderr)
            return 2
    for name, path in tables.items():
        shutil.copy2(path, home / name)
    summaries = [read_json(run / "summary.json") for run in (given.survival, given.adam)]
    ended = (given.survival / "summary.json").stat().st_mtime
    seeds = next(axis["values"] for axis in summaries[0]["axes"] if axis["key"] == "seed")
    record = {
        "date": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
        "commit": given.commit or commit(),
        "commands": [summary["command"] for summary in summaries],
        "seeds": len(seeds),
        "seconds": [summary["seconds"] for summary in summaries],
        "machine": machine(),
        "versions": summaries[0]["versions"],
    }
    write_json(home / RECORD, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
