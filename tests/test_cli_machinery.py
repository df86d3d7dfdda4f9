"""Flags from dataclasses, and how a call of the command line ends, on an application of small commands."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Parameter

from mimlab.cli.flags import configured, flags
from mimlab.cli.session import Session, run
from mimlab.runs import InputError, build


@dataclass(frozen=True)
class Law:
    """Never negative.

    Parameters
    ----------
    low
        The least value.
    """

    low: float | None = None
    values: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Place:
    """A place.

    Parameters
    ----------
    patches, exponent
        How many, and ``how`` they grow.
    law
        What is drawn.
    """

    patches: int | None = None
    exponent: float = 0.5
    area_sizes: tuple[int, ...] | None = None
    partitions: str | tuple[tuple[int, ...], ...] = "shared"
    image: Path | None = None
    law: Law = field(default_factory=lambda: Law(low=0.25))

    def __post_init__(self) -> None:
        if self.patches is None and self.area_sizes is None:
            raise InputError("place: give patches or area_sizes")


@dataclass(frozen=True)
class Aim:
    name: str = "masked"
    exact: bool = False


@dataclass(frozen=True)
class Config:
    place: Place
    aim: Aim = field(default_factory=Aim)
    seed: int = 7
    query: str | int = "local"


@configured(Config)
def study(
    mapping: dict,
    *,
    out: Path | None = None,
    json: bool = False,
    session: Annotated[Session, Parameter(parse=False)],
) -> int:
    """Study a place.

    Parameters
    ----------
    out
        Where to write.
    """
    config = build(Config, mapping)
    status = "failed: it is the seed of the beast" if config.seed == 666 else "finished"
    warnings = ["exponent is steep"] if config.place.exponent > 1 else []
    result = {"given": mapping, "seed": config.seed, "command": session.command, "out": out, "status": status}
    result["warnings"] = warnings
    return session.finish(result, lambda console, result: console.print(result["status"]), json=json, out=out)


@configured(Config, without=("place.patches",))
def sweep(mapping: dict, *, patches: tuple[float, float]) -> int:
    """Sweep over patches."""
    print(json.dumps([mapping, patches]))
    return 0


def fail(*, kind: str) -> int:
    """End badly."""
    raise {
        "interrupt": KeyboardInterrupt(),
        "disk": OSError(28, "No space left"),
        "input": InputError("bad\nworse"),
    }[kind]


@pytest.fixture
def app():
    app = App(name="lab", help_format="plaintext", default_parameter=Parameter(negative=()))
    for command in (study, sweep, fail):
        app.command(command)
    return app


@pytest.fixture
def given(app, capsys):
    """What a study is given, when flags are typed."""

    def call(*tokens):
        assert run(app, ["study", *tokens, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)["given"]

    return call


@pytest.fixture
def refusal(app, capsys):
    """What is said when a study is refused."""

    def call(*tokens):
        assert run(app, ["study", *tokens]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err

    return call


def test_every_key_has_one_flag():
    assert [flag.name for flag in flags(Config)] == [
        *("--patches", "--exponent", "--area-sizes", "--partitions", "--image", "--law-low", "--law-values"),
        *("--aim", "--exact", "--seed", "--query"),
    ]


def test_keys_that_would_share_a_flag_are_an_error_of_the_program():
    @dataclass(frozen=True)
    class Twice:
        place: Law
        other: Law

    with pytest.raises(ValueError, match="two keys of Twice have one flag"):
        flags(Twice)


@pytest.mark.parametrize(
    ("typed", "mapping"),
    [
        ("--patches 1e4", {"place": {"patches": 10000}}),
        ("--patches=1_000", {"place": {"patches": 1000}}),
        ("--patches 3 --exponent .75", {"place": {"patches": 3, "exponent": 0.75}}),
        ("--patches 3 --exponent -1e-3", {"place": {"patches": 3, "exponent": -0.001}}),
        ("--area-sizes 40 8 8", {"place": {"area_sizes": [40, 8, 8]}}),
        ("--area-sizes 40,8,8", {"place": {"area_sizes": [40, 8, 8]}}),
        ("--area-sizes 4 --partitions nested", {"place": {"area_sizes": [4], "partitions": "nested"}}),
        (
            "--area-sizes 4 --partitions [[3,1],[2,2]]",
            {"place": {"area_sizes": [4], "partitions": [[3, 1], [2, 2]]}},
        ),
        ("--area-sizes 4 --image 2024", {"place": {"area_sizes": [4], "image": "2024"}}),
        ("--patches 3 --law-values .5 1", {"place": {"patches": 3, "law": {"values": [0.5, 1.0]}}}),
        (
            "--patches 3 --aim masked --exact true",
            {"place": {"patches": 3}, "aim": {"name": "masked", "exact": True}},
        ),
        ("--patches 3 --query 5", {"place": {"patches": 3}, "query": 5}),
        ("--patches 3 --query all", {"place": {"patches": 3}, "query": "all"}),
        ("--patches 3 --query null", {"place": {"patches": 3}, "query": "null"}),
    ],
)
def test_flags_are_read_as_their_keys_types(given, typed, mapping):
    assert given(*typed.split()) == mapping


def test_flags_override_the_file_key_by_key(given, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('seed = 3\nquery = "all"\n[place]\npatches = 1e3\nexponent = 1\n[place.law]\nlow = 2\n')
    assert given(str(path), "--seed", "4", "--law-low", "5") == {
        "seed": 4,
        "query": "all",
        "place": {"patches": 1000, "exponent": 1.0, "law": {"low": 5.0}},
    }


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--seed x --patches 3", '--seed must be a whole number, not "x"'),
        ("--seed 1.5 --patches 3", '--seed must be a whole number, not "1.5"'),
        ("--patches nan", '--patches must be a whole number, not "nan"'),
        ("--patches 3 --exponent inf", '--exponent must be a finite number, not "inf"'),
        ("--area-sizes 40 x", "--area-sizes must be a list (a whole number, ...), not [40, 'x']"),
        ("--area-sizes --seed 1", "--area-sizes"),
        ("--partitions [[1,2.5]] --patches", "--patches requires an argument"),
        ("--patchs 3", "Unknown option: --patchs. Did you mean --patches? See lab study --help"),
        ("none.toml", "none.toml: there is no such file"),
        ("", "place: give patches or area_sizes"),
    ],
)
def test_what_does_not_fit_is_refused(refusal, typed, message):
    said = refusal(*typed.split())
    assert said.startswith("lab: ")
    assert message in said


def test_unknown_key_in_the_file_names_the_nearest(refusal, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[place]\npatchs = 3\n")
    assert refusal(str(path)) == f"lab: {path}: there is no key place.patchs; the nearest is place.patches\n"


def test_wrong_type_in_the_file_is_refused_even_under_a_flag(refusal, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("seed = 'x'\n")
    assert 'seed must be a whole number, not "x"' in refusal(str(path), "--seed", "3", "--patches", "4")


def test_a_command_may_take_over_a_key(app, capsys):
    assert run(app, ["sweep", "--patches", "1e4", "1e12", "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"seed": 1}, [1e4, 1e12]]
    assert run(app, ["sweep", "--patches", "1e4"]) == 2
    assert "--patches" in capsys.readouterr().err


def test_help_shows_names_types_defaults_and_words(app, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(app, ["study", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "CONFIG A TOML file; any flag below overrides its key.",
        "--out PATH Where to write.",
        "--patches INT How many, and how they grow.",
        "--exponent FLOAT See --patches. [default: 0.5]",
        "--area-sizes INT A place.",
        "--partitions TEXT|INT See --area-sizes. [default: shared]",
        "--law-low FLOAT The least value. [default: 0.25]",
        "--law-values FLOAT Never negative.",
        "--exact BOOL [default: false]",
        "--seed INT [default: 7]",
        "--query TEXT|INT [default: local]",
    ):
        assert words in shown
    assert shown.index("Parameters ─") < shown.index("Place ─") < shown.index("Aim ─")
    assert "session" not in shown


def test_a_command_may_have_defaults_of_its_own():
    shown = {
        flag.name: flag.default for flag in flags(Config, defaults={"place": {"law": {"low": 9}}, "seed": 8})
    }
    assert (shown["--law-low"], shown["--seed"], shown["--exponent"]) == (9, 8, 0.5)


def test_json_is_all_that_stdout_holds(app, capsys):
    assert run(app, ["study", "--patches", "3", "--json", "--image", "a b.png"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "given": {"place": {"patches": 3, "image": "a b.png"}},
        "seed": 7,
        "command": "lab study --patches 3 --json --image 'a b.png'",
        "out": None,
        "status": "finished",
        "warnings": [],
    }


def test_warnings_and_the_place_go_to_stderr(app, capsys):
    assert run(app, ["study", "--patches", "3", "--exponent", "2", "--out", "runs/x"]) == 0
    said = capsys.readouterr()
    assert said.err == "warning: exponent is steep\nwritten to runs/x\n"
    assert said.out == "finished\n"


@pytest.mark.parametrize(
    ("tokens", "code", "words"),
    [
        (["study", "--patches", "3"], 0, ""),
        (["study", "--patches", "3", "--seed", "666"], 1, ""),
        (["fail", "--kind", "interrupt"], 130, "lab: interrupted"),
        (["fail", "--kind", "disk"], 1, "lab: [Errno 28] No space left"),
        (["fail", "--kind", "input"], 2, "lab: bad\nworse"),
        (["fail"], 2, 'lab: Command "fail" parameter --kind requires an argument. See lab fail --help'),
        (["studdy"], 2, 'Did you mean "study"?'),
        (["--help"], 0, ""),
        ([], 0, ""),
    ],
)
def test_exit_codes(app, capsys, tokens, code, words):
    assert run(app, tokens) == code
    said = capsys.readouterr().err
    assert words in said
    assert bool(said) == bool(words)


SLOW = """
import time
from mimlab.cli import session
session.DELAY = {delay}
with session.Session("lab").progress() as progress:
    progress({fraction}, "a quarter")
    time.sleep(0.5)
print("done")
"""


def on_terminal(code: str) -> str:
    """What Python shows on a terminal that is its stderr."""
    terminal, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=side, env=environment, check=True
    )
    os.close(side)
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # the end, on Linux
        pass
    os.close(terminal)
    return shown.decode()


def test_progress_shows_what_takes_long():
    shown = on_terminal(SLOW.format(delay=0.1, fraction=0.25))
    assert "25%" in shown
    assert "a quarter" in shown


def test_progress_that_nobody_knows_has_no_percentage():
    shown = on_terminal(SLOW.format(delay=0.1, fraction=-1.0))
    assert "%" not in shown
    assert "a quarter" in shown


def test_progress_is_silent_where_nothing_takes_long():
    assert on_terminal(SLOW.format(delay=30, fraction=0.25)) == ""


def test_progress_is_silent_away_from_a_terminal():
    result = subprocess.run(
        [sys.executable, "-c", SLOW.format(delay=0.1, fraction=0.25)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("done\n", "")
