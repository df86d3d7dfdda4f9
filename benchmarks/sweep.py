"""Benchmarks of sweeps: `python benchmarks/sweep.py [ROW ...] [--quick] [--seed N] [--table]`.

The row sweep runs 10,000 points of the mean field as a user would; sweep-workers runs fewer with one worker and with
each power of two up to the number of cores, in turns. Raw numbers, with machine, load, commit and command, are kept in
benchmarks/results/ROW.json; `--table` writes what those files say into docs/benchmarks.md. Nothing else may use the
machine meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from command import main
from processes import MIMLAB, timed
from record import Outcome, Row, Setting, Target, shown
from tables import block

from mimlab.runs.tables import read_json, read_table

LIMIT = 300.0  # seconds for 10,000 points
TURNS = 3
WORLD = ("--patches", "1000", "--global-exponent", "0.9", "--local-exponent", "0.3", "--engine", "mean-field")


def run(setting: Setting, per_axis: int, workers: int) -> dict[str, Any]:
    """One sweep of per_axis² points in a process of its own, files and page included; what it took, and its points."""
    arguments = [
        *("sweep", *WORLD, "--seed", str(setting.seed)),
        *("--over", f"world.local_exponent=0.1:0.6:{per_axis}"),
        *("--over", f"objective.mask_ratio=0.1:0.9:{per_axis}"),
        *("--workers", str(workers)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        taken = timed([*MIMLAB, *arguments, "--out", str(out)])
        summary = read_json(out / "summary.json")
        seconds = read_table(out / "rows.parquet")["seconds"].to_numpy()
    return {
        **taken,
        "arguments": arguments,
        "workers": workers,
        "points": summary["points"],
        "statuses": summary["statuses"],
        "point_seconds": float(np.sum(seconds)),
    }


def sweep(setting: Setting) -> Outcome:
    """10,000 points with a worker per core."""
    cores = len(os.sched_getaffinity(0))
    found = run(setting, 4 if setting.quick else 100, cores)
    goal = f"`mimlab sweep`, {found['points']:,} points of the mean field, {cores} workers: under {LIMIT:g} s"
    share = found["point_seconds"] / (cores * found["seconds"])
    note = (
        f"One process of `mimlab {' '.join(found['arguments'])} --out DIR`, page included; "
        f"{1e3 * found['point_seconds'] / found['points']:.1f} ms a point, {share:.0%} of the workers' time."
    )
    target = Target(goal, shown([found["seconds"]]), found["seconds"] < LIMIT)
    return Outcome((target,), (note,), found)


def workers(setting: Setting) -> Outcome:
    """The same sweep with one worker and with more."""
    cores = len(os.sched_getaffinity(0))
    numbers = [2**k for k in range(cores.bit_length()) if 2**k <= cores]
    order = np.random.default_rng(setting.seed)
    taken: dict[int, list[float]] = {number: [] for number in numbers}
    runs = []
    for _ in range(1 if setting.quick else TURNS):
        for number in order.permutation(numbers).tolist():
            runs.append(run(setting, 4 if setting.quick else 40, number))
            taken[number].append(runs[-1]["seconds"])
    one = float(np.median(taken[1]))
    targets = [
        Target(
            f"`mimlab sweep`, {runs[0]['points']:,} points, workers: {number}",
            f"{shown(seconds)}, {one / float(np.median(seconds)):.2f} times as fast as one",
        )
        for number, seconds in taken.items()
    ]
    note = f"Median and range of {len(taken[1])} processes each, in turns, start, figures and page included."
    return Outcome(tuple(targets), (note,), {"runs": runs})


ROWS: dict[str, Row] = {"sweep": sweep, "sweep-workers": workers}

if __name__ == "__main__":
    sys.exit(main("benchmarks/sweep.py", __doc__ or "", ROWS, block))
