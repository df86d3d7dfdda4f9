"""Benchmarks of the probe: `python benchmarks/probe.py [ROW ...] [--quick] [--seed N] [--table]`.

Each row runs ViT-B/16 at one number of tokens, plain and with its attention measured, in turns, and keeps its raw
numbers, with machine, load, commit and command, in benchmarks/results/ROW.json; `--table` writes what those files say
into docs/benchmarks.md. Nothing else may use the machine meanwhile. The row probe-gpu needs CUDA and Triton.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from command import main
from memory import peaks
from probe_page import AT_MOST, GPU_ROW, THREADS, block, shown_ratio
from record import NotHere, Outcome, Row, Setting, Target
from turns import in_turns, ratio_of
from vit import Case, Network, Statistics

from mimlab.probing import compiled, triton_rows

CASES = {
    197: Case(pixels=224, images=8, layers=12),
    1025: Case(pixels=512, images=1, layers=12),
    4097: Case(pixels=1024, images=1, layers=2),
}
QUICK = {197: 32, 1025: 48, 4097: 64}
TURNS, FEW, GPU_TURNS = 6, 3, 30
MEMORY_LAYERS = 2


def case_of(tokens: int, setting: Setting) -> Case:
    """What to run for a column of the table."""
    tiny = Case(pixels=QUICK[tokens], images=2, layers=2, width=24, heads=2)
    return tiny if setting.quick else CASES[tokens]


def methods() -> list[str]:
    """The ways to capture on this machine's processor."""
    return ["compiled", "tiles"] if compiled.available() else ["tiles"]


def on_processor(tokens: int, setting: Setting) -> Outcome:
    """Time on one and on all threads, and peak memory, over the plain forward pass."""
    case = case_of(tokens, setting)
    core = ["plain", *(f"core, {method}" for method in methods())]
    others = [*(f"all, {method}" for method in methods()), "eager", "hooks"]
    many, few = (2, 1) if setting.quick else (TURNS, FEW)
    network = Network(case, setting.seed)
    every = torch.get_num_threads()
    timing: dict[str, Any] = {}
    for name, threads in {"all": every, "one": 1}.items():
        turns = dict.fromkeys(core, many) | (dict.fromkeys(others, few) if name == "all" else {})
        torch.set_num_threads(threads)
        ways = {way: network.way(way) for way in turns}
        for way in core if name == "all" else []:
            ways[way]()  # warms up
        taken = in_turns(ways, turns, setting.seed)
        timing[name] = {
            "threads": threads,
            "taken": taken,
            "ratios": {way: ratio_of(taken, way, "plain") for way in taken if way != "plain"},
        }
    torch.set_num_threads(every)
    del network, ways
    shallow = replace(case, layers=MEMORY_LAYERS)
    chosen = [*core, *core, *others]
    memory: dict[str, list[float]] = {way: [] for way in chosen}
    for way, peak in zip(chosen, peaks(shallow, chosen, setting.seed), strict=True):
        memory[way].append(peak)
    raw = {"case": asdict(case), "timing": timing, "memory": {"case": asdict(shallow), "mb": memory}}
    return Outcome(tuple(_targets(tokens, timing, memory)), (), raw)


def _targets(tokens: int, timing: dict[str, Any], memory: dict[str, list[float]]) -> list[Target]:
    """What is printed: of `core` beside what is asked of it, of everything else as it is."""
    most = AT_MOST[tokens]
    found = []
    for name, timed in timing.items():
        for way, ratio in timed["ratios"].items():
            asked, met = _judged(way, ratio["median"], most["time"])
            found.append(Target(f"{way}, time, {THREADS[name]}{asked}", shown_ratio(ratio), met))
    for way, mb in memory.items():
        over = min(mb) / min(memory["plain"])
        asked, met = _judged(way, over, most["memory"])
        found.append(Target(f"{way}, peak memory{asked}", f"{over:.2f}", met))
    return found


def _judged(way: str, ratio: float, limit: float) -> tuple[str, bool | None]:
    """What is asked of a way, in words, and whether it is met; only of `core` something is asked."""
    return (f", at most {limit:g}", ratio <= limit) if way.startswith("core") else ("", None)


def on_gpu(setting: Setting) -> Outcome:
    """bfloat16 with the Triton kernels, and the ways of today, over the plain forward pass; all three columns."""
    if not (torch.cuda.is_available() and triton_rows.find_triton()):
        raise NotHere("it needs a CUDA GPU and Triton")
    raw: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    found = []
    for tokens in CASES:
        case = replace(case_of(tokens, setting), layers=2 if setting.quick else 12)
        network = Network(case, setting.seed, "cuda", torch.bfloat16)
        turns = dict.fromkeys(
            ["plain", "core, triton", "all, triton", "hooks"], 3 if setting.quick else GPU_TURNS
        )
        ways = {way: partial(_to_the_end, network.way(way)) for way in turns}
        for _ in range(3):
            for action in ways.values():
                action()
        taken = in_turns(ways, turns, setting.seed)
        ratios = {way: ratio_of(taken, way, "plain") for way in taken if way != "plain"}
        memory = {way: _peak_on_gpu(action) for way, action in ways.items()}
        raw[str(tokens)] = {"case": asdict(case), "taken": taken, "ratios": ratios, "memory": memory}
        for way, ratio in ratios.items():
            asked, met = _judged(way, ratio["median"], AT_MOST[tokens]["gpu"])
            found.append(Target(f"N = {tokens}, {way}, time{asked}", shown_ratio(ratio), met))
    return Outcome(tuple(found), (), raw)


def _to_the_end(action: Any) -> Statistics:
    """A pass and all that it has queued."""
    found: Statistics = action()
    torch.cuda.synchronize()
    return found


def _peak_on_gpu(action: Any) -> float:
    """MB that a pass takes at its peak, over what is there before it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


ROWS: dict[str, Row] = {
    **{f"probe-{tokens}": partial(on_processor, tokens) for tokens in CASES},
    GPU_ROW: on_gpu,
}

if __name__ == "__main__":
    sys.exit(main("benchmarks/probe.py", __doc__ or "", ROWS, block))
