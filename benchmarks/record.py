"""What a benchmark found, and where: targets beside measurements, raw numbers, machine, commit, command."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NotHere(Exception):
    """A row cannot be measured on this machine; says what it needs."""


@dataclass(frozen=True)
class Setting:
    """How to run: ``quick`` takes tiny sizes, to see that a row works; figures go to ``folder``. ``load`` is the load
    average before the first row."""

    seed: int
    quick: bool
    folder: Path
    load: float = field(default_factory=lambda: os.getloadavg()[0])


@dataclass(frozen=True)
class Target:
    """A line of the table. ``met`` is None where a number is shown that nothing was asked of."""

    goal: str
    measured: str
    met: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """Lines of the table, what must be known to read them, and every number they come from."""

    targets: tuple[Target, ...]
    notes: tuple[str, ...]
    raw: Mapping[str, Any]


Row = Callable[[Setting], Outcome]


def result_of(name: str, row: Row, setting: Setting, command: str) -> dict[str, Any]:
    """Run a row; its outcome with all that is needed to judge it or to run it again."""
    code, began = commit(), time.perf_counter()
    outcome = row(setting)
    return {
        "name": name,
        "quick": setting.quick,
        "command": command,
        "seed": setting.seed,
        "commit": code,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - began,
        "machine": {**machine(), "load_at_start": setting.load},
        "targets": [asdict(target) for target in outcome.targets],
        "notes": outcome.notes,
        "raw": outcome.raw,
    }


def machine() -> dict[str, Any]:
    """Processor, memory and versions; ``threads`` as the environment sets them, empty where libraries choose."""
    packages = ("numpy", "scipy", "pyarrow", "torch", "transformers")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.split(":", 1)[1].split())
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The commit that is checked out, marked where the code measured differs from it; empty outside a clone."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("-modified" if _git("status", "--porcelain", "--", "src", "benchmarks/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def seconds_of(action: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of each of ``repeats`` calls, after one that is not counted."""
    action()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def shown(seconds: Sequence[float]) -> str:
    """Median and range of times, in the unit that suits them.

    >>> shown([0.040, 0.042, 0.047])
    '42 ms (40 to 47)'
    """
    unit, scale = ("ms", 1e3) if np.median(seconds) < 1 else ("s", 1.0)
    low, middle, high = (f"{scale * f(seconds):.3g}" for f in (min, np.median, max))
    return f"{middle} {unit} ({low} to {high})"


def power(number: int) -> str:
    """A number of patches, as a power of ten where it is one.

    >>> power(10**12), power(256)
    ('10^12', '256')
    """
    exponent = len(str(number)) - 1
    return f"10^{exponent}" if number == 10**exponent else f"{number:,}"


def whole_number(value: float) -> str:
    """A number of two digits, grouped in thousands.

    >>> whole_number(12345)
    '12,000'
    """
    return f"{float(f'{value:.2g}'):,.0f}"
