"""Photographs: files of every kind to pixels, pixels to areas, and pixels to the patch that shows them."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mimlab.runs.errors import InputError
from mimlab.world import photograph as module
from mimlab.world.gap import area_statistics
from mimlab.world.photograph import (
    BUNDLED,
    LEFT_OUT,
    PhotographAreas,
    bundled_photographs,
    grid_of,
    load_photograph,
    patch_at,
    segment,
)


@pytest.fixture(scope="module")
def coins():
    return segment(load_photograph(bundled_photographs()["coins"]))


def two_colours(rows=224, columns=224, boundary=112):
    """Left part dark red, right part light blue."""
    picture = np.empty((rows, columns, 3))
    picture[:, :boundary] = (0.5, 0.1, 0.1)
    picture[:, boundary:] = (0.6, 0.7, 0.9)
    return picture


def save(path, pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Loading


def test_colours_arrive_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    loaded = load_photograph(save(tmp_path / "a.png", pixels))
    assert loaded.dtype == np.float64
    np.testing.assert_array_equal(np.round(loaded * 255).astype(np.uint8), pixels)
    np.testing.assert_array_equal(loaded, load_photograph(str(tmp_path / "a.png")))


def test_grey_is_repeated_in_three_channels(tmp_path):
    grey = np.arange(60, dtype=np.uint8).reshape(6, 10)
    loaded = load_photograph(save(tmp_path / "grey.png", grey))
    np.testing.assert_allclose(loaded, np.stack([grey / 255] * 3, axis=-1))


def test_sixteen_bits_keep_their_range(tmp_path):
    grey = np.array([[0, 1, 255], [256, 40_000, 65_535]], dtype=np.uint16)
    loaded = load_photograph(save(tmp_path / "deep.png", grey))
    np.testing.assert_allclose(loaded[..., 1], grey / 65_535)


def test_palette_and_black_and_white(tmp_path):
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2] = (255, 0, 255)
    for mode, expected in (("P", pixels / 255), ("1", None)):
        loaded = load_photograph(save(tmp_path / f"{mode}.png", pixels, mode))
        assert loaded.shape == (4, 4, 3)
        if expected is not None:
            np.testing.assert_allclose(loaded, expected)
        else:
            assert set(np.unique(loaded)) <= {0.0, 1.0}


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_transparency_shows_white(tmp_path, suffix):
    pixels = np.zeros((3, 2, 4), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[..., 3] = np.array([255, 0, 51])[:, None]
    loaded = load_photograph(save(tmp_path / f"clear.{suffix}", pixels))
    expected = [(200 / 255, 0, 0), (1, 1, 1), (1 - 0.2 * 55 / 255, 0.8, 0.8)]
    np.testing.assert_allclose(loaded[:, 0], expected, atol=1 / 255)


def test_a_transparent_palette_shows_white(tmp_path):
    image = Image.new("P", (5, 4), 0)
    image.putpalette([10, 20, 30])
    image.save(tmp_path / "p.png", transparency=0)
    np.testing.assert_array_equal(load_photograph(tmp_path / "p.png"), 1.0)


def test_exif_orientation_turns_the_photograph_upright(tmp_path):
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, :12] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to view
    loaded = load_photograph(save(tmp_path / "turned.png", pixels, exif=exif))
    assert loaded.shape == (24, 8, 3)
    assert loaded[:12].min() == 1 and loaded[12:].max() == 0


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_every_bundled_photograph_has_areas(name):
    areas = segment(load_photograph(bundled_photographs()[name]))
    assert min(areas.grid) == 14
    assert sum(areas.sizes) == areas.labels.size >= 196


def test_every_picture_in_the_wheel_is_listed_once():
    folder = next(iter(bundled_photographs().values())).parent
    pictures = {path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg")}
    kept = [file for file, _ in BUNDLED.values()]
    assert set(bundled_photographs()) == set(BUNDLED)
    assert sorted([*kept, *LEFT_OUT]) == sorted(pictures)


# Files that are no photographs


def refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        load_photograph(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "nowhere.png", "does not exist")


def test_directory(tmp_path):
    refused(tmp_path, "is a directory")


@pytest.mark.parametrize("content", [b"", b"patches = 100\n", b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "not an image|damaged")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "bmp", "webp"])
def test_cut_short(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "not an image|damaged")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((20, 20, 3), dtype=np.uint8))
    path.chmod(0)
    refused(path, "permissions")


def test_no_permission_whoever_runs_this(tmp_path, monkeypatch):
    def denied(self, mode="r"):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(tmp_path / "a.png", "permissions")


def test_numbers_without_a_white(tmp_path):
    refused(save(tmp_path / "a.tiff", np.zeros((20, 20), dtype=np.float32)), "32 bits")


def test_too_many_pixels(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((20, 30, 3), dtype=np.uint8))
    for limit in (500, 100):  # over once, where Pillow warns, and over twice, where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(path, "million pixels")


# Areas


def test_labels_are_a_partition_with_the_largest_area_first(coins):
    assert coins.labels.dtype == np.int64
    assert set(coins.labels.ravel()) == set(range(len(coins.sizes)))
    assert coins.sizes[0] == max(coins.sizes)
    seen = [label for label in dict.fromkeys(coins.labels.ravel().tolist()) if label]
    assert seen == sorted(seen)
    assert area_statistics((size, 1) for size in coins.sizes).patches == coins.labels.size


def test_coins_are_separate_and_the_ground_between_them_is_the_global_area(coins):
    """Pixels read off the photograph: the middles of the upper row of coins, and bare ground around them."""
    upper_row = [(44, 51), (100, 53), (155, 51), (211, 48), (264, 45), (328, 43)]
    ground = [(0, 0), (383, 0), (0, 302), (20, 100), (190, 100), (360, 100), (190, 160), (190, 225)]
    areas = [int(coins.labels.flat[patch_at(coins, x, y)]) for x, y in upper_row]
    assert 0 not in areas and len(set(areas)) == 6
    assert {int(coins.labels.flat[patch_at(coins, x, y)]) for x, y in ground} == {0}


def test_the_same_photograph_gives_the_same_areas(coins):
    again = segment(load_photograph(bundled_photographs()["coins"]))
    np.testing.assert_array_equal(again.labels, coins.labels)
    np.testing.assert_array_equal(again.pixels, coins.pixels)


def test_a_grey_photograph_and_its_copy_in_colour_agree(tmp_path, coins):
    Image.open(bundled_photographs()["coins"]).convert("RGB").save(tmp_path / "colour.png")
    np.testing.assert_array_equal(segment(load_photograph(tmp_path / "colour.png")).labels, coins.labels)


def test_two_colours_are_two_areas_known_exactly():
    areas = segment(two_colours(boundary=96))
    expected = np.zeros((14, 14), dtype=int)
    expected[:, :6] = 1  # the right part is larger: 8 columns of 14
    np.testing.assert_array_equal(areas.labels, expected)
    assert areas.sizes == (112, 84)


@pytest.mark.parametrize("boundary, columns_left", [(103, 6), (105, 7), (119, 7), (121, 8)])
def test_a_patch_joins_the_segment_that_covers_most_of_it(boundary, columns_left):
    areas = segment(two_colours(boundary=boundary))
    left = areas.labels == areas.labels[0, 0]
    assert left.sum(axis=1).tolist() == [columns_left] * 14


def test_equal_areas_are_numbered_by_first_appearance():
    np.testing.assert_array_equal(segment(two_colours()).labels[3], [0] * 7 + [1] * 7)


def test_a_mirrored_picture_has_mirrored_areas():
    areas, mirrored = segment(two_colours(boundary=64)), segment(two_colours(boundary=64)[:, ::-1])
    np.testing.assert_array_equal(areas.labels, mirrored.labels[:, ::-1])


def test_one_colour_is_one_area():
    areas = segment(np.full((50, 70, 3), 0.3))
    assert areas.sizes == (14 * 20,)
    np.testing.assert_allclose(areas.pixels, 0.3)


def test_coarser_never_finds_more_areas_in_a_photograph():
    picture = load_photograph(bundled_photographs()["coffee"])
    counts = [len(segment(picture, coarseness=c).sizes) for c in (0.25, 1, 4)]
    assert counts[0] > counts[1] > counts[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 8]))
def test_majority_against_counting(seed, down, across, side):
    segments = np.random.default_rng(seed).integers(0, 4, (down * side, across * side))
    found = module._majority(segments, side)
    for row in range(down):
        for column in range(across):
            block = segments[row * side : (row + 1) * side, column * side : (column + 1) * side]
            counts = [int((block == label).sum()) for label in range(4)]
            assert found[row, column] == counts.index(max(counts))


@given(st.integers(0, 2**32 - 1), st.permutations(range(6)))
def test_numbering_does_not_depend_on_the_names_of_segments(seed, names):
    labels = np.random.default_rng(seed).integers(0, 6, (4, 5))
    found = module._numbered(labels)
    np.testing.assert_array_equal(found, module._numbered(np.asarray(names)[labels]))
    same = labels.ravel()[:, None] == labels.ravel()
    np.testing.assert_array_equal(same, found.ravel()[:, None] == found.ravel())
    counts = np.bincount(found.ravel())
    assert counts.min() >= 1 and counts[0] == counts.max()


# Shapes


@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from([7, 14, 16, 32]))
def test_grid_is_whole_and_close_to_the_photographs_shape(rows, columns, patch_size):
    down, across = grid_of(rows, columns, patch_size, 224)
    assert min(down, across) == 224 // patch_size
    longer, shorter = max(rows, columns), min(rows, columns)
    distortion = max(down, across) / min(down, across) * shorter / longer
    assert abs(distortion - 1) <= 0.5 / min(down, across) + 1e-12


def test_resized_shape_and_the_record():
    areas = segment(two_colours(100, 333), patch_size=14, short_side=140)
    assert areas.grid == (10, 33)
    assert areas.pixels.shape == (140, 33 * 14, 3)
    assert areas.source_size == (100, 333)
    assert areas.pixels.min() >= 0 and areas.pixels.max() <= 1
    with pytest.raises(ValueError, match="read-only"):
        areas.labels[0, 0] = 5


def test_resizing_keeps_the_mean_colour():
    picture = np.random.default_rng(0).random((448, 672, 3))
    np.testing.assert_allclose(segment(picture).pixels.mean((0, 1)), picture.mean((0, 1)), atol=1e-12)


def test_the_smallest_photograph_is_one_patch():
    assert segment(np.zeros((16, 16, 3)), short_side=16).labels.tolist() == [[0]]


@pytest.mark.parametrize(
    "labels", [[[0, 2]], [[0, 1], [1, 1]]], ids=["an area without patches", "the largest is not first"]
)
def test_a_record_that_breaks_its_promise_is_not_made(labels):
    rows, columns = np.shape(labels)
    with pytest.raises(ValueError, match="largest first"):
        PhotographAreas(np.array(labels), np.zeros((rows, columns, 3)), (rows, columns), 1)
    with pytest.raises(ValueError, match="do not hold"):
        PhotographAreas(np.array(labels), np.zeros((rows, columns, 3)), (rows, columns), 2)


@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((15, 300, 3), {}, "300 × 15 pixels is smaller than one patch of 16 × 16"),
        ((300, 31, 3), {"patch_size": 32}, "smaller than one patch"),
        ((16, 16 * 200, 3), {}, "crop it"),
        ((40, 40), {}, r"\(rows, columns, 3\)"),
        ((40, 40, 4), {}, r"\(rows, columns, 3\)"),
        ((40, 40, 3), {"patch_size": 0}, "patch_size"),
        ((40, 40, 3), {"patch_size": 2.5}, "patch_size"),
        ((40, 40, 3), {"short_side": True}, "short_side"),
        ((400, 400, 3), {"patch_size": 300}, "holds no patch"),
        ((40, 40, 3), {"coarseness": 0.0}, "coarseness"),
        ((40, 40, 3), {"coarseness": float("nan")}, "coarseness"),
    ],
)
def test_what_cannot_be_divided_is_refused(shape, options, message):
    with pytest.raises(InputError, match=message):
        segment(np.zeros(shape), **options)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5, 255])
def test_values_outside_the_range_are_refused(value):
    picture = np.zeros((20, 20, 3))
    picture[3, 4, 1] = value
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        segment(picture)


# Pixels to patches


def test_corners(coins):
    (rows, columns), (down, across) = coins.source_size, coins.grid
    assert patch_at(coins, 0, 0) == 0
    assert patch_at(coins, columns - 1, 0) == across - 1
    assert patch_at(coins, 0, rows - 1) == (down - 1) * across
    assert patch_at(coins, columns - 1, rows - 1) == down * across - 1


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_pixel_lies_in_the_patch_that_its_centre_falls_in(coins, data):
    (rows, columns), (down, across) = coins.source_size, coins.grid
    x, y = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    row, column = divmod(patch_at(coins, x, y), across)
    assert row * rows / down <= y + 0.5 <= (row + 1) * rows / down
    assert column * columns / across <= x + 0.5 <= (column + 1) * columns / across


@pytest.mark.parametrize("x, y", [(-1, 0), (0, -1), (384, 0), (0, 303), (1.5, 0), (0, True)])
def test_outside_the_photograph(coins, x, y):
    assert coins.source_size == (303, 384)
    with pytest.raises(InputError, match="384 wide and 303 high"):
        patch_at(coins, x, y)
