"""The files of a run, read back as another tool would: columns, types, nulls, keys, and values that must agree.

Names are written out here, not taken from the code: they are a promise (docs/file-contract.md).
"""

import json
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import build
from mimlab.studies.single import simulate_config, write_tables


def words(text: str) -> list[str]:
    """Names set apart by blanks."""
    return text.split()


INTEGERS, NUMBERS, TEXTS = pa.int64(), pa.float64(), pa.string()
OF_PHOTOGRAPHS = words("distance_ratio locality_1")
WHOLE_MAP = words("""
    nmi effective_rank nmi_bound diversity diversity_bound spread mean_entropy
""")
MEASURES = words("""
    loss excess_loss attention_own attention_global entropy phi_own phi_global phi_other_max upsilon_max
""")
ERRORS = words("""
    loss_se excess_loss_se attention_own_se attention_global_se phi_own_se phi_global_se
    upsilon_max_se
""")
MAP_ERRORS = words("nmi_se diversity_se")
TRAJECTORY = {"query": INTEGERS, "step": INTEGERS, "time": NUMBERS} | dict.fromkeys(
    MEASURES + WHOLE_MAP + OF_PHOTOGRAPHS + ERRORS + MAP_ERRORS, NUMBERS
)
CORRELATIONS = {
    "query": INTEGERS,
    "time": NUMBERS,
    "kind": TEXTS,
    "cluster": INTEGERS,
    "target": INTEGERS,
    "size": INTEGERS,
    "value": NUMBERS,
}
SUMMARY = words("""
    status information_gap loss_floor half_time half_time_se phases
    phi_global_at_half_over_log_patches queries engine integrator patches clusters area_sizes
    global_exponent local_exponent objective mask_ratio fp_share pp_share pp_share_se latent latent_mean
    warnings claims seed versions seconds
""")
QUERY = words("""
    query area area_size status patch_gap loss_floor hopeless half_time half_time_se
    predicted_half_time phi_global_at_half predicted_phi_global_at_half
    phi_global_at_half_over_log_patches
""")
VERDICT = words("""
    claim query statement source quantity value low high threshold reason verdict evidence
""")

CONFIGS: dict[str, dict[str, Any]] = {
    "sampled": {"world": {"area_sizes": [30, 6, 6, 6]}, "dynamics": {"draws": 64}, "seed": 3},
    "sampled, all": {"world": {"area_sizes": [12, 4, 4]}, "dynamics": {"draws": 64, "query": "all"}},
    "mean-field": {
        "world": {"patches": 5000, "global_exponent": 0.85, "local_exponent": 0.3},
        "dynamics": {"engine": "mean-field"},
    },
    "huge": {
        "world": {
            "patches": 1e12,
            "global_exponent": 0.9,
            "local_exponent": 0.3,
            "latent": {"low": 0.5, "high": 1.5},
        },
        "dynamics": {"engine": "mean-field", "stop_attention": 0.5},
    },
    "global": {
        "world": {"patches": 5000, "global_exponent": 0.6, "local_exponent": 0.3},
        "dynamics": {"engine": "mean-field", "query": "global"},
    },
    "all": {
        "world": {"area_sizes": [20, 8, 5, 5]},
        "dynamics": {"engine": "mean-field", "query": "all"},
        "objective": {"mask_ratio": 0.5},
    },
    "enumerated": {
        "world": {"area_sizes": [4, 3, 2], "latent": {"values": [0.5, 1.5]}},
        "objective": {"mask_ratio": 0.5},
        "dynamics": {"engine": "enumerated", "integrator": "descent", "learning_rate": 5.0, "steps": 100},
    },
    "two clusters": {
        "world": {"area_sizes": [30, 8, 8], "clusters": 2, "partitions": "nested"},
        "dynamics": {"draws": 64},
    },
    "two lists": {
        "world": {
            "area_sizes": [900, 150, 150],
            "clusters": 2,
            "partitions": [[900, 150, 150], [700, 300, 200]],
        },
        "dynamics": {"engine": "mean-field"},
    },
    "lonely": {
        "world": {"area_sizes": [6, 1, 3]},
        "dynamics": {"draws": 64, "integrator": "descent", "learning_rate": 1.0, "steps": 20},
    },
}


@dataclass(frozen=True, eq=False)
class Files:
    """A run directory's files as they are read."""

    config: SimulationConfig
    folder: Path
    trajectory: pa.Table
    correlations: pa.Table
    summary: dict[str, Any]

    def rows(self, query: int) -> dict[str, np.ndarray]:
        return _columns(self.trajectory, query)

    def entries(self, query: int) -> dict[str, np.ndarray]:
        return _columns(self.correlations, query)


def _columns(table: pa.Table, query: int) -> dict[str, np.ndarray]:
    here = np.asarray(table["query"]) == query
    return {name: table[name].to_numpy()[here] for name in table.column_names}


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


@pytest.fixture(scope="module", params=CONFIGS)
def files(request, tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("run")
    config = build(SimulationConfig, CONFIGS[request.param])
    write_tables(simulate_config(config), folder)
    return Files(
        config,
        folder,
        pq.read_table(folder / "trajectory.parquet"),
        pq.read_table(folder / "correlations.parquet"),
        json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=_refuse),
    )


def test_columns_and_types(files):
    for table, columns in ((files.trajectory, TRAJECTORY), (files.correlations, CORRELATIONS)):
        assert dict(zip(table.schema.names, table.schema.types, strict=True)) == columns


def test_nulls(files):
    """Errors only of the sampled engine, the whole map only with all rows, steps only of descent, attention only where
    there is somebody to attend to."""
    dynamics, one_area = files.config.dynamics, files.config.world.clusters == 1
    absent = {*OF_PHOTOGRAPHS}
    if dynamics.engine != "sampled":
        absent |= {*ERRORS, *MAP_ERRORS}
    if dynamics.query != "all":
        absent |= {*WHOLE_MAP, *MAP_ERRORS}
    if dynamics.integrator == "flow":
        absent |= {"step"}
    if files.summary["queries"][0]["area_size"] == 1:
        absent |= {name for name in TRAJECTORY if name.startswith("attention")}
    for name in TRAJECTORY:
        nulls, rows = files.trajectory[name].null_count, files.trajectory.num_rows
        assert nulls == (rows if name in absent else 0), name
    kinds = np.asarray(files.correlations["kind"])
    assert set(kinds) == {"feature", "position"}
    assert np.array_equal(np.asarray(files.correlations["cluster"].is_null()), kinds == "position")
    assert not any(files.correlations[n].null_count for n in CORRELATIONS if n != "cluster")
    assert not one_area or set(files.correlations["cluster"].drop_null().to_pylist()) == {0}


def test_numbers_are_finite(files):
    for table in (files.trajectory, files.correlations):
        for name in table.column_names:
            if table.schema.field(name).type == NUMBERS:
                assert np.all(np.isfinite(table[name].drop_null().to_numpy())), name


def test_keys(files):
    summary = files.summary
    assert list(summary) == SUMMARY
    assert all(list(facts) == QUERY for facts in summary["queries"])
    extra = ["world"] if len(summary["queries"]) > 1 else []
    assert summary["claims"]
    assert all(list(verdict) == VERDICT + extra for verdict in summary["claims"])
    assert {v["verdict"] for v in summary["claims"]} <= {"holds", "fails", "inconclusive"}
    assert all(set(phase) == {"query", "name", "start", "end"} for phase in summary["phases"])
    assert set(summary["versions"]) >= {"mimlab", "python", "numpy", "scipy", "pyarrow"}
    assert summary["seed"] == files.config.seed
    assert summary["status"] in ("stopped", "finished")


def test_the_configuration_is_read_back(files):
    text = (files.folder / "config.toml").read_text(encoding="utf-8")
    mapping = tomllib.loads(text)
    assert set(mapping) == {"seed", "world", "objective", "dynamics", "relax"}
    config = build(SimulationConfig, mapping)
    assert config == files.config
    assert mapping["dynamics"]["engine"] == files.config.dynamics.engine


@pytest.mark.parametrize("name", ["sampled", "enumerated", "two lists"])
def test_the_same_configuration_gives_the_same_numbers(name, tmp_path):
    first = simulate_config(build(SimulationConfig, CONFIGS[name]))
    write_tables(first, tmp_path)
    mapping = tomllib.loads((tmp_path / "config.toml").read_text(encoding="utf-8"))
    again = simulate_config(build(SimulationConfig, mapping))
    assert again.trajectory.equals(first.trajectory)
    assert again.correlations.equals(first.correlations)
    assert again.summary | {"seconds": None} == first.summary | {"seconds": None}


def test_one_course_for_every_query_in_order(files):
    queries = [facts["query"] for facts in files.summary["queries"]]
    assert list(dict.fromkeys(files.trajectory["query"].to_pylist())) == queries
    assert list(dict.fromkeys(files.correlations["query"].to_pylist())) == queries
    dynamics = files.config.dynamics
    for query in queries:
        rows = files.rows(query)
        assert rows["time"][0] == 0.0
        assert np.all(np.diff(rows["time"]) > 0)
        assert rows["phi_own"][0] == rows["upsilon_max"][0] == 0.0
        if dynamics.integrator == "descent":
            np.testing.assert_allclose(rows["time"], dynamics.learning_rate * rows["step"])
            assert rows["step"][-1] <= dynamics.steps
        if dynamics.integrator == "flow" and len(queries) == 1:
            assert rows["attention_own"][-1] == pytest.approx(dynamics.stop_attention, abs=1e-4)


def test_measures_lie_where_they_must(files):
    patches = files.summary["patches"]
    for facts in files.summary["queries"]:
        rows = files.rows(facts["query"])
        if facts["area_size"] > 1:
            own, everywhere = rows["attention_own"], rows["attention_global"]
            assert np.all((own >= 0) & (own <= 1) & (everywhere >= 0) & (everywhere <= 1))
            assert facts["area"] == 0 or np.all(own + everywhere <= 1 + 1e-12)
            assert np.all(rows["excess_loss"] > 0)
        floor = rows["loss"] - rows["excess_loss"]  # on the same draws all along
        np.testing.assert_allclose(floor, floor[0], rtol=0, atol=1e-9)
        assert rows["entropy"][0] == pytest.approx(log(patches), rel=1e-6)
        assert np.all((rows["entropy"] >= 0) & (rows["entropy"] <= log(patches) * (1 + 1e-9)))
        assert np.all(rows["phi_other_max"] >= 0) and np.all(rows["upsilon_max"] >= 0)
        if facts["area"] == 0:
            np.testing.assert_array_equal(rows["phi_own"], rows["phi_global"])
            np.testing.assert_allclose(rows["attention_own"], rows["attention_global"], rtol=1e-12)


def test_errors_start_at_nothing_and_are_small_beside_what_they_are_of(files):
    if files.config.dynamics.engine != "sampled":
        return
    for facts in files.summary["queries"]:
        rows = files.rows(facts["query"])
        assert rows["phi_own_se"][0] == 0.0
        assert np.all(rows["loss_se"] >= 0)
        if facts["area_size"] > 1:
            assert 0 < rows["phi_own_se"][-1] < 0.2 * rows["phi_own"][-1]


def test_half_time(files):
    """A recorded time of the flow, at which attention is one half; of descent, between the steps about one half."""
    for facts in files.summary["queries"]:
        rows, half = files.rows(facts["query"]), facts["half_time"]
        if facts["area_size"] == 1 or rows["attention_own"][0] >= 0.5:
            continue
        assert half is not None
        if files.config.dynamics.integrator == "flow" and len(files.summary["queries"]) == 1:
            at = np.argmin(np.abs(rows["time"] - half))
            assert rows["time"][at] == half
            assert rows["attention_own"][at] == pytest.approx(0.5, abs=1e-4)
        before, after = rows["time"] < half, rows["time"] > half
        assert np.all(rows["attention_own"][before] < 0.5 + 1e-9)
        assert np.all(rows["attention_own"][after] > 0.5 - 1e-9)
        phi = np.interp(half, rows["time"], rows["phi_global"])
        assert facts["phi_global_at_half"] == pytest.approx(phi, rel=1e-2, abs=1e-6)
        scaled = facts["phi_global_at_half"] / log(files.summary["patches"])
        assert facts["phi_global_at_half_over_log_patches"] == pytest.approx(scaled)


def test_scalars_speak_of_the_first_local_query(files):
    summary = files.summary
    local = next((facts for facts in summary["queries"] if facts["area"] != 0), None)
    for name in ("loss_floor", "half_time", "half_time_se", "phi_global_at_half_over_log_patches"):
        assert summary[name] == (None if local is None else local[name]), name
    for facts in summary["queries"]:
        assert (facts["patch_gap"] is None) == (facts["area"] == 0)
    assert (summary["half_time_se"] is not None) <= (files.config.dynamics.engine == "sampled")


def test_sizes_in_the_summary_make_the_world(files):
    runs, patches = files.summary["area_sizes"], files.summary["patches"]
    assert sum(size * count for size, count in runs) == patches == files.config.world.patches_total
    assert runs[0][1] == 1
    large, areas = runs[0][0], sum(count for _, count in runs[1:])
    mean = (patches - large) / areas
    assert files.summary["global_exponent"] == pytest.approx(log(large) / log(patches))
    assert files.summary["local_exponent"] == pytest.approx(log(mean) / log(patches), abs=1e-12)
    for facts in files.summary["queries"]:
        sizes = [size for size, count in runs for _ in range(min(count, 10))] if areas < 10 else None
        assert sizes is None or facts["area_size"] == sizes[facts["area"]]
        if facts["area"] != 0:
            expected = log(large**2 / (patches * facts["area_size"])) / log(patches)
            assert facts["patch_gap"] == pytest.approx(expected)


def test_phases_follow_one_another(files):
    names = ["decoupling", "growth", "convergence"]
    for facts in files.summary["queries"]:
        phases = [phase for phase in files.summary["phases"] if phase["query"] == facts["query"]]
        if facts["area_size"] == 1:
            continue
        places = [names.index(phase["name"]) for phase in phases]
        assert places and places == sorted(set(places))
        assert phases[0]["start"] == 0.0
        assert phases[-1]["end"] == files.rows(facts["query"])["time"][-1]
        assert all(a["end"] == b["start"] for a, b in pairwise(phases))
        assert all(phase["start"] < phase["end"] for phase in phases)
        assert facts["area"] != 0 or places[0] > 0


def test_correlations_are_those_of_the_trajectory(files):
    """At recorded times, the first, the last and the half time among them: the own area's Φ and the largest Υ."""
    for facts in files.summary["queries"]:
        rows, entries = files.rows(facts["query"]), files.entries(facts["query"])
        times = np.unique(entries["time"])
        assert set(times) <= set(rows["time"])
        assert {rows["time"][0], rows["time"][-1]} <= set(times)
        flow_alone = files.config.dynamics.integrator == "flow" and len(files.summary["queries"]) == 1
        assert not (flow_alone and facts["half_time"]) or facts["half_time"] in times
        features = entries["kind"] == "feature"
        for time in times:
            row = int(np.flatnonzero(rows["time"] == time)[0])
            positions = ~features & (entries["time"] == time)
            assert np.abs(entries["value"][positions]).max() == pytest.approx(
                rows["upsilon_max"][row], abs=1e-12
            )
            if files.config.world.clusters == 1:
                own = features & (entries["time"] == time) & (entries["target"] == facts["area"])
                assert entries["value"][own].tolist() == pytest.approx([rows["phi_own"][row]], abs=1e-12)


def test_correlations_list_every_entry_once(files):
    """Sizes add up to all areas of every cluster and all positions; up to 1000 patches each has its row. Υ moves no
    attention as a whole: a row's gradient sums to 0, so its Υ do."""
    patches, partitions = files.summary["patches"], files.config.world.layout(files.config.seed).partitions
    for facts in files.summary["queries"]:
        entries = files.entries(facts["query"])
        for time in np.unique(entries["time"]):
            now = entries["time"] == time
            positions = now & (entries["kind"] == "position")
            sizes, values = entries["size"][positions], entries["value"][positions]
            assert sizes.sum() == patches
            assert abs(sizes @ values) <= 1e-9 * (sizes @ np.abs(values)) + 1e-15
            assert len(set(entries["target"][positions])) == positions.sum()
            for k in range(files.config.world.clusters):
                features = now & (entries["kind"] == "feature") & (entries["cluster"] == k)
                areas = partitions[min(k, len(partitions) - 1)].areas
                assert entries["size"][features].sum() == areas
                assert len(set(entries["target"][features])) == features.sum()
            if patches <= 1000:
                assert set(entries["size"][now]) == {1}
                assert sorted(entries["target"][positions]) == list(range(patches))
