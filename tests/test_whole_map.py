"""Statistics of the whole map in closed form and along runs, against the map itself, row by row."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from skimage.io import imsave

import mimlab
from mimlab import statistics
from mimlab.dynamics.tables import attention_map
from mimlab.runs.errors import InputError
from mimlab.statistics import BlockMap, diversity_lower_bound, nmi_lower_bound
from mimlab.statistics.classes import ClassMap
from mimlab.studies.single import Simulation

from .test_block_statistics import block_maps

Array = np.ndarray
NAMES = ("nmi", "effective_rank", "diversity", "spread", "entropy", "information")


# --- rows of a few kinds ----------------------------------------------------------------------------------


@st.composite
def class_maps(draw: st.DrawFn) -> ClassMap:
    cells = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 1))
    cuts = draw(st.lists(st.integers(1, sum(cells) - 1), max_size=3, unique=True))
    rows = np.diff([0, *sorted(cuts), sum(cells)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return ClassMap(
        rows, cells, draw(st.sampled_from([0, 1, 6])) * rng.standard_normal((len(rows), len(cells)))
    )


def explicit(found: ClassMap) -> Array:
    weights = np.exp(
        np.repeat(np.repeat(found.logits, found.rows.astype(int), 0), found.cells.astype(int), 1)
    )
    result: Array = weights / weights.sum(axis=1, keepdims=True)
    return result


@settings(deadline=None, max_examples=150, derandomize=True)
@given(class_maps())
def test_closed_forms_of_like_rows_agree_with_the_explicit_map(found: ClassMap) -> None:
    A = explicit(found)
    for name in NAMES:
        assert_allclose(
            getattr(found, name)(), getattr(statistics, name)(A), rtol=1e-9, atol=1e-12, err_msg=name
        )


def test_like_rows_may_be_counted_in_fractions_and_stacked() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 2, 3))
    whole = ClassMap([4, 8], [2, 4, 6], logits)
    part = ClassMap(
        [1.0, 2.0], [1.0, 1.0, 1.0], logits[2] + np.log([2, 4, 6])
    )  # a key a cell, its weight in the logit
    assert whole.nmi().shape == (5,)
    assert whole.information()[2] == pytest.approx(float(part.information()), rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "cells", "logits", "said"),
    [
        ([2], [2], np.zeros((2, 1)), "logits"),
        ([2], [2], [[np.nan]], "logits"),
        ([0, 2], [2], np.zeros((2, 1)), "empty"),
        ([2], [0.5, 1.5], np.zeros((1, 2)), "empty"),
        ([3], [2], np.zeros((1, 1)), "queries"),
    ],
)
def test_what_is_no_map_of_like_rows_is_refused(rows: Any, cells: Any, logits: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ClassMap(rows, cells, logits)


# --- areas ------------------------------------------------------------------------------------------------


def areas_of(block: BlockMap) -> Array:
    sizes = np.repeat(block.sizes, block.counts.astype(int)).astype(int)
    return np.repeat(np.arange(len(sizes)), sizes)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(block_maps(), st.integers(0, 2**32))
def test_what_areas_and_pairs_say_agrees_with_the_explicit_map(block: BlockMap, seed: int) -> None:
    A, areas = block.dense(), areas_of(block)
    own = areas[:, None] == areas
    sizes = np.bincount(areas)
    rows = np.repeat(block.own_attention(), (block.sizes * block.counts).astype(int))
    assert_allclose(rows, np.where(own, A, 0).sum(axis=1), rtol=1e-12)
    leak = min(np.where(own, 0, A).sum() / len(A), 1)
    assert_allclose(block.nmi_bound(), nmi_lower_bound(sizes, leak), atol=1e-9)
    away = np.sqrt(np.where(own, 0, A**2).sum(axis=1) / (A**2).sum(axis=1)).mean()
    assert_allclose(block.diversity_bound(), diversity_lower_bound(sizes, min(away, 1)), atol=1e-9)

    kind = np.repeat(np.arange(block.sizes.size), (block.sizes * block.counts).astype(int))
    f = np.random.default_rng(seed).standard_normal(A.shape)
    np.fill_diagonal(f, 2.0)

    def mean(where: Array) -> float:
        return float(f[where].mean()) if where.any() else 0.0

    beside = own & ~np.eye(len(A), dtype=bool)
    kinds = range(block.sizes.size)
    within = np.array([mean(beside & (kind == i)[:, None]) for i in kinds])
    beyond = np.array([[mean(~own & (kind == i)[:, None] & (kind == j)) for j in kinds] for i in kinds])
    assert_allclose(block.mean_over(2.0, within, beyond), (A * f).sum() / len(A), rtol=1e-9, atol=1e-12)


# --- along runs -------------------------------------------------------------------------------------------


def map_of(run: Simulation, record: int) -> Array:
    """Every row at a recorded time, each from the course of its own query."""
    return np.array(
        [attention_map(row, run.layout, record, run.config.world.latent.mean) for row in run.rows]
    )


LITTLE: dict[str, Any] = {"integrator": "descent", "learning_rate": 100.0, "steps": 10}
COLUMNS = ("nmi", "effective_rank", "diversity", "spread")


@pytest.mark.parametrize("alike", ["areas", "nothing"])
def test_contrastive_rows_that_start_apart_are_all_measured(alike: str) -> None:
    """32 patches: each of the 16 kinds twice."""
    world = mimlab.World(area_sizes=(16, 8, 8), latent=mimlab.Latent(low=0.5, high=1.5))
    run = mimlab.simulate(
        world,
        mimlab.ContrastiveLearning(),
        draws=64,
        start=1.5,
        start_alike=alike,
        query="all",
        integrator="descent",
        learning_rate=20.0,
        steps=5,
    )
    assert sorted(row.row.query % 16 for row in run.rows) == list(range(16))
    last = run.trajectory.to_pylist()[-1]
    inside = map_of(run, -1)[0, :16]
    assert (np.ptp(inside) < 1e-12) == (alike == "areas")
    for record in (0, -1):
        A = np.repeat(map_of(run, record), 2, axis=0)
        here = run.trajectory.to_pylist()[record]
        for name in COLUMNS:
            assert here[name] == pytest.approx(float(getattr(statistics, name)(A)), rel=1e-9), name
        assert here["mean_entropy"] == pytest.approx(float(statistics.entropy(A)), rel=1e-9)
    assert last["nmi_se"] > 0 and last["diversity_se"] > 0
    assert last["nmi_bound"] is None and last["distance_ratio"] is None


def test_positions_that_start_apart_follow_the_gradient_of_their_own() -> None:
    """As a world whose areas of one patch leave nothing to tie: with either start the course is the same but for draws,
    and without one there is nothing to choose."""
    world = mimlab.World(area_sizes=[1] * 12, clusters=2, latent=mimlab.Latent(low=0.5, high=1.5))
    options: dict[str, Any] = {
        "draws": 64,
        "start": 1.0,
        "integrator": "descent",
        "learning_rate": 9.0,
        "steps": 9,
    }
    ends = [
        mimlab.simulate(
            world, mimlab.ContrastiveLearning(), engine="mean-field", start_alike=alike, **options
        )
        for alike in ("areas", "nothing")
    ]
    for name in ("nmi", "diversity", "loss", "attention_own"):
        first, second = (np.array(one.trajectory[name]) for one in ends)
        assert_allclose(first, second, rtol=1e-9, err_msg=name)
    with pytest.raises(InputError, match="start_alike"):
        mimlab.simulate(world, mimlab.ContrastiveLearning(), start_alike="nothing")
    with pytest.raises(InputError, match="start_alike"):
        mimlab.simulate(world, mimlab.ContrastiveLearning(), start=1.0, start_alike="rows")


def test_contrastive_rows_that_start_alike_stay_so() -> None:
    world = mimlab.World(area_sizes=(16, 8, 8), clusters=2, latent=mimlab.Latent(low=0.5, high=1.5))
    run = mimlab.simulate(world, mimlab.ContrastiveLearning(), draws=64, **LITTLE)
    assert_allclose(run.trajectory["nmi"], 0, atol=1e-12)
    assert_allclose(run.trajectory["diversity"], 0, atol=1e-12)
    assert run.trajectory["mean_entropy"][-1].as_py() < math.log(32)


def test_masked_maps_never_lie_below_their_bounds() -> None:
    """And at the end they are near it: rows are even, and the leak is small."""
    for sizes in ((60, *[8] * 8), (20, *[10] * 5), (9, 4, 4, 3, 2)):
        world = mimlab.World(area_sizes=sizes, latent=mimlab.Latent(low=0.5, high=1.5))
        table = mimlab.simulate(world, engine="mean-field", query="all").trajectory
        for name in ("nmi", "diversity"):
            value, bound = (np.array(table[column]) for column in (name, f"{name}_bound"))
            assert (value >= bound - 1e-12).all()
            assert value[-1] - bound[-1] < 0.1


def test_a_photograph_has_distance_and_locality(tmp_path: Path) -> None:
    """Against the map over the grid: a square on a ground, and a strip of another grey."""
    pixels = np.full((224, 288, 3), 20, dtype=np.uint8)
    pixels[48:128, 48:112] = 250
    pixels[160:, 200:] = 130
    imsave(tmp_path / "square.png", pixels, check_contrast=False)
    world = mimlab.World(image=str(tmp_path / "square.png"))
    run = mimlab.simulate(
        world, engine="mean-field", query="all", integrator="descent", learning_rate=100.0, steps=30
    )
    base, grid = run.layout.partitions[0], run.layout.grid
    assert grid == world.photograph.grid
    labels = base.all_labels()
    classes = {
        (area == 0, base.size_of(area)): row for row in run.rows for area in [base.area_of(row.row.query)]
    }
    place = np.stack(np.unravel_index(np.arange(base.patches), grid), axis=1)
    A = np.empty((base.patches,) * 2)
    for query in range(base.patches):
        row = classes[labels[query] == 0, base.size_of(labels[query])]
        mine = attention_map(row, run.layout, -1, 1.0)
        A[query] = _moved(mine, labels, row.row.query, query)
    end = run.trajectory.to_pylist()[-1]
    uniform = statistics.distance(np.full(A.shape, 1 / len(A)), place)
    assert end["distance_ratio"] == pytest.approx(statistics.distance(A, place) / uniform, rel=1e-9)
    assert end["locality_1"] == pytest.approx(statistics.locality(A, place, 1), rel=1e-9)
    assert end["distance_ratio"] < 0.95
    assert run.trajectory["distance_ratio"][0].as_py() == pytest.approx(1, rel=1e-12)


def _moved(row: Array, labels: Array, query: int, to: int) -> Array:
    """The row of `query` as that of `to`, a patch of a like area, by exchanging the two areas."""
    here, there = labels[query], labels[to]
    result = row.copy()
    mine = np.flatnonzero(labels == here)
    beside = row[mine[mine != query]][0] if len(mine) > 1 else row[query]
    like = row[labels == there][0] if there != here else beside
    result[mine] = like
    result[labels == there] = beside
    result[to] = row[query]
    return result


def test_errors_of_the_map_are_those_of_its_draws() -> None:
    """The spread over seeds of NMI after descent is what nmi_se says, within what ten seeds can tell."""
    world = mimlab.World(area_sizes=(12, 4, 4))
    options = {"integrator": "descent", "learning_rate": 5.0, "steps": 20, "draws": 64, "query": "all"}
    ends = [mimlab.simulate(world, seed=seed, **options).trajectory.to_pylist()[-1] for seed in range(10)]
    for name in ("nmi", "diversity"):
        told = np.mean([end[f"{name}_se"] for end in ends])
        assert 0.4 < np.std([end[name] for end in ends], ddof=1) / told < 1.8
