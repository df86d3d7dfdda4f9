"""The survival table that was recorded: the page has it, `reproduce` shows it, and its runs can be made again."""

import importlib
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mimlab.claims.survival import SURVIVAL_SCHEMA
from mimlab.runs import build, merge, read_toml
from mimlab.runs.tables import read_table
from mimlab.studies import survived
from mimlab.studies.survival import BASE, LADDERS, SEEDS, adam_command, survival_command
from mimlab.studies.survived import RECORDED, TABLE, as_markdown, by_key, recorded_survival

ROOT = Path(__file__).parents[1]


def record(claim: str, axis: str, side: str = "above", **ends: str | None) -> dict[str, str | None]:
    return {"claim": claim, "axis": axis, "side": side, "fails_at": None, "inconclusive_at": None, **ends}


def test_a_cell_says_where_a_claim_fails_first():
    rows = by_key(
        [
            record("a", "relax.noise", fails_at="3"),
            record("b", "relax.noise"),
            record(
                "a",
                "relax.heads",
                fails_at="8",
                inconclusive_at="4",
                verdicts="1 holds; 4 inconclusive; 8 fails",
            ),
            record(
                "b",
                "relax.heads",
                fails_at="2",
                inconclusive_at="4",
                verdicts="1 holds; 2 fails; 4 inconclusive",
            ),
            record("a", "relax.positions", "each", fails_at="sincos"),
            record("a", "relax.positions", "each", inconclusive_at="learned"),
        ]
    )
    assert rows == [
        {"key": "noise", "a": "3", "b": "–"},
        {"key": "heads", "a": "?4, 8", "b": "2"},
        {"key": "positions", "a": "sincos, ?learned", "b": ""},
    ]


def test_the_page_has_the_recorded_table():
    kept = recorded_survival()
    assert kept is not None
    assert as_markdown(by_key(kept[0])) in (ROOT / "docs/relaxations.md").read_text()


def test_every_ladder_was_run_with_every_seed():
    rows = read_table(RECORDED / "survival-rows.parquet")
    moved = {(row["axis"], str(row[row["axis"]]), row["seed"]) for row in rows.to_pylist() if row["axis"]}
    seeds = [int(seed) for seed in SEEDS.split(",")]
    values = sum(len(ladder.split(",")) for ladder in LADDERS.values())
    assert {axis for axis, *_ in moved} == set(LADDERS)
    assert len(moved) == values * len(seeds)
    assert rows.num_rows == len(moved) + len(seeds)
    assert not any(rows["error"].to_pylist())
    assert pq.read_schema(RECORDED / TABLE).names == SURVIVAL_SCHEMA.names


def test_all_claims_hold_at_the_base():
    kept = recorded_survival()
    assert kept is not None
    said = {(one["claim"], one["at_base"]) for one in kept[0]}
    assert {verdict for claim, verdict in said if claim != "final decay"} == {"holds"}


def test_the_first_steps_of_a_recorded_run_are_made_again():
    """A recorded row that stopped soon, run anew: the same numbers."""
    pytest.importorskip("torch")
    from mimlab.dynamics.config import SimulationConfig
    from mimlab.studies.single import simulate_config

    rows = read_table(RECORDED / "survival-rows.parquet").to_pylist()
    row = next(one for one in rows if one["axis"] == "relax.momentum" and one["relax.momentum"] == 0.9)
    mapping = merge(read_toml(BASE), {"seed": row["seed"], "relax": {"momentum": 0.9}})
    last = simulate_config(build(SimulationConfig, mapping)).trajectory.to_pylist()[-1]
    for name in ("time", "attention_own", "phi_own", "upsilon_max", "loss"):
        assert last[name] == pytest.approx(row[name], rel=1e-6), name


def test_a_reproduction_shows_it_or_says_nothing(tmp_path, monkeypatch):
    (section,) = survived.survived(tmp_path).sections
    assert section.rows == by_key(recorded_survival()[0])  # type: ignore[index]
    assert "not run now" in section.sentence
    monkeypatch.setattr(survived, "RECORDED", tmp_path)
    assert not survived.survived(tmp_path).sections


def test_the_commands_name_every_ladder():
    command = survival_command("runs/survival", "survival.toml")
    assert all(f"{key}={values}" in command for key, values in LADDERS.items())
    assert "--optimizer adam" in adam_command("runs/adam", "survival.toml")


def test_runs_are_kept_with_where_they_are_from(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("record_survival", None)
    module = importlib.import_module("record_survival")
    runs = [tmp_path / name for name in ("survival", "adam")]
    assert module.main([str(run) for run in runs], tmp_path) == 2
    assert "is not there" in capsys.readouterr().err
    for run in runs:
        run.mkdir()
        (run / "rows.parquet").write_bytes(b"rows")
        (run / TABLE).write_bytes(b"table")
        summary = {
            "command": run.name,
            "seconds": 1.0,
            "versions": {},
            "axes": [{"key": "seed", "values": [0, 1]}],
        }
        (run / "summary.json").write_text(json.dumps(summary))
    home = tmp_path / "home"
    home.mkdir()
    assert module.main([*(str(run) for run in runs), "--commit", "abc"], home) == 0
    kept = json.loads((home / "survival.json").read_text())
    assert (kept["commit"], kept["seeds"], kept["commands"]) == ("abc", 2, ["survival", "adam"])
    assert (home / "survival-adam.parquet").read_bytes() == b"rows"
