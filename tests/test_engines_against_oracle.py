"""Engines against exhaustive enumeration, against each other, and against the symmetries of the problem.

The oracle (oracle.py) visits every mask and every latent with one unknown per entry; an engine that lumps,
merges or samples must still give its numbers. Only the public interface is used: `mimlab.simulate`, its two
tables and its summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mimlab

from . import oracle

EXACT = 1e-10  # rounding alone, after 200 steps
MEASURED = ("loss", "excess_loss", "attention_own", "attention_global")


@dataclass(frozen=True)
class Case:
    """A world small enough to enumerate, for the package and for the oracle."""

    sizes: tuple[tuple[int, ...], ...]  # a list per cluster, or one list for `shared` clusters
    values: tuple[float, ...] = (1.0,)
    mask_ratio: float = 0.75
    shared: int = 1

    @property
    def patches(self) -> int:
        return sum(self.sizes[0])

    def world(self) -> Any:
        low, constant = self.values[0], len(self.values) == 1
        latent = mimlab.Latent(low=low, high=low) if constant else mimlab.Latent(values=self.values)
        return mimlab.World(
            area_sizes=self.sizes[0],
            clusters=self.shared * len(self.sizes),
            partitions="shared" if len(self.sizes) == 1 else self.sizes,
            latent=latent,
        )

    def oracle(self) -> oracle.World:
        return oracle.world_of(self.sizes * self.shared, self.values, self.mask_ratio)

    def simulate(self, engine: str, query: int | str, **options: Any) -> Any:
        objective = mimlab.MaskedReconstruction(mask_ratio=self.mask_ratio)
        return mimlab.simulate(self.world(), objective, engine=engine, query=query, **options)

    def descend(self, engine: str, query: int | str, learning_rate: float, steps: int, **options: Any) -> Any:
        rate = {
            "integrator": "descent",
            "learning_rate": learning_rate,
            "steps": steps,
            "stop_attention": 1.0,
        }
        return self.simulate(engine, query, **rate, **options)


CASES = {
    "equal local areas": Case(((4, 2, 2),)),
    "equal local areas, two latents": Case(((3, 2, 2),), (0.5, 1.5)),
    "unequal areas": Case(((4, 3, 2),), (1.4,), 0.7),
    "unequal areas, two latents": Case(((3, 1, 2, 2),), (0.4, 1.3), 0.6),
    "a local area larger than the global one": Case(((2, 4, 1),), (0.0, 1.0), 0.6),
    "two clusters, shared": Case(((3, 2, 2),), (0.5, 1.5), 0.7, shared=2),
    "two clusters, laminar": Case(((4, 2, 2), (4, 1, 1, 2))),
    "two clusters, laminar with areas alike": Case(((4, 2, 2), (4, 1, 1, 1, 1))),
    "two clusters, crossing": Case(((3, 3, 2), (2, 4, 2)), (0.7, 1.2)),
    "three clusters, one of a single area": Case(((2, 2, 2), (2, 4), (6,)), (0.6, 1.1), 0.6),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@cache
def oracle_path(case: Case, p: int, learning_rate: float, steps: int) -> oracle.Array:
    return oracle.descend_row(case.oracle(), p, learning_rate, steps)


def number(value: float | None) -> float:
    return np.nan if value is None else value


def trajectory_of(simulation: Any, p: int) -> list[dict[str, Any]]:
    """The recorded rows of one query, in order of time."""
    rows = [row for row in simulation.trajectory.to_pylist() if row["query"] == p]
    return sorted(rows, key=lambda row: row["time"])


def last_row(simulation: Any) -> dict[str, Any]:
    """The last recorded row of the only query."""
    (p,) = set(simulation.trajectory["query"].to_pylist())
    return trajectory_of(simulation, p)[-1]


def assert_same_entries(simulation: Any, case: Case, p: int, row: oracle.Array) -> None:
    """Every Phi and Upsilon at the last recorded time."""
    world = case.oracle()
    rows = [r for r in simulation.correlations.to_pylist() if r["query"] == p]
    last = max(r["time"] for r in rows)
    rows = [r for r in rows if r["time"] == last]
    found = {(r["kind"], r["cluster"], r["target"]): r["value"] for r in rows}
    expected = oracle.correlations(world, row)
    assert len(rows) == len(found)
    assert set(found) == set(expected)
    assert all(r["size"] == 1 for r in rows)
    wrong = {key: found[key] for key, value in expected.items() if not abs(found[key] - value) <= EXACT}
    assert not wrong


def assert_same_measures(found: dict[str, Any], case: Case, p: int, row: oracle.Array) -> None:
    world = case.oracle()
    expected = oracle.measure(world, row, p)
    names = [*MEASURED, "phi_own", "phi_global"]
    values = [*(getattr(expected, name) for name in MEASURED)]
    values += [oracle.phi_own(world, row, p), oracle.phi_global(world, row)]
    np.testing.assert_allclose([number(found[name]) for name in names], values, rtol=0, atol=EXACT)


# --- enumerated against the oracle ------------------------------------------------------------------------


def patch_meant(case: Case, query: int | str) -> int:
    """Area by area from patch 0: the first patch of the first local area follows the global area."""
    return query if isinstance(query, int) else {"global": 0, "local": case.sizes[0][0]}[query]


@pytest.mark.parametrize("query", ["local", "global", "last"])
def test_enumerated_descends_as_the_oracle_does(case: Case, query: str) -> None:
    """200 steps: every entry at the end; loss and attention at every recorded step."""
    asked = case.patches - 1 if query == "last" else query
    p = patch_meant(case, asked)
    simulation = case.descend("enumerated", asked, learning_rate=1.0, steps=200)
    path = oracle_path(case, p, 1.0, 200)
    assert np.abs(path[-1]).max() > 0.3, "the oracle itself should have moved"

    rows = trajectory_of(simulation, p)
    assert len(rows) == simulation.trajectory.num_rows
    assert [rows[0]["step"], rows[-1]["step"]] == [0, 200]
    for row in rows:
        assert row["time"] == pytest.approx(row["step"] * 1.0, abs=1e-12)
        assert_same_measures(row, case, p, path[row["step"]])
    assert_same_entries(simulation, case, p, path[-1])
    assert simulation.summary["status"] == "finished"


def test_a_query_alone_in_its_area_has_no_own_attention() -> None:
    """Masked, it hides its whole area: the condition never holds. Its entries are defined nevertheless."""
    case = Case(((4, 1, 2),), (0.5, 1.5), 0.6)
    simulation = case.descend("enumerated", "local", learning_rate=1.0, steps=200)
    path = oracle_path(case, 4, 1.0, 200)
    assert_same_entries(simulation, case, 4, path[-1])
    found = last_row(simulation)
    assert np.isnan(number(found["attention_own"]))
    assert_same_measures(found, case, 4, path[-1])


@pytest.mark.parametrize(
    ("case", "classes"),
    [
        (Case(((4, 2, 2),)), [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        (Case(((3, 2, 1, 2),), (0.5, 1.5), 0.6), [{0, 1, 2}, {3, 4, 6, 7}, {5}]),
        (Case(((3, 3, 2), (2, 4, 2))), [{0, 1}, {2}, {3, 4, 5}, {6, 7}]),
    ],
)
def test_all_queries_are_one_of_each_kind(case: Case, classes: list[set[int]]) -> None:
    simulation = case.descend("enumerated", "all", learning_rate=1.0, steps=50)
    queries = set(simulation.trajectory["query"].to_pylist())
    assert len(queries) == len(classes)
    assert all(len(queries & members) == 1 for members in classes)
    for p in queries:
        row = oracle_path(case, p, 1.0, 50)[-1]
        assert_same_entries(simulation, case, p, row)
        assert_same_measures(trajectory_of(simulation, p)[-1], case, p, row)


def sizes_of(patches: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Ways to cut so many positions into 2 to 4 areas."""
    cuts = st.sets(st.integers(1, patches - 1), min_size=1, max_size=min(3, patches - 1))
    return cuts.map(lambda chosen: tuple(int(n) for n in np.diff([0, *sorted(chosen), patches])))


@st.composite
def small_cases(draw: st.DrawFn) -> tuple[Case, int]:
    patches = draw(st.integers(3, 6))
    sizes = draw(st.lists(sizes_of(patches), min_size=1, max_size=2).map(tuple))
    latents = st.sets(st.sampled_from([0.0, 0.5, 1.0, 1.7]), min_size=1, max_size=2).map(sorted)
    values = draw(latents.map(tuple).filter(lambda chosen: max(chosen) > 0))
    masked = draw(st.integers(1, patches - 1))
    return Case(sizes, values, masked / patches), draw(st.integers(0, patches - 1))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(small_cases())
def test_enumerated_agrees_on_any_small_world(drawn: tuple[Case, int]) -> None:
    case, p = drawn
    simulation = case.descend("enumerated", p, learning_rate=1.5, steps=15)
    row = oracle_path(case, p, 1.5, 15)[-1]
    assert_same_entries(simulation, case, p, row)
    assert_same_measures(last_row(simulation), case, p, row)


# --- flow against descent ---------------------------------------------------------------------------------


def oracle_flow(case: Case, p: int, time: float) -> oracle.Array:
    """The oracle's row at a time of the gradient flow.

    Descent differs from the flow by c·η + O(η²); from steps η and η/2 the first term cancels. With 200 and
    400 steps some 10⁻⁶ remains on these worlds, so the tolerances of the tests are the solver's.
    """
    coarse, fine = (oracle_path(case, p, time / steps, steps)[-1] for steps in (200, 400))
    limit: oracle.Array = 2 * fine - coarse
    return limit


FLOWING = ["equal local areas, two latents", "unequal areas", "two clusters, crossing"]


@pytest.mark.parametrize("query", ["local", "global"])
@pytest.mark.parametrize("name", FLOWING)
def test_flow_is_the_limit_of_descent(name: str, query: str) -> None:
    case = CASES[name]
    p = patch_meant(case, query)
    world = case.oracle()
    simulation = case.simulate("enumerated", query, integrator="flow", stop_attention=0.6)
    rows = trajectory_of(simulation, p)
    assert simulation.summary["status"] == "stopped"
    assert rows[0]["time"] == 0
    assert rows[-1]["attention_own"] == pytest.approx(0.6, abs=1e-3)
    for row in (rows[len(rows) // 2], rows[-1]):
        limit = oracle_flow(case, p, row["time"])
        measured = oracle.measure(world, limit, p)
        assert row["step"] is None
        assert row["phi_own"] == pytest.approx(oracle.phi_own(world, limit, p), rel=1e-3, abs=1e-6)
        assert row["phi_global"] == pytest.approx(oracle.phi_global(world, limit), rel=2e-3, abs=1e-4)
        assert row["attention_own"] == pytest.approx(measured.attention_own, abs=5e-4)
        assert row["loss"] == pytest.approx(measured.loss, rel=1e-3)


def test_half_time_is_where_the_oracle_attends_half() -> None:
    case = CASES["equal local areas, two latents"]
    simulation = case.simulate("enumerated", "local", integrator="flow", stop_attention=0.6)
    p = patch_meant(case, "local")
    half = simulation.summary["half_time"]
    assert 0 < half < last_row(simulation)["time"]
    row = oracle_flow(case, p, half)
    assert oracle.measure(case.oracle(), row, p).attention_own == pytest.approx(0.5, abs=1e-3)


def test_many_small_steps_converge_to_the_flow() -> None:
    """Halving the learning rate at the same final time halves the distance to the flow."""
    case = CASES["unequal areas, two latents"]
    query = case.patches - 1
    flow = last_row(case.simulate("enumerated", query, integrator="flow", stop_attention=0.6))
    distances = []
    for steps in (25, 50, 100):
        descended = last_row(case.descend("enumerated", query, flow["time"] / steps, steps))
        assert descended["time"] == pytest.approx(flow["time"], rel=1e-12)
        distances.append(abs(descended["phi_own"] - flow["phi_own"]))
    assert 1.5 < distances[0] / distances[1] < 2.7
    assert 1.5 < distances[1] / distances[2] < 2.7


# --- sampled against enumerated ---------------------------------------------------------------------------

OVERLAP = Case(((6, 3, 3),), (0.5, 1.5))
SEEDS = range(5)
ESTIMATED = ("phi_own", "phi_global", "loss", "attention_own")


@cache
def overlap_row(engine: str, query: str, draws: int = 1024, seed: int = 0) -> dict[str, Any]:
    """State after 40 steps, when attention is near a half: same times, so same states, for both engines."""
    return last_row(OVERLAP.descend(engine, query, learning_rate=1.0, steps=40, draws=draws, seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("query", ["local", "global"])
def test_sampled_agrees_within_its_stated_error(query: str, seed: int) -> None:
    exact, sampled = overlap_row("enumerated", query), overlap_row("sampled", query, seed=seed)
    assert sampled["time"] == exact["time"] == 40.0
    for name in ESTIMATED:
        assert exact[f"{name}_se"] is None
        assert abs(sampled[name] - exact[name]) <= 4 * sampled[f"{name}_se"] + 1e-9, name


@pytest.mark.parametrize("name", ESTIMATED)
def test_stated_error_is_small_and_shrinks(name: str) -> None:
    """16 times the draws: a quarter of the error or less; 0.6 leaves room for the error of the error."""
    few, many = (
        np.median([overlap_row("sampled", "local", draws, seed)[f"{name}_se"] for seed in SEEDS])
        for draws in (256, 4096)
    )
    assert 0 < many < 0.6 * few
    assert many < 0.1 * abs(overlap_row("enumerated", "local")[name])


def test_sampled_error_itself_shrinks() -> None:
    exact = overlap_row("enumerated", "local")["phi_own"]
    few, many = (
        np.sqrt(np.mean([(overlap_row("sampled", "local", draws, s)["phi_own"] - exact) ** 2 for s in SEEDS]))
        for draws in (256, 4096)
    )
    assert many < 0.7 * few


# --- mean field against sampled ---------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [(1.0, 1.0), (0.5, 1.5)])
def test_mean_field_agrees_where_areas_are_large(latent: tuple[float, float]) -> None:
    """P = 2000, local areas of about 45, of which 11 ± 3 are visible.

    The mean field puts the counts at their means. Their fluctuations enter at second order, relative
    variance γ/((1-γ)C) = 7%, with terms of both signs; a separate computation of both sides gave half times
    1-1.5% apart. 5% leaves room for the sampling error and for areas that the remainder makes larger.
    """
    law = mimlab.Latent(low=latent[0], high=latent[1])
    world = mimlab.World(patches=2000, global_exponent=0.9, local_exponent=0.5, latent=law)
    objective = mimlab.MaskedReconstruction(mask_ratio=0.75)
    fluctuating, mean = (
        mimlab.simulate(world, objective, engine=engine, draws=512, stop_attention=0.6).summary
        for engine in ("sampled", "mean-field")
    )
    assert mean["half_time"] == pytest.approx(fluctuating["half_time"], rel=0.05)
    depth = "phi_global_at_half_over_log_patches"
    assert fluctuating[depth] < -0.1
    assert mean[depth] == pytest.approx(fluctuating[depth], abs=0.01)


def test_mean_field_misses_what_small_areas_fluctuate() -> None:
    """With own areas of 3, hopeless draws and counts of 0, 1 or 2, it must be off by more than rounding."""
    rows = [overlap_row(engine, "local") for engine in ("enumerated", "mean-field")]
    assert abs(rows[0]["attention_own"] - rows[1]["attention_own"]) > 1e-3


# --- algebra ----------------------------------------------------------------------------------------------


def assert_same_run(first: Any, second: Any, atol: float = 1e-11) -> None:
    """Trajectories equal in every number except the query's index."""
    names = [name for name in first.trajectory.column_names if name != "query"]
    assert first.trajectory.num_rows == second.trajectory.num_rows > 1
    for name in names:
        columns = [[number(v) for v in run.trajectory[name].to_pylist()] for run in (first, second)]
        np.testing.assert_allclose(columns[0], columns[1], rtol=0, atol=atol, err_msg=name)


SYMMETRIES: dict[str, Sequence[tuple[Case, int]]] = {
    "equal areas are interchangeable": [(Case(((4, 2, 2),)), 4), (Case(((4, 2, 2),)), 6)],
    "areas may be listed in any order": [
        (Case(((4, 3, 2),), (0.5, 1.5), 0.7), 5),
        (Case(((4, 2, 3),), (0.5, 1.5), 0.7), 7),
    ],
    "any patch of an area may ask": [(Case(((3, 2, 2),), (0.5, 1.5)), p) for p in (3, 4)],
    "any patch of the global area may ask": [(Case(((3, 2, 2),), (0.5, 1.5)), p) for p in (0, 2)],
    "latent values have no order": [(Case(((3, 2, 2),), values), 3) for values in ((0.5, 1.5), (1.5, 0.5))],
    "the same list for each cluster is a shared partition": [
        (Case(((3, 2, 2), (3, 2, 2)), (0.5, 1.5), 0.7), 3),
        (Case(((3, 2, 2),), (0.5, 1.5), 0.7, shared=2), 3),
    ],
    "clusters have no order": [(Case(((3, 3, 2), (2, 4, 2))), 2), (Case(((2, 4, 2), (3, 3, 2))), 2)],
}


@pytest.mark.parametrize("name", list(SYMMETRIES))
def test_symmetry(name: str) -> None:
    first, *others = (
        case.descend("enumerated", p, learning_rate=1.0, steps=60) for case, p in SYMMETRIES[name]
    )
    assert others
    for other in others:
        assert_same_run(first, other)


def seeded(engine: str, seed: int) -> Any:
    return OVERLAP.descend(engine, "local", learning_rate=1.0, steps=30, seed=seed)


@pytest.mark.parametrize("engine", ["enumerated", "mean-field"])
def test_exact_engines_take_no_notice_of_the_seed(engine: str) -> None:
    assert_same_run(seeded(engine, 0), seeded(engine, 7), atol=0.0)


def test_sampled_repeats_under_its_seed_and_varies_with_it() -> None:
    first = seeded("sampled", 3)
    assert_same_run(first, seeded("sampled", 3), atol=0.0)
    assert last_row(first)["phi_own"] != last_row(seeded("sampled", 4))["phi_own"]
