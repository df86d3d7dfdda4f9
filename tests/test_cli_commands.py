"""The commands as they are typed: what they write and say, and what they refuse before anything is written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.runs import read_toml
from mimlab.runs.tables import read_json, read_table

SMALL = ["--area-sizes", "8", "4", "4", "--engine", "mean-field"]


def mimlab(*tokens: object) -> int:
    typed = [str(token) for token in tokens]
    return run(application(*typed[:1]), typed)


@pytest.fixture
def photograph(tmp_path):
    """A picture of 96 x 64 pixels: dark, with a bright square."""
    pixels = np.full((64, 96, 3), 30, dtype=np.uint8)
    pixels[16:48, 32:64] = 220
    imsave(tmp_path / "square.png", pixels, check_contrast=False)
    return tmp_path / "square.png"


def test_simulate_writes_a_run_that_can_be_repeated(tmp_path, capsys):
    assert mimlab("simulate", *SMALL, "--mask-ratio", ".5", "--seed", 3, "--out", tmp_path / "a") == 0
    assert "holds" in capsys.readouterr().out
    config = read_toml(tmp_path / "a" / "config.toml")
    assert config["world"]["area_sizes"] == [8, 4, 4]
    assert config["dynamics"]["stop_attention"] == 0.99
    assert mimlab("simulate", tmp_path / "a" / "config.toml", "--out", tmp_path / "b") == 0
    assert read_toml(tmp_path / "b" / "config.toml") == config
    for name in ("trajectory.parquet", "correlations.parquet"):
        assert read_table(tmp_path / "a" / name).equals(read_table(tmp_path / "b" / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_simulate_prints_its_summary_as_json(tmp_path, capsys):
    assert mimlab("simulate", *SMALL, "--out", tmp_path / "a", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(tmp_path / "a" / "summary.json")
    assert printed["status"] == "stopped"


def test_flag_overrides_the_file(tmp_path, capsys):
    (tmp_path / "config.toml").write_text(
        "[world]\narea_sizes = [8, 4, 4]\n[dynamics]\nengine = 'mean-field'\n"
    )
    assert mimlab("simulate", tmp_path / "config.toml", "--stop-attention", "0.5", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["half_time"] is not None
    assert [phase["name"] for phase in printed["phases"]] != []
    assert mimlab("simulate", tmp_path / "config.toml", "--area-sizes", "8,4,4,4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["patches"] == 20


def test_overwrite_replaces_a_run_and_nothing_else(tmp_path, capsys):
    out = tmp_path / "run"
    assert mimlab("simulate", *SMALL, "--out", out) == 0
    assert mimlab("simulate", *SMALL, "--seed", 9, "--out", out) == 2
    assert "is not empty" in capsys.readouterr().err
    assert read_toml(out / "config.toml")["seed"] == 0
    assert mimlab("simulate", *SMALL, "--seed", 9, "--out", out, "--overwrite") == 0
    assert read_toml(out / "config.toml")["seed"] == 9


def test_gap_of_a_photograph(photograph, tmp_path, capsys):
    assert mimlab("gap", photograph, "--patch-size", 16, "--out", tmp_path / "gap", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["photographs"][0]["name"] == "square.png"
    assert printed["photographs"][0]["areas"] == 2
    assert read_json(tmp_path / "gap" / "summary.json") == printed
    assert mimlab("gap", photograph) == 0
    assert "square.png" in capsys.readouterr().out


def test_simulate_a_photograph_where_it_is_pointed_at(photograph, tmp_path, capsys):
    query = ["--image", photograph, "--engine", "mean-field", "--query-at", "48,32"]
    assert mimlab("simulate", *query, "--out", tmp_path / "run", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["queries"][0]["area"] == 1
    assert (tmp_path / "run" / "figures" / "photograph.png").stat().st_size > 0


def test_scale_fits_exponents(tmp_path, capsys):
    world = ["--global-exponent", 0.9, "--local-exponent", 0.3]
    assert mimlab("scale", *world, "--patches", "1e4", "1e8", "--points", 3, "--out", tmp_path / "s") == 0
    assert "half_time" in capsys.readouterr().out
    slope = read_json(tmp_path / "s" / "summary.json")["exponents"][0]["slope"]
    assert slope == pytest.approx(0.7, abs=0.05)


PHOTOGRAPH = Path("square.png")

REFUSED = {
    "nothing": ([], "give exactly one of area_sizes, image"),
    "both kinds of size": ([*SMALL, "--patches", "100"], "give exactly one of area_sizes, image"),
    "areas that do not fit": (
        ["--patches", "10", "--global-exponent", "1", "--local-exponent", "0.5"],
        "lower an exponent or raise patches",
    ),
    "sizes that are not positive": (["--area-sizes", "8", "0"], "area_sizes"),
    "sizes that are not whole": (["--area-sizes", "8", "1.5"], "--area-sizes must be a list (a whole number"),
    "mask none": ([*SMALL, "--mask-ratio", "0"], "masks none or all"),
    "mask all": ([*SMALL, "--mask-ratio", "0.99"], "at least one must be masked and one visible"),
    "low above high": ([*SMALL, "--latent-low", "2", "--latent-high", "1"], "exceeds high"),
    "negative latent": ([*SMALL, "--latent-low", "-1", "--latent-high", "1"], "negative"),
    "not finite": ([*SMALL, "--latent-low", "0", "--latent-high", "inf"], "must be a finite number"),
    "not a number": ([*SMALL, "--stop-attention", "nan"], "must be a finite number"),
    "query outside": ([*SMALL, "--query", "16"], "query = 16 lies outside"),
    "query that is no word": ([*SMALL, "--query", "middle"], "query"),
    "no such photograph": (["--image", "none.png"], "none.png"),
    "no photograph": (["--image", "config.toml"], "config.toml"),
    "photograph below one patch": (["--image", PHOTOGRAPH, "--patch-size", "4096"], "patch"),
    "pixel outside": (["--image", PHOTOGRAPH, "--query-at", "500,500"], "500"),
    "pixel that is none": (["--image", PHOTOGRAPH, "--query-at", "5;5"], "--query-at must be two numbers"),
    "pixel of no photograph": ([*SMALL, "--query-at", "5,5"], "the world has no image"),
    "unknown flag": ([*SMALL, "--enginee", "sampled"], "Did you mean --engine?"),
    "unknown key": (["config.toml"], "there is no key world.patchs; the nearest is world.patches"),
    "no TOML": ([PHOTOGRAPH], "is not TOML"),
    "unknown engine": ([*SMALL[:4], "--engine", "fast"], "give one of enumerated, sampled"),
    "descent without steps": ([*SMALL, "--integrator", "descent"], "needs learning_rate and steps"),
    "too large to enumerate": (
        ["--area-sizes", "400", *["80"] * 5, "--latent-values", ".5", "1", "--engine", "enumerated"],
        "use engine = sampled or fewer patches",
    ),
    "too many cells": (
        [
            *("--patches=1e4", "--global-exponent=.9", "--local-exponent=.3"),
            *("--clusters=3", "--partitions=random", "--max-cells=100"),
        ],
        "cells",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(case, photograph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text("[world]\npatchs = 3\n")
    before = sorted(tmp_path.iterdir())
    tokens, words = REFUSED[case]
    assert mimlab("simulate", *tokens, "--out", "deep/run") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert len(said.err.splitlines()) <= 4
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["gap", "none.png"], "none.png"),
        (["gap", "config.toml"], "config.toml"),
        (["gap", "square.png", "--patch-size", "4096"], "patch"),
        (["scale", "--patches", "1e4", "1e6", "--points", "3"], "global_exponent is missing"),
        (
            ["scale", "--patches", "1e6", "1e4", "--global-exponent", ".9", "--local-exponent", ".3"],
            "no range",
        ),
        (["reproduce"], "--out"),
    ],
)
def test_other_commands_refuse_too(tokens, words, photograph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text("")
    before = sorted(tmp_path.iterdir())
    assert mimlab(*tokens, *([] if tokens == ["reproduce"] else ["--out", "run"])) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_installed_command_refuses_without_a_traceback(tmp_path):
    typed = [
        sys.executable,
        "-m",
        "mimlab",
        "simulate",
        "--area-sizes",
        "8",
        "x",
        "--out",
        str(tmp_path / "run"),
    ]
    result = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "mimlab: --area-sizes must be a list (a whole number, ...), not [8, 'x']\n"
    assert result.stdout == ""
