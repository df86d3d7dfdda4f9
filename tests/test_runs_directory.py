"""Run directories: whole or not at all, one process at a time, and nothing of the user's lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mimlab.runs import InputError, RunDirectory

HOLDER = """
import sys, time
from mimlab.runs import RunDirectory
with RunDirectory(sys.argv[1], overwrite=True) as folder:
    (folder / "half.txt").write_text("half")
    print("inside", flush=True)
    time.sleep(60)
"""


def write_run(target: Path, text: str, **options: bool) -> None:
    with RunDirectory(target, **options) as folder:
        (folder / "summary.json").write_text(text)
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / "a.png").write_text("picture")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path):
    return tmp_path / "deep" / "run"


@pytest.fixture
def holder(target):
    """Another process at work in the run directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "inside\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_appears_only_when_whole(target):
    with RunDirectory(target) as folder:
        assert folder == target.with_name("run.partial")
        (folder / "summary.json").write_text("{}")
        assert not target.exists()
    assert names(target.parent) == ["run"]
    assert names(target) == ["summary.json"]


def test_empty_folder_is_taken(target):
    target.mkdir(parents=True)
    write_run(target, "new")
    assert (target / "summary.json").read_text() == "new"


def test_folder_with_anything_in_it_is_refused(target):
    write_run(target, "old")
    with pytest.raises(InputError, match=r"is not empty; name another folder, or .* --overwrite"):
        write_run(target, "new")
    assert (target / "summary.json").read_text() == "old"
    assert names(target.parent) == ["run"]


def test_overwrite_replaces_at_the_end(target):
    write_run(target, "old")
    (target / "stray.txt").write_text("of the old run")
    with RunDirectory(target, overwrite=True) as folder:
        (folder / "summary.json").write_text("new")
        assert (target / "summary.json").read_text() == "old"
    assert names(target.parent) == ["run"]
    assert names(target) == ["summary.json"]
    assert (target / "summary.json").read_text() == "new"


def test_overwrite_spares_what_is_no_run(target):
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds no summary\.json, so it is not a run"):
        write_run(target, "new", overwrite=True)
    assert names(target) == ["thesis.tex"]
    assert names(target.parent) == ["run"]


def test_failure_leaves_no_folder_that_was_not_there(tmp_path):
    with pytest.raises(InputError, match="refused late"), RunDirectory(tmp_path / "a" / "b" / "run"):
        raise InputError("refused late")
    assert names(tmp_path) == []


def test_failure_leaves_folders_that_others_use(tmp_path):
    with pytest.raises(ValueError, match="late"), RunDirectory(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "other").mkdir()
        raise ValueError("late")
    assert names(tmp_path / "a") == ["other"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_last_whole_run(target, error):
    write_run(target, "old")
    with pytest.raises(error), RunDirectory(target, overwrite=True) as folder:
        (folder / "summary.json").write_text("new")
        raise error
    assert names(target.parent) == ["run"]
    assert (target / "summary.json").read_text() == "old"


def test_keep_leaves_work_for_resume(target):
    with pytest.raises(KeyboardInterrupt), RunDirectory(target, keep=True) as folder:
        (folder / "checkpoint").write_text("step 7")
        raise KeyboardInterrupt
    with RunDirectory(target, resume=True) as folder:
        assert (folder / "checkpoint").read_text() == "step 7"
    assert names(target) == ["checkpoint"]


def test_kill_leaves_a_stale_partial_that_the_next_run_clears(target, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert names(target.with_name("run.partial")) == ["half.txt"]
    write_run(target, "new")
    assert names(target.parent) == ["run"]
    assert names(target) == ["figures", "summary.json"]


def test_kill_leaves_work_that_resume_finds(target, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunDirectory(target, resume=True) as folder:
        assert (folder / "half.txt").read_text() == "half"


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_two_processes_are_kept_apart(target, holder, options):
    with pytest.raises(InputError, match="is being written by another process"):
        write_run(target, "mine", **options)
    assert holder.poll() is None
    assert names(target.with_name("run.partial")) == ["half.txt"]


def test_two_runs_of_one_process_are_kept_apart(target):
    with RunDirectory(target) as folder, pytest.raises(InputError, match="another process"):
        (folder / "mine.txt").write_text("")
        write_run(target, "new")
    assert names(target) == ["mine.txt"]


def test_run_put_back_after_a_kill_between_the_renames(target):
    write_run(target, "old")
    target.rename(target.with_name("run.replaced"))
    with pytest.raises(InputError, match="is not empty"):
        write_run(target, "new")
    assert names(target.parent) == ["run"]
    assert (target / "summary.json").read_text() == "old"


def test_leftover_of_a_kill_after_the_renames_is_removed(target):
    write_run(target, "old")
    write_run(target.with_name("run.replaced"), "older")
    write_run(target, "new", overwrite=True)
    assert names(target.parent) == ["run"]
    assert (target / "summary.json").read_text() == "new"


def test_folder_filled_meanwhile_is_not_lost(target):
    with pytest.raises(OSError, match="not empty"), RunDirectory(target) as folder:
        (folder / "summary.json").write_text("mine")
        target.mkdir()
        (target / "theirs.txt").write_text("theirs")
    assert names(target) == ["theirs.txt"]
    assert names(target.with_name("run.partial")) == ["summary.json"]


def test_old_run_is_put_back_when_the_new_one_cannot_be_moved(target, monkeypatch):
    write_run(target, "old")
    rename = Path.rename

    def stubborn(self, to):
        if self.name == "run.partial":
            raise OSError("will not move")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(OSError, match="will not move"):
        write_run(target, "new", overwrite=True)
    assert (target / "summary.json").read_text() == "old"


def test_file_is_refused(target):
    target.parent.mkdir()
    target.write_text("a file")
    with pytest.raises(InputError, match="run is not a folder"):
        write_run(target, "new", overwrite=True)
    assert names(target.parent) == ["run"]


def test_file_in_place_of_the_working_folder_is_refused(target):
    target.parent.mkdir()
    target.with_name("run.partial").write_text("a file")
    with pytest.raises(InputError, match=r"run\.partial cannot be written: File exists"):
        write_run(target, "new")
    assert names(target.parent) == ["run.partial"]


def test_parent_that_cannot_be_written_is_refused(tmp_path):
    parent = tmp_path / "locked"
    parent.mkdir()
    parent.chmod(0o555)
    if os.geteuid() == 0:  # whom permissions do not stop
        parent = Path("/proc")
    with pytest.raises(InputError, match=r"run\.partial cannot be written"):
        write_run(parent / "run", "new")
    assert not (parent / "run").exists()


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_working_directory_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="working directory or above it"):
        write_run(Path(place), "new", overwrite=True)
    assert not tmp_path.with_name(tmp_path.name + ".partial").exists()


def test_mount_point_is_refused():
    with pytest.raises(InputError, match="mount point"):
        RunDirectory("/proc", overwrite=True).check()


def test_link_is_followed(tmp_path):
    write_run(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_run(tmp_path / "link", "new", overwrite=True)
    assert names(tmp_path) == ["link", "real"]
    assert (tmp_path / "real" / "summary.json").read_text() == "new"


def test_stale_folders_and_links_are_cleared_without_following(target, tmp_path):
    partial = target.with_name("run.partial")
    (partial / "figures").mkdir(parents=True)
    (partial / "figures" / "old.png").write_text("old")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "keep.txt").write_text("keep")
    (partial / "link").symlink_to(tmp_path / "precious")
    write_run(target, "new")
    assert names(target / "figures") == ["a.png"]
    assert names(tmp_path / "precious") == ["keep.txt"]
