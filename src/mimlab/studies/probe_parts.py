"""What a probe run has measured so far, batch by batch: kept as files, and put together at the end.

A part is one batch of images in one model. Parts are whole or not there, so a run that was killed goes on after
its last one; tables are put together from the parts in order, so they do not depend on where it was killed.
Means and intervals come from each part's moments (count, mean, sum of squared deviations), merged by Chan's
formula; no more than one part is in memory.

What would mislead: the positional statistics average the map over a batch, and a smaller batch leaves more of each
image in it. Their means are over the batches of the largest size alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mimlab.report.probe_tables import LAYERS_SCHEMA
from mimlab.runs.tables import read_json, read_table, write_json, write_table
from mimlab.statistics.intervals import student_width

PROBE_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("image", pa.string()),
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("statistic", pa.string()),
        ("value", pa.float64()),
    ]
)
OFFSETS_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("layer", pa.int64()),
        ("head", pa.int64()),
        ("dy", pa.int64()),
        ("dx", pa.int64()),
        ("value", pa.float64()),
    ]
)
MOMENTS_SCHEMA = pa.schema(
    [
        ("layer", pa.int64()),
        ("module", pa.string()),
        ("head", pa.int64()),
        ("statistic", pa.string()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("squares", pa.float64()),
    ]
)
"""Of the values of one part: how many, their mean, and the sum of squared deviations from it."""

POSITIONAL = "positional_"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """One batch in one model.

    tables: by kind: "probe" (PROBE_SCHEMA), "moments", and as far as asked for "offsets" (OFFSETS_SCHEMA, means
    over the batch) and "shares" (of each image); none where no image of the batch could be used. skipped: files
    left out, with reasons.
    """

    tables: Mapping[str, pa.Table]
    images: int
    skipped: Sequence[Sequence[str]]
    seconds: float = 0.0


class Parts(Protocol):
    """Where the parts of a run are, by number of the model."""

    def done(self, model: int) -> int:
        """How many parts of a model there are."""

    def add(self, model: int, part: Part) -> None:
        """Keep the next part of a model."""

    def of(self, model: int, kind: str | None = None) -> Iterator[Part]:
        """The parts of a model, in order, with at least their tables of one kind."""


class PartsInMemory:
    """Parts in a dictionary."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Part]] = {}

    def done(self, model: int) -> int:
        """How many parts of a model there are."""
        return len(self._parts.get(model, ()))

    def add(self, model: int, part: Part) -> None:
        """Keep the next part of a model."""
        self._parts.setdefault(model, []).append(part)

    def of(self, model: int, kind: str | None = None) -> Iterator[Part]:
        """The parts of a model, in order."""
        return iter(self._parts.get(model, ()))


class PartsInFolder:
    """Parts as files: tables as Parquet, then a JSON file, with which the part is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._done = Counter(int(file.name.split("-")[0]) for file in folder.glob("*.json"))

    def done(self, model: int) -> int:
        """How many parts of a model there are."""
        return self._done[model]

    def add(self, model: int, part: Part) -> None:
        """Keep the next part of a model."""
        file = self._file(model, self._done[model])
        for kind, table in part.tables.items():
            write_table(file.with_suffix(f".{kind}.parquet"), table)
        said = {"tables": list(part.tables), "images": part.images, "skipped": part.skipped}
        write_json(file, said | {"seconds": part.seconds})
        self._done[model] += 1

    def of(self, model: int, kind: str | None = None) -> Iterator[Part]:
        """The parts of a model, in order, with their tables of one kind."""
        for number in range(self._done[model]):
            file = self._file(model, number)
            said = read_json(file)
            kinds = [one for one in said.pop("tables") if one == kind]
            yield Part({one: read_table(file.with_suffix(f".{one}.parquet")) for one in kinds}, **said)

    def _file(self, model: int, number: int) -> Path:
        return self._folder / f"{model:03d}-{number:07d}.json"


def moments_of(
    values: Mapping[str, Array], layers: Sequence[tuple[int, str]], heads: Sequence[Sequence[int]]
) -> pa.Table:
    """Moments over images of each head, and of the mean over heads in each image: MOMENTS_SCHEMA.

    values: (images, layers, heads) by statistic, or (images, layers) for one that speaks of a layer. layers: number
    and module. heads: numbers of each layer's heads.
    """
    keys: list[tuple[int, str, int | None, str]] = []
    columns: list[Array] = []
    for place, (layer, module) in enumerate(layers):
        for name, found in values.items():
            own = found[:, place]
            if own.ndim > 1:
                own = own[:, : len(heads[place])]
                keys += [(layer, module, head, name) for head in heads[place]]
                columns += list(own.T)
                own = own.mean(axis=1)
            keys.append((layer, module, None, name))
            columns.append(own)
    arrays = [pa.array(column) for column in zip(*keys, strict=True)]
    counts = [len(column) for column in columns]
    means = np.array([column.mean() for column in columns])
    squares = [np.sum((column - mean) ** 2) for column, mean in zip(columns, means, strict=True)]
    return pa.Table.from_arrays(
        [*arrays, pa.array(counts), pa.array(means), pa.array(squares)], schema=MOMENTS_SCHEMA
    )


def layers_of(model: str, parts: Iterable[Part]) -> pa.Table:
    """Means over the images of all parts with their 95% t intervals: LAYERS_SCHEMA.

    For the positional statistics means over batches. Where there is one value low and high are null; where a value
    is nan, so are its mean and interval.
    """
    keys: pa.Table | None = None
    count = mean = squares = positional = np.zeros(0)
    largest = 0
    for part in parts:
        if not part.images:
            continue
        moments = part.tables["moments"]
        n, m, s = (moments[name].to_numpy().astype(np.float64) for name in ("count", "mean", "squares"))
        if keys is None:
            keys = moments.select(["layer", "module", "head", "statistic"])
            positional = np.array([name.startswith(POSITIONAL) for name in keys["statistic"].to_pylist()])
            count, mean, squares = np.zeros_like(n), np.zeros_like(m), np.zeros_like(s)
        if part.images > largest:  # batches seen so far were too small
            count, mean, squares = (np.where(positional, 0.0, one) for one in (count, mean, squares))
            largest = part.images
        elif part.images < largest:
            n = np.where(positional, 0.0, n)
        total, delta = count + n, m - mean
        share = n / np.maximum(total, 1.0)
        used = n > 0
        mean = np.where(used, mean + delta * share, mean)
        squares = np.where(used, squares + s + delta**2 * count * share, squares)
        count = total
    if keys is None:
        return LAYERS_SCHEMA.empty_table()
    alone = count < 2
    width = student_width(squares / np.maximum(count - 1, 1), count)
    columns = {
        "model": np.full(len(count), model),
        **{key: keys[key] for key in keys.column_names},
        "mean": mean,
        "low": pa.array(mean - width, mask=alone),
        "high": pa.array(mean + width, mask=alone),
        "images": (count * np.where(positional, largest, 1)).astype(np.int64),
    }
    return pa.table(columns, schema=LAYERS_SCHEMA)


def offsets_of(parts: Iterable[Part]) -> pa.Table | None:
    """Mean weight by offset over the images of all parts: OFFSETS_SCHEMA; None where no part has it."""
    found: pa.Table | None = None
    mean, images = np.zeros(0), 0
    for part in parts:
        table = part.tables.get("offsets")
        if table is None:
            continue
        images += part.images
        value = table["value"].to_numpy()
        mean = value if found is None else mean + (value - mean) * (part.images / images)
        found = table
    if found is None:
        return None
    return found.set_column(found.column_names.index("value"), "value", pa.array(mean))


def shares_of(model: str, parts: Iterable[Part]) -> pa.Table | None:
    """Mean shares of logit variance with their intervals; None where no part has them."""
    from mimlab.probing.shares import intervals

    tables = [part.tables["shares"] for part in parts if "shares" in part.tables]
    return intervals(pa.concat_tables(tables), model) if tables else None
