"""Peak memory of one forward pass, measured in a process of its own.

The process makes the model, runs the way once on a tiny model (which loads what libraries load late), resets the
kernel's peak of resident memory (VmHWM, by /proc/self/clear_refs) and runs the way once; the peak less what was
resident before it is what the pass took. Weights and images are not in it. The allocator is told to return every block
from 64 KiB on, so that freed memory counts no longer. Linux only.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from record import NotHere
from vit import Case, Network

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TINY = Case(pixels=32, images=1, layers=1, width=24, heads=2)


def peaks(case: Case, ways: Sequence[str], seed: int) -> list[float]:
    """MB that each way's forward pass takes at its peak, a process each, one after the other."""
    if not os.access(RESET, os.W_OK):
        raise NotHere("peak memory needs Linux, and leave to write /proc/self/clear_refs")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # read when the server of processes starts
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.models.vit.modeling_vit", "mimlab.probing.capture"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        return list(fresh.map(_peak, [case] * len(ways), ways, [seed] * len(ways)))


def _peak(case: Case, way: str, seed: int) -> float:
    Network(TINY, seed).way(way)()
    action = Network(case, seed).way(way)
    gc.collect()
    before = _resident("VmRSS")
    RESET.write_text("5")
    action()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024
