"""Benchmarks run, at tiny sizes, and the page says what their results say. Nothing is timed here."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "simulate.py"
ROWS = {"mean-field": 2, "scale": 1, "sampled": 2, "sampled-cost": 2, "against-dense": 2, "help": 1}


def benchmark(*arguments):
    typed = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of every row that can run here, by name, and their folder."""
    folder = tmp_path_factory.mktemp("results")
    rows = [row for row in ROWS if row != "against-dense" or importlib.util.find_spec("torch")]
    done = benchmark(*rows, "--quick", "--results", folder, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in folder.glob("*.json")} == set(rows)
    return folder, {row: json.loads((folder / f"{row}.json").read_text()) for row in rows}


def test_every_row_keeps_what_is_needed_to_judge_it(results):
    folder, found = results
    assert (folder / "sampled_cost.png").stat().st_size > 0
    for name, result in found.items():
        assert len(result["targets"]) == ROWS[name]
        assert result["command"] == f"python benchmarks/simulate.py {name} --quick --seed 3"
        assert (result["seed"], result["quick"]) == (3, True)
        assert {"cpu", "cores", "memory_gib", "python", "numpy", "threads"} <= set(result["machine"])
        assert result["raw"] and result["notes"]


def test_numbers_of_the_rows_are_those_of_the_simulator(results):
    from mimlab import World, simulate

    _, found = results
    raw = found["mean-field"]["raw"]["constant latents"]
    world = World(patches=10**6, global_exponent=0.9, local_exponent=0.3)
    expected = simulate(world, engine="mean-field", stop_attention=0.5).summary["half_time"]
    assert raw["half_time"] == pytest.approx(expected)
    assert raw["flow_evaluations"] > 10
    for cost in found["sampled-cost"]["raw"]["costs"]:
        assert cost["size"] == cost["draws"] * cost["areas"]
        assert (cost["columns"] == cost["areas"]) == ("different" in cost["kind"])


def test_comparison_with_dense_follows_from_its_raw_numbers(results):
    _, found = results
    if "against-dense" not in found:
        pytest.skip("needs PyTorch")
    (raw,) = found["against-dense"]["raw"].values()
    errors = raw["sampled"]["error_of_time"]
    for way, ratio in raw["ratios"].items():
        assert ratio["low"] < ratio["ratio"] < ratio["high"]
        error = sum(e * e for e in errors) / len(errors)
        assert ratio["images"] * error == pytest.approx(sum(k * k for k in ratio["k"]) / len(ratio["k"]))
        assert any(step["batch"] == ratio["batch"] for step in raw["dense_steps"][way])
        for entry in raw["dense_noise"][way]:
            assert len(set(entry["crossings"])) == len(errors)


def test_page_is_rewritten_from_results(results, tmp_path):
    folder, found = results
    page = tmp_path / "page.md"
    marks = [
        line for line in (ROOT / "docs/benchmarks.md").read_text().splitlines() if line.startswith("<!--")
    ]
    page.write_text("\n".join(["before", *marks, "after"]))
    for _ in range(2):
        assert benchmark("--table", "--results", folder, "--page", page).returncode == 0
        text = page.read_text()
        assert text.startswith("before") and text.endswith("after")
        lines = [line for line in text.splitlines() if re.match(r"\| (?!target)", line)]
        assert len(lines) == sum(len(result["targets"]) for result in found.values())


def test_page_in_the_repository_is_what_its_results_give(tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/benchmarks.md").read_text())
    assert benchmark("--table", "--page", page).returncode == 0
    assert page.read_text() == (ROOT / "docs/benchmarks.md").read_text()


def test_wrong_rows_and_quick_without_a_place_are_refused():
    assert "no row spped" in benchmark("spped").stderr
    assert "--results DIR" in benchmark("--quick").stderr
