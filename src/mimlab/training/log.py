"""The log of a run: `log.jsonl`, and the same numbers for TensorBoard in `tensorboard/`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from mimlab.training.checkpoints import Journal

LOG = "log.jsonl"
BOARD = "tensorboard"
TIMES = ("images_per_second", "seconds")
"""Keys of a record that depend on the machine; all others are the same whenever the run is repeated."""


class RunLog:
    """Records with `step`, written as they come. With `writes` false, in the other processes of a run, nothing is."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder = folder
        self.last: Mapping[str, Any] | None = None
        self._journal = Journal(folder / LOG)
        self._writes = writes
        self._board: Any = None

    def go_on(self, step: int) -> None:
        """Forget what was recorded after a step, -1 for all: in the log, and in every journal beside it."""
        if not self._writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.jsonl"):
            Journal(path).cut(step)
        shutil.rmtree(self.folder / BOARD, ignore_errors=True)
        for record in self._journal.records():
            self._show(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        if self._writes:
            self._journal.add(record)
            self._show(record)

    def close(self) -> None:
        """Hand TensorBoard what is left."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _show(self, record: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        self.last = record
        if self._board is None:
            self._board = SummaryWriter(str(self.folder / BOARD), flush_secs=10)
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and isfinite(value):
                self._board.add_scalar(name, value, record["step"])
