"""Images, directions and configuration of the relaxed model, by the laws that they are drawn from.

A sampled number is compared by its z-score, (found - expected) / standard error, below 4.5 at fixed seeds: a
correct law fails one such comparison in 150 000. Standard errors are those of the law, not estimates.
"""

from itertools import combinations
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimlab.dynamics.relax import Relaxation  # noqa: E402
from mimlab.dynamics.relaxed import RelaxedAttention, RelaxedWorld, draw_images  # noqa: E402
from mimlab.runs.errors import InputError  # noqa: E402
from mimlab.world.latent import Latent  # noqa: E402

from .relaxed_oracle import MANY, TINY, TWO, images_of, model_of, plain, world_of  # noqa: E402

MANY_IMAGES = 20_000
LARGEST_Z = 4.5
FIVE_LOCAL = np.array([[0, 0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 2, 2]])  # pairs: 2 and one area left over; 1


def assert_frequency(events, probability):
    """Independent events, along the first axis, have this probability."""
    error = sqrt(probability * (1 - probability) / len(events))
    z = (np.mean(events, axis=0) - probability) / error
    assert np.abs(z).max() < LARGEST_Z, z


def assert_mean(numbers, mean, deviation):
    """Independent numbers, along the first axis, have this mean, given the standard deviation of one."""
    z = (np.mean(numbers, axis=0) - mean) / (deviation / sqrt(len(numbers)))
    assert np.abs(z).max() < LARGEST_Z, z


def assert_uniform(latent):
    """Uniform on [0.5, 1.5], each area of its own: range, ten bins, first two moments."""
    u = latent - 0.5
    assert (u >= 0).all() and (u <= 1).all()
    for tenth in range(10):
        assert_frequency((u >= tenth / 10) & (u < (tenth + 1) / 10), 0.1)
    assert_mean(u, 0.5, sqrt(1 / 12))
    assert_mean((u - 0.5) ** 2, 1 / 12, sqrt(1 / 180))


# Latents.


def test_latents_and_clusters_of_the_default():
    images = images_of(world_of(), MANY_IMAGES)
    assert_frequency(plain(images.cluster) == 1, 0.5)
    assert images.latent.shape == (MANY_IMAGES, 4)
    assert_uniform(plain(images.latent))


@pytest.mark.parametrize("signed", [0.1, 0.5])
def test_signs_are_independent_of_each_other_and_of_strength(signed):
    latent = plain(images_of(world_of(signed_latents=signed), MANY_IMAGES, seed=1).latent)
    negative = latent < 0
    assert_frequency(negative, signed)
    assert_uniform(np.abs(latent))
    for i, j in combinations(range(latent.shape[1]), 2):
        assert_frequency(negative[:, i] & negative[:, j], signed**2)
    assert_frequency(negative & (np.abs(latent) > 1), signed / 2)
    assert_frequency(negative[1:, 0] & negative[:-1, 0], signed**2)


@pytest.mark.parametrize("r", [0.2, 0.8])
def test_latents_are_tied_by_a_gaussian_copula(r):
    latent = plain(images_of(world_of(MANY, 3, latent_correlation=r), MANY_IMAGES, seed=2).latent)
    assert latent.shape == (MANY_IMAGES, 5)
    assert_uniform(latent)
    scores = np.vectorize(NormalDist().inv_cdf)(latent - 0.5)
    for i, j in combinations(range(latent.shape[1]), 2):
        assert_mean(scores[:, i] * scores[:, j], r, sqrt(1 + r * r))
    assert_mean(scores[1:, 0] * scores[:-1, 0], 0.0, 1.0)  # images stay independent
    # One common score is all that ties them: the mean score of n areas has variance r + (1 - r) / n.
    n = latent.shape[1]
    variance = r + (1 - r) / n
    assert_mean(scores.mean(axis=1) ** 2, variance, sqrt(2) * variance)


def test_a_discrete_law_keeps_its_weights_under_the_copula():
    world = RelaxedWorld(TWO, Latent(values=(0.5, 1.5, 1.5)), 3, Relaxation(latent_correlation=0.6))
    latent = plain(draw_images(world, np.random.default_rng(3), MANY_IMAGES).latent)
    assert set(np.unique(latent)) == {0.5, 1.5}
    assert_frequency(latent == 1.5, 2 / 3)
    both = np.mean((latent[:, 0] == 1.5) & (latent[:, 1] == 1.5))
    assert both > 4 / 9 + 0.02  # more often together than independent ones


def test_copula_and_signs_go_together():
    relax = {"latent_correlation": 0.7, "signed_latents": 0.3}
    latent = plain(images_of(world_of(**relax), MANY_IMAGES, seed=4).latent)
    assert_uniform(np.abs(latent))
    assert_frequency(latent < 0, 0.3)
    scores = np.vectorize(NormalDist().inv_cdf)(np.abs(latent[:, :2]) - 0.5)
    assert_mean(scores[:, 0] * scores[:, 1], 0.7, sqrt(1 + 0.49))


# Rolls, masks, noise.


@pytest.mark.parametrize(("jitter", "most"), [(0.05, 0), (0.15, 1), (0.3, 2), (0.45, 3)])
def test_rolls_are_uniform(jitter, most):
    roll = plain(images_of(world_of(MANY, 3, jitter=jitter), MANY_IMAGES, seed=5).roll)
    assert set(roll) == set(range(-most, most + 1))  # round(jitter · 7)
    if most:
        for value in range(-most, most + 1):
            assert_frequency(roll == value, 1 / (2 * most + 1))


def test_a_roll_moves_the_areas_and_not_the_mask():
    world = world_of(MANY, 3, jitter=0.3)
    model, images = model_of(world), images_of(world, 40, seed=6)
    X, v = plain(model.patches(images)), plain(model.features)
    for i, roll in enumerate(plain(images.roll)):
        for q in range(7):
            area = MANY[0][(q + roll) % 7]
            np.testing.assert_allclose(X[i, q], plain(images.latent)[i, area] * v[0, area], atol=1e-14)
    assert_frequency(plain(images_of(world, MANY_IMAGES).mask), 3 / 7)


def test_random_masks_are_uniform_over_all_subsets():
    mask = plain(images_of(world_of(TWO, 3), MANY_IMAGES, seed=7).mask)
    assert mask.dtype == bool and (mask.sum(axis=1) == 3).all()
    code = mask @ (1 << np.arange(6))
    for chosen in combinations(range(6), 3):
        assert_frequency(code == sum(1 << q for q in chosen), 1 / 20)


@pytest.mark.parametrize("masked", [1, 3, 6])
def test_block_masks_are_consecutive_with_a_uniform_start(masked):
    mask = plain(images_of(world_of(MANY, masked, mask_shape="block"), MANY_IMAGES, seed=8).mask)
    assert mask.dtype == bool and (mask.sum(axis=1) == masked).all()
    first = mask & ~np.roll(mask, 1, axis=1)  # masked, and the one before (cyclically) is not
    assert (first.sum(axis=1) == 1).all()
    assert_frequency(first, 1 / 7)


@pytest.mark.parametrize("relax", [{}, {"coherence": 0.5}], ids=str)
def test_noise_is_gaussian_with_unit_norm_on_average(relax):
    world = world_of(TWO, 3, noise=0.5, **relax)
    noise, d = plain(images_of(world, MANY_IMAGES // 4, seed=9).noise), RelaxedAttention(world).Q.shape[-1]
    assert noise.shape == (MANY_IMAGES // 4, 6, d)
    assert_mean((noise**2).sum(axis=2).reshape(-1, 1), 1.0, sqrt(2 / d))
    assert_mean(noise.reshape(-1, d), 0.0, sqrt(1 / d))
    assert_mean((noise.reshape(-1, d)) ** 4, 3 / d**2, sqrt(96) / d**2)
    assert_mean((noise[:, 0] * noise[:, 1]).sum(axis=1), 0.0, sqrt(1 / d))  # fresh in each patch
    assert_mean((noise[1:, 0] * noise[:-1, 0]).sum(axis=1), 0.0, sqrt(1 / d))  # and in each image


def test_the_target_has_its_own_noise_too():
    world = world_of(TWO, 3, noise=0.5)
    model, images = model_of(world), images_of(world, 5)
    clean = plain(model.patches(images)) - 0.5 * plain(images.noise)
    cluster, latent = plain(images.cluster), plain(images.latent)
    for i in range(5):
        for q in range(6):
            area = TWO[cluster[i], q]
            np.testing.assert_allclose(
                clean[i, q], latent[i, area] * plain(model.features)[cluster[i], area], atol=1e-14
            )


NOT_OF_IMAGES = {
    "coherence": 0.5,
    "shared_features": 1.0,
    "positions": "random",
    "content_in_query": 1.0,
    "value_matrix": 1.0,
    "heads": 3,
    "optimizer": "adam",
    "momentum": 0.5,
    "batch": 7,
    "weight_decay": 0.1,
}


@pytest.mark.parametrize("key", NOT_OF_IMAGES)
def test_what_is_not_about_images_leaves_them_as_they_were(key):
    one, other = images_of(world_of(), 20), images_of(world_of(**{key: NOT_OF_IMAGES[key]}), 20)
    for name in ("cluster", "latent", "roll", "mask"):
        np.testing.assert_array_equal(plain(getattr(one, name)), plain(getattr(other, name)))


def test_the_seed_decides():
    world = world_of(noise=1.0, jitter=0.5, latent_correlation=0.5, signed_latents=0.5)
    one, again, other = (images_of(world, 30, seed=seed) for seed in (0, 0, 1))
    for name in ("cluster", "latent", "roll", "mask", "noise"):
        np.testing.assert_array_equal(plain(getattr(one, name)), plain(getattr(again, name)))
        assert not np.array_equal(plain(getattr(one, name)), plain(getattr(other, name)))


# Directions.


def directions(area_of=FIVE_LOCAL, seed=0, **relax):
    """Positions, and the features that exist with their (k, j), in order."""
    model = RelaxedAttention(world_of(area_of, 2, **relax), seed=seed)
    e, v = plain(model.positions), plain(model.features)
    own = [(k, j) for k in range(len(area_of)) for j in range(v.shape[1]) if j <= max(area_of[k])]
    assert v.shape == (len(area_of), int(np.max(area_of)) + 1, e.shape[1])
    for k, j in np.ndindex(v.shape[:2]):
        assert (k, j) in own or not v[k, j].any()
    return e, np.array([v[k, j] for k, j in own]), own


@pytest.mark.parametrize("area_of", [TINY, TWO, MANY, FIVE_LOCAL], ids=["tiny", "two", "many", "five"])
@pytest.mark.parametrize("positions", ["orthogonal", "learned"])
def test_positions_and_features_start_orthonormal(area_of, positions):
    e, v, _ = directions(area_of, positions=positions)
    both = np.concatenate([e, v])
    np.testing.assert_allclose(both @ both.T, np.eye(len(both)), atol=1e-13)
    assert e.shape[1] == len(both)  # the least dimension


@pytest.mark.parametrize("positions", ["orthogonal", "sincos", "random", "learned"])
@pytest.mark.parametrize("rho", [0.1, 0.9])
def test_coherent_features_meet_at_one_angle_and_leave_positions_alone(positions, rho):
    e, v, _ = directions(coherence=rho, positions=positions)
    np.testing.assert_allclose(v @ v.T, rho + (1 - rho) * np.eye(len(v)), atol=1e-13)
    np.testing.assert_allclose(e @ v.T, 0, atol=1e-13)
    np.testing.assert_allclose((e**2).sum(axis=1), 1, atol=1e-13)


@pytest.mark.parametrize(
    ("share", "pairs"),
    [  # round(share · 2) pairs of cluster 0, round(share · 1) of cluster 1
        (0.0, []),
        (0.2, []),
        (0.4, [((0, 1), (0, 2))]),
        (0.7, [((0, 1), (0, 2)), ((1, 1), (1, 2))]),
        (1.0, [((0, 1), (0, 2)), ((0, 3), (0, 4)), ((1, 1), (1, 2))]),
    ],
)
@pytest.mark.parametrize("rho", [0.0, 0.4])
def test_shared_features_are_one_in_the_first_pairs(share, pairs, rho):
    e, v, own = directions(shared_features=share, coherence=rho)
    expected = rho + (1 - rho) * np.eye(len(v))
    for one, other in pairs:
        expected[own.index(one), own.index(other)] = expected[own.index(other), own.index(one)] = 1.0
        np.testing.assert_array_equal(v[own.index(one)], v[own.index(other)])
    np.testing.assert_allclose(v @ v.T, expected, atol=1e-13)
    np.testing.assert_allclose(e @ v.T, 0, atol=1e-13)


def test_areas_that_share_a_feature_keep_their_own_latents():
    latent = plain(images_of(world_of(FIVE_LOCAL, 3, shared_features=1.0), MANY_IMAGES).latent)
    assert_mean((latent[:, 1] - 1) * (latent[:, 2] - 1), 0.0, 1 / 12)


@pytest.mark.parametrize("area_of", [TWO, MANY], ids=["even", "odd"])
def test_sines_and_cosines(area_of):
    e, v, _ = directions(area_of, positions="sincos")
    P = len(e)
    expected = [
        [np.mean([np.cos((p - q) * 10000 ** (-2 * i / P)) for i in range(P // 2)]) for q in range(P)]
        for p in range(P)
    ]
    np.testing.assert_allclose(e @ e.T, expected, atol=1e-12)
    np.testing.assert_allclose(e @ v.T, 0, atol=1e-13)
    assert np.linalg.matrix_rank(e, tol=1e-9) <= 2 * (P // 2)


def test_random_positions_are_directions_of_a_gaussian():
    """The product of two random unit vectors of R^P has mean 0 and mean square 1/P."""
    grams = []
    for seed in range(250):
        e, v, _ = directions(MANY, seed=seed, positions="random")
        np.testing.assert_allclose(e @ v.T, 0, atol=1e-13)
        grams.append(e @ e.T)
    grams = np.array(grams)
    P = grams.shape[1]
    np.testing.assert_allclose(np.diagonal(grams, axis1=1, axis2=2), 1, atol=1e-13)
    products = grams[:, *np.triu_indices(P, 1)]
    assert_mean(products, 0.0, sqrt(1 / P))
    assert_mean(products**2, 1 / P, sqrt(2 * (P - 1) / (P**2 * (P + 2))))


def test_the_start_has_the_standard_deviation_asked_for():
    world = world_of(heads=3)
    Q = plain(RelaxedAttention(world, seed=3, start=0.2).Q)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=Q.shape[1:]))[0]
    for basis in (np.eye(len(axes)), axes):  # the law has no preferred basis
        entries = (basis @ Q @ basis.T).reshape(-1, 1)
        assert_mean(entries, 0.0, 0.2)
        assert_mean(entries**2, 0.04, 0.04 * sqrt(2))
    products = (Q[0] * Q[1]).reshape(-1, 1)
    assert_mean(products, 0.0, 0.04)
    np.testing.assert_array_equal(Q, plain(RelaxedAttention(world, seed=3, start=0.2).Q))
    assert not np.array_equal(Q, plain(RelaxedAttention(world, seed=4, start=0.2).Q))


# What may be asked for.


BAD = {
    "noise": (-0.1, float("nan"), float("inf"), "much", None),
    "coherence": (-0.1, 1.0, 2, float("nan"), "x"),
    "shared_features": (-0.1, 1.1, float("nan"), "x"),
    "latent_correlation": (-0.1, 1.0, float("nan"), "x"),
    "signed_latents": (-0.1, 0.6, float("nan"), "x"),
    "jitter": (-0.1, 0.6, float("nan"), "x"),
    "positions": ("fourier", 3, None),
    "content_in_query": (-0.1, 1.1, float("nan"), "x"),
    "value_matrix": (-0.1, float("nan"), float("inf"), "x"),
    "heads": (0, -1, 1.5, "x", None),
    "mask_shape": ("ring", 3, None),
    "optimizer": ("lbfgs", 3, None),
    "momentum": (-0.1, 1.0, float("nan"), "x"),
    "batch": (0, -1, 1.5, "x"),
    "weight_decay": (-0.1, float("nan"), float("inf"), "x"),
}
ALLOWED = {
    "noise": (0, 3.0),
    "coherence": (0, 0.99),
    "shared_features": (0, 1),
    "latent_correlation": (0, 0.99),
    "signed_latents": (0, 0.5),
    "jitter": (0, 0.5),
    "positions": ("orthogonal", "sincos", "random", "learned"),
    "content_in_query": (0, 1),
    "value_matrix": (0, 2.0),
    "heads": (1, 4),
    "mask_shape": ("random", "block"),
    "optimizer": ("sgd", "adam"),
    "momentum": (0, 0.99),
    "batch": (None, 1),
    "weight_decay": (0, 1.0),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in BAD for value in BAD[key]])
def test_a_value_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(InputError, match=key):
        Relaxation(**{key: value})


@pytest.mark.parametrize("key", ALLOWED)
def test_the_first_value_allowed_is_the_papers_and_the_last_is_not(key):
    for value in ALLOWED[key]:
        assert Relaxation(**{key: value}).is_paper == (value == ALLOWED[key][0])


def test_the_default_is_the_paper():
    assert Relaxation().is_paper
    assert Relaxation() == Relaxation(**{key: values[0] for key, values in ALLOWED.items()})


def test_momentum_is_refused_where_adam_would_ignore_it():
    with pytest.raises(InputError, match="momentum"):
        Relaxation(optimizer="adam", momentum=0.9)


@pytest.mark.parametrize("masked", [0, 6, 7])
def test_a_mask_of_nothing_or_everything_is_refused(masked):
    with pytest.raises(InputError, match="masked"):
        world_of(TWO, masked)
