"""Benchmarks of pretraining run at tiny sizes, and the page says what their results say. Nothing is timed here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "pretrain.py"
ROWS = {"pretrain-mae": 1, "pretrain-watching": 4}


def benchmark(*arguments):
    typed = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    done = benchmark(*ROWS, "--quick", "--results", folder, "--seed", 3)
    assert done.returncode == 0, done.stderr
    return folder, {row: json.loads((folder / f"{row}.json").read_text()) for row in ROWS}


def test_rows_keep_what_is_needed_to_judge_them(results):
    _, found = results
    for name, result in found.items():
        assert len(result["targets"]) == ROWS[name]
        assert result["command"] == f"python benchmarks/pretrain.py {name} --quick --seed 3"
        assert result["raw"] and result["notes"] and result["machine"]["torch"]


def test_the_ratio_follows_from_the_speeds(results):
    raw = results[1]["pretrain-mae"]["raw"]
    ratios = np.divide(raw["speeds"]["mimlab"], raw["speeds"]["plain"])
    assert len(ratios) == 2 and (ratios > 0).all()
    assert raw["ratio"]["median"] == pytest.approx(np.median(ratios))
    target = results[1]["pretrain-mae"]["targets"][0]
    assert target["met"] is bool(raw["ratio"]["high"] >= 1.0)


def test_the_share_of_watching_counts_every_look_of_the_schedule(results):
    from mimlab.training.config import WatchingConfig

    for objective, steps in (("simmim", 750), ("mae", 900)):
        raw = results[1]["pretrain-watching"]["raw"][objective]
        watching = WatchingConfig()
        kept = set(watching.checkpoint_steps(steps))
        looks = {step for step in range(steps + 1) if watching.due(step, steps)} | kept
        assert (raw["looks"] + raw["evaluations"], raw["evaluations"]) == (len(looks), 4)
        seconds = raw["looks"] * raw["look_seconds"] + raw["evaluations"] * raw["evaluation_seconds"]
        assert raw["share"] == pytest.approx(seconds / raw["training_seconds"])


def test_both_loops_train_the_same_network_on_the_same_crops(monkeypatch):
    """One step each from the same weights with the same masks gives the same loss."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    module = importlib.import_module("pretrain")
    record = importlib.import_module("record")
    config = module.config_of("mae", record.Setting(0, True, Path()), steps=2)
    objective, source = module.build_objective(config), module.training_source(config)
    model = module.build_mae(config.network, module.build_encoder(config.network, 0), 0.75, False, 0)
    for mine, other in zip(objective.mae.parameters(), model.parameters(), strict=True):
        assert mine.equal(other)
    assert source.batch(0).pixels.equal(module.training_source(config).batch(0).pixels)


def test_page_leaves_what_was_not_measured_open(results, tmp_path):
    folder, _ = results
    page = tmp_path / "page.md"
    lines = (ROOT / "docs/benchmarks.md").read_text().splitlines()
    begin = next(line for line in lines if line.startswith("<!-- written by `python benchmarks/pretrain.py"))
    page.write_text(f"{begin}\n<!-- end of what is written -->\n")
    assert benchmark("--table", "--results", folder, "--page", page).returncode == 0
    text = page.read_text()
    assert "**pretrain-gpu**: open; `python benchmarks/pretrain.py pretrain-gpu` fills it." in text
    assert text.count("`python benchmarks/pretrain.py pretrain-watching --quick --seed 3`") == 4


def test_page_in_the_repository_is_what_its_results_give(tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/benchmarks.md").read_text())
    assert benchmark("--table", "--page", page).returncode == 0
    assert page.read_text() == (ROOT / "docs/benchmarks.md").read_text()


def test_a_row_that_needs_a_gpu_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = benchmark("pretrain-gpu", "--quick", "--results", tmp_path)
    assert done.returncode == 1 and "it needs a CUDA GPU" in done.stderr
