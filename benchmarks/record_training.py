"""Keep what a reproduction with training found: `python benchmarks/record_training.py OUT [--commit HASH]`.

Copies the tables of `mimlab reproduce --with-training=full --out OUT` into the package, from where a reproduction
without training reads and judges them, and writes beside them when, on which machine and from which code they were
made. --commit: of the code that trained, where it is not the one that is checked out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from record import commit, machine

from mimlab.runs.tables import read_table, write_json
from mimlab.studies.single import versions
from mimlab.studies.trained import SCHEMAS
from mimlab.studies.training_verdicts import COMMANDS, NETWORKS, RECORD, RECORDED


def main(arguments: list[str], home: Path = RECORDED) -> int:
    """Keep the tables of a run in `home`; 2 where it has none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("out", type=Path)
    parser.add_argument("--commit", default=None)
    given = parser.parse_args(arguments)
    tables = {name: given.out / NETWORKS / f"{name}.parquet" for name in SCHEMAS}
    missing = [str(path) for path in tables.values() if not path.is_file()]
    if missing:
        print(f"{missing[0]} is not there; give the folder of a reproduction with training", file=sys.stderr)
        return 2
    home.mkdir(exist_ok=True)
    for path in tables.values():
        shutil.copy2(path, home / path.name)
    looks = read_table(tables["looks"])
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": given.commit or commit(),
        "command": COMMANDS[True],
        "runs": looks["run"].unique().to_pylist(),
        "seeds": sorted(looks["seed"].unique().to_pylist()),
        "machine": machine(),
        "versions": versions(),
    }
    write_json(home / RECORD, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
