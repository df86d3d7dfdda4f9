"""`mimlab probe` and `mimlab compare` as they are typed: what they write and say, refuse, and how they go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.runs import read_toml
from mimlab.runs.tables import read_json, read_table

MINE = '''
"""Two models of one's own; a forward pass of the number in DIE_AT ends the process by DIE_BY."""

import os
import signal

import torch
from torch import nn

from mimlab.probing.preprocessing import HALF, Preprocessing

calls = 0


class Small(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.cut, self.attention = nn.Conv2d(3, 16, 8, 8), nn.MultiheadAttention(16, heads, batch_first=True)

    def forward(self, x):
        global calls
        calls += 1
        if calls == int(os.environ.get("DIE_AT", -1)):
            os.kill(os.getpid(), int(os.environ["DIE_BY"]))
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0]


def small(heads=2):
    torch.manual_seed(heads)
    return Small(heads).eval(), Preprocessing((32, 32), *HALF)


def other():
    return small(4)


def grows():
    """A preprocessing that makes each image larger than the one before."""
    sides = iter(range(32, 320, 8))

    def preprocess(image):
        side = next(sides)
        return Preprocessing((side, side), *HALF)(image)

    return small()[0], preprocess


def none():
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8)).eval()


def confused():
    raise RuntimeError("no weights today")
'''
TABLES = ("probe.parquet", "layers.parquet", "offsets.parquet", "shares.parquet")
ALL = ["mine:small", "mine:other", "--images", "images", "--batch-size", "2", "--statistics", "all"]
SHARED = [*ALL, "--shares", "--permutations", "3"]
TRIED, TWO, ONE = (
    6,
    3,
    2,
)  # passes: to try both models (statistics, maps, shares), of a batch of 2 images and of 1


def mimlab(*tokens: object) -> int:
    typed = [str(token) for token in tokens]
    return run(application(*typed[:1]), typed)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with models of one's own and five images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(MINE)
    Path("images").mkdir()
    for number in range(5):
        Image.fromarray(noise(number, 40, 36, 3)).save(f"images/{number}.png")
    yield tmp_path
    sys.modules.pop("mine", None)


def vit(folder: Path | str, **options: object) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**small | {"image_size": 32, "patch_size": 8} | options)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)


def files(folder: Path | str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def same_tables(one: Path | str, other: Path | str) -> None:
    for name in TABLES:
        assert read_table(Path(one) / name).equals(read_table(Path(other) / name)), name


def test_a_new_user_probes_a_model_directory(here, request, capsys):
    """A table, figures and a page; config.toml repeats the run; two runs are put beside each other."""
    vit("vit")
    vit("wide", patch_size=4)
    assert mimlab("probe", "vit", "--images", "images", "--out", "run") == 0
    said = capsys.readouterr()
    assert "random weights" in said.out and "diversity" in said.out and "images per second" in said.out
    assert said.err.endswith("written to run\n")
    assert files("run") == {
        *("config.toml", "layers.parquet", "probe.parquet", "report.html", "summary.json"),
        *("figures/depth.png", "figures/heads_00_vit.png", "figures/maps_00_vit.png"),
    }
    assert sorted(path.name for path in here.iterdir()) == ["images", "mine.py", "run", "vit", "wide"]
    page = Path("run/report.html").read_text()
    assert "mimlab probe vit" in page and page.count("<img") == 3

    request.getfixturevalue("undrawn")
    assert mimlab("probe", "run/config.toml", "--out", "again", "--json") == 0
    assert json.loads(capsys.readouterr().out) == read_json("again/summary.json")
    assert read_toml("again/config.toml") == read_toml("run/config.toml")
    assert read_table("again/probe.parquet").equals(read_table("run/probe.parquet"))

    assert mimlab("probe", "wide", "--images", "images/0.png", "images/1.png", "--out", "wide-run") == 0
    capsys.readouterr()
    assert mimlab("compare", "run", "wide-run", "--out", "both") == 0
    said = capsys.readouterr()
    assert "wide" in said.out and "64" in said.out
    assert "Maps have 16 and 64 patches" in said.err and "different images" in said.err
    assert files("both") == {
        *("config.toml", "layers.parquet", "report.html", "summary.json", "figures/depth.png"),
    }
    models = read_table("both/layers.parquet")["model"].unique().to_pylist()
    assert models == ["vit", "vit (random weights)", "wide", "wide (random weights)"]
    assert mimlab("compare", "run", "again", "--out", "twice", "--json") == 0
    twice = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in twice["models"]] == ["vit (run)", "vit (again)"]


def test_flags_reach_the_run(here, undrawn):
    chosen = [
        "--statistics",
        "nmi,entropy",
        "--layers",
        "0",
        "--heads",
        "1",
        "--dtype",
        "bfloat16",
        "--seed",
        "3",
    ]
    assert (
        mimlab("probe", "mine:small", *chosen, "--images", "images", "--no-random-weights", "--out", "run")
        == 0
    )
    table = read_table("run/probe.parquet")
    assert table.select(["statistic", "layer", "head"]).group_by(["statistic", "layer", "head"]).aggregate(
        []
    ).to_pylist() == [
        {"statistic": "nmi", "layer": 0, "head": 1},
        {"statistic": "entropy", "layer": 0, "head": 1},
    ]
    config = read_toml("run/config.toml")
    assert (config["dtype"], config["seed"], config["random_weights"]) == ("bfloat16", 3, False)


def test_what_a_folder_holds_that_cannot_be_used_is_skipped_and_listed(here, undrawn, capsys):
    Image.fromarray(noise(9, 1, 1, 3)).save("images/pixel.png")
    Image.fromarray(noise(9, 40, 40).astype(np.uint16) * 257).save("images/deep.png")
    Image.fromarray(noise(9, 40, 40, 4), "CMYK").save("images/print.jpg")
    frames = [Image.fromarray(noise(seed, 40, 40, 3)) for seed in (1, 2)]
    frames[0].save("images/moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(noise(9, 4, 50_000)).save("images/strip.png")
    whole = Path("images/0.png").read_bytes()
    Path("images/cut.png").write_bytes(whole[: len(whole) // 2])
    Path("images/corrupt.png").write_bytes(b"\x89PNG nonsense")
    Path("images/notes.txt").write_text("no image")
    assert (
        mimlab("probe", "mine:small", "--images", "images", "--batch-size", "3", "--out", "run", "--json")
        == 0
    )
    said = capsys.readouterr()
    summary = json.loads(said.out)
    used = set(read_table("run/probe.parquet")["image"].to_pylist())
    assert used == {*(f"{n}.png" for n in range(5)), "pixel.png", "deep.png", "print.jpg", "moving.gif"}
    assert [name for name, _ in summary["skipped"]] == ["corrupt.png", "cut.png", "strip.png"]
    assert summary["images"] == 9
    assert "3 of 12 images could not be used: corrupt.png: " in said.err
    assert "more\n" not in said.err
    for number in range(2):
        Path(f"images/worse_{number}.png").write_bytes(b"nothing")
    assert mimlab("probe", "mine:small", "--images", "images", "--out", "more") == 0
    said = capsys.readouterr()
    assert "5 of 14 images could not be used: corrupt.png: " in said.err
    assert "; and 2 more\n" in said.err


def in_another_process(number: int, by: signal.Signals, *tokens: str) -> subprocess.CompletedProcess:
    """Run a command that ends at a forward pass, with as many threads as this process."""
    threads = {
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "MKL_NUM_THREADS": str(torch.get_num_threads()),
    }
    environment = os.environ | threads | {"DIE_AT": str(number), "DIE_BY": str(int(by))}
    typed = [sys.executable, "-m", "mimlab", *tokens]
    return subprocess.run(typed, capture_output=True, text=True, env=environment, check=False)


def test_a_killed_run_goes_on_and_gives_the_same_tables(here, undrawn, capsys):
    """Killed in the second batch of the second model, and again in the last: images 0, 1 then 2, 3 then 4."""
    assert mimlab("probe", *SHARED, "--out", "whole") == 0
    killed = in_another_process(
        TRIED + (TWO + TWO + ONE) + TWO + 2, signal.SIGKILL, "probe", *SHARED, "--out", "run"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not Path("run").exists()
    assert len(list(Path("run.partial/parts").glob("*.json"))) == 4
    killed = in_another_process(TRIED + TWO + 1, signal.SIGKILL, "probe", *SHARED, "--out", "run", "--resume")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(Path("run.partial/parts").glob("*.json"))) == 5
    capsys.readouterr()
    assert mimlab("probe", *SHARED, "--out", "run", "--resume") == 0
    same_tables("whole", "run")
    one, other = (read_json(f"{name}/summary.json") for name in ("whole", "run"))
    for key in ("models", "images", "skipped", "warnings", "baselines"):
        assert one[key] == other[key]
    assert files("run") == files("whole")
    assert not Path("run.partial").exists()


@pytest.fixture
def undrawn(monkeypatch):
    """Runs without figures, which take longest."""
    monkeypatch.setattr("mimlab.studies.probe._draw", lambda *_: [])


@pytest.fixture
def interrupted(here, undrawn, monkeypatch, capsys):
    """A run interrupted as by Ctrl-C in its second batch."""
    monkeypatch.setenv("DIE_AT", "6")
    monkeypatch.setenv("DIE_BY", str(int(signal.SIGINT)))
    assert mimlab("probe", *ALL, "--out", "run") == 130
    monkeypatch.delenv("DIE_AT")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "what was measured is in run.partial; --resume goes on from there\n"
        "mimlab: interrupted; what was there before is untouched\n"
    )
    assert not Path("run").exists()
    assert len(list(Path("run.partial/parts").glob("*.json"))) == 1
    return here


def test_an_interrupted_run_goes_on(interrupted):
    assert mimlab("probe", *ALL, "--out", "run", "--resume") == 0
    assert mimlab("probe", *ALL, "--out", "whole") == 0
    for name in TABLES[:3]:
        assert read_table(Path("run") / name).equals(read_table(Path("whole") / name)), name


def another_image() -> None:
    Path("images/9.png").write_bytes(Path("images/0.png").read_bytes())


def other_pixels() -> None:
    Image.fromarray(noise(77, 40, 36, 3)).save("images/1.png")


def other_weights() -> None:
    Path("mine.py").write_text(MINE.replace("manual_seed(heads)", "manual_seed(99)"))
    sys.modules.pop("mine")


@pytest.mark.parametrize(
    ("change", "flags", "key"),
    [
        (list, ["--seed", "5"], "seed"),
        (list, ["--layers", "0"], "layers"),
        (another_image, [], "images"),
        (other_pixels, [], "images"),
        (other_weights, [], "weights"),
    ],
)
def test_a_run_of_other_inputs_does_not_go_on(interrupted, capsys, change, flags, key):
    change()
    before = files("run.partial")
    assert mimlab("probe", *ALL, *flags, "--out", "run", "--resume") == 2
    assert f"was begun with other inputs ({key})" in capsys.readouterr().err
    assert files("run.partial") == before
    assert not Path("run").exists()


def write_pickle(path: str) -> None:
    """A checkpoint that is a pickle with code in it."""

    class Code:
        def __reduce__(self) -> tuple:
            return Path.touch, (Path("ran"),)

    torch.save({"model": Code()}, path)


REFUSED = {
    "nothing": ([], "--images"),
    "no such model": (["./nowhere"], "there is no such file or directory"),
    "no model's name": (["a b"], "a b"),
    "no attention": (["mine:none"], "no self-attention"),
    "a function that fails": (["mine:confused"], "RuntimeError: no weights today (mine.py"),
    "the second model": (["mine:small", "mine:none"], "mine:none: Sequential has no self-attention"),
    "one model twice": (["mine:small", "mine:small"], "given more than once"),
    "code in a checkpoint": (["code.pth"], "nothing was loaded"),
    "no image": (["mine:small", "--images", "empty"], "holds no image"),
    "no folder": (["mine:small", "--images", "nowhere"], "there is no folder nowhere"),
    "broken images only": (["mine:small", "--images", "broken"], "none of the 1 images can be used"),
    "statistic": (["mine:small", "--statistics", "nmi2"], 'no statistic is called "nmi2"'),
    "layer": (["mine:small", "--layers", "3"], "layer 3 was not seen"),
    "head": (["mine:small", "--heads", "2"], "has heads 0 to 1"),
    "head that is none": (["mine:small", "--heads", "first"], "--heads must be a list"),
    "device": (["mine:small", "--device", "abacus"], "device = abacus"),
    "type": (["mine:small", "--dtype", "int8"], '"float32" or "bfloat16" or "float16"'),
    "batch size": (["mine:small", "--batch-size", "0"], "batch_size = 0"),
    "sizes that change": (["mine:grows", "--batch-size", "1"], "another grid of patches"),
    "no config": (["none.toml"], "there is no such file"),
    "a config among models": (["mine:small", "a.toml"], "give models or one config.toml"),
    "a key that is none": (["bad.toml"], "there is no key modells; the nearest is models"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(case, here, capsys):
    tokens, words = REFUSED[case]
    Path("bad.toml").write_text('modells = ["a"]\n')
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"nothing")
    write_pickle("code.pth")
    before = {path for path in here.rglob("*") if "__pycache__" not in path.parts}
    given = [] if "--images" in tokens or not tokens else ["--images", "images"]
    assert mimlab("probe", *tokens, *given, "--out", "run") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err or case == "nothing"
    assert len(said.err.splitlines()) <= 4
    assert {path for path in here.rglob("*") if "__pycache__" not in path.parts} == before


def test_a_place_that_is_taken_is_refused_before_any_model_is_tried(here, monkeypatch, capsys):
    Path("run").mkdir()
    Path("run/letter.txt").write_text("mine")
    monkeypatch.setattr("mimlab.probing.models.load_model", lambda *_: pytest.fail("a model was loaded"))
    assert mimlab("probe", "mine:small", "--out", "run") == 2
    assert "run is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (["a"], "at least two"),
        (["a", "a"], "more than once"),
        (["a", "nowhere"], "nowhere is no finished run"),
        (["a", "gap"], "gap is no run of mimlab probe"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, words, here, undrawn, capsys):
    Path("gap").mkdir()
    Path("gap/summary.json").write_text('{"status": "finished", "photographs": []}')
    if words.startswith(("nowhere", "gap")):
        assert mimlab("probe", "mine:small", "--images", "images/0.png", "--out", "a") == 0
        capsys.readouterr()
    before = set(here.rglob("*"))
    assert mimlab("compare", *runs, "--out", "both") == 2
    assert words in capsys.readouterr().err
    assert set(here.rglob("*")) == before
