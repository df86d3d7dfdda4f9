"""Processes that run the points of a sweep: this machine's, or those of a dask scheduler that is given.

Points travel in pieces of about TARGET seconds, since a point of the mean field takes less than the messages about it.
A worker that dies takes nothing along: dask gives its piece to another. Where several die over a piece, one of its
points may be why, or one that was beside it; at the end its points run again one by one, each with nothing beside it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimlab.runs import InputError
from mimlab.runs.checks import installed, whole_number
from mimlab.studies.sweep_points import Work, failed, run_points

if TYPE_CHECKING:
    from distributed import Client, Future

TARGET = 1.0  # seconds that a piece of work takes
MOST_IN_PIECE = 500
WAIT = 10.0  # seconds for a scheduler and its first worker to answer


def check_workers(number: int | None, scheduler: str | None) -> None:
    """Raises InputError for workers that cannot be had, before anything is written."""
    installed("sweep", ["distributed"], "sweep")
    if number is not None:
        whole_number("sweep: workers", number)
        if scheduler is not None:
            raise InputError("sweep: --workers is for this machine; a scheduler brings its own, leave it out")


@contextmanager
def processes(number: int | None, scratch: Path) -> Iterator[Client]:
    """A client of processes on this machine, one per core unless `number` says otherwise; `scratch` is for what they
    spill, and is removed."""
    from distributed import Client, LocalCluster

    cores = len(os.sched_getaffinity(0))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with ExitStack() as opened:
            with _no_interrupts():
                cluster = LocalCluster(
                    n_workers=number or cores,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    scheduler_kwargs={
                        "dashboard_address": "127.0.0.1:0"
                    },  # it insists on a port: any, and here
                    silence_logs=logging.CRITICAL,
                    local_directory=str(scratch),
                )
                opened.enter_context(cluster)
                client = opened.enter_context(Client(cluster, set_as_default=False))
            yield client
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block ends. Threads and processes that are started inside never see it, now or later: on a
    terminal it goes to all of them, and the command alone should answer, and end the others."""
    resource_tracker.ensure_running()  # Python's own; its start would lift the block for the thread that asks for it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of a dask scheduler. Raises InputError where it or its workers cannot be used."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"sweep: no dask scheduler answers at {scheduler} ({_first_line(error)}); start one with dask scheduler"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError:
            raise InputError(
                f"sweep: the scheduler at {scheduler} has no workers; start some with dask worker {scheduler}"
            ) from None
        _refuse_other_versions(client, scheduler)
        yield client


def _refuse_other_versions(client: Client, scheduler: str) -> None:
    """Raises InputError for workers that lack mimlab, or have another version."""
    from mimlab import __version__

    def version() -> (
        str | None
    ):  # in here, so that it travels whole: a worker may have no mimlab to find it in
        try:
            import mimlab
        except ImportError:
            return None
        return mimlab.__version__

    for worker, found in client.run(version).items():
        if found != __version__:
            raise InputError(
                f"sweep: worker {worker} of {scheduler} has {f'mimlab {found}' if found else 'no mimlab'}, this is "
                f"{__version__}; install the same there"
            )


def carry_out(client: Client, work: Sequence[Work], take: Callable[[list[dict[str, Any]]], None]) -> None:
    """Run all work; `take` is called with the rows of each piece when it is done. Raises OSError where the scheduler
    is lost."""
    from distributed import KilledWorker, as_completed

    waiting, suspects = deque(work), deque[Work]()
    running: dict[str, list[Work]] = {}
    lanes = 2 * max(1, sum(client.nthreads().values()))  # the next piece is there when one is done
    done = as_completed(loop=client.loop)
    each = TARGET  # seconds a point, until there is one to tell

    def send(piece: list[Work]) -> None:
        future: Future = client.submit(run_points, piece, pure=False)
        running[future.key] = piece
        done.add(future)

    def send_next() -> None:
        size = min(MOST_IN_PIECE, max(1, int(TARGET / each)), max(1, ceil(len(waiting) / lanes)))
        if waiting:
            send([waiting.popleft() for _ in range(min(size, len(waiting)))])
        elif suspects and not running:
            send([suspects.popleft()])

    for _ in range(lanes):
        send_next()
    alone = False
    for future in done:
        piece = running.pop(future.key)
        error = (
            future.exception()
            if future.status != "cancelled"
            else OSError("sweep: the scheduler is gone; --resume goes on")
        )
        if error is None:
            rows, seconds = future.result()
            each = max(1e-6, seconds / len(piece) if each == TARGET else (each + seconds / len(piece)) / 2)
            take(rows)
        elif not isinstance(error, KilledWorker):
            raise error
        elif alone:
            take([failed(piece[0][0], "failed", "each worker that ran it died; it may need more memory")])
        else:
            suspects.extend(piece)
        alone = not waiting and not running  # whatever is sent from here on has all workers to itself
        send_next()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
