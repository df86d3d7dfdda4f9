"""`mimlab pretrain` as it is typed: what it writes and says, refuses, and how it goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mimlab
from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.runs import build, read_toml
from mimlab.runs.tables import read_json, read_table
from mimlab.studies import pretrain_looks
from mimlab.studies.pretrain_looks import Looks
from mimlab.training import loop
from mimlab.training.checkpoints import Journal, checkpoint_steps, load_state, save_state
from mimlab.training.config import PretrainConfig
from mimlab.training.log import TIMES
from mimlab.training.sources import held_out_source
from mimlab.training.views import centre
from mimlab.training.watching import SHARES_SCHEMA, Watching

TINY = (
    *(("--image-size", 16), ("--patch-size", 4), ("--width", 16), ("--depth", 1), ("--heads", 2)),
    *(("--decoder-width", 16), ("--steps", 6), ("--batch-size", 4), ("--crops", 4), ("--checkpoints", 3)),
    *(("--interval", 4), ("--accelerator", "cpu")),
)
WRITTEN = {
    "config.toml",
    "summary.json",
    "log.jsonl",
    "statistics.parquet",
    "maps.parquet",
    "shares.parquet",
    "report.html",
}


DRAW = Looks.draw


def undrawn(self: Looks, *_: object) -> None:
    """In place of the figures, which take longer than all else here."""
    (self.folder / "report.html").touch()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrain_looks, "PROBED", 2)
    monkeypatch.setattr(Looks, "draw", undrawn)
    yield
    torch.set_num_threads(threads)


def typed(*tokens: object) -> list[str]:
    """A call with the sizes of `TINY`, as far as it does not give its own."""
    sizes = [(flag, value) for flag, value in TINY if flag not in tokens]
    return [str(word) for word in ("pretrain", *tokens, *(word for pair in sizes for word in pair))]


def mimlab_(*tokens: object) -> int:
    return run(application("pretrain"), typed(*tokens))


def log_of(folder: str) -> list[dict[str, float]]:
    records = Journal(Path(folder) / "log.jsonl").records()
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def same_runs(one: str, other: str) -> None:
    """The same log, looks and weights, to the last bit; a run that was stopped has more checkpoints."""
    assert log_of(one) == log_of(other)
    for name in ("statistics.parquet", "maps.parquet", "shares.parquet"):
        assert read_table(Path(one) / name).equals(read_table(Path(other) / name))
    steps = checkpoint_steps(Path(one))
    assert set(steps) <= set(checkpoint_steps(Path(other)))
    weights = [Path(run, f"checkpoints/step-{steps[-1]:06d}/model.safetensors") for run in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    summaries = [read_json(Path(run) / "summary.json") for run in (one, other)]
    assert summaries[0]["evaluation"] == summaries[1]["evaluation"]


@pytest.mark.parametrize("objective", ["simmim", "mae", "simclr"])
def test_a_run_is_written_and_can_be_repeated(objective, capsys, monkeypatch):
    with monkeypatch.context() as drawn:
        drawn.setattr(Looks, "draw", DRAW)
        assert mimlab_("--objective", objective, "--out", "run") == 0
    shown = capsys.readouterr()
    assert objective in shown.out and "6 of 6 steps" in shown.out and "written to run" in shown.err
    names = {path.name for path in Path("run").iterdir()}
    assert names == WRITTEN | {"checkpoints", "figures", "held_out", "tensorboard"}
    assert list(Path("run/figures").glob("*.png")) and Path("run/report.html").stat().st_size > 1000
    assert checkpoint_steps(Path("run")) == [0, 1, 6]
    made = Path("run/figures/reconstructions.png")
    assert made.exists() == (objective != "simclr")
    if made.exists():
        with Image.open(made) as picture:
            assert re.search(r"step 0: .*; step 1: .*; step 6: ", picture.info["Description"])
    summary = read_json(Path("run/summary.json"))
    assert (summary["status"], summary["step"], summary["steps"]) == ("finished", 6, 6)
    assert [record["step"] for record in summary["evaluation"]] == [0, 1, 6]
    assert ("image_mean" in summary["evaluation"][0]) == (objective != "simclr")
    table = read_table("run/statistics.parquet")
    assert sorted(set(table["step"].to_pylist())) == [0, 1, 2, 4, 6]
    shares = read_table("run/shares.parquet")
    assert shares.schema == SHARES_SCHEMA and set(shares["step"].to_pylist()) == {0, 1, 6}
    kept = sorted(Path("run/held_out").iterdir())
    assert [path.name for path in kept] == ["000.png", "001.png", "002.png", "003.png"]
    crops = centre(
        held_out_source(build(PretrainConfig, read_toml("run/config.toml"), "run"), 4).batch(0).pixels, 16
    )
    for path, crop in zip(kept, crops, strict=True):
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            shown = np.asarray(picture, dtype=float) / 255
        np.testing.assert_allclose(shown, crop.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    again = ["pretrain", "run/config.toml", "--out", "again", "--json"]
    assert run(application("pretrain"), again) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "finished"
    same_runs("run", "again")


def test_a_checkpoint_is_probed_by_its_name(capsys):
    assert mimlab_("--out", "run") == 0
    found = mimlab.probe("run/checkpoints/step-000006", random_weights=False, batch_size=4)
    assert np.isfinite(found.table["value"].drop_null().to_numpy()).all() and len(found.table)


def test_a_run_starts_from_the_encoder_of_another(capsys):
    assert mimlab_("--out", "first") == 0
    assert mimlab_("--objective", "simclr", "--start", "first", "--out", "second") == 0
    one, other = (
        load_file(f"{run}/model.safetensors")
        for run in ("first/checkpoints/step-000006", "second/checkpoints/step-000000")
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    capsys.readouterr()
    assert mimlab_("--depth", 2, "--start", "first", "--out", "third") == 2
    assert "num_hidden_layers = 1 there, 2 here" in capsys.readouterr().err
    assert not Path("third").exists() and not Path("third.partial").exists()


QUICK = """
import os, signal, sys
import torch
from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.studies import pretrain_looks
from mimlab.training import loop
torch.set_num_threads(1)
pretrain_looks.PROBED = 2
pretrain_looks.Looks.draw = lambda self, *_: (self.folder / "report.html").touch()
"""
KILLED = f"""{QUICK}
loop.SAVE_SECONDS = 0.0
advance = loop._Run._advance
def killing(self, batches):
    if self.step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    advance(self, batches)
loop._Run._advance = killing
sys.exit(run(application("pretrain"), sys.argv[2:]))
"""


def test_a_killed_run_goes_on_as_if_it_had_not_been(capsys):
    command = [sys.executable, "-c", KILLED, "5", *typed("--out", "run")]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not Path("run").exists() and Path("run.partial/state.pt").exists()
    assert mimlab_("--out", "run") == 2
    assert "holds an interrupted run; go on with --resume" in capsys.readouterr().err
    assert mimlab_("--blr", 1, "--out", "run", "--resume") == 2
    assert "training.blr = 0.008 there, 1.0 here" in capsys.readouterr().err
    assert mimlab_("--out", "run", "--resume") == 0
    assert mimlab_("--out", "whole") == 0
    same_runs("run", "whole")
    assert not Path("run.partial").exists()


def collapsing(monkeypatch):
    """Attention that seems to lose its NMI at step 4, whatever the network does."""
    observe = Watching.observe

    def observed(self, objective, step):
        table = observe(self, objective, step)
        nmi = pa.scalar(0.4 if step < 4 else 0.1)
        value = pc.if_else(pc.equal(table["statistic"], "nmi"), nmi, table["value"])
        return table.set_column(table.column_names.index("value"), "value", value)

    monkeypatch.setattr(Watching, "observe", observed)


@pytest.mark.parametrize(("killed", "state"), [(3, 3), (5, 0), (5, 5)], ids=lambda step: f"step {step}")
def test_an_alarm_is_said_at_once_and_kept_once(killed, state, monkeypatch, capsys):
    collapsing(monkeypatch)
    assert mimlab_("--out", "whole") == 0
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("alarm")]
    assert line.startswith("alarm at step 4: NMI at depth 1 is 0.1 and was 0.4: ")
    journal = Journal(Path("whole/alarms.jsonl")).records()
    assert journal == [{"step": 4, "layer": 0, "statistic": "nmi", "value": 0.1, "was": 0.4}]
    assert read_json("whole/summary.json")["alarms"] == [line.removeprefix("alarm at ")]

    advance = loop._Run._advance

    def killing(self, batches):
        if self.step == killed:
            raise KeyboardInterrupt
        advance(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "SAVE_SECONDS", 1e9 if state == 0 else 0.0)
        patched.setattr(loop._Run, "_advance", killing)
        assert mimlab_("--out", "run") == 130
        assert ("alarm at step 4" in capsys.readouterr().err) == (killed > 4)  # while it lasts
    assert load_state(Path("run.partial"))["step"] == state
    assert mimlab_("--out", "run", "--resume") == 0
    assert ("alarm at" in capsys.readouterr().err) == (state < 4)  # where step 4 is taken, or taken again
    assert Journal(Path("run/alarms.jsonl")).records() == journal
    same_runs("whole", "run")


def test_a_run_whose_minutes_were_over_goes_on(capsys):
    assert mimlab_("--max-minutes", 1e-9, "--out", "run") == 0
    summary = read_json(Path("run/summary.json"))
    assert summary["status"].startswith("stopped: ") and summary["step"] == 1
    assert "minutes were over after step 1 of 6" in capsys.readouterr().out
    assert mimlab_("--blr", 1, "--out", "run", "--resume") == 2
    assert "training.blr" in capsys.readouterr().err and not Path("run.partial").exists()
    assert mimlab_("--max-minutes", 1e-9, "--out", "run", "--resume") == 0
    assert read_json(Path("run/summary.json"))["step"] == 2
    assert mimlab_("--out", "run", "--resume") == 0
    assert mimlab_("--out", "whole") == 0
    assert read_json(Path("run/summary.json"))["status"] == "finished"
    same_runs("whole", "run")
    capsys.readouterr()
    assert mimlab_("--out", "run", "--resume") == 2
    assert "has ended: there is nothing to resume" in capsys.readouterr().err


def test_a_loss_that_is_no_number_fails_and_keeps_the_last_good_checkpoint(monkeypatch, capsys):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    assert mimlab_("--blr", 1e38, "--clip", 0, "--out", "run") == 1
    summary = read_json(Path("run/summary.json"))
    assert summary["status"].startswith("failed: ") and " from step " in summary["status"]
    last = checkpoint_steps(Path("run"))[-1]
    held = load_file(f"run/checkpoints/step-{last:06d}/model.safetensors")
    assert last == summary["step"] and all(value.isfinite().all() for value in held.values())
    assert "failed" in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_the_run_goes_on(monkeypatch, capsys):
    def full(folder, state):
        if state["step"] == 3:
            raise OSError(28, "the disk is full; make room, and go on with --resume", str(folder))
        save_state(folder, state)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "SAVE_SECONDS", 0.0)
        patched.setattr(loop, "save_state", full)
        assert mimlab_("--out", "run") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the disk is full; make room, and go on with --resume" in err
    assert load_state(Path("run.partial"))["step"] == 2
    assert mimlab_("--out", "run", "--resume") == 0
    assert mimlab_("--out", "whole") == 0
    same_runs("run", "whole")


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(self, batches):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "_advance", interrupt)
    assert mimlab_("--out", "run") == 130
    assert "what was trained is in run.partial; --resume goes on from there" in capsys.readouterr().err


def test_two_processes_are_kept_apart(capsys):
    import fcntl

    Path("run.partial").mkdir()
    lock = os.open("run.partial", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert mimlab_("--out", "run") == 2
    assert "is being written by another process" in capsys.readouterr().err
    os.close(lock)


def photographs(count: int, side: int = 40) -> None:
    Path("photos").mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")


def test_a_folder_of_images_is_trained_on(capsys):
    photographs(5)
    shutil.copytree("photos", "others")
    Path("photos/broken.png").write_bytes(b"no image")
    assert mimlab_("--images", "photos", "--held-out", "photos", "--out", "run") == 2
    assert "share files" in capsys.readouterr().err
    assert mimlab_("--images", "photos", "--held-out", "others", "--crops", 6, "--out", "run") == 2
    assert (
        "others holds 5, too few for the 6 crops that are watched; give --crops 5" in capsys.readouterr().err
    )
    assert mimlab_("--images", "photos", "--held-out", "others", "--out", "run") == 0
    summary = read_json(Path("run/summary.json"))
    assert summary["images"] == "photos" and [name for name, _ in summary["skipped"]] == ["broken.png"]
    assert "could not be used" in capsys.readouterr().err
    assert read_toml("run/config.toml")["data"]["images"] == "photos"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("--images", "nowhere"), "there is no folder nowhere"),
        (("--images", "photos", "--batch-size", 9), "too few for a batch of 9"),
        (("--objective", "simclr", "--mask-ratio", "0.5"), "objective.mask_ratio is for simmim, mae"),
        (("--objective", "nonsense"), "--objective must be"),
        (("--preset", "desktop"), "give one of laptop, workstation, imagenet"),
        (("--preset", "imagenet"), "give --images DIR"),
        (("--images", "photos", "--held-out", "photos/../photos"), "share files"),
        (("--start", "nowhere"), "nowhere holds no checkpoint"),
        (("--crop", 9000, 9001), "smaller than a crop"),
        (("--strategy", "nonsense"), "training: "),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_and_nothing_is_left(tokens, said, capsys):
    photographs(3)
    assert mimlab_(*tokens, "--out", "run") == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} == {"photos"}


def test_a_run_from_python(tmp_path):
    settings = {
        "network": {"image_size": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16},
        "data": {"batch_size": 4},
        "training": {"steps": 3, "accelerator": "cpu"},
        "watching": {"crops": 4, "checkpoints": 2},
    }
    found = mimlab.pretrain(tmp_path / "run", "mae", settings=settings, seed=2)
    assert found.folder == tmp_path / "run" and found.config.seed == 2
    assert [record["step"] for record in found.log] == [1, 2, 3]
    assert found.statistics.num_rows and found.summary["status"] == "finished"


def test_two_processes_train_as_one_that_accumulates(capsys):
    """Fabric starts the second from the same command; its batches and draws are those of every other pass."""
    assert mimlab_("--accum-iter", 2, "--out", "one") == 0
    Path("quick.py").write_text(f'{QUICK}sys.exit(run(application("pretrain"), sys.argv[1:]))')
    process = subprocess.run(
        [sys.executable, "quick.py", *typed("--devices", 2, "--strategy", "ddp", "--out", "two")],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK")},
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("finished") == 1
    one, two = log_of("one"), log_of("two")
    assert [record["step"] for record in one] == [record["step"] for record in two]
    for key in ("loss", "lr", "grad_norm", "epoch"):
        assert np.allclose([r[key] for r in one], [r[key] for r in two], rtol=1e-4), key
