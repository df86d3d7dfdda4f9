"""The photographs to train on and those held out, and crops that are a function of (seed, number)."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimlab.runs import InputError, build
from mimlab.training import photographs
from mimlab.training.config import PretrainConfig
from mimlab.training.crops import (
    Crops,
    FolderCrops,
)
from mimlab.training.photographs import HELD_OUT, LEFT_OUT, TRAINING, Photograph
from mimlab.training.sources import class_count, held_out_source, training_source
from mimlab.world.photograph import BUNDLED

EVERY = (*TRAINING, *HELD_OUT)


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """A photograph whose red tells the column and whose green tells the row."""
    rows, columns = np.mgrid[:100, :120]
    pixels = np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8)
    path = tmp_path_factory.mktemp("ramp") / "ramp.png"
    Image.fromarray(pixels).save(path)
    return path


def paint(folder, name, value, size=(40, 40)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def equal(one, other):
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def test_no_photograph_is_in_twice():
    paths = [photograph.path for photograph in EVERY]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == len(paths) == 16
    assert len({photograph.name for photograph in EVERY}) == len(paths)


def test_every_photograph_of_scikit_image_has_its_side_or_a_reason():
    """A stereo pair's second half, above all, is on neither side."""
    bundled = {file for file, _ in BUNDLED.values()} | {"motorcycle_right.png"}
    listed = {Path(photograph.file).name for photograph in EVERY if photograph.package == "skimage"}
    assert bundled <= listed | set(LEFT_OUT)
    assert not listed & set(LEFT_OUT)


def test_no_two_photographs_show_one_scene():
    """Thumbnails of different scenes are hardly correlated; those of the stereo pair are."""

    def thumbnail(path):
        pixels = np.asarray(Image.open(path).convert("L").resize((16, 16)), float)
        return ((pixels - pixels.mean()) / pixels.std()).ravel() / 16

    left = next(p for p in TRAINING if p.name == "motorcycle").path
    right = left.with_name("motorcycle_right.png")
    assert thumbnail(left) @ thumbnail(right) > 0.8
    views = np.stack([thumbnail(photograph.path) for photograph in EVERY])
    correlation = views @ views.T - np.eye(len(EVERY))
    assert correlation.max() < 0.75


def test_a_photograph_that_the_package_lacks_is_named():
    with pytest.raises(
        InputError, match=r"photograph lost: the installed skimage has no file data/lost\.png"
    ):
        _ = Photograph("lost", "skimage", "data/lost.png", "nothing").path
    with pytest.raises(InputError, match="the installed no_such_package has no file"):
        _ = Photograph("lost", "no_such_package", "lost.png", "nothing").path


def test_a_crop_is_a_window_of_the_photograph_wherever_it_fits(ramp):
    batch = Crops([ramp], 16, (16, 16), batch_size=2000).batch(0)
    red, green = (batch.pixels[:, :2] * 255).round().long().unbind(1)
    left, top = red[:, 0, 0], green[:, 0, 0]
    assert (red == left[:, None, None] + torch.arange(16)).all()
    assert (green == top[:, None, None] + torch.arange(16)[:, None]).all()
    assert (left.min(), left.max(), top.min(), top.max()) == (0, 104, 0, 84)  # both edges are reached
    assert abs(left.float().mean() - 52) < 3
    assert abs(top.float().mean() - 42) < 3


def test_windows_have_sides_in_range_and_are_resized(ramp):
    batch = Crops([ramp], 16, (16, 64), batch_size=2000).batch(0)
    spans = (batch.pixels[:, 0, 0, -1] - batch.pixels[:, 0, 0, 0]) * 255 * 16 / 15  # of columns in a window
    assert batch.pixels.shape == (2000, 3, 16, 16)
    assert 14 < spans.min() < 18
    assert 61 < spans.max() < 66
    assert abs(spans.mean() - 40) < 2


def test_crops_depend_on_seed_number_and_purpose_alone(ramp):
    state = torch.get_rng_state()
    source = Crops([ramp, ramp], 16, (16, 64), 8, seed=3)
    first, second = source.batch(0), source.batch(1)
    assert equal(second, Crops([ramp, ramp], 16, (16, 64), 8, seed=3).batch(1))
    assert not equal(first, second)
    assert not equal(first, Crops([ramp, ramp], 16, (16, 64), 8, seed=4).batch(0))
    assert not equal(first, Crops([ramp, ramp], 16, (16, 64), 8, seed=3, purpose="evaluation").batch(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_label_is_the_place_of_the_photograph(tmp_path):
    paths = [paint(tmp_path, f"{value}.png", value, (64, 64)) for value in (10, 200, 90)]
    batch = Crops(paths, 16, (16, 32), 300).batch(0)
    values = torch.tensor([10, 200, 90])[batch.labels] / 255
    assert torch.equal(batch.pixels, values[:, None, None, None].expand_as(batch.pixels))
    assert batch.labels.bincount().min() > 70  # each as often as the others


def test_a_photograph_smaller_than_a_crop_is_refused(ramp):
    with pytest.raises(InputError, match=r"ramp\.png of 120 × 100 pixels is smaller than a crop of 101"):
        Crops([ramp], 16, (16, 101))


def test_an_epoch_shows_every_image_of_a_folder_once(tmp_path):
    for value in range(12):
        paint(tmp_path, f"{value:02}.png", 20 * value)
    source = FolderCrops(tmp_path, 16, batch_size=4, seed=1)
    numbers = [(source.batch(number).pixels[:, 0, 0, 0] * 255 / 20).round() for number in range(6)]
    first, second = torch.cat(numbers[:3]), torch.cat(numbers[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)


def test_labels_are_the_folders_own_folders(tmp_path):
    for place, name in enumerate(("cat/1.png", "cat/2.png", "dog/deep/1.png", "dog/2.png", "owl/1.png")):
        paint(tmp_path, name, 20 * place)
    source = FolderCrops(tmp_path, 16, batch_size=5)
    batch = source.batch(0)
    painted = (batch.pixels[:, 0, 0, 0] * 255 / 20).round().long()
    assert source.classes == 3
    assert torch.equal(batch.labels, torch.tensor([0, 0, 1, 1, 2])[painted])
    assert FolderCrops(tmp_path / "dog", 16, batch_size=2).classes == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_can_start_at_any_number_with_any_workers(tmp_path, workers):
    for value in range(7):
        paint(tmp_path, f"{value}.png", 30 * value)
    source = FolderCrops(tmp_path, 16, batch_size=3, workers=workers)
    state = torch.get_rng_state()
    streamed = list(source.batches(iter(range(2, 9, 3))))
    assert len(streamed) == 3
    assert all(map(equal, streamed, (source.batch(number) for number in (2, 5, 8))))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_used_is_replaced_and_named(tmp_path):
    for value in range(6):
        paint(tmp_path, f"{value}.png", 30 * value)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paint(tmp_path, "small.png", 255, (15, 30))
    source = FolderCrops(tmp_path, 16, batch_size=8)
    batch = source.batch(0)
    reasons = dict(batch.skipped)
    assert batch.pixels.shape == (8, 3, 16, 16)
    assert batch.pixels.max() < 0.6
    assert set(reasons) == {"broken.png", "small.png"}
    assert reasons["small.png"] == "15 pixels are less than a crop's 16"


def test_a_folder_of_small_images_is_refused(tmp_path):
    for value in range(6):
        paint(tmp_path, f"{value}.png", value, (15, 15))
    with pytest.raises(InputError, match="too many that cannot be used") as refusal:
        FolderCrops(tmp_path, 16, batch_size=2).batch(0)
    assert "15 pixels are less than a crop's 16" in str(refusal.value)


def test_too_few_images_for_a_batch_are_refused(tmp_path):
    for value in range(3):
        paint(tmp_path, f"{value}.png", value)
    with pytest.raises(InputError, match="holds 3, too few for a batch of 4; give --batch-size 3 or less"):
        FolderCrops(tmp_path, 16, batch_size=4)


def test_sources_of_a_run():
    config = build(PretrainConfig, {"data": {"batch_size": 4}})
    training, held_out = training_source(config), held_out_source(config, 6)
    assert (training.images, training.classes, class_count(config)) == (13, 13, 13)
    assert (held_out.images, held_out.batch(0).pixels.shape) == (3, (6, 3, 48, 48))
    other = build(PretrainConfig, {"data": {"batch_size": 4}, "seed": 1})
    assert not equal(training.batch(0), training_source(other).batch(0))
    assert equal(held_out.batch(0), held_out_source(other, 6).batch(0))  # one yardstick for all seeds


def test_sources_of_a_run_on_folders(tmp_path):
    for value in range(3):
        for name in ("seen", "unseen"):
            (tmp_path / name).mkdir(exist_ok=True)
            paint(tmp_path / name, f"{value}.png", value, (50, 50))
    data = {"images": str(tmp_path / "seen"), "held_out": str(tmp_path / "unseen"), "batch_size": 2}
    masked = build(PretrainConfig, {"data": data})
    paired = build(PretrainConfig, {"data": data, "objective": {"name": "simclr"}})
    assert training_source(masked).batch(0).pixels.shape[-1] == 32
    assert training_source(paired).batch(0).pixels.shape[-1] == 48
    assert held_out_source(masked).batch(0).pixels.shape[-1] == 32
    assert class_count(masked) == training_source(masked).classes == 3


def test_the_lists_load_no_pictures():
    assert not {name for name in vars(photographs) if name in ("torch", "PIL", "skimage")}
