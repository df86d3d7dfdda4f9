"""Copying in context as a run: rows, standard errors, the command line, and what is refused."""

import json
import sys
from importlib.util import find_spec as found_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimlab import InContextLearning, InputError, Latent, World, simulate
from mimlab.cli import application
from mimlab.cli.session import run as type_in
from mimlab.runs import read_toml
from mimlab.runs.tables import read_json, read_table
from mimlab.studies import copying, world_jobs

pytest.importorskip("torch")

DENSE: dict[str, Any] = {"engine": "dense", "integrator": "descent", "learning_rate": 2.0}
FLAGS = {
    "--objective": "in-context",
    "--engine": "dense",
    "--integrator": "descent",
    "--learning-rate": "2",
    "--steps": "8",
    "--draws": "16",
    "--vocabulary": "5",
}
SIZES = ["--area-sizes", "2", "3", "2", "1"]


def mimlab(*tokens: str) -> int:
    return type_in(application(*tokens[:1]), tokens)


def copy(*tokens: str) -> int:
    """A run of the task as typed; a flag of its own replaces that of FLAGS."""
    rest = [word for flag, value in FLAGS.items() if flag not in tokens for word in (flag, value)]
    return mimlab("simulate", *rest, *tokens)


def test_a_run_as_typed(tmp_path, capsys):
    out = tmp_path / "run"
    assert copy(*SIZES, "--mask-ratio", "1", "--out", str(out)) == 0
    assert "PP share" in capsys.readouterr().out
    summary, config = read_json(out / "summary.json"), read_toml(out / "config.toml")
    assert config["objective"] == {
        "mask_ratio": 1.0,
        "vocabulary": 5,
        "in_weights": 0.0,
        "name": "in-context",
    }
    assert summary["objective"] == "in-context"
    assert summary["fp_share"] + summary["pp_share"] == pytest.approx(1)
    (facts,) = summary["queries"]
    assert (facts["query"], facts["area"], facts["area_size"]) == (
        3,
        1,
        3,
    )  # the first copy of the first local area
    assert facts["loss_floor"] == facts["hopeless"] == 0.0
    assert [one["verdict"] for one in summary["claims"]][-1] == "inconclusive"
    table = read_table(out / "trajectory.parquet")
    assert table["excess_loss"].to_pylist() == table["loss"].to_pylist()
    assert all(np.isfinite(table[f"{name}_se"]).all() for name in ("attention_own", "phi_own", "upsilon_max"))
    names = sorted(path.name for path in (out / "figures").iterdir())
    assert names == ["attention_3.png", "correlations_3.png", "excess_loss_3.png"]
    for name in names:
        with Image.open(out / "figures" / name) as image:
            assert "nothing to draw" not in image.info["Description"]
    page = (out / "report.html").read_text()
    assert "PP share" in page
    assert "in-context" in page
    again = tmp_path / "again"
    assert mimlab("simulate", str(out / "config.toml"), "--out", str(again)) == 0
    assert read_table(again / "trajectory.parquet").equals(table)


def test_as_json_and_for_every_class(capsys):
    assert copy("--area-sizes", "2", "3", "3", "2", "1", "--query", "all", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [q["query"] for q in summary["queries"]] == [1, 3, 9]  # an area of one patch has no copy
    assert {claim["world"] for claim in summary["claims"]} == {"query 1", "query 3", "query 9"}


REFUSED = {
    "sampled": (["--engine", "sampled", "--draws", "64", *SIZES], "use engine = dense"),
    "clusters": ([*SIZES, "--clusters", "2"], "clusters = 1"),
    "context asked": ([*SIZES, "--query", "2"], "patch 2 is the first of its area, the context"),
    "nothing but context": (["--area-sizes", "1", "1", "1", "--query", "global"], "masks none of 0 copies"),
    "query in an area of one": (["--area-sizes", "3", "1", "2"], "patch 3 is the first of its area"),
    "ratio of none": ([*SIZES, "--mask-ratio", "0"], "mask_ratio = 0.0 must lie in (0, 1]"),
    "masks none": ([*SIZES, "--mask-ratio", "0.1"], "masks none of 4 copies"),
    "empty vocabulary": ([*SIZES, "--vocabulary", "0"], "vocabulary"),
    "no probability": ([*SIZES, "--in-weights", "2"], "in_weights = 2.0 must lie in [0, 1]"),
    "few draws": ([*SIZES, "--draws", "7"], "give at least 8"),
    "another objective's key": ([*SIZES, "--temperature", "2"], "temperature"),
    "a start": ([*SIZES, "--start", "0.1"], "start is for the contrastive objective"),
    "too many patches": (["--area-sizes", *["2"] * 2100], "at most 4096"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokens, words = REFUSED[case]
    assert copy(*tokens, "--out", "run") == 2
    said = capsys.readouterr()
    assert words in " ".join(said.err.split())
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_without_torch_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mimlab.dynamics.dense")]:
        if not name.endswith("dense_rows"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="needs PyTorch"):
        simulate(World(area_sizes=(2, 2)), InContextLearning(), steps=2, **DENSE)


def test_reproduce_without_torch_judges_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(copying, "find_spec", lambda name: None)
    outcome = world_jobs.run_job(copying.RUNS[0], tmp_path)
    assert {verdict["verdict"] for verdict in outcome.verdicts} == {"inconclusive"}
    assert {verdict["expected"] for verdict in outcome.verdicts} == {"inconclusive"}
    assert "PyTorch" in outcome.verdicts[-1]["evidence"]
    assert not list(tmp_path.iterdir())
    assert found_spec("torch") is not None


def test_stated_errors_are_those_between_seeds():
    """Over ten seeds the half time's spread is its stated error, within chance: the ratio of two standard deviations
    with 9 and about 9 x 7 degrees of freedom lies in [0.4, 2] but for one time in 200. The error of the PP share is
    overstated where Φ is noise, whose square is 8 times as large in replicates; it must not be understated."""
    runs = [
        simulate(
            World(area_sizes=(2, 2, 2)),
            InContextLearning(vocabulary=4),
            steps=16,
            draws=128,
            seed=seed,
            **DENSE,
        ).summary
        for seed in range(10)
    ]
    ratio = {
        name: np.std([run[name] for run in runs], ddof=1)
        / np.sqrt(np.mean([run[f"{name}_se"] ** 2 for run in runs]))
        for name in ("half_time", "pp_share")
    }
    assert 0.4 < ratio["half_time"] < 2, ratio
    assert ratio["pp_share"] < 2, ratio


def test_half_time_is_that_of_the_formula():
    run = simulate(
        World(area_sizes=(2,) * 8), InContextLearning(vocabulary=64), steps=40, draws=64, **DENSE
    ).summary
    assert run["queries"][0]["half_time"] == pytest.approx(run["queries"][0]["predicted_half_time"], rel=0.2)


def test_stronger_latents_learn_faster():
    """Υ of the source grows by z² times as much at the start: attention is sooner at a half."""
    times = [
        simulate(
            World(area_sizes=(2, 2, 2, 2), latent=Latent(low=z, high=z)),
            InContextLearning(),
            steps=40,
            draws=64,
            **DENSE,
        ).summary["half_time"]
        for z in (0.8, 1.2)
    ]
    assert times[1] < 0.7 * times[0]


def test_the_worlds_of_reproduce_are_configurations_of_their_own(tmp_path: Path):
    names = [run.name for run in copying.RUNS]
    assert len(set(names)) == len(names)
    assert all(run.config["objective"]["name"] == "in-context" for run in copying.RUNS)


@pytest.mark.parametrize("rate", ["1e30", "1e250"])
def test_a_run_that_flies_apart_says_so_and_keeps_what_it_has(rate, tmp_path):
    typed = ["--learning-rate", rate, "--steps", "5", "--area-sizes", "2", "3", "2"]
    copied = copy(*typed, "--out", str(tmp_path / "run"))
    summary = read_json(tmp_path / "run/summary.json")
    assert (copied == 1) == (summary["status"] == "diverged")
    assert {claim["verdict"] for claim in summary["claims"]} != {"holds"}
    assert (tmp_path / "run/report.html").exists()
