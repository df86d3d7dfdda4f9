"""What the page says of the probe's cost: a table of `core`, one of `all`, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tables import MET, machine_of, origin_of

from mimlab.runs.tables import read_json

AT_MOST: dict[int, dict[str, float]] = {
    197: {"time": 1.10, "aim": 1.02, "memory": 1.15, "gpu": 1.15},
    1025: {"time": 1.26, "aim": 1.10, "memory": 1.15, "gpu": 1.3},
    4097: {"time": 1.48, "aim": 1.24, "memory": 1.15, "gpu": 1.5},
}
"""What is asked of `core`, by tokens: ratios to the plain forward pass."""
GPU_ROW = "probe-gpu"
QUIET = 1.0
"""Load average above which a machine does something else."""
TITLES = {
    "compiled": '`method="compiled"` (the default)',
    "tiles": '`method="tiles"`',
    "eager": "today: `eager`, `output_attentions`, statistics afterwards",
    "hooks": "today: `eager`, statistics in forward hooks",
}
OPEN = "**{name}**: open; `python benchmarks/probe.py {name}` fills it."
THREADS = {"one": "one thread", "all": "all threads"}
Result = Mapping[str, Any]


def shown_ratio(ratio: Mapping[str, float]) -> str:
    """A median and its interval.

    >>> shown_ratio({"median": 1.034, "low": 1.02, "high": 1.05})
    '1.03 (1.02 to 1.05)'
    """
    return "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)


def block(folder: Path, names: Sequence[str]) -> str:
    """Both tables and the notes, of the results in ``folder``; what was not measured is left open."""
    found = {name: read_json(path) for name in names if (path := folder / f"{name}.json").exists()}
    cpu = {tokens: found.get(f"probe-{tokens}") for tokens in AT_MOST}
    gpu = found.get(GPU_ROW)
    lines = ["", *_head("`core`")]
    lines.append(_row("**time, CPU**", lambda n: f"≤ {AT_MOST[n]['time']:.2f}, aim {AT_MOST[n]['aim']:.2f}"))
    lines += [_time(cpu, way, threads) for way in ("core, compiled", "core, tiles") for threads in THREADS]
    lines += [_time(cpu, way, "all") for way in ("eager", "hooks")]
    lines.append(_row("**peak memory over plain, CPU**", lambda n: f"≤ {AT_MOST[n]['memory']:.2f}"))
    lines += [_memory(cpu, way) for way in ("core, compiled", "core, tiles", "eager", "hooks")]
    lines.append(_row("**time, GPU, bfloat16**", lambda n: f"≤ {AT_MOST[n]['gpu']:.2f}"))
    lines += [_on_gpu(gpu, "core, triton", '`method="triton"`'), _on_gpu(gpu, "hooks", TITLES["hooks"])]
    lines += ["", *_head("`all`")]
    ways = ("all, compiled", "all, tiles")
    lines += [_time(cpu, way, "all") for way in ways] + [_memory(cpu, way) for way in ways]
    lines.append(_on_gpu(gpu, "all, triton", 'time, GPU, `method="triton"`'))
    for name in names:
        lines += ["", note_of(found[name]) if name in found else OPEN.format(name=name)]
    return "\n".join([*lines, "", ""])


def note_of(result: Result) -> str:
    """What was run, on what, and how quiet it was."""
    machine, raw = result["machine"], result["raw"]
    load = machine["load_at_start"]
    quiet = "" if load <= QUIET else ": **not a quiet machine**, so the ratios are not to be trusted"
    small = "tiny sizes, **no measurement**; " if result["quick"] else ""
    where = (
        f"{machine_of(result, 'torch', 'transformers')}; load average {load:.2f} before the first row{quiet}"
    )
    what = f"{raw['gpu']}; {where}" if result["name"] == GPU_ROW else f"{_sizes(raw)} {where}"
    return f"**{result['name']}** ({origin_of(result)}; `{result['command']}`). {small}{what}."


def _sizes(raw: Mapping[str, Any]) -> str:
    case, timing, memory = raw["case"], raw["timing"], raw["memory"]
    plain = ", ".join(
        f"{np.median(timed['taken']['plain']['seconds']):.3g} s on {_some(timed['threads'], 'thread')}"
        for timed in timing.values()
    )
    turns = {way: len(taken["seconds"]) for way, taken in timing["all"]["taken"].items()}
    return (
        f"{_some(case['images'], 'image')} of {case['pixels']} px, {case['layers']} layers; plain takes {plain}; "
        f"{turns['plain']} turns, {turns['hooks']} of `all` and of today's ways. Memory: {memory['case']['layers']} "
        f"layers, plain takes {min(memory['mb']['plain']):.0f} MB."
    )


def _some(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _head(title: str) -> list[str]:
    return [_row(title, lambda n: f"N = {n}"), "|---|" + "---|" * len(AT_MOST)]


def _row(title: str, cell: Callable[[int], str]) -> str:
    return "| " + " | ".join([title, *map(cell, AT_MOST)]) + " |"


def _time(found: Mapping[int, Result | None], way: str, threads: str) -> str:
    def cell(tokens: int, result: Result) -> str:
        ratio = result["raw"]["timing"][threads]["ratios"].get(way)
        if ratio is None:
            return "no compiler"
        return shown_ratio(ratio) + _missed(way, ratio["median"], AT_MOST[tokens]["time"])

    return _row(f"{_title(way)}, {THREADS[threads]}", _or_open(found, cell))


def _memory(found: Mapping[int, Result | None], way: str) -> str:
    def cell(tokens: int, result: Result) -> str:
        mb = result["raw"]["memory"]["mb"]
        if way not in mb:
            return "no compiler"
        over = min(mb[way]) / min(mb["plain"])
        return f"{over:.2f}" + _missed(way, over, AT_MOST[tokens]["memory"])

    title = f"{_title(way)}, peak memory" if way.startswith("all") else _title(way)
    return _row(title, _or_open(found, cell))


def _on_gpu(result: Result | None, way: str, title: str) -> str:
    if result is None:
        return _row(title, lambda _: "open")

    def cell(tokens: int) -> str:
        ratio = result["raw"][str(tokens)]["ratios"][way]
        return shown_ratio(ratio) + _missed(way, ratio["median"], AT_MOST[tokens]["gpu"])

    return _row(title, cell)


def _or_open(found: Mapping[int, Result | None], cell: Callable[[int, Result], str]) -> Callable[[int], str]:
    def filled(tokens: int) -> str:
        result = found[tokens]
        return "open" if result is None else cell(tokens, result)

    return filled


def _title(way: str) -> str:
    return TITLES[way.rpartition(", ")[2]]


def _missed(way: str, value: float, limit: float) -> str:
    return MET[value <= limit] if way.startswith("core") else ""
