"""What `mimlab probe` says on stderr where it goes on, begins afresh or refuses: each in one line, once."""

from pathlib import Path

from .test_cli_probe import here, mimlab, undrawn  # noqa: F401


def test_resume_says_where_there_is_nothing_to_resume(here, undrawn, capsys):  # noqa: F811
    once = ["probe", "mine:small", "--images", "images/0.png", "--statistics", "nmi", "--out", "run"]
    assert mimlab(*once, "--resume") == 0
    said = capsys.readouterr().err
    assert (
        said.splitlines()[0]
        == f"{Path('run.partial').resolve()} holds no interrupted run to resume: beginning afresh"
    )
    assert mimlab(*once, "--overwrite") == 0
    assert "resume" not in capsys.readouterr().err
    assert mimlab(*once, "--resume") == 2
    assert "afresh" not in capsys.readouterr().err


def test_who_speaks_is_said_once(here, capsys):  # noqa: F811
    assert mimlab("probe", "mine:small", "--dtype", "int8", "--out", "run") == 2
    assert capsys.readouterr().err.startswith("mimlab: probe: dtype must be ")


def test_a_place_where_nothing_can_be_written_says_what_to_do(here, undrawn, capsys):  # noqa: F811
    assert mimlab("probe", "mine:small", "--images", "images/0.png", "--out", "/proc/run") == 2
    assert "name a folder where you may write" in capsys.readouterr().err
