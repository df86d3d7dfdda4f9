"""Image folders: found in order, streamed in batches, and what cannot be used listed with its reason."""

import numpy as np
import pytest
import torch
from PIL import Image

from mimlab.probing import images as module
from mimlab.probing.images import Batch, batches, find_images, open_image
from mimlab.probing.preprocessing import HALF, IMAGENET, Preprocessing, published
from mimlab.runs.errors import InputError
from mimlab.world.photograph import bundled_photographs

SMALL = Preprocessing((8, 8), *HALF)


def colours(rows=6, columns=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def save(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def opened(path):
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


# Finding


def test_a_folder_and_those_inside_it_sorted(tmp_path):
    for name in ("b.png", "a.JPG", "inner/c.webp", ".hidden/d.png", ".e.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.JPG", "b.png", "inner/c.webp"]


def test_a_list_is_kept_in_its_order_and_a_file_is_one(tmp_path):
    paths = [tmp_path / "b.png", tmp_path / "a.xyz"]
    for path in paths:
        path.touch()
    assert find_images(paths) == paths
    assert find_images(paths[0]) == paths[:1]


def test_a_file_counts_once_whatever_leads_to_it(tmp_path):
    """Given twice, by a folder and the one around it, by a path with detours, by a link."""
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/again.png").symlink_to(tmp_path / "a/1.png")
    one, two, three = (tmp_path / name for name in ("a/0.png", "a/1.png", "b/2.png"))
    assert find_images([two, one, two]) == [two, one]
    assert find_images([tmp_path / "a", tmp_path, tmp_path / "b/../a/0.png"]) == [one, two, three]
    assert find_images(tmp_path / "b") == [three, tmp_path / "b/again.png"]


def test_none_is_the_photographs_of_scikit_image():
    assert find_images(None) == sorted(bundled_photographs().values())
    assert len(find_images(None)) > 10


def test_nothing_found(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        find_images(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no image, only 1 files of other kinds"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        find_images(tmp_path / "none")
    with pytest.raises(InputError, match="list is empty"):
        find_images([])
    with pytest.raises(InputError, match=r"gone\.png, and no such file"):
        find_images([tmp_path / "notes.txt", tmp_path / "gone.png"])


# Opening


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tiff"])
def test_colours_arrive_as_they_are(tmp_path, name):
    np.testing.assert_array_equal(opened(save(tmp_path / name, colours())), colours())


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.array([[0, 257, 65_535], [32_896, 128, 129]], dtype=np.uint16)
    np.testing.assert_array_equal(opened(save(tmp_path / "a.png", deep))[..., 0], [[0, 1, 255], [128, 0, 1]])


def test_cmyk_and_grey(tmp_path):
    cyan = save(tmp_path / "a.tiff", Image.new("CMYK", (5, 4), (255, 0, 0, 0)))
    np.testing.assert_array_equal(opened(cyan), np.broadcast_to([0, 255, 255], (4, 5, 3)))
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(opened(save(tmp_path / "a.png", grey)), np.stack([grey] * 3, axis=-1))


def test_palettes(tmp_path):
    halves = np.zeros((4, 4, 3), dtype=np.uint8)
    halves[:2] = (255, 0, 255)
    palette = Image.fromarray(halves).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(opened(save(tmp_path / "a.png", palette)), halves)


def test_what_is_transparent_shows_white(tmp_path):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    picture = opened(save(tmp_path / "a.png", rgba))
    np.testing.assert_array_equal(picture[0, 0], (10, 20, 30))
    np.testing.assert_array_equal(picture[1, 1], (255, 255, 255))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(opened(path)[0, 0], (255, 0, 0))


def test_upright_as_exif_says(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    path = save(tmp_path / "a.png", colours(), exif=turned)
    np.testing.assert_array_equal(opened(path), np.rot90(colours(), -1))


def test_one_pixel_is_enough(tmp_path):
    pixels = SMALL(open_image(save(tmp_path / "a.png", np.full((1, 1, 3), 255, np.uint8))))
    assert torch.equal(pixels, torch.ones(3, 8, 8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "known format"),
        (b"no image", "known format"),
        ("half", "damaged or cut short"),
        ("float", "no known white"),
    ],
)
def test_reasons_for_refusal(tmp_path, content, reason):
    path = tmp_path / "a.tiff"
    if content == "float":
        save(path, np.ones((4, 4), dtype=np.float32))
    else:
        save(path, colours(90, 90), format="PNG")
        path.write_bytes(path.read_bytes()[:9000] if content == "half" else content)
    with pytest.raises(InputError, match=reason):
        open_image(path)


def test_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 6 * 9)
    flat = np.full((7, 9, 3), 200, dtype=np.uint8)
    np.testing.assert_array_equal(opened(save(tmp_path / "a.png", flat[:6])), flat[:6])
    with pytest.raises(InputError, match="9 × 7 pixels, more than"):
        open_image(save(tmp_path / "b.png", flat))
    with pytest.raises(InputError, match="9 × 6 pixels, more than"):
        open_image(save(tmp_path / "c.png", np.zeros((6, 9, 4), dtype=np.uint8)))
    halved = opened(save(tmp_path / "d.jpg", np.full((96, 96, 3), 200, dtype=np.uint8)))
    np.testing.assert_array_equal(halved, np.full((48, 48, 3), 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 96 - 1)
    with pytest.raises(InputError, match="million pixels"):
        open_image(tmp_path / "d.jpg")


def test_fifty_thousand_pixels_wide(tmp_path):
    with pytest.raises(InputError, match="50000 × 40 pixels, a strip"):
        open_image(save(tmp_path / "a.png", Image.new("L", (50_000, 40))))
    assert open_image(save(tmp_path / "b.png", Image.new("L", (50_000, 500)))).size == (50_000, 500)


# Preprocessing


def test_the_middle_is_cropped_and_colours_normalised():
    ramp = np.zeros((64, 128, 3), dtype=np.uint8)
    ramp[:, 32:96] = 255
    pixels = published(56)(Image.fromarray(ramp))  # shorter side 64, middle 56
    white = (1 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
    assert pixels.shape == (3, 56, 56)
    np.testing.assert_allclose(pixels.amax((1, 2)), white, rtol=1e-5)
    np.testing.assert_allclose(pixels.amin((1, 2)), white, rtol=1e-5)


def test_whole_pictures_are_distorted_not_cropped():
    assert SMALL(Image.new("RGB", (40, 10))).shape == (3, 8, 8)
    halves = np.zeros((8, 64, 3), dtype=np.uint8)
    halves[:, 32:] = 255
    assert SMALL(Image.fromarray(halves))[0, :, 0].tolist() == [-1] * 8
    with pytest.raises(ValueError, match="leaves less"):
        Preprocessing((8, 8), *HALF, shorter=7)


# Batches


@pytest.fixture
def folder(tmp_path):
    for number in range(7):
        save(tmp_path / f"{number}.png", colours(seed=number))
    (tmp_path / "3.png").write_bytes(b"broken")
    return tmp_path


def test_batches_are_cut_before_files_are_opened(folder):
    made = list(batches(find_images(folder), SMALL, batch_size=3))
    assert [batch.names for batch in made] == [["0.png", "1.png", "2.png"], ["4.png", "5.png"], ["6.png"]]
    assert [[name for name, _ in batch.skipped] for batch in made] == [[], ["3.png"], []]
    assert "known format" in made[1].skipped[0][1]
    assert [batch.pixels.shape for batch in made] == [(3, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    torch.testing.assert_close(made[1].pixels[1], SMALL(Image.open(folder / "5.png")))


def test_starting_in_the_middle_gives_the_same_batches(folder):
    (folder / "inner").mkdir()
    for number in (5, 6):
        (folder / f"{number}.png").rename(folder / "inner" / f"{number}.png")
    paths = find_images(folder)
    whole, late = list(batches(paths, SMALL, 3)), list(batches(paths, SMALL, 3, start=1))
    assert (
        [batch.names for batch in late]
        == [batch.names for batch in whole[1:]]
        == [["4.png", "inner/5.png"], ["inner/6.png"]]
    )
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(late, whole[1:], strict=True))


def test_streamed(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "open_image", lambda path: seen.append(path.name) or Image.new("RGB", (4, 4)))
    stream = batches(find_images(folder), SMALL, batch_size=2)
    next(stream)
    assert seen == ["0.png", "1.png"]


def test_a_batch_of_nothing_but_broken_files(tmp_path):
    (tmp_path / "a.png").touch()
    (batch,) = batches(find_images(tmp_path), SMALL)
    assert batch.names == []
    assert batch.pixels.shape == (0, 3, 0, 0)
    assert len(batch.skipped) == 1


def test_preprocessing_that_cannot_be_used(folder):
    paths = find_images(folder)[:2]
    for preprocess, said in (
        (lambda image: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda image: np.asarray(image), "gives ndarray"),
        (lambda image: torch.ones(8, 8, 3), r"gives shape \(8, 8, 3\)"),
        (lambda image: torch.full((3, 8, 8), torch.nan), "finite"),
    ):
        with pytest.raises(InputError, match=said):
            next(batches(paths, preprocess))
    sides = iter([8, 9])
    with pytest.raises(InputError, match=r"different sizes.*batch_size = 1"):
        next(batches(paths, lambda image: torch.ones(3, 8, next(sides))))
    with pytest.raises(InputError, match="batch_size = 0"):
        next(batches(paths, SMALL, batch_size=0))


def test_a_batch_checks_itself():
    with pytest.raises(ValueError, match="do not show 1 pictures"):
        Batch(["a"], torch.ones(2, 3, 4, 4), [])
