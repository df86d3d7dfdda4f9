"""What every objective owes the loop: reproducible draws, gradients where they belong, a complete state."""

import pytest
import torch

from mimlab.runs import InputError, build
from mimlab.training import views
from mimlab.training.checkpoints import write_checkpoint
from mimlab.training.config import PretrainConfig
from mimlab.training.crops import Batch
from mimlab.training.draws import generator
from mimlab.training.objectives import build_objective
from mimlab.training.objectives.pair import Pair

SMALL = {"image_size": 16, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16}
OBJECTIVES = {
    "simmim": {"name": "simmim"},
    "blocks": {"name": "simmim", "mask": "block", "norm_pixels": True},
    "mae": {"name": "mae"},
    "simclr": {"name": "simclr"},
    "moco-v3": {"name": "moco-v3"},
    "dino": {"name": "dino"},
    "supervised": {"name": "supervised"},
    "simmim with simclr": {"name": "simmim", "second": "simclr"},
    "mae with moco-v3": {"name": "mae", "second": "moco-v3", "weight": 0.3},
}
every = pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)


def configured(seed=0, network=SMALL, **options):
    return build(PretrainConfig, {"objective": options, "network": network, "seed": seed})


def crops(number=0, batch=6, side=24):
    draws = generator(0, number, "test")
    return Batch(
        torch.rand(batch, 3, side, side, generator=draws), torch.randint(13, (batch,), generator=draws)
    )


def trained(objective):
    return {name: value for name, value in objective.named_parameters() if value.requires_grad}


def step(objective, number=0, progress=0.5):
    optimizer = torch.optim.AdamW(trained(objective).values(), lr=1e-3)
    losses = objective.loss(crops(number), generator(0, number, "loss"))
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    objective.after_step(progress)
    return losses


@every
def test_a_loss_depends_on_crops_and_generator_alone(options):
    objective, state = build_objective(configured(**options)), torch.get_rng_state()
    batch = crops()
    before = batch.pixels.clone()
    one, same, other = (objective.loss(batch, generator(0, number)) for number in (1, 1, 2))
    assert {name: value.item() for name, value in one.items()} == {k: v.item() for k, v in same.items()}
    assert one["loss"] != other["loss"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch.pixels, before)
    assert objective.training


@every
def test_all_that_is_trained_has_a_gradient_and_nothing_else_has(options):
    objective = build_objective(configured(**options))
    losses = objective.loss(crops(), generator(0))
    losses["loss"].backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != ("slow" in name or "position" in name or "pos_embed" in name) or (
            "mask_token" in name
        ), name
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
    assert [name for name, value in losses.items() if value.requires_grad] == ["loss"]


@every
def test_the_state_is_all_there_is(options):
    """Two steps, then a third: by the same objective, and by a fresh one of another seed given its state."""
    objective, other = (build_objective(configured(seed, **options)) for seed in (0, 1))
    for number in range(2):
        step(objective, number)
    other.load_state_dict(objective.state_dict())
    step(objective, 2)
    step(other, 2)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@every
def test_weights_depend_on_the_seed_alone(options):
    state = torch.get_rng_state()
    one, same, other = (build_objective(configured(seed, **options)) for seed in (0, 0, 1))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.encoder.layers[0].mlp.fc1.weight, other.encoder.layers[0].mlp.fc1.weight)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_the_encoder_takes_prepared_crops_of_any_side(options):
    objective = build_objective(configured(**options)).eval()
    pixels = crops().pixels
    with torch.no_grad():
        hidden = objective.encoder(objective.prepare(pixels)).last_hidden_state
        inner = objective.encoder(objective.prepare(pixels[..., 4:20, 4:20])).last_hidden_state
    assert hidden.shape == (6, 17, 24)
    assert torch.equal(hidden, inner)


@every
def test_half_precision_gives_nearly_the_same_loss(options):
    objective = build_objective(configured(**options))
    plain = objective.loss(crops(), generator(0))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = objective.loss(crops(), generator(0))["loss"]
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(plain.item(), rel=0.05)  # batch norm magnifies small differences
    half.backward()


def test_objectives_of_one_seed_start_from_one_encoder():
    """Else a comparison of objectives would be one of draws, too."""
    encoders = [build_objective(configured(**options)).encoder for options in OBJECTIVES.values()]
    for encoder in encoders[1:]:
        for name, value in encoders[0].state_dict().items():
            assert torch.equal(value, encoder.state_dict()[name])


def test_a_run_starts_from_the_encoder_of_another(tmp_path):
    simmim = build_objective(configured(name="simmim"))
    step(simmim)
    write_checkpoint(tmp_path, 1, simmim.encoder)
    for name in ("simclr", "moco-v3", "mae"):
        objective = build_objective(configured(1, name=name, start=str(tmp_path)))
        for key, value in simmim.encoder.state_dict().items():
            assert torch.equal(value, objective.encoder.state_dict()[key]), key
            if name == "moco-v3":
                assert torch.equal(value, objective.slow_encoder.state_dict()[key]), key
    with pytest.raises(InputError, match="hidden_size = 24 there, 48 here"):
        build_objective(
            configured(network=SMALL | {"width": 48, "heads": 3}, name="simclr", start=str(tmp_path))
        )


def test_a_pair_weighs_its_losses_and_shares_one_encoder():
    pair = build_objective(configured(name="simmim", second="simclr", weight=0.25))
    found = pair.loss(crops(), generator(0))
    draws = generator(0)
    one, other = pair.first.loss(crops(), draws), pair.second.loss(crops(), draws)
    assert torch.equal(found["loss"], 0.75 * one["loss"] + 0.25 * other["loss"])
    assert torch.equal(found["loss_first"], one["loss"])
    assert torch.equal(found["loss_second"], other["loss"])
    assert pair.encoder is pair.first.encoder is pair.second.encoder
    gradients = []
    for loss in (found["loss"], one["loss"], other["loss"]):
        pair.zero_grad()
        loss.backward()
        gradients.append(pair.encoder.layers[0].attention.q_proj.weight.grad.clone())
    assert torch.allclose(gradients[0], 0.75 * gradients[1] + 0.25 * gradients[2], atol=1e-7)


def test_objectives_on_two_encoders_are_no_pair():
    one, other = (build_objective(configured(name=name)) for name in ("simmim", "simclr"))
    with pytest.raises(ValueError, match="one encoder"):
        Pair(one, other, 0.5)


def test_supervised_is_the_cross_entropy_of_the_labels():
    objective = build_objective(configured(name="supervised"))
    batch = Batch(*crops(side=16)[:2])
    found = objective.loss(batch, generator(0))
    with torch.no_grad():
        pixels = views.standardise(views.plain(batch.pixels, 16, generator(0)))
        logits = objective.head(objective.encoder(pixels).last_hidden_state[:, 0]).double()
    terms = [torch.logsumexp(row, 0) - row[label] for row, label in zip(logits, batch.labels, strict=True)]
    assert found["loss"].item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    right = [row.argmax() == label for row, label in zip(logits, batch.labels, strict=True)]
    assert found["accuracy"].item() == pytest.approx(sum(right).item() / 6)


def test_compiled_parts_are_those_that_are_called():
    for options in OBJECTIVES.values():
        objective = build_objective(configured(**options))
        objective.compile(backend="eager")
        assert objective.encoder._compiled_call_impl is not None
        for part in ("mae", "slow_encoder"):
            for holder in (objective, getattr(objective, "first", None), getattr(objective, "second", None)):
                inner = getattr(holder, part, None)
                assert inner is None or inner._compiled_call_impl is not None
