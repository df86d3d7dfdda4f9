"""Images of a simulator's world: read back from the pixels, patch by patch, by theory, section 1."""

import numpy as np
import pytest
import torch
from scipy import stats

from mimlab import Latent, World
from mimlab.runs import InputError
from mimlab.training.masks import patches_of
from mimlab.training.photographs import TRAINING
from mimlab.training.rendered import RenderedWorld
from mimlab.training.views import MEAN, STD, standardise

GRID, PATCH = 4, 4
SIZES = ((6, 4, 3, 3), (5, 5, 4, 2))
WORLD = World(area_sizes=SIZES[0], clusters=2, partitions=SIZES, latent=Latent(low=0.5, high=1.5))


def rendered(world=WORLD, seed=3, batch_size=8, **more):
    return RenderedWorld(world, GRID, PATCH, batch_size, seed, **more)


def constant(sizes, clusters=1):
    return World(area_sizes=sizes, clusters=clusters, latent=Latent(low=1, high=1))


def z_order(side):
    """Positions (row, column) of a square whose side is a power of two: its quarters, each in this order, like a Z."""
    if side == 1:
        return [(0, 0)]
    half = side // 2
    return [(top + r, left + c) for top in (0, half) for left in (0, half) for r, c in z_order(half)]


def z_labels(sizes, grid):
    """(grid²,) area of each patch, row by row: areas are runs along the Z-order."""
    inside = [(r, c) for r, c in z_order(8) if r < grid and c < grid]
    areas = [area for area, size in enumerate(sizes) for _ in range(size)]
    labels = np.full((grid, grid), -1)
    for (row, column), area in zip(inside, areas, strict=True):
        labels[row, column] = area
    return labels.ravel()


def values_of(source, pixels):
    """(B, P, D) float64, in units of z·v."""
    return patches_of(standardise(pixels.double()), PATCH).numpy() / source.scale


def matches(source, pixels, labels):
    """Area and latent of every patch, (B, P) each, by the feature of the image's cluster that fits it best."""
    along = np.einsum("bpd,bjd->bpj", values_of(source, pixels), np.asarray(source.features)[labels.numpy()])
    return along.argmax(-1), along.max(-1)


def offsets_of(source, pixels, labels):
    """(B, 2) rows and columns by which the areas of each image have moved, none else explaining it."""
    found, _ = matches(source, pixels, labels)
    moves = np.array([(r, c) for r in range(GRID) for c in range(GRID)])
    still = np.asarray(source.area_of).reshape(-1, GRID, GRID)
    moved = np.stack([np.roll(still, move, (1, 2)).reshape(len(still), -1) for move in moves], 1)
    fitting = (moved[labels.numpy()] == found[:, None]).all(-1)
    assert (fitting.sum(1) == 1).all()
    return moves[fitting.argmax(1)]


def latents_of(source, pixels, labels):
    """(B, N), read at one patch of each area of an image that has not moved."""
    _, strengths = matches(source, pixels, labels)
    firsts = [[int(np.flatnonzero(row == j)[0]) for j in range(len(SIZES[0]))] for row in source.area_of]
    return np.take_along_axis(strengths, np.array(firsts)[labels.numpy()], 1)


@pytest.fixture(scope="module")
def many():
    source = rendered(batch_size=2000)
    return source, source.batch(0)


def test_an_image_is_its_areas_features_times_their_latents(many):
    source, (pixels, labels, skipped, *_) = many
    assert pixels.shape == (2000, 3, GRID * PATCH, GRID * PATCH) and pixels.dtype == torch.float32
    assert labels.shape == (2000,) and labels.dtype == torch.int64
    assert skipped == ()
    features, area_of = np.asarray(source.features), np.asarray(source.area_of)
    values = values_of(source, pixels)
    for image, label in zip(values[:50], labels.tolist(), strict=False):
        for area in range(len(SIZES[label])):
            inside = image[area_of[label] == area]
            strengths = inside @ features[label, area]
            assert len(inside) == SIZES[label][area]
            assert np.abs(inside - strengths[:, None] * features[label, area]).max() < 1e-5
            assert np.ptp(strengths) < 1e-5
            assert 0.5 - 1e-5 <= strengths[0] <= 1.5 + 1e-5
    assert {0, 1} == set(labels[:50].tolist())


def test_areas_are_where_the_partition_has_them_in_every_cluster(many):
    source, (pixels, labels, *_) = many
    found, _ = matches(source, pixels, labels)
    expected = np.stack([z_labels(sizes, GRID) for sizes in SIZES])
    assert np.asarray(source.area_of).dtype == np.int64
    assert np.array_equal(source.area_of, expected)
    assert np.array_equal(found, expected[labels.numpy()])


def test_latents_follow_the_worlds_law_and_areas_are_independent(many):
    source, (pixels, labels, *_) = many
    latents = latents_of(source, pixels, labels)
    assert 0.5 - 1e-5 <= latents.min() < 0.51 and 1.49 < latents.max() <= 1.5 + 1e-5
    assert abs(latents.mean() - 1) < 4 * np.sqrt(1 / 12 / latents.size)
    for column in latents.T:
        assert stats.kstest(column, stats.uniform(0.5, 1).cdf).pvalue > 1e-3
    between = np.corrcoef(latents.T)[np.triu_indices(4, 1)]
    assert np.abs(between).max() < 4 / np.sqrt(len(latents))
    assert abs(np.corrcoef(latents[:-1, 0], latents[1:, 0])[0, 1]) < 4 / np.sqrt(len(latents))
    assert len(np.unique(latents.round(7))) > 0.99 * latents.size


def test_latents_of_a_discrete_law_are_its_values_as_often_as_it_says():
    law = Latent(values=(0.2, 0.2, 0.2, 1.8))
    source = rendered(World(area_sizes=SIZES[0], clusters=2, partitions=SIZES, latent=law), batch_size=1000)
    pixels, labels, *_ = source.batch(1)
    latents = latents_of(source, pixels, labels)
    high = np.abs(latents - 1.8) < 1e-5
    assert (high | (np.abs(latents - 0.2) < 1e-5)).all()
    assert stats.binomtest(int(high.sum()), high.size, 0.25).pvalue > 1e-3


def test_a_latent_may_be_zero():
    """Its area is then grey, the colour that standardises to zero."""
    source = rendered(World(area_sizes=(16,), latent=Latent(values=(0.0, 1.0))))
    pixels = source.batch(0).pixels
    grey = torch.tensor(MEAN).reshape(3, 1, 1)
    plain = [bool(torch.allclose(image, grey.expand_as(image), atol=1e-6)) for image in pixels]
    assert 0 < sum(plain) < len(plain)


def test_clusters_are_equally_likely_and_are_the_labels(many):
    source, (_, labels, *_) = many
    assert source.classes == 2
    assert stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue > 1e-3
    five = rendered(constant(SIZES[0], clusters=5), batch_size=2000)
    counts = np.bincount(five.batch(0).labels.numpy(), minlength=5)
    assert five.classes == 5 and len(counts) == 5
    assert stats.chisquare(counts).pvalue > 1e-3


def test_features_are_orthonormal_over_all_clusters_and_areas(many):
    features = np.asarray(many[0].features)
    assert features.shape == (2, 4, 3 * PATCH**2) and features.dtype == np.float64
    flat = features.reshape(8, -1)
    assert np.abs(flat @ flat.T - np.eye(8)).max() < 1e-12


def test_as_many_features_as_pixel_values_still_fit():
    """48 areas' features in the 48 values of a patch are a whole basis; one cluster more has no room."""
    source = rendered(constant((4, *[1] * 12), clusters=3))
    assert np.asarray(source.features).shape == (3, 13, 48)
    basis = np.asarray(rendered(constant((5, *[1] * 11), clusters=4)).features).reshape(48, 48)
    assert np.abs(basis @ basis.T - np.eye(48)).max() < 1e-12
    with pytest.raises(InputError, match="48"):
        rendered(constant((5, *[1] * 11), clusters=5))


def test_the_scale_is_the_largest_that_pixels_allow(many):
    source, (pixels, *_) = many
    limits = []
    for feature in np.asarray(source.features).reshape(-1, 3 * PATCH**2):
        for place, value in enumerate(feature):
            mean, deviation = MEAN[place % 3], STD[place % 3]
            room = 1 - mean if value > 0 else mean
            if value:
                limits.append(room / (deviation * 1.5 * abs(value)))
    assert source.scale == pytest.approx(min(limits), rel=1e-9)
    assert pixels.min() >= 0 and pixels.max() <= 1


def test_the_largest_latent_takes_a_pixel_to_the_end_of_its_range():
    pixels = rendered(constant(SIZES[0], clusters=2), batch_size=64).batch(0).pixels
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert min(float(pixels.min()), 1 - float(pixels.max())) < 1e-6


@pytest.mark.parametrize(
    ("grid", "sizes"),
    [(8, (40, 8, 8, 4, 4)), (8, (16, 16, 16, 16)), (3, (5, 2, 2)), (5, (9, 8, 8)), (6, (20, 10, 6))],
)
def test_shared_areas_are_runs_along_the_z_order(grid, sizes):
    source = RenderedWorld(constant(sizes, clusters=2), grid, PATCH, 4, 0)
    expected = z_labels(sizes, grid)
    assert np.array_equal(source.area_of, [expected, expected])
    pixels, labels, *_ = source.batch(0)
    assert pixels.shape[-1] == grid * PATCH
    found, _ = matches(source, pixels, labels)
    assert np.array_equal(found, np.broadcast_to(expected, found.shape))


def test_quarters_of_an_eight_by_eight_grid_are_squares():
    area_of = np.asarray(RenderedWorld(constant((16,) * 4), 8, PATCH, 4, 0).area_of).reshape(8, 8)
    assert np.array_equal(area_of, np.kron([[0, 1], [2, 3]], np.ones((4, 4), int)))


def test_random_partitions_belong_to_the_seed():
    world = World(area_sizes=SIZES[0], clusters=3, partitions="random", latent=Latent(low=1, high=1))
    one, again, other = (
        np.asarray(rendered(world, seed=seed, draws_seed=draws).area_of)
        for seed, draws in ((1, None), (1, 9), (2, 9))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    for areas in one:
        assert np.bincount(areas).tolist() == list(SIZES[0])
    assert np.array_equal(one[0], z_labels(SIZES[0], GRID))
    assert not np.array_equal(one[1], one[2])


def test_a_batch_is_a_function_of_its_number():
    source, state = rendered(), torch.get_rng_state()
    third, first = source.batch(3), source.batch(1)
    again = rendered()
    assert torch.equal(again.batch(1).pixels, first.pixels) and torch.equal(
        again.batch(1).labels, first.labels
    )
    assert not torch.equal(first.pixels, third.pixels)
    for given, read in zip((third, first), source.batches(iter([3, 1])), strict=True):
        assert torch.equal(given.pixels, read.pixels) and torch.equal(given.labels, read.labels)
    assert torch.equal(torch.get_rng_state(), state)


def same_world(one, other):
    return np.array_equal(one.features, other.features) and np.array_equal(one.area_of, other.area_of)


def test_another_purpose_shows_other_images_of_the_same_world():
    training, held_out = rendered(batch_size=32), rendered(batch_size=32, purpose="held out")
    assert same_world(training, held_out) and training.scale == held_out.scale
    one, other = (
        latents_of(source, *source.batch(0)[:2]).round(6).ravel().tolist() for source in (training, held_out)
    )
    assert not set(one) & set(other)


@pytest.mark.parametrize("areas", ["fixed", "shifted"])
def test_the_seed_makes_the_world_and_the_other_seed_the_draws(areas):
    plain, again = rendered(seed=3, areas=areas), rendered(seed=3, draws_seed=3, areas=areas)
    assert same_world(plain, again)
    assert torch.equal(plain.batch(2).pixels, again.batch(2).pixels)

    drawn = rendered(seed=3, draws_seed=0, areas=areas)  # 0 is a seed too
    assert same_world(plain, drawn)
    assert not torch.equal(plain.batch(2).pixels, drawn.batch(2).pixels)

    other = rendered(seed=0, areas=areas)
    assert not same_world(plain, other)
    mine, theirs = drawn.batch(2), other.batch(2)
    assert torch.equal(mine.labels, theirs.labels)
    strengths = [matches(source, *source.batch(2)[:2])[1] for source in (drawn, other)]
    assert np.abs(strengths[0] - strengths[1]).max() < 1e-5


def test_shifted_areas_move_together_round_the_edges():
    """Rows and columns by offsets that are all equally likely, whatever the cluster, anew for each image."""
    source = rendered(batch_size=1600, areas="shifted")
    assert np.array_equal(source.area_of, rendered().area_of)
    pixels, labels, *_ = source.batch(0)
    offsets = offsets_of(source, pixels, labels)
    places = offsets[:, 0] * GRID + offsets[:, 1]
    counts = np.bincount(places, minlength=GRID**2)
    assert stats.chisquare(counts).pvalue > 1e-3
    table = np.stack([np.bincount(places[labels.numpy() == k], minlength=GRID**2) for k in (0, 1)])
    assert stats.chi2_contingency(table).pvalue > 1e-3
    pairs = np.zeros((GRID**2, GRID**2))
    np.add.at(pairs, (places[:-1], places[1:]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_shifted_images_are_still_areas_of_one_strength():
    source = rendered(areas="shifted")
    pixels, labels, *_ = source.batch(0)
    found, strengths = matches(source, pixels, labels)
    features = np.asarray(source.features)[labels.numpy()[:, None], found]
    assert np.abs(values_of(source, pixels) - strengths[..., None] * features).max() < 1e-5
    for areas, strength, label in zip(found, strengths, labels.tolist(), strict=True):
        assert np.bincount(areas).tolist() == list(SIZES[label])
        assert max(np.ptp(strength[areas == area]) for area in range(4)) < 1e-5


def test_fixed_areas_do_not_move(many):
    source, (pixels, labels, *_) = many
    assert not offsets_of(source, pixels[:64], labels[:64]).any()


def test_what_cannot_be_rendered_is_refused():
    with pytest.raises(InputError, match="16"):
        rendered(constant((6, 4, 3, 2)))  # 15 patches on a grid of 16
    with pytest.raises(InputError, match="16"):
        rendered(constant((9, 4, 4)))
    with pytest.raises(InputError, match="12"):
        RenderedWorld(constant((4, *[1] * 12)), GRID, 2, 4, 0)  # 13 features in the 12 values of a patch
    with pytest.raises(InputError, match="photograph"):
        rendered(World(image=str(TRAINING[0].path)))
