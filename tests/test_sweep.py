"""Sweeps on workers of their own processes: rows are those of single runs, failures are rows, nothing runs twice."""

import os
import re
import signal
import threading
from pathlib import Path

import dask
import pytest

from mimlab import sweep
from mimlab.dynamics.config import SimulationConfig
from mimlab.report import sweep_page
from mimlab.runs import InputError, build, read_toml
from mimlab.runs.axes import Axis
from mimlab.runs.tables import read_json, read_table, write_table
from mimlab.studies import sweep_workers
from mimlab.studies.single import simulate_config
from mimlab.studies.sweep import PLAN, run_sweep
from mimlab.studies.sweep_plan import Plan
from mimlab.studies.sweep_points import failed, run_point, table_of
from mimlab.studies.sweep_shards import Shards

CONTRACT = (
    (Path(__file__).parents[1] / "docs/file-contract.md")
    .read_text()
    .partition("\n`sweep`: ")[2]
    .partition("\n\n")[0]
)
DESCENT = {"integrator": "descent", "learning_rate": 1.0, "steps": 3}
SMALL = {"world": {"area_sizes": [12, 4, 4]}, "dynamics": {"engine": "mean-field", "stop_attention": 0.6}}
SLOW = {"world": {"area_sizes": [60, 20, 10]}, "dynamics": {"draws": 64}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers, each a process, that several tests share."""
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("scratch")),
        ) as found,
    ):
        yield found


@pytest.fixture
def address(cluster):
    return cluster.scheduler_address


@pytest.fixture
def no_page(monkeypatch):
    """Figures take a second, and most tests read tables."""
    monkeypatch.setattr(sweep_page, "write_sweep_page", lambda folder, rows, summary: None)


def test_rows_are_those_of_single_runs(address, tmp_path):
    axes = ["objective.mask_ratio=0.25:0.75:3", "world.area_sizes=[12,4,4],[8,8,4]"]
    summary, rows = sweep(SMALL, axes, tmp_path / "run", scheduler=address)
    assert summary["status"] == "finished"
    assert rows.num_rows == summary["points"] == 6
    assert rows["world.area_sizes"].to_pylist() == ["[12,4,4]", "[8,8,4]"] * 3
    plan = Plan.read(SMALL, axes)
    for row, point in zip(rows.to_pylist(), plan.points, strict=True):
        assert row["hash"] == point.hash
        run = simulate_config(build(SimulationConfig, point.config))
        last = run.trajectory.slice(len(run.trajectory) - 1).to_pylist()[0]
        facts = run.summary["queries"][0]
        assert row["objective.mask_ratio"] == run.config.objective.mask_ratio
        for name in (
            "attention_own",
            "attention_global",
            "phi_own",
            "phi_global",
            "upsilon_max",
            "time",
            "loss",
        ):
            assert row[name] == last[name]
        for name in ("half_time", "half_time_se", "patch_gap", "loss_floor", "query", "area_size"):
            assert row[name] == facts[name]
        assert (row["status"], row["error"]) == (run.summary["status"], None)
        judged = {verdict["claim"]: verdict for verdict in run.summary["claims"]}
        said = {name: value for name, value in row.items() if name.startswith("claim:") and value is not None}
        assert {name.split(":")[1] for name in said if name.endswith("verdict")} == set(judged)
        for claim, verdict in judged.items():
            assert row[f"claim:{claim}:verdict"] == verdict["verdict"]
            assert row[f"claim:{claim}:value"] == verdict["value"]
    written = read_table(tmp_path / "run" / "rows.parquet")
    assert written.equals(rows)
    assert read_json(tmp_path / "run" / "summary.json")["statuses"] == {"stopped": 6}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.toml",
        "figures",
        "report.html",
        "rows.parquet",
        "summary.json",
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_one_at_a_time_has_a_survival_table(address, tmp_path):
    axes = [Axis("objective.mask_ratio", (0.25, 0.5)), "dynamics.query=local,global", "seed=0,1,2"]
    summary, rows = sweep(SMALL, axes, tmp_path / "run", design="one-at-a-time", scheduler=address)
    assert rows.num_rows == 3 * (1 + 2 + 2)
    assert rows["axis"].to_pylist()[:5] == [None, *["objective.mask_ratio"] * 2, *["dynamics.query"] * 2]
    assert rows["objective.mask_ratio"].to_pylist()[:5] == [0.75, 0.25, 0.5, 0.75, 0.75]
    assert rows["seed"].to_pylist() == [0] * 5 + [1] * 5 + [2] * 5
    table = read_table(tmp_path / "run" / "survival.parquet").to_pylist()
    assert table == summary["survival"]
    sides = {(record["axis"], record["side"], record["until"]) for record in table}
    assert sides == {("objective.mask_ratio", "below", "0.25"), ("dynamics.query", "each", "global")}
    (record,) = (r for r in table if r["claim"] == "half-attention time" and r["side"] == "each")
    assert (record["at_base"], record["silent_at"], record["seeds"]) == ("holds", "global", 3)
    for said in (summary, summary["axes"][0], summary["verdicts"][0]):
        assert set(said) <= set(re.findall(r"\w+", CONTRACT))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Survival" in page and "Along dynamics.query" in page


def test_what_cannot_run_is_a_row_and_the_rest_runs(address, tmp_path):
    axes = [
        "world.area_sizes=[12,4,4],[2],[12,0]",
        "dynamics.query=local,15",
    ]
    summary, rows = sweep(SMALL, axes, tmp_path / "run", scheduler=address)
    found = rows.to_pylist()
    assert [row["status"] for row in found] == ["stopped", "stopped", *["refused"] * 4]
    assert "no local" in found[2]["error"] or "area" in found[2]["error"]
    assert "query = 15 lies outside" in found[3]["error"]
    assert "area_sizes[1] = 0" in found[4]["error"]
    assert summary["status"] == "finished"
    assert summary["statuses"] == {"stopped": 2, "refused": 4}
    assert [record["point"] for record in summary["failures"]] == [2, 3, 4, 5]
    assert set(summary["failures"][0]) <= set(re.findall(r"\w+", CONTRACT))
    assert summary["warnings"][0].startswith("4 of 6 points did not run; the first: ")
    assert "query = 15 lies outside" in (tmp_path / "run" / "report.html").read_text()


def test_a_sweep_of_which_nothing_runs_has_failed(address, no_page, tmp_path):
    summary, _ = sweep(SMALL, ["dynamics.query=100,200"], tmp_path / "run", scheduler=address)
    assert summary["status"].startswith("failed: not one of 2 points ran; the first: ")


def test_a_defect_in_a_point_is_a_row_that_names_it(monkeypatch):
    from mimlab.studies import single

    def broken(config):
        raise ZeroDivisionError("by none")

    monkeypatch.setattr(single, "simulate_config", broken)
    row = run_point("name", SMALL)
    assert (row["status"], row["error"]) == ("failed", "ZeroDivisionError: by none")


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        {**SMALL, "dynamics": {**SMALL["dynamics"], "query": "global"}},
        {**SMALL, "dynamics": {**SMALL["dynamics"], "query": "all"}},
        {**SMALL, "objective": {"name": "contrastive"}, "dynamics": {**DESCENT, "draws": 64}},
        {**SMALL, "dynamics": {**DESCENT, "engine": "dense"}},
        {
            **SMALL,
            "objective": {"name": "in-context"},
            "dynamics": {**DESCENT, "engine": "dense"},
        },
    ],
    ids=["masked", "global", "all", "contrastive", "dense", "in-context"],
)
def test_every_objective_and_engine_has_its_row(config):
    row = run_point("name", config)
    assert row["error"] is None, row["error"]
    table = table_of([row])
    assert table.to_pylist()[0].items() >= row.items()
    verdicts = simulate_config(build(SimulationConfig, config)).summary["claims"]
    assert {name for name in row if name.endswith(":verdict")} == {
        f"claim:{verdict['claim']}:verdict" for verdict in verdicts if verdict["query"] == row["query"]
    }


def test_rows_that_are_there_do_not_run_again(address, no_page, tmp_path, monkeypatch):
    plan = Plan.read(SMALL, ["objective.mask_ratio=0.25,0.5,0.75"])
    run_sweep(plan, tmp_path / "first", scheduler=address)
    partial = tmp_path / "run.partial"
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, tmp_path / "run", scheduler=address, progress=interrupted)
    assert (partial / PLAN).is_file()
    known = plan.points[0].hash
    for path in (partial / "shards").iterdir():
        path.unlink()
    write_table(partial / "shards" / "0000004.parquet", table_of([failed(known, "failed", "kept as it is")]))
    (partial / "shards" / "0000005.parquet").write_bytes(b"PAR1 torn")
    (partial / "shards" / "0000006.parquet.new").write_bytes(b"")
    with pytest.raises(InputError, match="holds an interrupted sweep; go on with --resume"):
        run_sweep(plan, tmp_path / "run", scheduler=address)
    other = Plan.read(SMALL, ["objective.mask_ratio=0.25,0.5,0.7"])
    with pytest.raises(InputError, match="begun with other axes; --resume needs the same"):
        run_sweep(other, tmp_path / "run", scheduler=address, resume=True)
    sent: list[str] = []

    def counted(client, work, take):
        sent.extend(name for name, _ in work)
        sweep_workers.carry_out(client, work, take)

    monkeypatch.setattr("mimlab.studies.sweep.carry_out", counted)
    _, rows = run_sweep(plan, tmp_path / "run", scheduler=address, resume=True)
    assert sent == [point.hash for point in plan.points[1:]]
    assert rows["error"].to_pylist() == ["kept as it is", None, None]
    whole = read_table(tmp_path / "first" / "rows.parquet").drop_columns(["seconds"])
    assert rows.drop_columns(["seconds"]).slice(1).equals(whole.slice(1))
    with pytest.raises(InputError, match="has ended: there is nothing to resume"):
        run_sweep(plan, tmp_path / "run", scheduler=address, resume=True)


def interrupted(fraction: float, text: str) -> None:
    if fraction > 0:
        raise KeyboardInterrupt


def test_a_configuration_that_occurs_twice_runs_once(address, no_page, tmp_path):
    axes = ["objective.mask_ratio=0.5,0.75", "objective.name=masked"]
    _, rows = sweep(SMALL, axes, tmp_path / "run", design="one-at-a-time", scheduler=address)
    first, *_, same, named = rows.to_pylist()
    assert first["hash"] == same["hash"] == named["hash"]
    assert first["seconds"] == same["seconds"]


def test_a_killed_worker_loses_nothing(cluster, no_page, tmp_path):
    """Its piece runs elsewhere, and dask starts another worker."""
    seen: list[float] = []

    def kill_one(fraction: float, text: str) -> None:
        seen.append(fraction)
        if len(seen) == 3:
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

    axes = ["world.latent.high=1:3:60"]
    mapping = {**SMALL, "world": {"area_sizes": [12, 4, 4], "latent": {"low": 1.0}}}
    summary, rows = sweep(
        mapping, axes, tmp_path / "run", scheduler=cluster.scheduler_address, progress=kill_one
    )
    assert len(seen) >= 3
    assert summary["statuses"] == {"stopped": 60}
    assert len(set(rows["hash"].to_pylist())) == 60
    plan = Plan.read(mapping, axes)
    run = simulate_config(build(SimulationConfig, plan.points[7].config))
    assert rows["half_time"][7].as_py() == run.summary["half_time"]


def test_a_point_that_kills_its_workers_is_found(cluster, monkeypatch):
    from distributed import Client

    def run_points(work):
        if any(name == "poison" for name, _ in work):
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"hash": name, "status": "stopped"} for name, _ in work], 0.001 * len(work)

    monkeypatch.setattr(sweep_workers, "run_points", run_points)
    names = [*map(str, range(40)), "poison", *map(str, range(40, 60))]
    rows: list[dict] = []
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=20)
        sweep_workers.carry_out(client, [(name, {}) for name in names], rows.extend)
    assert sorted(row["hash"] for row in rows) == sorted(names)
    bad = [row for row in rows if row["status"] != "stopped"]
    assert [(row["hash"], row["status"]) for row in bad] == [("poison", "failed")]
    assert "each worker that ran it died" in bad[0]["error"]


def test_a_scheduler_that_is_lost_ends_the_sweep_and_leaves_its_rows(tmp_path):
    from distributed import LocalCluster

    scratch = str(tmp_path / "scratch")
    cluster = LocalCluster(n_workers=1, processes=False, dashboard_address=":0", local_directory=scratch)

    def lose(fraction: float, text: str) -> None:
        if fraction > 0 and not closing.is_alive() and not closed:
            closed.append(True)
            closing.start()

    closed: list[bool] = []
    closing = threading.Thread(target=cluster.close)
    try:
        with pytest.raises(OSError):
            sweep(
                SLOW, ["seed=0:99:100"], tmp_path / "run", scheduler=cluster.scheduler_address, progress=lose
            )
    finally:
        closing.join()
        cluster.close()
    assert Shards(tmp_path / "run.partial" / "shards").hashes


def test_the_configuration_repeats_the_sweep(address, no_page, tmp_path):
    sweep(SMALL, ["objective.mask_ratio=0.5"], tmp_path / "a", scheduler=address)
    again, _ = sweep(
        read_toml(tmp_path / "a" / "config.toml"),
        ["objective.mask_ratio=0.5"],
        tmp_path / "b",
        scheduler=address,
    )
    first = read_json(tmp_path / "a" / "summary.json")
    assert {**first, "seconds": 0} == {**read_json(tmp_path / "b" / "summary.json"), "seconds": 0}
    assert again["axes"] == [{"key": "objective.mask_ratio", "spacing": "list", "values": [0.5]}]


def test_a_scheduler_that_cannot_be_used_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_workers, "WAIT", 0.5)
    for address, words in (
        ("tcp://127.0.0.1:9", "no dask scheduler answers"),
        ("nonsense://x", "no dask scheduler"),
    ):
        with pytest.raises(InputError, match=words):
            sweep(SMALL, ["seed=1"], tmp_path / "run", scheduler=address)
    assert list(tmp_path.iterdir()) == []
