"""SimMIM and MAE against the formula in plain loops, and what a prediction may depend on."""

import pytest
import torch

from mimlab.runs import build
from mimlab.training import views
from mimlab.training.config import PretrainConfig
from mimlab.training.crops import Batch
from mimlab.training.draws import generator
from mimlab.training.masks import ordered_noise
from mimlab.training.objectives import build_objective
from mimlab.training.objectives.masked import masked_error

SMALL = {"image_size": 16, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16}
both = pytest.mark.parametrize("name", ["simmim", "mae"])


def built(**options):
    return build_objective(build(PretrainConfig, {"objective": options, "network": SMALL}))


def crops(batch=5, side=24):
    pixels = torch.rand(batch, 3, side, side, generator=generator(0, "crops"))
    return Batch(pixels, torch.zeros(batch, dtype=torch.long))


def restated(pixels, predicted, masks, normalised):
    """The loss pixel by pixel, from images and predictions (B, 16, 48) of 4 × 4 patches of 4 × 4 pixels."""
    total, count = 0.0, 0
    for image, row, mask in zip(pixels.double(), predicted.double(), masks, strict=True):
        for patch in mask.nonzero()[:, 0].tolist():
            top, left = 4 * (patch // 4), 4 * (patch % 4)
            values = [
                image[colour, top + y, left + x].item()
                for y in range(4)
                for x in range(4)
                for colour in range(3)
            ]
            if normalised:
                mean = sum(values) / 48
                variance = sum((value - mean) ** 2 for value in values) / 47
                values = [(value - mean) / (variance + 1e-6) ** 0.5 for value in values]
            total += sum((p - v) ** 2 for p, v in zip(row[patch].tolist(), values, strict=True)) / 48
            count += 1
    return total / count


@both
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("mask", ["random", "block"])
def test_loss_is_the_squared_error_over_masked_patches(name, normalised, mask):
    objective = built(name=name, norm_pixels=normalised, mask=mask)
    found = objective.loss(crops(), generator(3))["loss"].item()
    draws = generator(3)
    pixels = views.standardise(views.plain(crops().pixels, 16, draws))
    masks = objective.masks(5, draws)
    with torch.no_grad():
        predicted = objective.predict(pixels, masks)
    assert found == pytest.approx(restated(pixels, predicted, masks, normalised), rel=1e-5)
    assert (masks.sum(1) == {"simmim": 10, "mae": 12}[name]).all()


@pytest.mark.parametrize("normalised", [False, True])
def test_maes_loss_is_that_of_transformers(normalised):
    objective = built(name="mae", norm_pixels=normalised)
    pixels, masks = objective.prepare(crops().pixels), objective.masks(5, generator(0))
    theirs = objective.mae(pixels, noise=ordered_noise(masks))
    assert torch.equal(theirs.mask.bool(), masks)
    ours = masked_error(*objective.reconstruct(pixels, masks), masks)
    assert ours.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


@both
def test_predictions_know_nothing_of_what_is_masked(name):
    objective = built(name=name).eval()
    pixels, masks = objective.prepare(crops().pixels), objective.masks(5, generator(0))
    hidden = masks.reshape(5, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = torch.where(hidden, torch.randn(pixels.shape, generator=generator(1)), pixels)
    seen = torch.where(hidden, pixels, torch.randn(pixels.shape, generator=generator(1)))
    with torch.no_grad():
        found, same, changed = (objective.predict(one, masks) for one in (pixels, other, seen))
    assert torch.allclose(found, same, atol=1e-6)
    assert (found - changed).abs().max() > 1e-4


@both
def test_only_masked_patches_are_pulled(name):
    objective = built(name=name)
    pixels, masks = objective.prepare(crops().pixels), objective.masks(5, generator(0))
    target, predicted = objective.reconstruct(pixels, masks)
    predicted = predicted.detach().requires_grad_()
    masked_error(target, predicted, masks).backward()
    assert torch.equal(predicted.grad.abs().sum(-1) > 0, masks)


def test_the_mask_token_learns():
    objective = built(name="simmim")
    objective.loss(crops(), generator(0))["loss"].backward()
    assert objective.encoder.embeddings.mask_token.grad.abs().max() > 0
    assert not built(name="mae").encoder.embeddings.mask_token.requires_grad


@both
def test_a_fixed_batch_is_learned(name):
    """Images of one colour each, so that visible patches tell of masked ones."""
    colours = torch.rand(16, 3, 1, 1, generator=generator(0))
    batch = Batch(colours.expand(-1, -1, 16, 16), torch.zeros(16, dtype=torch.long))
    objective = built(name=name)
    parameters = [value for value in objective.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3, betas=(0.9, 0.95))
    losses = []
    for _ in range(60):
        loss = objective.loss(batch, generator(0))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_error_of_half_precision_is_taken_in_float32():
    target = torch.full((1, 4, 3), 0.001)
    predicted = torch.full((1, 4, 3), 300.0, dtype=torch.float16)  # whose square has no float16
    error = masked_error(target, predicted, torch.ones(1, 4, dtype=torch.bool))
    assert error.dtype == torch.float32
    assert error.item() == pytest.approx(299.999**2)
