"""Whole commands, timed from outside as a shell would run them: start, imports, work, end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from record import Outcome, Setting, Target, shown

HELP_LIMIT = 0.5  # seconds
SCALE_LIMIT = 5.0
MIMLAB = (sys.executable, "-m", "mimlab")


def timed(arguments: Sequence[str]) -> dict[str, float]:
    """Run a command to its end: wall and processor seconds, largest memory in MB. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        child = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{output.read().decode()}")
    return {
        "seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1024,
    }


def help_page(setting: Setting) -> Outcome:
    """`mimlab --help`."""
    timed([*MIMLAB, "--help"])  # files into the cache
    runs = [timed([*MIMLAB, "--help"]) for _ in range(2 if setting.quick else 15)]
    seconds = [run["seconds"] for run in runs]
    met = bool(np.median(seconds) < HELP_LIMIT)
    target = Target(f"`mimlab --help`: under {HELP_LIMIT:g} s", shown(seconds), met)
    return Outcome((target,), (f"Median and range of {len(runs)} processes.",), {"runs": runs})


def scale(setting: Setting) -> Outcome:
    """`mimlab scale` in mean field, its files, figure and page included."""
    points, high = (3, "1e6") if setting.quick else (9, "1e12")
    world = ["--global-exponent", "0.9", "--local-exponent", "0.3", "--engine", "mean-field"]
    latent = ["--latent-low", "0.5", "--latent-high", "1.5"]
    span = ["--patches", "1e4", high, "--points", str(points)]
    arguments = ["scale", *world, *latent, *span]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(1 if setting.quick else 6):
            runs.append(timed([*MIMLAB, *arguments, "--out", str(Path(folder, str(index)))]))
    kept = runs if setting.quick else runs[1:]
    seconds = [run["seconds"] for run in kept]
    goal = f"`mimlab scale --patches 1e4 {high}`, {points} points: under {SCALE_LIMIT:g} s"
    met = bool(np.median(seconds) < SCALE_LIMIT)
    note = (
        f"Median and range of {len(kept)} processes of `mimlab {' '.join(arguments)} --out DIR`; "
        f"{max(run['memory_mb'] for run in kept):.0f} MB at most."
    )
    return Outcome((Target(goal, shown(seconds), met),), (note,), {"arguments": arguments, "runs": runs})
