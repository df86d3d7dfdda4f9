"""The tables of a run against each other and against the whole map, written out patch by patch.

Columns, types and nulls are held by test_file_contract.py; here are the values.
"""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mimlab
from mimlab.dynamics.tables import EVERY_PATCH, attention_map

Array = np.ndarray
DESCENT = {"integrator": "descent", "learning_rate": 2.0, "steps": 60, "stop_attention": 1.0}
LATENT = mimlab.Latent(0.4, 1.4)
LISTS = ((9, 4, 4, 3), (6, 7, 4, 3))
WORLDS: dict[str, dict[str, Any]] = {
    "areas": {"area_sizes": (9, 4, 4, 3, 1)},
    "clusters": {"area_sizes": (9, 4, 4, 3), "clusters": 3},
    "nested": {"area_sizes": (9, 4, 4, 3), "clusters": 2, "partitions": "nested"},
    "random": {"area_sizes": (9, 4, 4, 3), "clusters": 3, "partitions": "random"},
    "lists": {"area_sizes": LISTS[0], "clusters": 2, "partitions": LISTS},
    "one area": {"area_sizes": (12,)},
    "beyond 1000": {"area_sizes": (700, *[60] * 4, *[50] * 2)},
    "beyond 1000, clusters": {"area_sizes": (700, *[60] * 4, *[50] * 2), "clusters": 2},
    "beyond 1000, nested": {"area_sizes": (700, *[60] * 4, *[50] * 2), "clusters": 2, "partitions": "nested"},
    "beyond 1000, random": {"area_sizes": (800, *[150] * 2), "clusters": 2, "partitions": "random"},
}


@cache
def run_of(name: str, query: int | str, engine: str = "mean-field") -> Any:
    return mimlab.simulate(mimlab.World(**WORLDS[name], latent=LATENT), engine=engine, query=query, **DESCENT)


@pytest.fixture(params=[(name, query) for name in WORLDS for query in ("global", 3, "last")], ids=str)
def run(request: pytest.FixtureRequest) -> Any:
    name, query = request.param
    if query == "last":
        query = sum(WORLDS[name]["area_sizes"]) - 1
    return run_of(name, query)


def entries(run: Any, time: float | None = None) -> list[dict[str, Any]]:
    """Rows of the correlations at a recorded time, the last unless said otherwise."""
    times = run.correlations["time"].to_numpy()
    wanted = times.max() if time is None else time
    return run.correlations.filter(pa.array(times == wanted)).to_pylist()


def layout_of(run: Any) -> Any:
    return run.config.world.layout(run.config.seed)


# --- correlations -----------------------------------------------------------------------------------------


def test_entries_are_all_there_once(run: Any) -> None:
    """Up to 1000 patches every area of every cluster and every patch; beyond, sizes add up to them."""
    layout, rows = layout_of(run), entries(run)
    features = [row for row in rows if row["kind"] == "feature"]
    positions = [row for row in rows if row["kind"] == "position"]
    assert len(features) + len(positions) == len(rows)
    for k in range(layout.clusters):
        here = [row for row in features if row["cluster"] == k]
        targets = [row["target"] for row in here]
        assert len(set(targets)) == len(targets)
        assert sum(row["size"] for row in here) == layout.partition_of(k).areas
    targets = [row["target"] for row in positions]
    assert len(set(targets)) == len(targets)
    assert sum(row["size"] for row in positions) == layout.patches
    if layout.patches <= EVERY_PATCH:
        assert all(row["size"] == 1 for row in rows)
        assert sorted(targets) == list(range(layout.patches))
    else:
        query = run.trajectory["query"][0].as_py()
        assert [row["size"] for row in positions if row["target"] == query] == [1]


def test_position_entries_sum_to_nothing(run: Any) -> None:
    for time in set(run.correlations["time"].to_pylist()):
        rows = [row for row in entries(run, time) if row["kind"] == "position"]
        assert abs(sum(row["size"] * row["value"] for row in rows)) < 1e-12


def test_areas_of_one_size_stand_behind_the_first_of_them(run: Any) -> None:
    layout, query = layout_of(run), run.trajectory["query"][0].as_py()
    for row in entries(run):
        if row["kind"] == "feature" and row["size"] > 1:
            partition = layout.partition_of(row["cluster"])
            apart, size = (0, partition.area_of(query)), partition.size_of(row["target"])
            alike = [a for a in range(partition.areas) if a not in apart and partition.size_of(a) == size]
            assert (row["target"], row["size"]) == (alike[0], len(alike))


@pytest.mark.parametrize("name", [name for name in WORLDS if "beyond" in name])
def test_entries_beyond_a_thousand_are_those_of_the_full_list(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = entries(run_of(name, 3))
    monkeypatch.setattr("mimlab.dynamics.tables.EVERY_PATCH", 10**6)
    world = mimlab.World(**WORLDS[name], latent=LATENT)
    full = entries(mimlab.simulate(world, engine="mean-field", query=3, **DESCENT))
    listed = {(row["kind"], row["cluster"], row["target"]): row["value"] for row in full}
    assert len(full) == len(listed) > len(short)
    for row in short:
        assert listed[row["kind"], row["cluster"], row["target"]] == row["value"]
    for kind in ("feature", "position"):
        together = sum(row["size"] * row["value"] for row in short if row["kind"] == kind)
        apart = sum(row["value"] for row in full if row["kind"] == kind)
        assert together == pytest.approx(apart, rel=1e-9, abs=1e-12)


def test_correlations_are_listed_at_recorded_times(run: Any) -> None:
    recorded, listed = run.trajectory["time"].to_pylist(), run.correlations["time"].to_pylist()
    assert listed == sorted(listed)
    assert set(listed) <= set(recorded)
    assert {recorded[0], recorded[-1]} <= set(listed)


def test_correlations_are_listed_where_something_happens() -> None:
    run = mimlab.simulate(mimlab.World(area_sizes=(60, *[6] * 10)), engine="mean-field")
    recorded = run.trajectory["time"].to_numpy()
    listed = set(run.correlations["time"].to_pylist())
    moments = [run.summary["half_time"], *(phase["end"] for phase in run.summary["phases"])]
    assert len(moments) == 4
    for moment in moments:
        assert recorded[np.argmin(np.abs(recorded - moment))] in listed
    assert run.summary["half_time"] in listed


# --- trajectory -------------------------------------------------------------------------------------------


def test_columns_of_the_trajectory_are_means_of_the_entries(run: Any) -> None:
    """phi_own, phi_global, phi_other_max, upsilon_max at every time at which both tables have a row."""
    layout = layout_of(run)
    rows = {row["time"]: row for row in run.trajectory.to_pylist()}
    for time in set(run.correlations["time"].to_pylist()):
        found, listed = rows[time], entries(run, time)
        own, everywhere, other = [], [], []
        for k in range(layout.clusters):
            partition = layout.partition_of(k)
            area = partition.area_of(found["query"])
            phi = {row["target"]: row["value"] for row in listed if row["cluster"] == k}
            own.append(phi[area])
            everywhere.append(phi[0])
            rest = [abs(value) for target, value in phi.items() if target not in (0, area)]
            other.append(max(rest) if rest else None)
        assert found["phi_own"] == pytest.approx(np.mean(own), rel=1e-12, abs=1e-15)
        assert found["phi_global"] == pytest.approx(np.mean(everywhere), rel=1e-12, abs=1e-15)
        largest = [value for value in other if value is not None]
        if len(largest) == layout.clusters:
            assert found["phi_other_max"] == pytest.approx(np.mean(largest), rel=1e-12, abs=1e-15)
        else:
            assert found["phi_other_max"] is None
        positions = [abs(row["value"]) for row in listed if row["kind"] == "position"]
        assert found["upsilon_max"] == pytest.approx(max(positions), rel=1e-12, abs=1e-15)


def test_trajectories_begin_at_nothing_and_end_at_the_last_step(run: Any) -> None:
    first, *_, last = run.trajectory.to_pylist()
    assert (first["step"], first["time"], last["step"], last["time"]) == (0, 0.0, 60, 120.0)
    assert first["phi_own"] == first["phi_global"] == first["upsilon_max"] == 0.0
    assert first["entropy"] == pytest.approx(np.log(run.summary["patches"]), rel=1e-12)


@pytest.mark.parametrize("engine", ["enumerated", "sampled", "mean-field"])
@pytest.mark.parametrize("integrator", [{}, {"integrator": "descent", "learning_rate": 1.0, "steps": 5}])
def test_a_run_that_need_not_start_has_one_row(engine: str, integrator: dict[str, Any]) -> None:
    """At Q = 0 half of what is visible is seen already: a stop at 1% is reached."""
    world = mimlab.World(area_sizes=(6, 4))
    run = mimlab.simulate(world, engine=engine, stop_attention=0.01, draws=64, **integrator)
    assert run.trajectory.num_rows == 1
    assert run.summary["status"] == "stopped"
    assert run.summary["half_time"] is None
    assert run.summary["phases"] == []
    assert {row["value"] for row in run.correlations.to_pylist()} == {0.0}


def test_errors_of_the_sampled_engine_are_its_own() -> None:
    world = mimlab.World(area_sizes=(9, 4, 4, 3), latent=LATENT)
    run = mimlab.simulate(world, engine="sampled", draws=64, stop_attention=0.8)
    for name in ("loss", "excess_loss", "attention_own", "attention_global", "phi_own", "phi_global"):
        errors, values = run.trajectory[f"{name}_se"].to_numpy(), run.trajectory[name].to_numpy()
        assert np.all(np.isfinite(errors)) and np.all(errors >= 0)
        assert np.all(errors[1:] > 0)
        assert errors[-1] < 0.5 * abs(values[-1])
    assert run.trajectory["phi_own_se"][0].as_py() == 0.0


def test_the_error_of_the_half_time_does_not_depend_on_where_a_run_stops() -> None:
    """Replicates that are later than the whole are followed on to half attention."""
    world = mimlab.World(area_sizes=(40, *[8] * 5), latent=LATENT)
    short, long = (mimlab.simulate(world, draws=64, stop_attention=stop).summary for stop in (0.5, 0.8))
    assert short["half_time"] == pytest.approx(long["half_time"], rel=1e-6)
    assert short["half_time_se"] == pytest.approx(long["half_time_se"], rel=1e-4)


# --- all rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integrator", [DESCENT, {"stop_attention": 0.7}], ids=["descent", "flow"])
def test_queries_of_all_classes_share_their_times(integrator: dict[str, Any]) -> None:
    world = mimlab.World(area_sizes=(9, 4, 4, 3, 2))
    run = mimlab.simulate(world, engine="mean-field", query="all", **integrator)
    queries = list(dict.fromkeys(run.trajectory["query"].to_pylist()))
    assert queries == [0, 9, 17, 20]
    times = {
        query: run.trajectory.filter(pa.array(run.trajectory["query"].to_numpy() == query))
        for query in queries
    }
    for table in times.values():
        assert table["time"].equals(times[0]["time"])
        assert table["nmi"].equals(times[0]["nmi"])
    assert {facts["status"] for facts in run.summary["queries"]} == {run.summary["status"]}
    alone = mimlab.simulate(world, engine="mean-field", query=20, **integrator)
    assert alone.summary["half_time"] == pytest.approx(run.summary["queries"][3]["half_time"], rel=1e-6)


def whole_map(world: mimlab.World, engine: str, options: dict[str, Any]) -> Array:
    """Attention from every patch to every patch after the last step, each row from a run of its own."""
    mean, labels = world.latent.mean, world.base.all_labels()
    result = np.empty((world.patches_total,) * 2)
    for query in range(world.patches_total):
        rows = entries(mimlab.simulate(world, engine=engine, query=query, **options))
        phi = np.array([row["value"] for row in rows if row["kind"] == "feature"])
        upsilon = np.array([row["value"] for row in rows if row["kind"] == "position"])
        weights = np.exp(mean * phi[labels] + upsilon)
        result[query] = weights / weights.sum()
    return result


def entropy(distribution: Array) -> float:
    return float(-(distribution * np.log(distribution)).sum())


def test_statistics_of_the_whole_map_are_those_of_every_row() -> None:
    """Entropy, NMI and effective rank (theory, section 7; docs/statistics.md) from P runs, one for each patch."""
    world = mimlab.World(area_sizes=(5, 3, 3, 2, 1), latent=LATENT)
    A = whole_map(world, "mean-field", DESCENT)
    run = mimlab.simulate(world, engine="mean-field", query="all", **DESCENT)
    mean = A.mean(axis=0)
    information = entropy(mean) - np.mean([entropy(row) for row in A])
    nmi = information / np.sqrt(np.log(len(A)) * entropy(mean))
    values = np.linalg.svd(A, compute_uv=False)
    rank = np.exp(entropy(values / values.sum()))
    last = [row for row in run.trajectory.to_pylist() if row["step"] == DESCENT["steps"]]
    assert [row["query"] for row in last] == [0, 5, 11, 13]
    for row in last:
        assert row["nmi"] == pytest.approx(nmi, rel=1e-9)
        assert row["effective_rank"] == pytest.approx(rank, rel=1e-9)
        assert row["entropy"] == pytest.approx(entropy(A[row["query"]]), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in WORLDS if "beyond" not in name])
def test_attention_over_the_patches_is_the_softmax_of_the_entries(name: str) -> None:
    """On an unmasked image of the first cluster whose latents stand at their mean."""
    run = run_of(name, 3)
    rows, labels = entries(run), layout_of(run).partition_of(0).all_labels()
    phi = np.array([row["value"] for row in rows if row["kind"] == "feature" and row["cluster"] == 0])
    upsilon = np.array([row["value"] for row in rows if row["kind"] == "position"])
    weights = np.exp(LATENT.mean * phi[labels] + upsilon)
    found = attention_map(run.rows[0], layout_of(run), -1, LATENT.mean)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-12)
    if layout_of(run).shared:
        assert run.trajectory["entropy"][-1].as_py() == pytest.approx(entropy(found), rel=1e-9)


# --- any small world, any engine --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["enumerated", "sampled", "mean-field"])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (1, 2), (1, 1, 1, 1), (3, 1, 1), (1, 5), (4,)])
def test_the_smallest_worlds_run(engine: str, sizes: tuple[int, ...]) -> None:
    """One patch an area: nothing to attend to, so attention is null, and every image is hopeless."""
    world = mimlab.World(area_sizes=sizes)
    for query in ["global", "all"] + ["local"] * (len(sizes) > 1):
        run = mimlab.simulate(
            world, mimlab.MaskedReconstruction(0.5), engine=engine, query=query, draws=64, **DESCENT
        )
        assert run.summary["status"] == "finished"
        for row in run.trajectory.to_pylist():
            alone = world.base.size_of(world.base.area_of(row["query"])) == 1
            assert (row["attention_own"] is None) == (row["attention_global"] is None) == alone
            assert np.isfinite([row["loss"], row["excess_loss"], row["entropy"], row["upsilon_max"]]).all()
            assert row["excess_loss"] > 0
