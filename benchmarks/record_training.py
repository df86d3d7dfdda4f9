"""Keep what a reproduction with training found: `python benchmarks/record_training.py OUT [--commit HASH]`.

Copies the tables of `mimlab reproduce --with-training=full --out OUT` into the package, from where a reproduction
without training reads and judges them, and writes beside them when the last run ended, on which machine and from which
code they were made. --commit: of the code that trained, where it is not the one that is checked out. Refused are an OUT
with some of the runs only, and one that holds tables but not the runs they are of: a reproduction without training
leaves such, copies of what was recorded before, which would get a new date.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from record import commit, machine

from mimlab.runs.tables import read_json, write_json
from mimlab.studies.trained import SCHEMAS
from mimlab.studies.training_runs import RUNS, SEEDS, run_folder
from mimlab.studies.training_verdicts import COMMANDS, NETWORKS, RECORD, RECORDED


def main(arguments: list[str], home: Path = RECORDED) -> int:
    """Keep the tables of a run in `home`; 2 where it has none, or none of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("out", type=Path)
    parser.add_argument("--commit", default=None)
    given = parser.parse_args(arguments)
    tables = {name: given.out / NETWORKS / f"{name}.parquet" for name in SCHEMAS}
    if (missing := _missing(tables.values())) is not None:
        return _refuse(missing)
    names = [run.name for run in RUNS]
    summaries = [
        given.out / NETWORKS / run_folder(name, seed) / "summary.json" for name in names for seed in SEEDS
    ]
    if (missing := _missing(summaries)) is not None:
        return _refuse(missing)
    home.mkdir(exist_ok=True)
    for path in tables.values():
        shutil.copy2(path, home / path.name)
    ended = max(path.stat().st_mtime for path in summaries)
    record = {
        "date": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
        "commit": given.commit or commit(),
        "command": COMMANDS[True],
        "runs": names,
        "seeds": list(SEEDS),
        "machine": machine(),
        "versions": read_json(summaries[0])["versions"],
    }
    write_json(home / RECORD, record)
    return 0


def _missing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if not path.is_file()), None)


def _refuse(missing: Path) -> int:
    print(f"{missing} is not there; give the folder of a reproduction with training", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
