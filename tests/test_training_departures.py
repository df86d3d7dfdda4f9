"""Rendered worlds in a run, and the switches by which a network departs from the theory's layer."""

import numpy as np
import pytest
import torch

from mimlab.probing.hugging import load_directory
from mimlab.probing.watch import watch
from mimlab.runs import InputError, build, to_mapping
from mimlab.training import views
from mimlab.training.checkpoints import load_encoder, write_checkpoint
from mimlab.training.config import PretrainConfig
from mimlab.training.draws import generator
from mimlab.training.loop import pretrain
from mimlab.training.masks import patches_of
from mimlab.training.networks import build_encoder, frozen_copy
from mimlab.training.objectives import build_objective
from mimlab.training.sources import class_count, held_out_source, training_source

SIZES = [8, 4, 4]
LATENT = {"low": 0.5, "high": 1.5}


def config(objective: str = "simmim", **tables: dict) -> PretrainConfig:
    mapping = {
        "objective": {"name": objective},
        "network": {"image_size": 16, "width": 24, "heads": 2, "depth": 2} | tables.get("network", {}),
        "data": {
            "world": {"area_sizes": SIZES, "clusters": 2, "latent": LATENT},
            "batch_size": 8,
            **tables.get("data", {}),
        },
        "training": {"steps": 6} | tables.get("training", {}),
        "watching": {"checkpoints": 2},
    }
    return build(PretrainConfig, mapping)


def queries(encoder, pixels):
    """Query vectors of every layer: (layers, B, heads, tokens, size)."""
    found = []
    with torch.no_grad(), watch(encoder, lambda attention: found.append(attention.q.clone())):
        encoder(pixels)
    return torch.stack(found)


@pytest.fixture
def two_images():
    """Two that differ in one patch, the first."""
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    pixels[1, :, :4, :4] += 1.0
    return pixels


@pytest.mark.parametrize("content", [True, False])
def test_queries_by_position_do_not_see_what_a_patch_shows(two_images, content):
    encoder = build_encoder(config(network={"content_in_query": content}).network, 0).eval()
    found = queries(encoder, two_images)
    assert torch.equal(found[:, 0], found[:, 1]) is not content
    output = encoder(two_images).last_hidden_state
    assert not torch.equal(output[0], output[1])  # keys and values do


def test_queries_by_position_are_the_projected_positions(two_images):
    encoder = build_encoder(config(network={"content_in_query": False}).network, 0).eval()
    for layer, found in zip(encoder.layers, queries(encoder, two_images), strict=True):
        position = layer.layernorm_before(encoder.embeddings.position_embeddings)
        expected = layer.attention.q_proj.weight @ position[0].T + layer.attention.q_proj.bias[:, None]
        torch.testing.assert_close(found[0].transpose(1, 2).flatten(0, 1), expected)


def test_a_copy_has_queries_of_its_own(two_images):
    encoder = build_encoder(config(network={"content_in_query": False}).network, 0).eval()
    copy = frozen_copy(encoder)
    with torch.no_grad():
        encoder.embeddings.position_embeddings.mul_(2.0)
        encoder.layers[0].layernorm_before.bias.add_(1.0)
    assert not torch.equal(queries(encoder, two_images), queries(copy, two_images))


def test_a_checkpoint_knows_that_its_queries_are_positions(tmp_path, two_images):
    encoder = build_encoder(config(network={"content_in_query": False}).network, 0).eval()
    loaded, _ = load_directory(write_checkpoint(tmp_path, 3, encoder))
    assert torch.equal(queries(loaded, two_images), queries(encoder, two_images))
    with pytest.raises(InputError, match="content_in_query = false there, true here"):
        load_encoder(build_encoder(config().network, 0), tmp_path)
    load_encoder(build_encoder(config(network={"content_in_query": False}).network, 1), tmp_path)


@pytest.mark.parametrize("positions", ["orthogonal", "random"])
def test_drawn_positions(positions):
    network = config(network={"positions": positions}).network
    embeddings = build_encoder(network, 3).embeddings.position_embeddings
    assert not embeddings.requires_grad and not embeddings[0, 0].any()
    gram = (embeddings[0, 1:] @ embeddings[0, 1:].T).numpy()
    sincos = build_encoder(config().network, 3).embeddings.position_embeddings[0, 1:]
    square = float(sincos.square().sum(-1).mean())
    np.testing.assert_allclose(np.diag(gram), square, rtol=1e-5)
    apart = np.abs(gram[~np.eye(16, dtype=bool)]).max()
    assert apart < 1e-4 if positions == "orthogonal" else apart > 1.0
    other = build_encoder(network, 4).embeddings.position_embeddings
    assert not torch.equal(embeddings, other)


def test_a_view_of_a_rendered_image_is_all_of_it_or_its_masked_copy():
    asked = config("simclr")
    objective, batch = build_objective(asked), training_source(asked).batch(0)
    whole = views.standardise(batch.pixels)
    assert torch.equal(objective.plain_view(batch, generator(0, "x")), whole)
    drawn = generator(0, "x")
    one, other = (objective.strong_view(batch, 16, drawn, (0.2, 1.0)) for _ in range(2))
    assert not torch.equal(one, other)
    for view in (one, other):
        shown, true = patches_of(view, 4), patches_of(whole, 4)
        kept = shown.any(-1)
        assert kept.sum(-1).tolist() == [8] * 8  # half of 16 patches
        assert torch.equal(shown[kept], true[kept])


@pytest.mark.parametrize("objective", ["simmim", "mae", "simclr", "moco-v3", "dino", "supervised"])
def test_every_objective_trains_on_a_rendered_world(objective, tmp_path):
    asked = config(objective)
    outcome = pretrain(build_objective(asked), training_source(asked), asked, tmp_path)
    assert outcome.status == "finished" and outcome.step == 6


def test_labels_are_counted_and_the_held_out_world_is_the_same():
    asked = config()
    training, held_out = training_source(asked), held_out_source(asked, 5)
    assert class_count(asked) == 2 and training.images == 2
    np.testing.assert_array_equal(training.features, held_out.features)
    assert held_out.batch(0).pixels.shape == (5, 3, 16, 16)


def test_gradient_descent_follows_its_formula(tmp_path):
    """Two steps of momentum, by hand: v ← m v + g, w ← w - η v, with decay in g."""
    options = {"optimizer": "sgd", "steps": 2, "warmup": 0.0, "clip": 0.0, "blr": 0.5, "weight_decay": 0.1}
    asked = config(training=options)
    trained, byhand = build_objective(asked), build_objective(asked)
    source = training_source(asked)
    pretrain(trained, source, asked, tmp_path)

    named = [(name, one) for name, one in byhand.named_parameters() if one.requires_grad]
    velocities = [torch.zeros_like(one) for _, one in named]
    for step in range(2):
        loss = byhand.loss(source.batch(step), generator(asked.seed, step, "loss"))["loss"]
        rate = 0.5 * 8 / 256 * (1 + np.cos(np.pi * step / 2)) / 2
        gradients = torch.autograd.grad(loss, [one for _, one in named])
        with torch.no_grad():
            for (name, one), gradient, velocity in zip(named, gradients, velocities, strict=True):
                plain = one.ndim < 2 or "token" in name or "position" in name
                velocity.mul_(0.9).add_(gradient + (0.0 if plain else 0.1) * one)
                one.sub_(velocity * rate)
    torch.testing.assert_close(byhand.head.weight, trained.head.weight, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(
        byhand.encoder.layers[0].mlp.fc1.weight, trained.encoder.layers[0].mlp.fc1.weight
    )


def test_config_round_trip():
    asked = config(network={"positions": "random", "content_in_query": False}, data={"areas": "shifted"})
    assert build(PretrainConfig, to_mapping(asked)) == asked


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"network": {"positions": "orthogonal", "width": 12}}, "orthogonal positions"),
        ({"data": {"images": "photos"}}, "images and world do not go together"),
        ({"data": {"held_out": "photos"}}, "held_out and world do not go together"),
        ({"objective": "mae", "network": {"content_in_query": False}}, "not for mae"),
        ({"data": {"world": {"area_sizes": [3]}, "areas": "moved"}}, 'must be "fixed" or "shifted"'),
    ],
)
def test_what_does_not_go_together_is_refused(tables, said):
    with pytest.raises(InputError, match=said):
        config(**tables)


def test_shifted_areas_need_a_world():
    with pytest.raises(InputError, match="for a rendered world"):
        build(PretrainConfig, {"data": {"areas": "shifted"}})
