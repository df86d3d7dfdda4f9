"""Rows of a sweep on disk while it runs: one Parquet file for each piece of work that is done, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.runs import InputError
from mimlab.runs.tables import read_table, write_table
from mimlab.studies.sweep_points import RESULT_SCHEMA, table_of


class Shards:
    """The shards of a folder, which is made. A file that cannot be read is removed: its points run again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._tables: list[pa.Table] = []
        self._number = 0
        for path in sorted(folder.iterdir()):
            try:
                table = read_table(path)
                self._number = int(path.stem) + 1
            except (InputError, ValueError):
                path.unlink()
                continue
            self._tables.append(table)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of a piece of work; they are there, all of them, when this returns."""
        table = table_of(rows)
        write_table(self.folder / f"{self._number:07d}.parquet", table)
        self._tables.append(table)
        self._number += 1

    @property
    def hashes(self) -> set[str]:
        """The points that are done."""
        return {name for table in self._tables for name in table["hash"].to_pylist()}

    def joined(self) -> pa.Table:
        """All rows, each point once; columns of claims after those of RESULT_SCHEMA."""
        if not self._tables:
            return RESULT_SCHEMA.empty_table()
        whole = pa.concat_tables(self._tables, promote_options="default")
        first = {name: i for i, name in reversed(list(enumerate(whole["hash"].to_pylist())))}
        return whole.take(sorted(first.values()))
