"""Contrastive learning followed in time: what is tied, what is drawn, how a run ends, and what the command line says.

The objective itself has its oracle in test_contrastive_oracle.py. Here whole descents are made again with it by hand.
"""

from functools import cache

import numpy as np
import pytest

from mimlab import ContrastiveLearning, Latent, MaskedReconstruction, World, simulate
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.dynamics.contrastive import (
    ROWS_APART,
    cells_of,
    drawn_pairs,
    joined,
    one_of_each_class,
)
from mimlab.dynamics.rows import run_rows
from mimlab.dynamics.sampled import REPLICATES
from mimlab.objectives.pairs import PairsObjective
from mimlab.runs import InputError
from mimlab.studies.single import Simulation

from .contrastive_oracle import Oracle, Setup

VARYING = Latent(low=0.5, high=1.5)
SMALL = World(area_sizes=(12, 4, 4, 4), clusters=2, latent=VARYING)
DESCENT = {"integrator": "descent", "learning_rate": 40.0, "steps": 6}


@cache
def run(start: float = 0.0, engine: str = "mean-field", clusters: int = 4, **objective: float) -> Simulation:
    world = World(area_sizes=(40, *[8] * 5), clusters=clusters, latent=VARYING)
    return simulate(
        world, ContrastiveLearning(**objective), engine=engine, query="all", draws=128, start=start
    )


def pairs_of(world: World, objective: ContrastiveLearning, draws: int, seed: int, start: float, masks: bool):
    """The cells, the pairs and the start of a run, drawn as the module says they are."""
    cells = cells_of(world.layout(seed), world.max_cells, start > 0)
    first, *seeds = np.random.SeedSequence(seed).spawn(REPLICATES + 1)
    state = start * np.random.default_rng(first).standard_normal(
        ((ROWS_APART if start else 1), len(cells.tied))
    )
    sets = [
        drawn_pairs(cells, world.latent, objective, draws // REPLICATES, np.random.default_rng(one), masks)
        for one in seeds
    ]
    return cells, joined(sets), state


@pytest.mark.parametrize("engine", ["sampled", "mean-field"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_descent_is_the_objectives_step_by_step(engine, start):
    objective = ContrastiveLearning(negatives=2, regulariser=0.001)
    found = simulate(
        SMALL,
        objective,
        engine=engine,
        query="global",
        draws=64,
        start=start,
        seed=3,
        stop_attention=1,
        **DESCENT,
    )
    cells, pairs, state = pairs_of(SMALL, objective, 64, 3, start, engine == "sampled")
    share = np.full(len(state), 1 / len(state))
    for step in range(DESCENT["steps"] + 1):
        now = PairsObjective(cells, pairs, objective, share).evaluate(state)
        recorded = found.trajectory.filter(np.asarray(found.trajectory["step"]) == step).to_pylist()[0]
        assert recorded["loss"] == pytest.approx(now.loss, rel=1e-12)
        assert recorded["attention_global"] == pytest.approx(np.nanmean(now.attention[0, :, 0]), rel=1e-12)
        assert recorded["phi_global"] == pytest.approx(state[0, cells.phi[:, 0]].mean(), abs=1e-12)
        state = state + DESCENT["learning_rate"] * now.velocity


def test_the_loss_of_a_run_is_the_oracles():
    """Before the first step and after the last, with every patch a vector and every row written out."""
    objective = ContrastiveLearning(negatives=2)
    found = simulate(
        SMALL, objective, draws=64, start=0.5, seed=1, query="global", stop_attention=1, **DESCENT
    )
    cells, pairs, state = pairs_of(SMALL, objective, 64, 1, 0.5, True)
    share = np.full(len(state), 1 / len(state))
    losses = []
    for _ in range(DESCENT["steps"] + 1):
        setup = Setup(
            cells.size,
            cells.upsilon,
            cells.area,
            cells.phi,
            pairs.cluster,
            pairs.latent,
            pairs.visible,
            pairs.negatives,
            share,
            state,
        )
        losses.append(Oracle(setup).loss())
        state = (
            state
            + DESCENT["learning_rate"]
            * PairsObjective(cells, pairs, objective, share).evaluate(state).velocity
        )
    assert np.asarray(found.trajectory["loss"]) == pytest.approx(losses, rel=1e-10)
    assert losses[-1] < losses[0]


def test_tying_like_areas_is_exact_where_draws_do_not_tell_them_apart():
    """Constant latents at mean counts: areas of one size stay alike by themselves."""
    world = World(area_sizes=(12, 4, 4, 4, 6), clusters=2)
    objective = ContrastiveLearning(negatives=2)
    layout = world.layout(0)
    velocities = []
    for apart in (False, True):
        cells = cells_of(layout, world.max_cells, apart)
        pairs = drawn_pairs(cells, world.latent, objective, 32, np.random.default_rng(0), masks=False)
        by_entry = PairsObjective(cells, pairs, objective, np.ones(1)).evaluate(
            np.zeros((1, len(cells.tied)))
        )
        where = np.concatenate([cells.phi.ravel(), len(cells.phi_tied) + cells.upsilon])
        velocities.append(by_entry.velocity[0, where])
    tied, untied = velocities
    # Only the mean over clusters: pairs are as many of each, their negatives are not.
    assert tied.reshape(-1, 5)[2] == pytest.approx(untied.reshape(-1, 5)[2], rel=1e-12)
    assert tied.reshape(-1, 5)[:2].mean(axis=0) == pytest.approx(
        untied.reshape(-1, 5)[:2].mean(axis=0), rel=1e-12
    )


def test_partitions_given_alike_are_shared_partitions():
    sizes = (12, 4, 4, 4)
    shared = World(area_sizes=sizes, clusters=2, latent=VARYING)
    given = World(area_sizes=sizes, clusters=2, latent=VARYING, partitions=(sizes, sizes))
    objective, options = ContrastiveLearning(negatives=2), {"engine": "mean-field", "draws": 64, "start": 0.5}
    one, other = (
        simulate(world, objective, query="global", **options, stop_attention=1, **DESCENT)
        for world in (shared, given)
    )
    for name in ("loss", "attention_global", "phi_global", "upsilon_max"):
        assert one.trajectory[name].to_numpy() == pytest.approx(other.trajectory[name].to_numpy(), rel=1e-9)


@pytest.mark.parametrize("partitions", ["nested", "random"])
def test_clusters_that_differ_in_their_areas_end_on_their_global_ones(partitions):
    world = World(area_sizes=(20, *[4] * 5), clusters=2, latent=VARYING, partitions=partitions)
    row = simulate(world, ContrastiveLearning(), draws=128, query=25, stop_attention=0.9)
    assert row.summary["status"] == "stopped"
    assert row.trajectory["attention_global"][-1].as_py() == pytest.approx(0.9, abs=1e-6)


def test_rows_that_start_alike_stay_alike_and_rows_apart_end_together():
    alike, apart = run(), run(start=0.5)
    queries = np.asarray(alike.trajectory["query"])
    ends = [alike.trajectory["attention_global"].to_numpy()[queries == q] for q in np.unique(queries)]
    assert all(np.array_equal(ends[0], other) for other in ends[1:])
    first = [q["half_time"] for q in apart.summary["queries"]]
    assert len(first) == ROWS_APART
    assert len({round(value, 6) for value in first if value is not None}) > 1 or None in first
    final = [row.measures["attention_global"][-1] for row in apart.rows]
    assert min(final) > 0.9


def test_engines_agree_within_their_errors():
    """Masks at their mean counts or drawn: at 80 patches the times differ by what the masks' scatter is worth."""
    one, other = run(), run(engine="sampled")
    times = [r.summary["half_time"] for r in (one, other)]
    assert times[0] == pytest.approx(times[1], rel=0.15)
    assert all(r.summary["half_time_se"] > 0 for r in (one, other))


def test_standard_errors_are_the_spread_of_replicates():
    """Seeds apart differ as the errors of one seed say, to a factor of two either way."""
    world = World(area_sizes=(40, *[8] * 5), clusters=4, latent=VARYING)
    runs = [
        simulate(world, ContrastiveLearning(), engine="mean-field", draws=256, stop_attention=0.5, seed=s)
        for s in range(4)
    ]
    scatter = np.std([r.summary["half_time"] for r in runs], ddof=1)
    said = np.mean([r.summary["half_time_se"] for r in runs])
    assert 0.5 < scatter / said < 2


def test_the_classes_of_rows_are_all_asked_for():
    for patches in (5, 16, 17, 80, 1000):
        found = one_of_each_class(patches)
        assert len({q % ROWS_APART for q in found}) == len(found) == min(ROWS_APART, patches)
        assert min(found) >= 0 and max(found) < patches
    assert max(one_of_each_class(1000)) > 900


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": "enumerated"}, "engine = enumerated"),
        ({"draws": 64, "negatives": 8}, "negatives"),
        ({"start": -1.0}, "start"),
    ],
)
def test_what_cannot_be_done_is_refused(change, said):
    objective = ContrastiveLearning(negatives=change.pop("negatives", 4))
    with pytest.raises(InputError, match=said):
        simulate(SMALL, objective, **change)


def test_worlds_too_large_to_draw_are_refused_before_anything_is_drawn():
    with pytest.raises(InputError, match="fewer patches"):
        simulate(World(10**7, 0.9, 0.3, clusters=4), ContrastiveLearning())


def test_the_masked_objective_has_no_random_start():
    with pytest.raises(InputError, match="start"):
        SimulationConfig(SMALL, MaskedReconstruction(), Dynamics(start=0.5))


def test_a_run_of_one_query_is_that_row_of_a_run_of_all():
    config = SimulationConfig(
        SMALL, ContrastiveLearning(negatives=2), Dynamics(draws=64, start=0.5, query=0, stop_attention=0.9)
    )
    (alone,) = run_rows(config)
    together = run_rows(
        SimulationConfig(
            SMALL,
            ContrastiveLearning(negatives=2),
            Dynamics(draws=64, start=0.5, query="all", stop_attention=0.9),
        )
    )
    same = next(one for one in together if one.row.query == 0)
    assert np.array_equal(alone.measures["attention_global"], same.measures["attention_global"])
