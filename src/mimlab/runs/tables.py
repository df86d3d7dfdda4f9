"""Results on disk: tables as Parquet, the rest as JSON, each file there whole or not at all.

JSON has no word for a value that is not finite: it becomes null, which readers must take as "no value".
Parquet keeps what it is given.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mimlab.runs.errors import InputError
from mimlab.runs.files import replacing


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically."""
    with replacing(Path(path)) as temporary:
        pq.write_table(table, temporary)


def read_table(path: str | Path) -> pa.Table:
    """The table in a Parquet file. Raises InputError where there is none."""
    try:
        with open(path, "rb") as file:
            return pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a Parquet file: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def to_json(value: object) -> str:
    """A value as JSON text, keys in the order given.

    Arrays and their scalars become lists and numbers, paths become texts, and what is not finite becomes
    null.

    >>> import numpy as np
    >>> print(to_json({"loss": np.float64(0.5), "half_time": np.nan, "sizes": (4, 2)}))
    {
      "loss": 0.5,
      "half_time": null,
      "sizes": [
        4,
        2
      ]
    }
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: object) -> None:
    """Write a value as JSON, atomically."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises InputError where there is none."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
