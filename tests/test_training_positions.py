"""What a network knows of places: kinds of position embeddings, and queries that are made of the place alone."""

import numpy as np
import pytest
import torch

from mimlab.probing.watch import watch
from mimlab.runs import InputError
from mimlab.training.config import NetworkConfig
from mimlab.training.draws import generator
from mimlab.training.masks import patches_of
from mimlab.training.networks import build_encoder, sincos_positions

SMALL = {"image_size": 16, "width": 24, "depth": 2, "heads": 2, "decoder_width": 24}
PATCHES = 16
CHANGED = 6
"""Place among the tokens, CLS first, of the one patch in which two images differ."""


def encoder_with(seed=0, **more):
    return build_encoder(NetworkConfig(**SMALL | more), seed)


def positions_of(encoder):
    return encoder.embeddings.position_embeddings


def squared_norm():
    """Mean over patches of the squared norm of sines and cosines."""
    table = sincos_positions(4, 24)[0, 1:].double()
    return float(table.square().sum(-1).mean())


def test_sines_and_cosines_have_half_the_width_as_squared_norm():
    """sin² + cos² = 1 for each of width / 4 rates in each of two directions."""
    assert squared_norm() == pytest.approx(24 / 2, rel=1e-6)


def test_orthogonal_positions_are_as_long_as_the_waves_and_orthogonal():
    positions = positions_of(encoder_with(positions="orthogonal"))
    assert positions.shape == (1, 1 + PATCHES, 24) and not positions.requires_grad
    assert not positions[0, 0].any()
    table = positions[0, 1:].detach().double()
    gram = (table @ table.T).numpy()
    assert np.abs(gram - squared_norm() * np.eye(PATCHES)).max() < 1e-5 * squared_norm()


def test_random_positions_are_as_long_as_the_waves_and_not_trained():
    positions = positions_of(encoder_with(positions="random"))
    assert positions.shape == (1, 1 + PATCHES, 24) and not positions.requires_grad
    table = positions[0, 1:].detach().double()
    assert table.square().sum(-1).numpy() == pytest.approx(squared_norm(), rel=1e-5)
    cosines = (table @ table.T).numpy()[np.triu_indices(PATCHES, 1)] / squared_norm()
    assert 0.5 < np.sqrt(24) * cosines.std() < 1.5  # random directions in 24 dimensions: deviation 1/sqrt(24)
    assert len(np.unique(table.numpy(), axis=0)) == PATCHES


@pytest.mark.parametrize("positions", ["orthogonal", "random"])
def test_positions_are_the_same_whenever_asked(positions):
    state = torch.get_rng_state()
    one, again = (positions_of(encoder_with(seed=5, positions=positions)) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_more_patches_than_channels_cannot_be_orthogonal():
    with pytest.raises(InputError, match="orthogonal"):
        encoder_with(positions="orthogonal", image_size=32)  # 64 patches in 24 channels


def images():
    """Two images, which differ in the patch of token CHANGED alone."""
    pair = torch.randn(1, 3, 16, 16, generator=generator(0, "images")).repeat(2, 1, 1, 1)
    row, column = (4 * place for place in divmod(CHANGED - 1, 4))
    pair[1, :, row : row + 4, column : column + 4] += 3
    differs = (patches_of(pair[:1], 4) != patches_of(pair[1:], 4)).any(-1)[0]
    assert differs.nonzero().tolist() == [[CHANGED - 1]]
    return pair


def first_layer(encoder, pixels):
    """Queries, keys and values (B, H, n, D) and logits (B, H, n, n) of the first layer."""
    caught = []

    def keep(attention):
        found = (attention.q, attention.k, attention.v, attention.logits())
        caught.append([table.detach().clone() for table in found])

    with torch.no_grad(), watch(encoder, keep):
        encoder(pixels)
    return caught[0]


def noisy(encoder):
    """Weights of order one, so that nothing is equal because it is small."""
    draws = generator(1, "weights")
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "position" not in name:
                weight.add_(torch.randn(weight.shape, generator=draws), alpha=0.3)
    return encoder.eval()


@pytest.mark.parametrize("positions", ["sincos", "orthogonal", "random", "learned"])
def test_a_query_without_content_is_the_place_alone(positions):
    encoder = noisy(encoder_with(positions=positions, content_in_query=False))
    q, k, v, logits = first_layer(encoder, images())
    others = [token for token in range(1 + PATCHES) if token != CHANGED]
    assert torch.allclose(q[0], q[1], atol=1e-6)
    for content in (k, v):
        assert torch.allclose(content[0][:, others], content[1][:, others], atol=1e-5)
        assert (content[0][:, CHANGED] - content[1][:, CHANGED]).abs().max() > 0.1
    assert torch.allclose(logits[0][..., others], logits[1][..., others], atol=1e-4)
    assert (logits[0][:, CHANGED, CHANGED] - logits[1][:, CHANGED, CHANGED]).abs().min() > 1e-3


@pytest.mark.parametrize("positions", ["sincos", "orthogonal"])
def test_the_change_of_a_logit_is_the_query_on_the_change_of_the_key(positions):
    encoder = noisy(encoder_with(positions=positions, content_in_query=False))
    q, k, _, logits = (table.double().numpy() for table in first_layer(encoder, images()))
    for head in range(2):
        for query in range(1 + PATCHES):
            along = sum(
                q[0, head, query, d] * (k[1, head, CHANGED, d] - k[0, head, CHANGED, d]) for d in range(12)
            )
            change = logits[1, head, query, CHANGED] - logits[0, head, query, CHANGED]
            assert change == pytest.approx(along / np.sqrt(12), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("content", [{}, {"content_in_query": True}])
def test_a_query_with_content_follows_its_patch(content):
    encoder = noisy(encoder_with(**content))
    q, _, _, logits = first_layer(encoder, images())
    others = [token for token in range(1 + PATCHES) if token != CHANGED]
    assert (q[0][:, CHANGED] - q[1][:, CHANGED]).abs().max() > 0.1
    assert torch.allclose(q[0][:, others], q[1][:, others], atol=1e-5)
    assert (logits[0][:, CHANGED, others] - logits[1][:, CHANGED, others]).abs().max() > 0.1


def test_queries_without_content_differ_between_places():
    """They are not equal because they are empty."""
    q = first_layer(noisy(encoder_with(positions="orthogonal", content_in_query=False)), images())[0]
    for one in range(1, 1 + PATCHES):
        for other in range(1, one):
            assert (q[0, :, one] - q[0, :, other]).abs().max() > 1e-2


def test_content_in_the_query_does_not_change_the_weights():
    """So that runs with and without it can be compared."""
    with_it, without = encoder_with(seed=2), encoder_with(seed=2, content_in_query=False)
    state = with_it.state_dict()
    for name, value in without.state_dict().items():
        if name in state:
            assert torch.equal(state[name], value), name
