"""Results on disk: whole files, plain JSON, and clear words for files that cannot be read."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mimlab.runs import InputError
from mimlab.runs.tables import read_json, read_table, to_json, write_json, write_table


def test_table_comes_back(tmp_path):
    table = pa.table({"query": [0, 1], "time": [0.0, float("nan")], "kind": ["feature", None]})
    write_table(tmp_path / "a.parquet", table)
    back = read_table(tmp_path / "a.parquet")
    assert back.schema == table.schema
    assert back["query"].to_pylist() == [0, 1]
    assert np.isnan(back["time"].to_pylist()[1])
    assert back["kind"].to_pylist() == ["feature", None]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    with pytest.raises(AttributeError):
        write_table(tmp_path / "a.json", "no table")
    assert read_json(tmp_path / "a.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_json_keeps_order_and_has_no_infinities(tmp_path):
    value = {
        "z": np.float64(0.5),
        "a": [np.int64(3), float("inf"), -np.inf, np.float32("nan")],
        "m": {"array": np.array([[1.0, np.nan]]), "flag": np.bool_(True), "path": Path("x/y"), "none": None},
        "Δ": (1, 2),
    }
    write_json(tmp_path / "a.json", value)
    assert list(read_json(tmp_path / "a.json")) == ["z", "a", "m", "Δ"]
    assert read_json(tmp_path / "a.json") == {
        "z": 0.5,
        "a": [3, None, None, None],
        "m": {"array": [[1.0, None]], "flag": True, "path": "x/y", "none": None},
        "Δ": [1, 2],
    }
    assert "Δ" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(to_json(value)) == read_json(tmp_path / "a.json")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad").write_text("{")
    for read in (read_table, read_json):
        with pytest.raises(InputError, match="No such file"):
            read(tmp_path / "none")
        with pytest.raises(InputError, match="bad is not"):
            read(tmp_path / "bad")
