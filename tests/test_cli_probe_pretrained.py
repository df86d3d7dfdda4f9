"""`mimlab probe RUN`: a pretraining run as a model, measured on the crops that it held out."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

import mimlab
from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.runs import read_toml
from mimlab.runs.tables import read_json, read_table
from mimlab.studies import pretrain_looks
from mimlab.studies.pretrain_looks import Looks

SETTINGS = {
    "network": {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "decoder_width": 16},
    "data": {"batch_size": 4},
    "training": {"steps": 3, "accelerator": "cpu"},
    "watching": {"crops": 4, "checkpoints": 2},
}


def mimlab_(*tokens: object) -> int:
    typed = [str(token) for token in tokens]
    return run(application(*typed[:1]), typed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the same crops."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("PROBED", "SHARED", "PERMUTED"):
            patched.setattr(pretrain_looks, name, 2)
        patched.setattr(Looks, "draw", lambda self, *_: (self.folder / "report.html").touch())
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        mimlab.pretrain(home / "simmim", "simmim", settings=SETTINGS)
        mimlab.pretrain(home / "simclr", "simclr", settings=SETTINGS)
        torch.set_num_threads(threads)
    return home


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A working directory with the runs in `runs`, and one photograph in `photos`; nothing is drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mimlab.studies.probe._draw", lambda *_: [])
    shutil.copytree(trained, "runs")
    Path("photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photos/one.png")
    return tmp_path


def means(table, keys, **chosen):
    """Mean value by keys, of the rows that were chosen."""
    for column, value in chosen.items():
        table = table.filter(pc.field(column) == value)
    found = table.group_by(keys).aggregate([("value", "mean")]).to_pylist()
    return {tuple(row[key] for key in keys): row["value_mean"] for row in found}


def test_a_run_is_measured_as_it_measured_itself(here, capsys):
    """Its last checkpoint on its own crops: what the run saw at its last step, but for the crops' 8 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mimlab_("probe", "runs/simmim", "--out", "probed") == 0
    said = capsys.readouterr()
    assert said.err == "written to probed\n"
    table = read_table("probed/probe.parquet")
    assert table["model"].unique().to_pylist() == ["simmim", "simmim (random weights)"]
    assert table["image"].unique().to_pylist() == [f"00{n}.png" for n in range(4)]
    keys = ("layer", "head", "statistic")
    itself = means(read_table("runs/simmim/statistics.parquet"), keys, step=3)
    probed = means(table, keys, model="simmim")
    for key, value in probed.items():
        assert value == pytest.approx(itself[key], rel=2e-3), key
    start = means(read_table("runs/simmim/statistics.parquet"), keys, step=0)
    assert any(abs(probed[key] - start[key]) > 5e-3 * abs(start[key]) for key in probed)
    summary = read_json("probed/summary.json")
    assert (summary["images"], summary["source"]) == (4, "the held-out crops of runs/simmim")
    assert summary["warnings"] == []

    assert read_toml("probed/config.toml")["models"] == ["runs/simmim"]
    assert mimlab_("probe", "probed/config.toml", "--out", "again") == 0
    assert read_table("again/probe.parquet").equals(table)


def test_runs_of_the_same_crops_stand_beside_each_other(here, capsys):
    assert mimlab_("probe", "runs/simmim", "runs/simclr", "--statistics", "nmi", "--out", "probed") == 0
    labels = read_table("probed/layers.parquet")["model"].unique().to_pylist()
    assert [label for label in labels if "(" not in label] == ["simmim", "simclr"]
    assert read_json("probed/summary.json")["source"] == "the held-out crops of runs/simmim, runs/simclr"


def test_runs_of_one_name_and_models_called_like_them_are_told_apart(here):
    shutil.copytree("runs/simclr", "other/simmim")
    shutil.copytree("runs/simmim/checkpoints/step-000003", "simclr")
    names = ["runs/simmim", "other/simmim", "simclr", "runs/simclr"]
    found = mimlab.probe(names, "photos", "nmi", random_weights=False)
    labels = [model["name"] for model in found.summary["models"]]
    assert labels == ["runs/simmim", "other/simmim", "simclr", "runs/simclr"]
    nmi = means(found.table, ("model",))
    assert nmi[("runs/simmim",)] == nmi[("simclr",)] != nmi[("other/simmim",)] == nmi[("runs/simclr",)]


def test_a_checkpoint_is_a_directory_of_transformers_with_its_runs_crops(here):
    start, end = (f"runs/simmim/checkpoints/step-00000{step}" for step in (0, 3))
    found = mimlab.probe([start, end, "runs/simmim"], statistics="nmi", random_weights=False)
    assert [model["name"] for model in found.summary["models"]] == [start, end, "simmim"]
    assert found.summary["images"] == 4
    nmi = means(found.table, ("model",))
    assert nmi[(start,)] != nmi[(end,)] == nmi[("simmim",)]
    shutil.rmtree("runs/simmim/held_out")
    assert mimlab.probe(end, statistics="nmi", layers=[0]).summary["source"] == "scikit-image's photographs"


REFUSED = {
    "other crops": (
        ["runs/simmim", "shifted"],
        "the held-out crops of runs/simmim and shifted differ: say with --images",
    ),
    "another model": (
        ["runs/simmim", "vit"],
        "vit is no pretraining run, and the held-out crops of runs/simmim are that run's own",
    ),
    "an older version": (["old"], "old holds no held-out crops (held_out/*.png)"),
    "no checkpoint": (["begun.partial"], "begun.partial holds no config.json; give a directory that"),
    "one run twice": (["runs/simmim", "./runs/simmim"], "runs/simmim is given more than once"),
    "heads": (["runs/simmim", "--checkpoint-heads", 2], "heads = 2 is for checkpoint files"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_with_what_to_do(case, here, capsys):
    shutil.copytree("runs/simmim/checkpoints/step-000003", "vit")
    shutil.copytree("runs/simmim", "shifted")
    shutil.copy("shifted/held_out/000.png", "shifted/held_out/003.png")
    shutil.copytree("runs/simmim", "old")
    shutil.rmtree("old/held_out")
    Path("begun.partial/looks").mkdir(parents=True)
    before = set(here.rglob("*"))
    tokens, words = REFUSED[case]
    assert mimlab_("probe", *tokens, "--out", "run") == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1
    assert set(here.rglob("*")) == before
    if case in ("other crops", "another model", "an older version"):
        advised = ["--images", "runs/simmim/held_out", "--statistics", "nmi"]
        assert mimlab_("probe", *tokens, *advised, "--out", "run") == 0


def test_an_unfinished_run_is_measured_as_far_as_it_is(here, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mimlab.training.loop._Run._advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mimlab.pretrain("cut", "simmim", settings=SETTINGS)
    assert mimlab_("probe", "cut.partial", "--statistics", "nmi", "--out", "run", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in summary["models"]] == ["cut.partial"]
    assert summary["images"] == 4
    (caution,) = summary["warnings"]
    assert caution.startswith("cut.partial has not finished") and caution.endswith("after step 0")


def test_a_probe_of_a_run_goes_on(here, monkeypatch, capsys):
    typed = ["probe", "runs/simmim", "runs/simclr", "--batch-size", 2]
    assert mimlab_(*typed, "--out", "whole") == 0
    from mimlab.studies import probe_plan

    measured, calls = probe_plan.measured, []

    def interrupting(*given):
        calls.append(given)
        if len(calls) == 6:  # in the second run
            raise KeyboardInterrupt
        return measured(*given)

    with monkeypatch.context() as patched:
        patched.setattr(probe_plan, "measured", interrupting)
        assert mimlab_(*typed, "--out", "run") == 130
    shutil.copytree("runs/simclr/checkpoints/step-000000", "runs/simclr/checkpoints/step-000009")
    capsys.readouterr()
    assert mimlab_(*typed, "--out", "run", "--resume") == 2
    assert "was begun with other inputs (weights)" in capsys.readouterr().err
    shutil.rmtree("runs/simclr/checkpoints/step-000009")
    assert mimlab_(*typed, "--out", "run", "--resume") == 0
    for name in ("probe.parquet", "layers.parquet"):
        assert read_table(f"run/{name}").equals(read_table(f"whole/{name}"))
