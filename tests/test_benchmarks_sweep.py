"""Benchmarks of sweeps run at tiny sizes, and the page says what their results say. Nothing is timed here."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "sweep.py"


def benchmark(*arguments):
    typed = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, timeout=240)


def test_the_row_keeps_what_is_needed_to_judge_it(tmp_path):
    done = benchmark("sweep", "--quick", "--results", tmp_path, "--seed", 3)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert result["command"] == "python benchmarks/sweep.py sweep --quick --seed 3"
    assert result["raw"]["statuses"] == {"stopped": 16}
    assert 0 < result["raw"]["point_seconds"] < 16 * result["raw"]["seconds"]
    assert result["targets"][0]["met"] is (result["raw"]["seconds"] < 300)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- written by `python benchmarks/sweep.py --table`; do not edit -->\n<!-- end of what is written -->\n"
    )
    assert benchmark("--table", "--results", tmp_path, "--page", page).returncode == 0
    assert "`mimlab sweep`, 16 points of the mean field" in page.read_text()


def test_page_in_the_repository_is_what_its_results_give(tmp_path):
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/benchmarks.md").read_text())
    assert benchmark("--table", "--page", page).returncode == 0
    assert page.read_text() == (ROOT / "docs/benchmarks.md").read_text()
