"""The probe's files against docs/file-contract.md: columns, types, nulls, keys. Names are written out: a promise."""

import json
import re
import tomllib
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.runs.schema import keys
from mimlab.studies.probe_config import ProbeConfig

PAGE = (Path(__file__).parents[1] / "docs/file-contract.md").read_text()
INTEGERS, NUMBERS, TEXTS = pa.int64(), pa.float64(), pa.string()
TYPES = {INTEGERS: "int64", NUMBERS: "float64", TEXTS: "string"}
MODEL, LAYER, HEAD = {"model": TEXTS}, {"layer": INTEGERS, "module": TEXTS}, {"head": INTEGERS}
ENDS = {"low": NUMBERS, "high": NUMBERS}
TABLES: dict[str, dict[str, pa.DataType]] = {
    "probe.parquet": MODEL | {"image": TEXTS} | LAYER | HEAD | {"statistic": TEXTS, "value": NUMBERS},
    "layers.parquet": MODEL
    | LAYER
    | HEAD
    | {"statistic": TEXTS, "mean": NUMBERS}
    | ENDS
    | {"images": INTEGERS},
    "offsets.parquet": MODEL
    | {"layer": INTEGERS}
    | HEAD
    | {"dy": INTEGERS, "dx": INTEGERS, "value": NUMBERS},
    "shares.parquet": MODEL | LAYER | HEAD | {"component": TEXTS, "share": NUMBERS} | ENDS,
}
NULLS = {"probe.parquet": {"image", "head"}, "layers.parquet": {"head", "low", "high"}}
"""Columns with nulls in a run of three images, two to a batch: one batch of the full size has no interval."""
NAMES = [
    "distance",
    "distance_ratio",
    "entropy",
    "information",
    "mean_row_entropy",
    "nmi",
    "diversity",
    "spread",
    "prefix_mass",
    "locality_1",
    "locality_2",
    "locality_4",
    "head_diversity",
    "positional_distance",
    "positional_distance_ratio",
    "positional_entropy",
    "positional_information",
    "positional_mean_row_entropy",
    "positional_nmi",
    "positional_diversity",
    "positional_spread",
]
SUMMARY = [
    "status",
    "models",
    "images",
    "source",
    "skipped",
    "warnings",
    "baselines",
    "command",
    "seconds",
    "images_per_second",
    "versions",
]
LAYER_KEYS = ["layer", "module", "heads", "grid", "prefix", "patch_size", "windows"]
COMPONENTS = {"PP", "FP", "FF", "key position", "key content", "query content x key position", "rest"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run of everything, on three images and a broken one."""
    home = tmp_path_factory.mktemp("contract")
    (home / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"{number}.png")
    (home / "images" / "broken.png").write_bytes(b"nothing")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**small, image_size=32, patch_size=8)).save_pretrained(home / "vit")
    more = ["--statistics", "all", "--shares", "--permutations", "3", "--batch-size", "2"]
    typed = ["probe", str(home / "vit"), "--images", str(home / "images"), *more, "--out", str(home / "run")]
    patched = pytest.MonkeyPatch()
    patched.setattr("mimlab.studies.probe._draw", lambda *_: [])
    assert run(application("probe"), typed) == 0
    patched.undo()
    return home / "run"


def rows(title: str) -> list[list[str]]:
    """Cells of the first table below a heading, its head left out; names without their backticks."""
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert found is not None, f"there is no section {title}"
    lines = [line for line in found[1].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [[name.strip("`"), *rest] for name, *rest in cells]


@pytest.mark.parametrize("name", TABLES)
def test_columns_types_and_nulls(name, folder):
    table = pq.read_table(folder / name)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == TABLES[name]
    assert {one for one in table.column_names if table[one].null_count} == NULLS.get(name, set())
    assert [(one, kind) for one, kind, *_ in rows(name)] == [(k, TYPES[v]) for k, v in TABLES[name].items()]
    assert {one for one, _, null, _ in rows(name) if null} >= NULLS.get(name, set())


def test_rows_of_the_probe(folder):
    """A row of every image, layer, head and statistic of a model and of its random twin, counted from 0."""
    table = pq.read_table(folder / "probe.parquet").to_pylist()
    model = str(folder.parent / "vit")
    names = [f"{number}.png" for number in range(3)]
    expected = set()
    for one in (model, f"{model} (random weights)"):
        for layer in (0, 1):
            module = f"layers.{layer}.attention"
            for statistic in NAMES:
                heads = [None] if statistic == "head_diversity" else [0, 1]
                images = [None] if statistic.startswith("positional_") else names
                expected |= {(one, i, layer, module, head, statistic) for i in images for head in heads}
    found = [tuple(row[key] for key in list(row)[:-1]) for row in table]
    assert set(found) == expected
    batches = [row for row in found if row[1] is None]
    assert len(found) - len(batches) == len({row for row in found if row[1] is not None})
    assert len(batches) == 2 * len(set(batches))
    assert {(row["statistic"]) for row in pq.read_table(folder / "layers.parquet").to_pylist()} == set(NAMES)
    assert set(pq.read_table(folder / "shares.parquet")["component"].to_pylist()) == COMPONENTS


def test_keys_of_the_summary(folder):
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert list(summary) == SUMMARY == [name for name, *_ in rows("summary.json of the probe")]
    (model,) = summary["models"]
    assert list(model) == ["name", "parameters", "layers"]
    assert [list(layer) for layer in model["layers"]] == [LAYER_KEYS] * 2
    assert model["layers"][1]["grid"] == [4, 4] and model["layers"][1]["prefix"] == 1
    assert summary["images"] == 3
    assert [name for name, _ in summary["skipped"]] == ["broken.png"]
    assert set(summary["baselines"][0]) == {"model", "layer", "statistic", "uniform", "identity", "random"}
    told = PAGE[PAGE.index("### summary.json of the probe") :]
    for key in ("parameters", *LAYER_KEYS, *summary["baselines"][0]):
        assert re.search(rf"\b{key}\b", told), key


def test_the_configuration_is_whole_and_documented(folder):
    config = tomllib.loads((folder / "config.toml").read_text())
    defaults = {key.name: key.default for key in keys(ProbeConfig)}
    assert set(config) == set(defaults) - {"layers", "heads", "checkpoint_heads"}
    documented = {name: default for name, _, default, _ in rows("config.toml of the probe")}
    assert documented == {
        name: "" if value is None or value is MISSING else json.dumps(value)
        for name, value in defaults.items()
    }


def test_every_key_but_the_models_is_a_flag(capsys):
    assert run(application("probe"), ["probe", "--help"]) == 0
    told = capsys.readouterr().out
    for key in keys(ProbeConfig):
        assert key.name == "models" or f"--{key.name.replace('_', '-')}" in told
