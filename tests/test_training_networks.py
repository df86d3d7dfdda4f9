"""Encoders and decoders: positions, shared weights, and weights that depend on the seed alone."""

import math

import pytest
import torch

from mimlab.training.config import NetworkConfig
from mimlab.training.draws import generator
from mimlab.training.masks import masked_count, ordered_noise, random_masks
from mimlab.training.networks import (
    build_encoder,
    build_mae,
    follow,
    frozen_copy,
    perceptron,
    sincos_positions,
)

SMALL = NetworkConfig(image_size=16, width=24, depth=2, heads=2, decoder_width=16)


def pixels(batch=3):
    return torch.randn(batch, 3, 16, 16, generator=generator(0, "pixels"))


def same(one, other):
    return all(torch.equal(one.state_dict()[name], value) for name, value in other.state_dict().items())


def test_positions_are_those_of_the_formula():
    table = sincos_positions(3, 8)
    assert table.shape == (1, 10, 8)
    assert not table[0, 0].any()
    for row in range(3):
        for column in range(3):
            rates = [1, 10000 ** (-1 / 2)]
            expected = [
                wave(place * rate)
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for rate in rates
            ]
            assert table[0, 1 + 3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_fixed_positions_are_not_trained_and_learned_ones_are():
    fixed = build_encoder(SMALL, 0).embeddings.position_embeddings
    learned = build_encoder(NetworkConfig(**vars(SMALL) | {"positions": "learned"}), 0).embeddings
    assert torch.equal(fixed, sincos_positions(4, 24))
    assert not fixed.requires_grad
    assert learned.position_embeddings.requires_grad
    assert 0.015 < learned.position_embeddings.std() < 0.025


def test_weights_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    one, again, other = (build_encoder(SMALL, seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)
    maes = [build_mae(SMALL, one, 0.75, False, seed) for seed in (1, 1, 2)]
    assert same(maes[0].decoder, maes[1].decoder)
    assert not same(maes[0].decoder, maes[2].decoder)
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_starts_close_to_uniform():
    encoder = build_encoder(SMALL, 0)
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        maps = encoder(pixels(), output_attentions=True).attentions
    assert len(maps) == 2
    assert all((17 * attention - 1).abs().max() < 0.2 for attention in maps)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_mae_knows_where_patches_are(positions):
    """A ViTMAE built from its configuration alone does not: its positions are all zero."""
    network = NetworkConfig(**vars(SMALL) | {"positions": positions})
    encoder = build_encoder(network, 0)
    mae = build_mae(network, encoder, 0.75, False, 0)
    decoder = mae.decoder.decoder_pos_embed
    assert decoder[0, 1:].std(0).min() > 0
    assert decoder.requires_grad == (positions == "learned")
    assert mae.vit.embeddings.position_embeddings is encoder.embeddings.position_embeddings
    masks = random_masks(3, 4, 12, generator(0))
    predicted = mae(pixels(), noise=ordered_noise(masks)).logits
    hidden = masks[0].nonzero()[:2, 0]
    assert (predicted[0, hidden[0]] - predicted[0, hidden[1]]).abs().max() > 1e-4


def test_mae_runs_the_encoders_own_blocks_on_the_visible_patches():
    encoder = build_encoder(SMALL, 0)
    mae = build_mae(SMALL, encoder, 0.75, False, 0)
    masks = random_masks(3, 4, 12, generator(0))
    with torch.no_grad():
        found = mae.vit(pixels(), noise=ordered_noise(masks)).last_hidden_state
        tokens = encoder.embeddings(pixels())
        kept = torch.cat([torch.ones(3, 1, dtype=torch.bool), ~masks], 1)
        hidden = tokens[kept].reshape(3, 5, 24)
        for layer in encoder.layers:
            hidden = layer(hidden)
        expected = encoder.layernorm(hidden)
    assert torch.allclose(found, expected, atol=1e-6)
    shared = {id(parameter) for parameter in encoder.parameters()}
    inside = {id(parameter) for parameter in mae.vit.parameters()}
    assert inside == shared - {id(encoder.embeddings.mask_token)}


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.6, 0.75, 0.9, 0.99])
def test_mae_masks_the_patches_it_is_told_to(ratio):
    network = NetworkConfig(**vars(SMALL) | {"image_size": 24})
    mae = build_mae(network, build_encoder(network, 0), ratio, False, 0)
    masks = random_masks(4, 6, masked_count(36, ratio), generator(0))
    images = torch.randn(4, 3, 24, 24, generator=generator(0))
    assert torch.equal(mae(images, noise=ordered_noise(masks)).mask.bool(), masks)


def test_a_slow_copy_follows_and_has_no_gradient():
    fast = perceptron((3, 4, 2))
    slow = frozen_copy(fast)
    with torch.no_grad():
        fast[0].weight.add_(1)
    before, target = slow[0].weight.clone(), fast[0].weight.clone()
    follow(slow, fast, 0.9)
    assert torch.allclose(slow[0].weight, 0.9 * before + 0.1 * target)
    assert torch.equal(fast[0].weight, target)
    assert not any(parameter.requires_grad for parameter in slow.parameters())


def test_perceptrons_have_the_layers_they_are_asked_for():
    kinds = [type(layer).__name__ for layer in perceptron((3, 4, 4, 2), last_norm=True)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    plain = perceptron((3, 4, 2), norm=False, activation=torch.nn.GELU)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "GELU", "Linear"]
    assert plain[0].bias is not None
