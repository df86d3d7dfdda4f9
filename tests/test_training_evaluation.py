"""Evaluation against plain restatements: neighbours and linear maps by loops, guesses of masked patches by search."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from mimlab.runs import InputError
from mimlab.training.config import DataConfig, NetworkConfig, ObjectiveConfig, PretrainConfig
from mimlab.training.evaluation import (
    Labelled,
    crops_of_halves,
    features,
    grey_standardised,
    linear_probe,
    nearest_neighbours,
    reconstructed,
    reconstruction_losses,
    which_photograph,
)
from mimlab.training.objectives import build_objective
from mimlab.training.objectives.masked import masked_error
from mimlab.training.views import standardise, to_unit


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=16,
        patch_size=4,
    )
    return ViTModel(config, add_pooling_layer=False).eval()


def halves(**change):
    """Photographs whose pixels tell which half they are of: below 100 in the first, from 100 on in the second."""
    wide = torch.randint(0, 100, (3, 60, 90), generator=generator(), dtype=torch.uint8)
    wide[..., 45:] += 100
    high = torch.randint(0, 100, (3, 80, 50), generator=generator(1), dtype=torch.uint8)
    high[:, 40:] += 100
    chosen = {"side": 16, "count": 30, "generator": generator(2), "window": (16, 64)} | change
    return crops_of_halves([wide, high], **chosen)


def test_crops_of_the_two_halves_share_no_pixel():
    known, asked = halves()
    assert known.pixels.shape == asked.pixels.shape == (60, 3, 16, 16)
    assert known.labels.tolist() == asked.labels.tolist() == [0] * 30 + [1] * 30
    assert known.pixels.max() < 100 / 255 <= asked.pixels.min()
    assert len(known.pixels.unique(dim=0)) == 60


def test_crops_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = halves()[0].pixels
    torch.manual_seed(2)
    assert torch.equal(halves()[0].pixels, first)
    assert not torch.equal(halves(generator=generator(3))[0].pixels, first)


def test_a_crop_that_needs_no_resizing_is_cut_out():
    photograph = torch.randint(0, 256, (3, 16, 40), generator=generator(), dtype=torch.uint8)
    known, _ = crops_of_halves([photograph], 16, 5, generator(1), window=(16, 16))
    places = [photograph[..., left : left + 16] for left in range(5)]
    for crop in known.pixels:
        assert any(torch.equal((crop * 255).round().to(torch.uint8), place) for place in places)


def test_photographs_without_room_are_refused():
    with pytest.raises(InputError, match="90 x 60 pixels has no room in each half for windows of 46"):
        halves(window=(46, 64))


def test_grey_crops_say_nothing_of_colour_brightness_and_contrast():
    pixels = torch.rand(4, 3, 8, 8, generator=generator())
    grey = grey_standardised(pixels)
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(grey[:, 0].mean((1, 2)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(grey[:, 0].std((1, 2), correction=0), torch.ones(4))
    torch.testing.assert_close(grey_standardised(0.3 * pixels + 0.5), grey, atol=1e-4, rtol=0)
    red_to_green = pixels.clone()
    red_to_green[:, 0] += 0.587 * 0.2
    red_to_green[:, 1] -= 0.299 * 0.2
    torch.testing.assert_close(grey_standardised(red_to_green), grey, atol=1e-4, rtol=0)
    assert grey_standardised(torch.ones(1, 3, 4, 4)).abs().max() == 0


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_are_the_encoder_s_and_do_not_depend_on_the_batches(encoder, pooling):
    pixels = torch.randn(7, 3, 16, 16, generator=generator())
    encoder.train()
    found = features(encoder, pixels, pooling, batch_size=3)
    assert encoder.training
    encoder.eval()
    with torch.no_grad():
        hidden = encoder(pixel_values=pixels).last_hidden_state
    expected = hidden[:, 0] if pooling == "cls" else hidden[:, 1:].mean(1)
    torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=0)


def clouds(seed, spread, count=40, classes=4, dim=5):
    """Points around a few centres, and which centre each is around."""
    labels = torch.arange(classes).repeat(count)
    centres = torch.randn(classes, dim, generator=generator(99), dtype=torch.float64)
    noise = torch.randn(len(labels), dim, generator=generator(seed), dtype=torch.float64)
    return centres[labels] + spread * noise, labels


def test_neighbours_vote_by_their_cosine():
    (known, labels), (asked, _) = clouds(0, 0.8), clouds(1, 0.8)
    found = nearest_neighbours(known, labels, asked, k=7, temperature=0.1)
    for one, label in zip(asked.numpy(), found.tolist(), strict=True):
        cosines = [
            float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) for other in known.numpy()
        ]
        votes = [0.0] * 4
        for place in sorted(range(len(cosines)), key=lambda n: -cosines[n])[:7]:
            votes[int(labels[place])] += math.exp(cosines[place] / 0.1)
        assert label == votes.index(max(votes))
    assert nearest_neighbours(known[:3], labels[:3], known[:3], k=20).tolist() == [0, 1, 2]


def test_the_linear_probe_is_ridge_regression():
    (known, labels), (asked, truth) = clouds(0, 0.8), clouds(1, 0.8)
    x = ((known - known.mean(0)) / known.std(0, correction=0)).numpy()
    other = ((asked - known.mean(0)) / known.std(0, correction=0)).numpy()
    n, dim = x.shape
    design = np.block([[x, np.ones((n, 1))], [math.sqrt(0.1 * n) * np.eye(dim), np.zeros((dim, 1))]])
    goal = np.vstack([np.eye(4)[labels.numpy()], np.zeros((dim, 4))])
    weights = np.linalg.lstsq(design, goal, rcond=None)[0]
    expected = (np.column_stack([other, np.ones(len(other))]) @ weights).argmax(1)
    found = linear_probe(known, labels, asked, penalty=0.1)
    assert found.tolist() == expected.tolist()
    assert 0.5 < (found == truth).double().mean() < 1
    constant = torch.column_stack([known, torch.full((n,), 3.0)]), torch.column_stack([asked, torch.zeros(n)])
    assert linear_probe(constant[0], labels, constant[1], penalty=0.1).tolist() == expected.tolist()


def test_patterns_are_told_apart_and_noise_is_not(encoder):
    def striped(seed, period):
        phase = 6 * torch.rand(40, 1, 1, 1, generator=generator(seed))
        wave = torch.sin(torch.arange(16.0) * 2 * math.pi / period + phase).expand(40, 3, 16, 16)
        return 0.5 + 0.4 * wave

    def labelled(seed):
        pixels = torch.cat([striped(seed, 4.0), striped(seed + 1, 16.0)])
        return Labelled(pixels, torch.arange(2).repeat_interleave(40))

    told = which_photograph(encoder, labelled(0), labelled(10))
    assert told["chance"] == 0.5
    assert min(told["knn"], told["linear"]) > 0.9
    noise = [
        Labelled(torch.rand(80, 3, 16, 16, generator=generator(s)), labelled(0).labels) for s in (20, 21)
    ]
    untold = which_photograph(encoder, *noise)
    assert max(untold["knn"], untold["linear"]) < 0.75
    assert which_photograph(encoder, *noise) == untold


def test_guesses_of_masked_patches_are_what_a_search_finds():
    rows, columns, pixels = 3, 4, 2
    target = torch.randn(5, rows * columns, pixels * 3, generator=generator(), dtype=torch.float64)
    predicted = target + 0.5
    masked = torch.rand(5, rows * columns, generator=generator(1)) < 0.7
    masked[:, 5], masked[:, 6] = True, False
    found = reconstruction_losses(target, predicted, masked, (rows, columns))
    errors = {"image_mean": [], "nearest_patch": []}
    for image, hidden in zip(target.numpy(), masked.numpy(), strict=True):
        visible = [n for n in range(rows * columns) if not hidden[n]]
        colours = np.stack([image[n].reshape(pixels, 3) for n in visible])
        mean = np.tile(colours.mean((0, 1)), pixels)
        for n in np.flatnonzero(hidden):
            apart = [math.dist(divmod(n, columns), divmod(m, columns)) for m in visible]
            nearest = [image[m] for m, d in zip(visible, apart, strict=True) if d == min(apart)]
            errors["image_mean"].append(((image[n] - mean) ** 2).mean())
            errors["nearest_patch"].append(((image[n] - np.mean(nearest, axis=0)) ** 2).mean())
    assert found["model"] == pytest.approx(0.25)
    for name, values in errors.items():
        assert found[name] == pytest.approx(np.mean(values))


def test_no_guess_looks_at_what_is_masked():
    target = torch.randn(2, 16, 12, generator=generator())
    masked = torch.tensor(
        [[(row + column) % 2 == 0 for row, column in itertools.product(range(4), range(4))]] * 2
    )
    other = torch.where(masked[..., None], target + 7, target)
    guesses = reconstruction_losses(target, target, masked, (4, 4))
    shifted = reconstruction_losses(other, other, masked, (4, 4))
    assert guesses["model"] == shifted["model"] == 0
    for name in ("image_mean", "nearest_patch"):
        assert shifted[name] > guesses[name] + 20  # 7 off in every pixel: a guess that saw it would follow


def masked_objective(name="simmim", second=None, **options):
    network = NetworkConfig(image_size=16, width=16, depth=2, heads=2, decoder_width=16)
    return build_objective(
        PretrainConfig(
            ObjectiveConfig(name=name, second=second, **options), network, DataConfig(batch_size=4)
        )
    )


@pytest.mark.parametrize("name", ["simmim", "mae"])
def test_a_masked_objective_reconstructs_held_out_crops(name):
    objective = masked_objective(name)
    crops = torch.rand(6, 3, 16, 16, generator=generator())
    state = torch.random.get_rng_state()
    found = reconstructed(objective, standardise(crops), generator(1))
    assert objective.training and torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(found.crops, crops)
    masks = objective.masks(6, generator(1))
    seen = (~masks).reshape(6, 4, 1, 4, 1).expand(6, 4, 4, 4, 4).reshape(6, 16, 16)
    assert torch.equal(found.seen, seen)
    objective.eval()
    with torch.no_grad():
        target, predicted = objective.reconstruct(standardise(crops), masks)
    assert found.losses == reconstruction_losses(target, predicted, masks, (4, 4))
    assert found.losses["model"] == pytest.approx(float(masked_error(target, predicted, masks)), rel=1e-5)
    patch = predicted[2, 5].reshape(4, 4, 3).permute(2, 0, 1)  # row 1, column 1
    torch.testing.assert_close(found.predicted[2, :, 4:8, 4:8], to_unit(patch).clamp(0, 1))
    again = reconstructed(objective, standardise(crops), generator(1))
    assert again.losses == found.losses and torch.equal(again.predicted, found.predicted)


def test_patches_standardised_one_by_one_get_their_own_mean_and_deviation_back():
    objective = masked_objective(norm_pixels=True)
    objective.predict = lambda pixels, masks: objective.target(pixels)  # one that is never wrong
    crops = torch.rand(3, 3, 16, 16, generator=generator())
    found = reconstructed(objective, standardise(crops), generator(1))
    assert found.losses["model"] == 0
    torch.testing.assert_close(found.predicted, crops, atol=1e-5, rtol=0)


def test_a_pair_reconstructs_by_its_masked_part_and_contrast_not_at_all():
    pixels = torch.randn(4, 3, 16, 16, generator=generator())
    pair = masked_objective(second="simclr")
    assert (
        reconstructed(pair, pixels, generator(1)).losses
        == reconstructed(pair.first, pixels, generator(1)).losses
    )
    assert reconstructed(masked_objective("simclr"), pixels, generator(1)) is None
