"""The oracle against itself: three ways to one gradient, and the invariants of section 3.

The package is not imported: what is checked here must hold whatever the package does.
"""

import numpy as np
import pytest

from . import oracle
from .oracle import World, world_of

WORLDS = {
    "one cluster": world_of([[3, 2]], (1.0,), 0.6),
    "two-valued latent": world_of([[2, 1, 2]], (0.5, 1.5), 0.6),
    "latent that can vanish": world_of([[2, 2]], (0.0, 1.0, 1.3), 0.5),
    "two clusters": world_of([[3, 2], [1, 2, 2]], (0.7, 1.4), 0.6),
    "two clusters, scattered": World((((0, 3), (1, 2, 4)), ((4, 1), (0,), (2, 3))), (1.0, 2.0), 3),
}


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def random_row(world: World, seed: int) -> oracle.Array:
    return np.random.default_rng(seed).normal(size=world.size)


def random_latent_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    return world_of([[2, 1, 1], [1, 3]], tuple(rng.uniform(0.2, 2.0, size=2)), 0.5)


@pytest.mark.parametrize("p", [0, 4])
def test_closed_form_is_the_derivative_of_the_loss(world: World, p: int) -> None:
    p = min(p, world.patches - 1)
    row = random_row(world, seed=p)
    differences = oracle.gradient_by_differences(world, row, p)
    assert np.abs(differences).max() > 1e-3
    np.testing.assert_allclose(oracle.gradient_by_loops(world, row, p), differences, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_closed_form_is_the_derivative_with_random_latents(seed: int) -> None:
    world = random_latent_world(seed)
    row = random_row(world, seed)
    differences = oracle.gradient_by_differences(world, row, p=2)
    np.testing.assert_allclose(oracle.gradient_by_loops(world, row, p=2), differences, rtol=0, atol=1e-9)


def test_stacked_draws_agree_with_loops(world: World) -> None:
    for p in range(world.patches):
        row = random_row(world, seed=10 + p)
        looped, stacked = oracle.gradient_by_loops(world, row, p), oracle.gradient(world, row, p)
        np.testing.assert_allclose(stacked, looped, rtol=0, atol=1e-14)
        loss = oracle.loss_by_definition(world, row, p)
        assert oracle.measure(world, row, p).loss == pytest.approx(loss, abs=1e-14)


def test_probabilities_sum_to_one(world: World) -> None:
    everything = list(oracle.draws(world))
    assert sum(d.probability for d in everything) == pytest.approx(1.0, abs=1e-12)
    assert {len(d.mask) for d in everything} == {world.masked}
    assert len(set(everything)) == len(everything)


def test_rows_decouple() -> None:
    """The whole loss, differenced in an entry of any row, gives that row's gradient."""
    world = WORLDS["two clusters"]
    Q = np.random.default_rng(3).normal(size=(world.patches, world.size))
    rows = sum(oracle.loss_by_definition(world, Q[p], p) for p in range(world.patches))
    assert oracle.whole_loss_by_definition(world, Q) == pytest.approx(rows, abs=1e-13)
    width = 1e-5
    for p, i in [(0, 0), (1, 3), (2, world.features), (4, world.size - 1)]:
        step = np.zeros_like(Q)
        step[p, i] = width
        ahead, behind = (oracle.whole_loss_by_definition(world, Q + sign * step) for sign in (1, -1))
        assert (ahead - behind) / (2 * width) == pytest.approx(oracle.gradient(world, Q[p], p)[i], abs=1e-9)


def test_one_row_descends_as_it_does_among_all(world: World) -> None:
    whole = oracle.descend(world, learning_rate=0.8, steps=3)
    for p in range(world.patches):
        np.testing.assert_allclose(oracle.descend_row(world, p, 0.8, 3)[-1], whole[p], rtol=0, atol=1e-14)


def test_position_correlations_of_a_row_keep_their_sum(world: World) -> None:
    path = oracle.descend_row(world, 1, learning_rate=0.8, steps=40)
    upsilon = path[:, world.features :]
    assert np.abs(upsilon[-1]).max() > 1e-3
    np.testing.assert_allclose(upsilon.sum(axis=1), 0.0, rtol=0, atol=1e-13)


def test_own_feature_correlation_never_falls(world: World) -> None:
    path = oracle.descend_row(world, 1, learning_rate=0.8, steps=40)
    own = [oracle.phi_own(world, row, 1) for row in path]
    assert np.all(np.diff(own) >= 0)
    assert own[-1] > 0.1


def test_loss_falls_and_stays_above_its_floor(world: World) -> None:
    path = oracle.descend_row(world, 0, learning_rate=0.3, steps=60)
    excess = np.array([oracle.measure(world, row, 0).excess_loss for row in path])
    assert np.all(np.diff(excess) < 0)
    for seed in range(20):
        assert oracle.measure(world, 5 * random_row(world, seed), 0).excess_loss > 0


def test_the_floor_is_approached_and_made_of_hopeless_draws() -> None:
    """C = 2: p's only companion is masked too with probability (m-1)/(P-1)."""
    world = world_of([[4, 2]], (0.5, 1.5), 0.5)
    p, (m, P) = 4, (world.masked, world.patches)
    floor = 0.5 * (m / P) * ((m - 1) / (P - 1)) * np.mean(np.square(world.values))
    far = np.zeros(world.size)
    far[:2] = -60.0, 60.0
    measured = oracle.measure(world, far, p)
    assert measured.loss_floor == pytest.approx(floor, abs=1e-15)
    assert measured.excess_loss == pytest.approx(0.0, abs=1e-10)
    assert measured.attention_own == pytest.approx(1.0, abs=1e-10)


def test_attention_starts_uniform(world: World) -> None:
    row = np.zeros(world.size)
    for p in range(world.patches):
        attn, _ = oracle.attention_of_stack(world, row, p)
        np.testing.assert_allclose(attn, 1 / world.patches, rtol=1e-15)


def test_attention_at_the_start_by_counting() -> None:
    """Mean visible members of an area of C, over P, given that it is p's and not wholly masked."""
    world = world_of([[4, 3]], (1.0,), 4 / 7)
    measured = oracle.measure(world, np.zeros(world.size), 5)
    # 3 of the 6 other positions are visible: both companions of p are masked with probability C(3,2)/C(6,2)
    probability = 1 - 3 / 15
    assert measured.attention_own == pytest.approx((2 * 3 / 6) / probability / 7, abs=1e-15)
    # of the global 4, on average 2 are visible; 3 where both companions are masked, which does not count
    assert measured.attention_global == pytest.approx((2 - 3 / 15 * 3) / probability / 7, abs=1e-15)


def test_attention_is_undefined_where_the_own_area_is_p_alone() -> None:
    world = world_of([[3, 1, 2]], (1.0,), 0.5)
    measured = oracle.measure(world, np.zeros(world.size), 3)
    assert np.isnan(measured.attention_own)
    assert np.isnan(measured.attention_global)
    assert measured.excess_loss > 0


def test_moving_patches_moves_the_state() -> None:
    """Relabelling positions relabels rows and position entries, and touches no feature entry."""
    world = WORLDS["two clusters"]
    moved_to = np.random.default_rng(0).permutation(world.patches)
    moved = World(
        tuple(tuple(tuple(int(moved_to[q]) for q in area) for area in areas) for areas in world.partitions),
        world.values,
        world.masked,
    )
    for p in range(world.patches):
        row = oracle.descend_row(world, p, 0.8, 30)[-1]
        image = oracle.descend_row(moved, int(moved_to[p]), 0.8, 30)[-1]
        F = world.features
        np.testing.assert_allclose(image[:F], row[:F], rtol=0, atol=1e-13)
        np.testing.assert_allclose(image[F:][moved_to], row[F:], rtol=0, atol=1e-13)
