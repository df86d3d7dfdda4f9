"""The weighted sum of masked and contrastive objective: rows by type against an oracle, the sum, its settings."""

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mimlab
from mimlab import ContrastiveLearning, InputError, Latent, MaskedReconstruction, WeightedSum, World, simulate
from mimlab.dynamics.enumerated import enumerated_draws
from mimlab.dynamics.weighted import WeightedRows
from mimlab.objectives.kernel import RowObjective
from mimlab.objectives.pairs import Cells, PairsObjective

from . import oracle
from .contrastive_cases import close, close_slopes
from .weighted_cases import CASES, areas, build, ends, problems
from .weighted_oracle import (
    Oracle,
    Problem,
    entries_of,
    found_for,
    loss_by_copies,
    pairs_of,
    penalty_by_types,
    rows_of,
    typed_rows,
    velocity_by_unknown,
)

few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
fewer = settings(max_examples=8, deadline=None, derandomize=True, database=None)
cases = pytest.mark.parametrize("problem", [pytest.param(make(), id=name) for name, make in CASES.items()])


def close_all(found, expected, compare=close) -> None:
    """By type."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        compare(one, other)


# (1) The oracle itself: why averages over arrangements are exact.


@cases
def test_every_arrangement_has_the_same_output(problem):
    """Rows of an area are alike but for whether they are visible, and so many are, however they are arranged."""
    one = Oracle(problem)
    for view in range(2):
        for d, mean in enumerate(one.features(view, one.phi, one.upsilon)):
            for arrangement in range(len(one.images[view][d])):
                close(one.feature_of_one(view, d, arrangement), mean)


@cases
def test_the_oracles_two_ways_agree(problem):
    one = Oracle(problem)
    close(loss_by_copies(problem), one.loss())
    by_entry = one.velocity_by_entry()
    close_all(velocity_by_unknown(problem), by_entry, close_slopes)
    close_all(one.velocity_by_entry(which=-1), by_entry, close_slopes)


# (2) Rows by type against the oracle.


@cases
def test_shapes_and_no_side_effects(problem):
    before = [state.copy() for state in problem.states]
    rows = typed_rows(problem)
    first, second = rows.evaluate(problem.states), rows.evaluate(problem.states)
    close_all(problem.states, before)
    assert isinstance(first.loss, float)
    assert [v.shape for v in first.velocity] == [(row.size,) for row in rows.rows]
    assert [a.shape for a in first.attention] == [(len(problem.sizes),)] * len(rows.rows)
    assert second.loss == first.loss
    close_all(second.velocity, first.velocity)


@cases
def test_loss_and_attention_are_the_definitions(problem):
    found, one = found_for(problem), Oracle(problem)
    close(found.loss, one.loss())
    close_all(found.attention, one.mean_attention())


@cases
def test_velocity_is_minus_the_slope_by_one_entry_of_one_row(problem):
    expected = Oracle(problem).velocity_by_entry()
    assert max(np.abs(v).max() for v in expected) > 1e-5, "the case should have something to see"
    close_all(found_for(problem).velocity, expected, close_slopes)


@few
@given(problems())
def test_random_problems(problem):
    found, one = found_for(problem), Oracle(problem)
    close(found.loss, one.loss())
    close_all(found.attention, one.mean_attention())
    close_all(found.velocity, velocity_by_unknown(problem), close_slopes)


@fewer
@given(problems())
def test_velocity_of_random_problems_by_entry(problem):
    close_all(found_for(problem).velocity, Oracle(problem).velocity_by_entry(), close_slopes)


@pytest.mark.parametrize("seed", range(3))
def test_mean_counts_mix_the_same_two_copies(seed):
    """Counts that are no whole numbers, as mean-field has them, where no copy has a negative number of others."""
    problem = build(seed, areas(4, 2, 2, 3), 2, 4, 2, temperature=0.5, regulariser=0.01)
    rng = np.random.default_rng(seed)
    sizes = np.array(problem.sizes)
    problem = problem.change(visible=1 + (sizes - 2) * rng.random((2, 4, len(sizes))))
    found = found_for(problem)
    close(found.loss, loss_by_copies(problem))
    close_all(found.velocity, velocity_by_unknown(problem), close_slopes)


@pytest.mark.parametrize("scale", [40.0, -40.0])
def test_nothing_overflows(scale):
    """Phi near 40 with latents up to 30: logits of 1200."""
    problem = ends().change(regulariser=0.01)
    states = tuple(scale + state for state in problem.states)
    found = found_for(problem.change(states=states, latent=15 * problem.latent))
    assert np.isfinite(found.loss)
    assert all(np.isfinite(v).all() for v in (*found.velocity, *found.attention))
    assert all((a >= 0).all() and a.sum() <= 1 + 1e-12 for a in found.attention)


# (3) Properties.


def agreeing(problem: Problem, seed: int, spread: float) -> tuple[Problem, np.ndarray, Cells]:
    """States of which all rows agree, Y_self = Y_own included; the one row's state, and the cells it lives on."""
    rng = np.random.default_rng(seed)
    alike = np.array([problem.types.index(kind) for kind in problem.kinds])
    phi, upsilon = spread * rng.normal(size=(2, len(problem.types)))
    states = []
    for kind in problem.types:
        slots = problem.slots(problem.kinds.index(kind))
        numbers = np.empty(max(slots) + 1), np.empty(max(slots) + 1)
        for j, slot in enumerate(slots):
            numbers[0][slot], numbers[1][slot] = phi[alike[j]], upsilon[alike[j]]
        states.append(np.concatenate([numbers[0], numbers[1][:1], numbers[1]]))
    area = np.tile(np.arange(len(alike)), (problem.clusters, 1))
    cells = Cells(np.array(problem.sizes), alike, area, np.tile(alike, (problem.clusters, 1)))
    return problem.change(states=tuple(states)), np.concatenate([phi, upsilon])[None], cells


@few
@given(problems(), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
def test_rows_that_agree_are_the_contrastive_objectives(problem, spread, mean_counts):
    """From Q = 0 on, whatever the counts: one class of rows, own position and own area nothing special."""
    if mean_counts and min(problem.sizes) > 1:
        fraction = np.random.default_rng(0).random(problem.visible.shape)
        problem = problem.change(visible=1 + (np.array(problem.sizes) - 2) * fraction)
    problem, state, cells = agreeing(problem, 1, spread)
    learning = typed_rows(problem).objective
    alone = PairsObjective(cells, pairs_of(problem), learning, np.ones(1)).evaluate(state)
    found = found_for(problem)
    close(found.loss, alone.loss)
    number = np.bincount(problem.cluster, minlength=problem.clusters)
    mean = number @ np.nan_to_num(alone.attention[0]) / number.sum()
    n = len(problem.types)
    for t, kind in enumerate(problem.types):
        close(found.attention[t], mean)
        slots = problem.slots(problem.kinds.index(kind))
        expected = np.empty(len(problem.states[t]))
        for j, slot in enumerate(slots):
            u = problem.types.index(problem.kinds[j])
            expected[slot] = alone.velocity[0, u]
            expected[max(slots) + 2 + slot] = alone.velocity[0, n + u]
        expected[max(slots) + 1] = expected[max(slots) + 2]
        there = entries_of(problem, t)[1] > 0
        close(found.velocity[t][there], expected[there])


@few
@given(problems(regulariser=(0.0,)), st.integers(0, 2**32 - 1))
def test_a_constant_on_all_of_y_changes_nothing(problem, seed):
    """Softmax does not see it, row by row: each type gets its own. The data do not push along it either."""
    rng = np.random.default_rng(seed)
    states = [state.copy() for state in problem.states]
    found = found_for(problem)
    for t, state in enumerate(states):
        n_phi = (len(state) - 1) // 2
        state[n_phi:] += rng.uniform(-5, 5)
        number = entries_of(problem, t)[1]
        np.testing.assert_allclose(found.velocity[t][n_phi:] @ number[n_phi:], 0.0, atol=1e-13)
    moved = found_for(problem.change(states=tuple(states)))
    close(moved.loss, found.loss)
    close_all(moved.velocity, found.velocity)
    close_all(moved.attention, found.attention)


@cases
def test_regulariser_pulls_every_unknown_to_zero(problem):
    free, pulled = problem.change(regulariser=0.0), problem.change(regulariser=0.25)
    before, after = found_for(free), found_for(pulled)
    close_all(after.velocity, [v - 0.25 * s for v, s in zip(before.velocity, problem.states, strict=True)])
    close(after.loss, before.loss + penalty_by_types(pulled, problem.states))
    close_all(after.attention, before.attention)


@few
@given(problems(), st.integers(0, 2**32 - 1))
def test_the_order_of_pairs_does_not_matter(problem, seed):
    order = np.random.default_rng(seed).permutation(len(problem.cluster))
    moved = problem.change(
        cluster=problem.cluster[order],
        latent=problem.latent[order],
        visible=problem.visible[:, order],
        negatives=np.argsort(order)[problem.negatives[order]],
    )
    before, after = found_for(problem), found_for(moved)
    close(after.loss, before.loss)
    close_all(after.velocity, before.velocity)


# (4) The sum, type by type.


def joint(masked: tuple[RowObjective, ...], contrastive: Any, weight: float, state: np.ndarray) -> np.ndarray:
    """The velocity that a run of the weighted sum follows; all types' states one after the other."""
    return np.asarray(WeightedRows(masked, contrastive, weight).evaluate(state).velocity)


def masked_by_definition(problem: Problem, world: oracle.World) -> list[np.ndarray]:
    """Minus the gradient of L_p by each entry of an untied row p, averaged over what an unknown stands for."""
    phi, upsilon = Oracle(problem).logits_of(problem.states)
    found = []
    for t, kind in enumerate(problem.types):
        a = problem.kinds.index(kind)
        p, slots = problem.labels.index(a), problem.slots(a)
        unknown = [slots[j] for _ in range(problem.clusters) for j in range(len(slots))]
        unknown += [max(slots) + 1 + problem.position_slot(p, q) for q in range(problem.patches)]
        by_entry = -oracle.gradient(world, np.concatenate([phi[p], upsilon[p]]), p)
        length = len(problem.states[t])
        number = np.bincount(unknown, minlength=length)
        found.append(np.bincount(unknown, by_entry, minlength=length) / np.maximum(number, 1))
    return found


@pytest.mark.parametrize("weight", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("sizes", [(3, 2), (2, 2, 2), (3, 2, 2), (3, 2, 1)])
@pytest.mark.parametrize("clusters", [1, 2])
def test_the_joint_velocity_is_the_masked_one_and_w_times_the_contrastive_one(sizes, clusters, weight):
    values = (0.5, 1.5)
    problem = build(11, areas(*sizes), clusters, 4, 2, temperature=0.5, regulariser=0.02)
    world = oracle.world_of([sizes] * clusters, values, 0.5)
    _, rows = rows_of(problem, contiguous=True)
    draws = [enumerated_draws(row, Latent(values=values), world.masked) for row in rows]
    chance = world.masked / world.patches
    masked = tuple(RowObjective(row, some, chance) for row, some in zip(rows, draws, strict=True))
    found = joint(masked, typed_rows(problem), weight, np.concatenate(problem.states))
    parts = zip(masked_by_definition(problem, world), velocity_by_unknown(problem), strict=True)
    expected = np.concatenate([own + weight * other for own, other in parts])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-11 * max(1.0, weight))


# (5) As it is run.

SMALL = World(area_sizes=(12, 4, 4, 4), clusters=2, latent=Latent(low=0.5, high=1.5))
TABLED = ("phi_own", "phi_global", "phi_other_max", "upsilon_max", "attention_own", "attention_global")
engines = pytest.mark.parametrize("engine", ["sampled", "mean-field"])


@cache
def descent(objective: Any, engine: str, steps: int, **options: Any) -> list[dict[str, Any]]:
    run = simulate(
        SMALL,
        objective,
        engine=engine,
        integrator="descent",
        learning_rate=40.0,
        steps=steps,
        draws=256,
        stop_attention=1.0,
        **options,
    )
    return run.trajectory.to_pylist()


@engines
@pytest.mark.parametrize("query", ["local", "global"])
def test_without_weight_it_is_the_masked_objective(engine, query):
    ours = descent(WeightedSum(mask_ratio=0.5, contrastive_weight=0.0), engine, 20, query=query, seed=2)
    theirs = descent(MaskedReconstruction(mask_ratio=0.5), engine, 20, query=query, seed=2)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for name in TABLED:
        values = [np.array([row[name] for row in rows], dtype=float) for rows in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-9)
    assert abs(ours[-1]["phi_own"]) > 0.1, "it should have moved"


@engines
@pytest.mark.parametrize("query", ["local", "global"])
def test_the_first_step_is_linear_in_the_weight(engine, query):
    """And what w adds is a step of the contrastive objective, to within the errors of its draws: |z| < 4.5."""
    last = [
        descent(WeightedSum(contrastive_weight=w), engine, 1, query=query, seed=4)[-1] for w in (0, 50, 100)
    ]
    learning = ContrastiveLearning(mask_ratio=0.5, negatives=4, temperature=1.0)
    alone = descent(learning, engine, 1, query="global", seed=5)[-1]
    for name in ("phi_own", "phi_global"):
        none, half, whole = (row[name] for row in last)
        assert whole - none == pytest.approx(2 * (half - none), rel=1e-9)
    added, error = (last[2]["phi_global"] - last[0]["phi_global"]) / 100, alone["phi_global_se"]
    assert abs(added) > 10 * error, "there should be something to see"
    assert abs(added - alone["phi_global"]) < 4.5 * 2**0.5 * error


@pytest.mark.parametrize(
    ("world", "options", "word"),
    [
        ({"partitions": "nested"}, {}, "shared"),
        ({"partitions": "random"}, {}, "shared"),
        ({}, {"engine": "enumerated"}, "engine = enumerated"),
        (
            {},
            {"engine": "dense", "integrator": "descent", "learning_rate": 1.0, "steps": 1},
            "engine = dense",
        ),
        ({}, {"start": 0.5}, "start"),
    ],
)
def test_what_it_does_not_do_is_refused(world, options, word):
    with pytest.raises(InputError, match=word):
        simulate(dataclasses.replace(SMALL, **world), WeightedSum(), draws=64, **options)


# (6) Settings.

NAN, INF = float("nan"), float("inf")
REFUSED = [
    *[("mask_ratio", value) for value in (0, 1, -0.1, 1.5, NAN, INF, "half", None, True)],
    *[("contrastive_weight", value) for value in (-1e-9, -1, NAN, INF, 10**400, "much", None, True)],
    *[("negatives", value) for value in (0, -1, 1.5, NAN, INF, "four", None, True)],
    *[("temperature", value) for value in (0, -1, NAN, INF, "warm", None, True)],
    *[("regulariser", value) for value in (-1e-9, -1, NAN, INF, "weak", None, True)],
    *[("name", value) for value in ("masked", "contrastive", "", None)],
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_numbers_out_of_range_are_refused(key, value):
    with pytest.raises(InputError, match=key):
        WeightedSum(**{key: value})


def test_settings_have_defaults_and_are_frozen():
    weighted = WeightedSum()
    assert dataclasses.asdict(weighted) == {
        "mask_ratio": 0.5,
        "contrastive_weight": 1.0,
        "negatives": 4,
        "temperature": 1.0,
        "regulariser": 0.0,
        "name": "weighted",
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        weighted.contrastive_weight = 2.0
    whole = WeightedSum(contrastive_weight=np.int64(3), negatives=2.0)
    assert type(whole.contrastive_weight) is float and type(whole.negatives) is int
    assert WeightedSum(mask_ratio=0.75).masked(196) == 147
    with pytest.raises(InputError, match="mask_ratio"):
        WeightedSum(mask_ratio=0.001).masked(20)
    assert mimlab.WeightedSum is mimlab.objectives.WeightedSum
