"""Rendered worlds against the formulas of theory, section 1: X_p = z_j v_{k,j} for p in area j of cluster k.

Written from the formulas before the renderer: latents are read back from pixels by plain projections.
"""

import numpy as np
import pytest
import torch

from mimlab import World
from mimlab.runs import InputError
from mimlab.training.masks import patches_of
from mimlab.training.rendered import RenderedWorld
from mimlab.training.views import standardise
from mimlab.world.latent import Latent

GRID, PATCH = 8, 4
SIZES = (32, 8, 8, 8, 8)
LATENT = Latent(low=0.5, high=1.5)


def world(clusters: int = 3, partitions: object = "shared", sizes: tuple[int, ...] = SIZES) -> World:
    return World(area_sizes=sizes, clusters=clusters, partitions=partitions, latent=LATENT)


def rendered(one: World, **options: object) -> RenderedWorld:
    settings: dict[str, object] = {"batch_size": 64, "seed": 5} | options
    return RenderedWorld(one, GRID, PATCH, **settings)


def morton(row: int, column: int) -> int:
    """Bits of row and column interleaved, the column's lowest."""
    return sum(((column >> i & 1) << 2 * i) | ((row >> i & 1) << (2 * i + 1)) for i in range(8))


def contents(source: RenderedWorld, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches as the encoder gets them, (B, P, D), and labels."""
    batch = source.batch(number)
    return patches_of(standardise(batch.pixels.double()), PATCH).numpy(), batch.labels.numpy()


def test_areas_are_runs_along_the_z_order_curve():
    source = rendered(world())
    code = np.array([morton(row, column) for row in range(GRID) for column in range(GRID)])
    place = np.argsort(np.argsort(code))
    expected = np.repeat(np.arange(len(SIZES)), SIZES)[place]
    np.testing.assert_array_equal(source.area_of, np.tile(expected, (3, 1)))


def test_a_grid_that_is_no_power_of_two_is_sorted_by_code():
    sizes = (20, 4, 4, 4, 4)
    source = RenderedWorld(world(1, sizes=sizes), 6, PATCH, batch_size=4, seed=0)
    code = np.array([morton(row, column) for row in range(6) for column in range(6)])
    expected = np.empty(36, dtype=int)
    expected[np.argsort(code)] = np.repeat(np.arange(5), sizes)
    np.testing.assert_array_equal(source.area_of[0], expected)


def test_clusters_may_have_partitions_of_their_own():
    source = rendered(world(partitions="random"))
    assert not np.array_equal(source.area_of[0], source.area_of[1])
    for areas in source.area_of:
        np.testing.assert_array_equal(np.bincount(areas), SIZES)


def test_features_are_orthonormal_over_all_clusters_and_areas():
    features = rendered(world()).features.reshape(-1, 3 * PATCH**2)
    np.testing.assert_allclose(features @ features.T, np.eye(15), atol=1e-12)


def test_a_patch_is_the_latent_times_the_feature_of_its_area():
    source = rendered(world(partitions="random"))
    patches, labels = contents(source, 0)
    for image, cluster in zip(patches, labels, strict=True):
        for area in range(len(SIZES)):
            here = image[source.area_of[cluster] == area]
            z = here @ source.features[cluster, area] / source.scale
            np.testing.assert_allclose(z, z[0], atol=1e-5)  # one latent for a whole area
            assert 0.5 - 1e-5 <= z[0] <= 1.5 + 1e-5
            residual = here - source.scale * z[0] * source.features[cluster, area]
            np.testing.assert_allclose(residual, 0, atol=1e-5)


def latents(source: RenderedWorld, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every image, (n, areas), and labels."""
    z, labels = [], []
    for number in range(batches):
        patches, clusters = contents(source, number)
        for image, cluster in zip(patches, clusters, strict=True):
            first = [int(np.flatnonzero(source.area_of[cluster] == area)[0]) for area in range(len(SIZES))]
            z.append(np.einsum("ad,ad->a", image[first], source.features[cluster]) / source.scale)
            labels.append(cluster)
    return np.array(z), np.array(labels)


def test_latents_follow_the_law_and_are_independent():
    z, labels = latents(rendered(world()), 30)
    images = len(z)
    error = np.sqrt(1 / 12 / images)
    np.testing.assert_allclose(z.mean(axis=0), 1.0, atol=4 * error)
    np.testing.assert_allclose(z.var(axis=0), 1 / 12, rtol=0.15)
    correlations = np.corrcoef(z.T)[np.triu_indices(len(SIZES), 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(images)
    frequencies = np.bincount(labels, minlength=3) / images
    np.testing.assert_allclose(frequencies, 1 / 3, atol=4 * np.sqrt(2 / 9 / images))


def test_the_scale_is_the_largest_that_leaves_every_pixel_in_range():
    source = rendered(world(1))
    mean, deviation = (np.tile(one, PATCH**2) for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for factor, fits in ((1.0, True), (1.001, False)):
        pixels = mean + deviation * source.scale * factor * 1.5 * source.features.reshape(-1, len(mean))
        assert bool(pixels.min() >= -1e-12 and pixels.max() <= 1 + 1e-12) is fits
    shown = source.batch(0).pixels
    assert shown.dtype == torch.float32 and shown.shape == (64, 3, 32, 32)
    assert shown.min() >= 0 and shown.max() <= 1


def test_a_batch_is_a_function_of_its_number():
    one, other = rendered(world()), rendered(world())
    later = [batch.pixels for batch in other.batches([3, 1])]
    assert torch.equal(one.batch(1).pixels, later[1]) and torch.equal(one.batch(3).pixels, later[0])
    assert not torch.equal(one.batch(1).pixels, one.batch(2).pixels)


def test_another_purpose_gives_other_images_of_the_same_world():
    one, other = rendered(world()), rendered(world(), purpose="held out", draws_seed=0)
    np.testing.assert_array_equal(one.features, other.features)
    assert not torch.equal(one.batch(0).pixels, other.batch(0).pixels)


def test_another_seed_gives_another_world():
    assert not np.allclose(rendered(world()).features, rendered(world(), seed=6).features)


def test_shifted_areas_move_together_by_any_offset():
    source = rendered(world(1), areas="shifted", batch_size=128)
    fixed = source.area_of[0].reshape(GRID, GRID)
    offsets = set()
    for number in range(8):
        patches, _ = contents(source, number)
        for image in patches:
            found = (image @ source.features[0].T).argmax(axis=-1).reshape(GRID, GRID)
            places = [
                (row, column)
                for row in range(GRID)
                for column in range(GRID)
                if np.array_equal(np.roll(fixed, (row, column), axis=(0, 1)), found)
            ]
            assert len(places) == 1
            offsets.add(places[0])
    assert len(offsets) == GRID**2  # 1024 images: a place is missed with chance 64 · (63/64)^1024 ≈ 6e-6


def test_labels_are_clusters():
    source = rendered(world())
    assert source.classes == 3 and set(source.batch(0).labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grid": 7}, "64 patches"),
        ({"world": world(10)}, "50 features"),
        ({"areas": "scattered"}, "scattered"),
    ],
)
def test_what_cannot_be_rendered_is_refused(given, said):
    settings = {"world": world(), "grid": GRID, "patch_size": PATCH, "batch_size": 4, "seed": 0} | given
    with pytest.raises(InputError, match=said):
        RenderedWorld(**settings)


def test_a_photograph_is_no_world_to_render(tmp_path):
    with pytest.raises(InputError, match="photograph"):
        RenderedWorld(World(image=str(tmp_path / "x.png")), GRID, PATCH, batch_size=4, seed=0)


def test_neighbours_on_the_curve_are_close():
    """What the curve is for: areas of four patches are squares, of eight two squares side by side."""
    source = RenderedWorld(world(1, sizes=(32, *[4] * 8)), GRID, PATCH, batch_size=4, seed=0)
    for area in range(1, 9):
        rows, columns = np.divmod(np.flatnonzero(source.area_of[0] == area), GRID)
        assert np.ptp(rows) == np.ptp(columns) == 1
