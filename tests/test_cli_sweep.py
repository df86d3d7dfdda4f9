"""`mimlab sweep` as it is typed: its own workers, kill -9 of it and of them, Ctrl-C, and bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mimlab.cli import application
from mimlab.cli.session import run
from mimlab.report import sweep_page
from mimlab.runs.tables import read_json, read_table
from mimlab.studies import sweep_workers

BASE = """
[world]
area_sizes = [12, 4, 4]
[dynamics]
engine = "mean-field"
"""
AXIS = "objective.mask_ratio=0.2:0.8:400"


def mimlab(*tokens: object) -> int:
    typed = [str(token) for token in tokens]
    return run(application(*typed[:1]), typed)


@contextmanager
def started(folder: Path, *tokens: object) -> Iterator[subprocess.Popen]:
    """The command in a process, with processes of its own, in a group that an interrupt reaches whole."""
    typed = [
        sys.executable,
        "-m",
        "mimlab",
        "sweep",
        "c.toml",
        "--over",
        AXIS,
        "--workers",
        2,
        "--out",
        "run",
    ]
    process = subprocess.Popen(
        [str(one) for one in [*typed, *tokens]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def shards_in(folder: Path) -> set[Path]:
    return set((folder / "run.partial" / "shards").glob("*.parquet"))


def wait_for(what, process: subprocess.Popen | None = None) -> None:
    """Wait until `what` is true, while the process runs."""
    end = time.monotonic() + 120
    while not what():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def children(parent: int) -> list[int]:
    """Workers of a command: its children that run Python's spawn."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
            owner = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if entry.name.isdecimal() and int(owner) == parent and b"spawn_main" in words:
            found.append(int(entry.name))
    return found


def is_gone(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def no_page(monkeypatch):
    monkeypatch.setattr(sweep_page, "write_sweep_page", lambda folder, rows, summary: None)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_kill_and_resume(tmp_path, no_page, monkeypatch, capsys):
    """A worker is killed, then the command, then the command is interrupted: no row is lost, none runs twice."""
    (tmp_path / "c.toml").write_text(BASE)
    with started(tmp_path) as first:
        wait_for(lambda: len(shards_in(tmp_path)) >= 2, first)
        workers = children(first.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        count = len(shards_in(tmp_path))
        wait_for(lambda: len(shards_in(tmp_path)) >= count + 2, first)
        workers = {*workers, *children(first.pid)}
        first.kill()
        _, said = first.communicate()
    assert "Traceback" not in said
    wait_for(lambda: all(is_gone(one) for one in workers))
    assert not (tmp_path / "run").exists()
    before = {path: path.read_bytes() for path in shards_in(tmp_path)}
    assert before

    with started(tmp_path, "--resume") as second:
        wait_for(lambda: len(shards_in(tmp_path)) > len(before), second)
        os.killpg(second.pid, signal.SIGINT)
        _, said = second.communicate()
    assert second.returncode == 130
    assert "what was simulated is in run.partial; --resume goes on from there" in said
    assert len(said.splitlines()) == 2
    kept = {path: path.read_bytes() for path in shards_in(tmp_path)}
    assert before.items() <= kept.items()
    names = [name for path in kept for name in read_table(path)["hash"].to_pylist()]
    assert len(names) == len(set(names)) < 400

    monkeypatch.chdir(tmp_path)
    ran: list[str] = []
    carry_out = sweep_workers.carry_out

    def counted(client, work, take):
        ran.extend(name for name, _ in work)
        carry_out(client, work, take)

    monkeypatch.setattr("mimlab.studies.sweep.carry_out", counted)
    assert (
        mimlab("sweep", "c.toml", "--over", AXIS, "--workers", 2, "--out", "run", "--resume", "--json") == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert summary == read_json("run/summary.json")
    assert summary["statuses"] == {"stopped": 400}
    rows = read_table("run/rows.parquet")
    assert sorted(rows["hash"].to_pylist()) == sorted([*names, *ran])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.toml", "run"]


REFUSED = {
    "no axis": ([], "--over requires an argument"),
    "unknown key": (
        ["--over", "world.patchs=1:2:2"],
        "there is no key world.patchs; the nearest is world.patches",
    ),
    "no range": (["--over", "objective.mask_ratio=0.5:0.2:3"], "no range from a lower number to a higher"),
    "not its type": (["--over", "world.clusters=1,x"], "world.clusters must be a whole number"),
    "unknown design": (["--over", "seed=1", "--design", "latin"], "give one of grid, random, one-at-a-time"),
    "random without points": (["--over", "seed=1", "--design", "random"], "random needs --points"),
    "points of a grid": (["--over", "seed=1", "--points", "3"], "grid takes no --points"),
    "no workers": (["--over", "seed=1", "--workers", "0"], "must be at least 1"),
    "both": (
        ["--over", "seed=1", "--workers", "2", "--scheduler", "tcp://x:1"],
        "--workers is for this machine",
    ),
    "no scheduler": (["--over", "seed=1", "--scheduler", "tcp://127.0.0.1:9"], "no dask scheduler answers"),
    "nothing can run": (
        ["--over", "objective.mask_ratio=0,1"],
        "not one of 2 points can be run; the first: ",
    ),
    "base that is none": (
        ["--over", "objective.mask_ratio=0.5", "--mask-ratio", "2", "--design", "one-at-a-time"],
        "mask_ratio",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_workers, "WAIT", 0.5)
    Path("c.toml").write_text(BASE)
    tokens, words = REFUSED[case]
    assert mimlab("sweep", "c.toml", *tokens, "--out", "deep/run") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert len(said.err.splitlines()) <= 4
    assert sorted(tmp_path.iterdir()) == [tmp_path / "c.toml"]


def test_a_machine_without_dask_is_told_what_to_install(tmp_path, monkeypatch, capsys):
    from mimlab.runs import checks

    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(BASE)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert mimlab("sweep", "c.toml", "--over", "seed=1", "--out", "run") == 2
    assert "needs distributed; install mimlab[sweep]" in capsys.readouterr().err
