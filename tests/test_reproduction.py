"""Reproduction: every claim on one page, from jobs that may run in any process; nothing half done is left behind."""

import operator
import os
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave

from mimlab.claims.catalogue import CLAIMS
from mimlab.cli import application
from mimlab.cli.session import run as type_in
from mimlab.runs import read_toml
from mimlab.runs.axes import Axis
from mimlab.runs.tables import read_json, read_table
from mimlab.studies import (
    contrastive_worlds,
    copying,
    diversity,
    every_query,
    explored,
    probe_at_work,
    rate_jobs,
    relaxed_worlds,
    reproduction,
    training_verdicts,
    weighted,
    world_jobs,
    worlds,
)
from mimlab.studies.outcomes import Outcome
from mimlab.studies.reproduction import run_jobs, run_reproduce
from mimlab.world.world import World

RECORD = {
    *("claim", "query", "statement", "source", "quantity", "value", "low", "high"),
    *("threshold", "reason", "verdict", "evidence", "world", "label", "expected", "command", "figure"),
}
ONE_RUN = worlds.Run(
    "one-run",
    "a small world, stopped early",
    {
        "world": {"area_sizes": [60, *[6] * 10]},
        "dynamics": {"engine": "mean-field", "integrator": "descent", "learning_rate": 1.0, "steps": 20},
    },
    ("correlations", "attention", "excess_loss"),
    {"convergence": "fails", "area-wide attention": "fails"},
)
ONE_MAP = worlds.Run(
    "one-map",
    "masked, a small world",
    {"world": {"area_sizes": [12, 4, 4]}, "dynamics": {"engine": "mean-field", "query": "all"}},
)
ONE_SERIES = worlds.Series(
    "one-series",
    "three P",
    {"world": {"global_exponent": 0.9, "local_exponent": 0.3}, "dynamics": {"stop_attention": 0.9}},
    1e5,
    1e9,
    3,
)


def one_core(_: int) -> set[int]:
    return {0}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> tuple[Path, dict[str, Any], list[tuple[float, str]]]:
    """Where, what, and the progress told: one run, one series and one photograph, in this process."""
    home = tmp_path_factory.mktemp("reproduced")
    pixels = np.full((224, 224, 3), 20, dtype=np.uint8)
    pixels[48:128, 48:112] = 250
    imsave(home / "square.png", pixels, check_contrast=False)
    told: list[tuple[float, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", one_core)
        patch.setattr(worlds, "RUNS", (ONE_RUN,))
        patch.setattr(copying, "RUNS", ())
        patch.setattr(relaxed_worlds, "RELAXED_RUNS", ())
        for name in ("CONTRASTIVE_RUNS", "CONTRASTIVE_SERIES", "TEMPERATURES"):
            patch.setattr(contrastive_worlds, name, ())
        patch.setattr(worlds, "SERIES", (ONE_SERIES,))
        patch.setattr(worlds, "AREA_SIZES", (4, 8, 16))
        patch.setattr(explored, "GRIDS", (replace(explored.GRIDS[0], global_exponents=(0.9,)),))
        patch.setattr(diversity, "RUNS", (ONE_MAP,))
        patch.setattr(diversity, "HELD_OUT", ())
        patch.setattr(worlds, "LOCAL_AND_LARGE", {"patches": 300, "global_exponent": 0.8})
        patch.setattr(world_jobs, "SHOWN", ("square",))
        patch.setattr(rate_jobs, "WORLDS", 4)
        patch.setattr(weighted, "WEIGHTS", (1.0, 2.0))
        patch.setattr(weighted, "WORLD", World(area_sizes=(20, 6, 6), clusters=2))
        patch.setattr(weighted, "DYNAMICS", replace(weighted.DYNAMICS, draws=64, steps=20))
        patch.setattr(rate_jobs, "AXES", (Axis("world.global_exponent", (0.6, 0.75)), *rate_jobs.AXES[1:2]))
        patch.setattr(probe_at_work, "AREA_SIZES", (6, 4, 4, 2))
        patch.setattr(
            probe_at_work, "SIZES", probe_at_work.SIZES | {"image_size": 64, "num_hidden_layers": 2}
        )
        for module in (world_jobs, every_query):
            patch.setattr(module, "bundled_photographs", lambda: {"square": home / "square.png"})
        patch.setattr(every_query, "ASKED", "square")
        patch.setattr(training_verdicts, "RECORDED", home)  # where nothing is; see test_recorded_training.py
        summary = run_reproduce(
            home / "out", command="mimlab reproduce ...", progress=lambda *given: told.append(given)
        )
    return home / "out", summary, told


def test_every_verdict_is_complete(reproduced):
    folder, summary, _ = reproduced
    assert summary["status"] == "finished"
    assert {record["world"] for record in summary["claims"]} == {
        "one-map",
        "one-run",
        "one-series",
        "area-sizes",
        "boundary",
        "between",
        "partitions",
        "photographs",
        "weighted-sum",
        "simulated layer",
        "published models",
        "networks on photographs",
    }
    for record in summary["claims"]:
        assert set(record) == RECORD
        if record["figure"] is None:
            assert record["evidence"].startswith(("needs the weights", "needs runs of"))
        else:
            assert (folder / record["figure"]).stat().st_size > 0, record["claim"]
        assert record["verdict"] in ("holds", "fails", "inconclusive")
        assert record["label"] and record["statement"] and record["evidence"]
        assert record["command"].startswith("mimlab ")


def test_verdicts_stand_in_the_order_of_the_table(reproduced):
    order = [claim.name for claim in CLAIMS]
    places = [order.index(record["claim"]) for record in reproduced[1]["claims"]]
    assert places == sorted(places)
    assert [order[place] for place in sorted(set(places))] == list(
        dict.fromkeys(record["claim"] for record in reproduced[1]["claims"])
    )


def test_what_was_expected_is_said_beside_what_came_out(reproduced):
    of_run = {r["claim"]: r for r in reproduced[1]["claims"] if r["world"] == "one-run"}
    for name, record in of_run.items():
        assert record["expected"] == ONE_RUN.expected.get(name, "holds")
    assert of_run["convergence"]["verdict"] == of_run["convergence"]["expected"] == "fails"
    survey = {r["claim"]: r["expected"] for r in reproduced[1]["claims"] if r["world"] == "photographs"}
    assert survey["sign of the gap on photographs"] == "fails"
    assert survey["local attention on photographs"] == "holds"


def test_the_folder_holds_every_run(reproduced):
    folder, summary, _ = reproduced
    top = {path.name for path in folder.iterdir()}
    tables = {"photographs.parquet", "diversity.parquet"}
    assert top == {"figures", "worlds", *tables, "report.html", "summary.json"}
    assert {path.name for path in (folder / "worlds").iterdir()} == {
        "area-sizes",
        "explorer.parquet",
        "boundary",
        "between",
        "partitions",
        "one-map",
        "one-run",
        "one-series",
        "photograph-square",
        "photograph.parquet",
        "weighted-sum",
    }
    assert read_json(folder / "worlds/one-run/summary.json")["patches"] == 120
    assert read_table(folder / "worlds/one-run/trajectory.parquet").num_rows == 21
    points = read_table(folder / "worlds/one-series/points.parquet")
    assert points["patches"].to_pylist() == [10**5, 10**7, 10**9]
    assert read_toml(folder / "worlds/one-series/config.toml")["dynamics"]["stop_attention"] == 0.9
    assert read_table(folder / "photographs.parquet")["image"].to_pylist() == ["square.png"]
    assert read_json(folder / "summary.json") == summary
    assert summary["runs"] == {
        "boundary": ["stopped"] * 18,
        "weighted-sum": ["horizon", "horizon", "stopped", "stopped"],
        "between": ["stopped"] * 4,
        "partitions": ["stopped"] * 4,
        "area-sizes": ["stopped"] * 3,
        "diversity one-map": ["stopped"],
        "one-series": ["stopped"] * 3,
        "one-run": ["finished"],
        "explorer": ["stopped"] * 12,
        "every patch of square": ["stopped"],
    }


def test_the_page_says_each_claim_once(reproduced):
    folder, summary, _ = reproduced
    page = (folder / "report.html").read_text(encoding="utf-8")
    for claim in CLAIMS:
        heading = f">{claim.name[0].upper()}{claim.name[1:]}</h2>".replace("'", "&#x27;")
        judged = any(record["claim"] == claim.name for record in summary["claims"])
        assert page.count(heading) == judged, claim.name
    assert page.count("Attention over a photograph: square</h2>") == 1
    assert "mimlab reproduce ..." in page
    assert ONE_RUN.label in page
    order = [
        page.index(f">{text}") for text in ("Explorer: ", "Ask a patch: square</h2>", "Convergence</h2>")
    ]
    assert order == sorted(order)


def test_the_probe_needs_no_weights_to_be_shown(reproduced):
    folder, summary, _ = reproduced
    (agreement,) = [r for r in summary["claims"] if r["world"] == "simulated layer"]
    assert agreement["verdict"] == "holds" and agreement["value"] < 1e-5
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The probe on fresh weights</h2>" in page
    assert "<dt>Depth 1–2: nearly uniform</dt>" in page
    for record in summary["claims"]:
        if record["world"] == "published models":
            assert (record["verdict"], record["expected"]) == ("inconclusive", "inconclusive")
    assert page.count("needs the weights of MAE, MoCo v3, DINO, DeiT<br>") == 3  # rows of the table of claims
    assert "facebookresearch/moco-v3" in page


def test_progress_ends_when_all_is_done(reproduced):
    _, _, told = reproduced
    assert [share for share, _ in told] == pytest.approx([n / 14 for n in range(1, 15)])
    assert {what for _, what in told} == {
        *("area-sizes", "one-series", "photograph square", "one-run"),
        *("boundary", "between", "partitions", "diversity one-map", "weighted-sum", "survival"),
        *("the probe at work", "published models", "explorer", "every patch of square"),
    }


def test_printed_commands_run_the_same_worlds_again(reproduced, monkeypatch):
    folder, summary, _ = reproduced

    class Seen(Exception):
        pass

    def caught(*given: Any, **more: Any) -> None:
        raise Seen(given, more)

    monkeypatch.setattr("mimlab.cli.simulate.run_simulation", caught)
    monkeypatch.setattr("mimlab.cli.scale.run_scale", caught)
    monkeypatch.setattr("mimlab.cli.scale.run_rates", caught)
    monkeypatch.setattr("mimlab.cli.reproduce.run_reproduce", caught)
    typed = {}
    for world, command in {(record["world"], record["command"]) for record in summary["claims"]}:
        name, *tokens = shlex.split(command)
        with pytest.raises(Seen) as seen:
            type_in(application(*tokens[:1]), tokens)
        assert name == "mimlab"
        typed[world] = tokens[0], *seen.value.args
    assert {world: name for world, (name, *_) in typed.items()} == {
        "one-map": "simulate",
        "one-run": "simulate",
        "one-series": "scale",
        "boundary": "scale",
        "weighted-sum": "simulate",
        **dict.fromkeys(
            (
                *("area-sizes", "photographs", "simulated layer"),
                *("published models", "networks on photographs"),
                *("between", "partitions"),
            ),
            "reproduce",
        ),
    }
    (config, _), _ = typed["one-run"][1:]
    again = read_toml(folder / "worlds/one-run/config.toml")
    assert list(config.world.area_sizes) == again["world"]["area_sizes"]
    assert (config.dynamics.steps, config.dynamics.engine) == (20, "mean-field")
    (mapping, _), settings = typed["one-series"][1:]
    assert (settings["low"], settings["high"], settings["points"]) == (1e5, 1e9, 3)
    assert mapping["dynamics"]["engine"] == "mean-field"
    assert mapping["dynamics"]["stop_attention"] == 0.9


def test_all_jobs_of_the_paper_are_there():
    """One job a run, a series and a photograph, three for many worlds, one each for area sizes, the probe, the
    explorer, the asked photograph, the weighted sum and survival; names do not clash in worlds/."""
    maps = [job.args[0] for job in diversity.jobs()]
    assert len(maps) == len(diversity.RUNS) + len(diversity.HELD_OUT)
    every = (
        *maps,
        *worlds.RUNS,
        *copying.RUNS,
        *contrastive_worlds.CONTRASTIVE_RUNS,
        *relaxed_worlds.RELAXED_RUNS,
        *worlds.SERIES,
        *contrastive_worlds.CONTRASTIVE_SERIES,
    )
    names = [one.name for one in every]
    assert len(set(names)) == len(names)
    assert len(reproduction.jobs()) == 9 + len(contrastive_worlds.TEMPERATURES) + len(names) + len(
        world_jobs.bundled_photographs()
    )
    known = {claim.name for claim in CLAIMS}
    for one in every:
        assert set(one.expected) <= known, one.name
        assert set(one.expected.values()) <= {"fails", "inconclusive"}, one.name
    assert set(worlds.PHOTOGRAPHS_EXPECTED) <= known


def raising(error: type[BaseException], folder: Path) -> Outcome:
    (folder / "figures/half.png").write_text("half")
    raise error("told")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_ends_early_leaves_the_last_run_as_it_was(error, tmp_path, monkeypatch):
    """An interrupt and a job's own failure come through, and the run of before stays whole."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/summary.json").write_text('{"old": true}')
    monkeypatch.setattr(os, "sched_getaffinity", one_core)
    monkeypatch.setattr(reproduction, "jobs", lambda: [partial(raising, error)])
    with pytest.raises(error, match="told"):
        run_reproduce(tmp_path / "out", overwrite=True)
    assert read_json(tmp_path / "out/summary.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(error, match="told"):
        run_reproduce(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_failed_is_the_status_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", one_core)
    outcomes = [
        Outcome("a", statuses=["stopped"]),
        Outcome("b", statuses=["stopped", "failed: the solver gave up"]),
    ]
    monkeypatch.setattr(reproduction, "jobs", lambda: [lambda _, one=one: one for one in outcomes])
    monkeypatch.setattr(world_jobs, "survey", lambda records, folder: Outcome("survey"))
    assert run_reproduce(tmp_path / "out")["status"] == "failed: the solver gave up"


def test_worker_processes_keep_the_order_and_pass_on_what_goes_wrong(tmp_path, monkeypatch):
    """Two processes, whatever the machine has. Jobs are of the standard library, which every process can import."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert run_jobs([os.fspath, Path.exists, os.listdir], tmp_path) == [str(tmp_path), True, []]
    with pytest.raises(AttributeError, match="nothing"):
        run_jobs([Path.exists, operator.attrgetter("nothing")], tmp_path)
