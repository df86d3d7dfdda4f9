"""The relaxed one-layer model against its definition in loops: patches, attention, loss, shares and gradients."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from mimlab.dynamics.dense import DenseAttention, DenseWorld, MiniBatch, draw  # noqa: E402
from mimlab.dynamics.relax import Relaxation  # noqa: E402
from mimlab.dynamics.relaxed import RelaxedAttention, draw_images  # noqa: E402

from .relaxed_oracle import (  # noqa: E402
    MANY,
    TINY,
    TWO,
    images_of,
    model_of,
    oracle_of,
    plain,
    world_of,
)

ALONE = [
    {"noise": 0.4},
    {"noise": 2.0},
    {"coherence": 0.3},
    {"coherence": 0.9},
    {"shared_features": 0.4},
    {"shared_features": 1.0},
    {"latent_correlation": 0.5},
    {"signed_latents": 0.5},
    {"jitter": 0.2},
    {"jitter": 0.5},
    {"positions": "sincos"},
    {"positions": "random"},
    {"positions": "learned"},
    {"content_in_query": 0.5},
    {"content_in_query": 1.0},
    {"value_matrix": 0.5},
    {"heads": 2},
    {"heads": 3},
    {"mask_shape": "block"},
    {"optimizer": "adam"},
    {"momentum": 0.9},
    {"batch": 8},
    {"weight_decay": 0.1},
]
TOGETHER = [
    {"noise": 0.5, "jitter": 0.4, "content_in_query": 0.7, "heads": 2},
    {"coherence": 0.4, "shared_features": 1.0, "signed_latents": 0.3, "value_matrix": 1.0},
    {"positions": "learned", "heads": 2, "value_matrix": 0.5, "noise": 0.3, "mask_shape": "block"},
    {"positions": "sincos", "latent_correlation": 0.6, "jitter": 0.3, "coherence": 0.5},
    {"positions": "random", "content_in_query": 1.0, "signed_latents": 0.5, "noise": 1.0, "coherence": 0.2},
]


def compare(world, images=6, seed=0):
    """Everything that the model says of images, with the oracle's word for it."""
    model, images = model_of(world, seed), images_of(world, images, seed)
    oracle = oracle_of(world, model, images)
    assert len(oracle.cluster) < 6 or set(oracle.cluster) == set(range(world.clusters))
    X = [oracle.X(i) for i in range(len(oracle.cluster))]
    np.testing.assert_allclose(plain(model.patches(images)), X, atol=1e-12, rtol=1e-10)
    np.testing.assert_allclose(plain(model.attention(images)), oracle.attention(), atol=1e-12, rtol=1e-10)
    assert model.loss(images).item() == pytest.approx(oracle.loss(), rel=1e-10)
    shares, (fp, pp) = model.shares(images), oracle.variances()
    assert float(plain(shares["fp"])) == pytest.approx(fp, rel=1e-10)
    assert float(plain(shares["pp"])) == pytest.approx(pp, rel=1e-10)


@pytest.mark.parametrize(("area_of", "masked"), [(TWO, 3), (TWO, 1), (TWO, 5), (MANY, 4), (TINY, 2)])
def test_default(area_of, masked):
    compare(world_of(area_of, masked))


@pytest.mark.parametrize("relax", ALONE, ids=str)
@pytest.mark.parametrize("area_of", [TWO, MANY], ids=["two clusters", "one cluster"])
def test_each_key_alone(area_of, relax):
    compare(world_of(area_of, **relax))


@pytest.mark.parametrize("relax", TOGETHER, ids=str)
def test_keys_together(relax):
    compare(world_of(MANY, 4, **relax), seed=3)


@settings(max_examples=15)
@given(
    area_of=st.sampled_from([TINY, TWO, MANY]),
    seed=st.integers(0, 99),
    relax=st.fixed_dictionaries(
        {},
        optional={
            "noise": st.floats(0, 2),
            "coherence": st.floats(0, 0.95),
            "shared_features": st.floats(0, 1),
            "latent_correlation": st.floats(0, 0.95),
            "signed_latents": st.floats(0, 0.5),
            "jitter": st.floats(0, 0.5),
            "positions": st.sampled_from(["orthogonal", "sincos", "random", "learned"]),
            "content_in_query": st.floats(0, 1),
            "value_matrix": st.floats(0, 2),
            "heads": st.integers(1, 3),
            "mask_shape": st.sampled_from(["random", "block"]),
        },
    ),
)
def test_any_keys(area_of, seed, relax):
    compare(world_of(area_of, 2, **relax), images=2, seed=seed)


def test_every_key_is_compared_alone():
    assert {key for relax in ALONE for key in relax} == {field.name for field in fields(Relaxation)}


@pytest.mark.parametrize(
    "relax",
    [
        {},
        {"noise": 0.6},
        {"coherence": 0.5, "shared_features": 1.0},
        {"signed_latents": 0.5, "latent_correlation": 0.5, "jitter": 0.4},
        {"content_in_query": 0.8},
        {"heads": 2, "value_matrix": 0.5},
        {"positions": "learned", "content_in_query": 0.5},
        {"positions": "learned", "value_matrix": 1.0, "noise": 0.4, "mask_shape": "block"},
        {"positions": "sincos"},
    ],
    ids=str,
)
def test_gradients_are_finite_differences(relax):
    world = world_of(TINY, 3, **relax)
    model, images = model_of(world), images_of(world, 2, seed=5)
    oracle = oracle_of(world, model, images)
    trained = ["Q"]
    assert model.Q.requires_grad
    assert bool(model.V.requires_grad) == bool(world.relax.value_matrix)
    assert bool(model.positions.requires_grad) == (world.relax.positions == "learned")
    assert not model.features.requires_grad
    trained += ["V"] if world.relax.value_matrix else []
    trained += ["positions"] if world.relax.positions == "learned" else []
    slopes = torch.autograd.grad(model.loss(images), [getattr(model, name) for name in trained])
    for name, slope in zip(trained, slopes, strict=True):
        expected = oracle.slope({"positions": "e"}.get(name, name))
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(plain(slope), expected, atol=1e-6, err_msg=name)


# The default is the paper's model.


def axes_of(model):
    """The orthonormal rows: positions, then the features that exist."""
    features = plain(model.features).reshape(-1, model.features.shape[-1])
    return np.concatenate([plain(model.positions), features[np.linalg.norm(features, axis=1) > 0]])


def in_axes(model, matrix):
    """A d × d matrix of the model's space in the coordinates of its positions and features."""
    axes = axes_of(model)
    return axes @ plain(matrix) @ axes.T


def from_axes(model, coordinates):
    axes = axes_of(model)
    return torch.tensor(axes.T @ coordinates @ axes)


@pytest.mark.parametrize("area_of", [TINY, TWO, MANY], ids=["tiny", "two", "many"])
def test_default_is_the_dense_engine(area_of):
    world = world_of(area_of, 2)
    model, images = model_of(world), images_of(world, 7, seed=2)
    dense = DenseAttention(DenseWorld(area_of, world.latent, 2), seed=11)
    dense.Q = from_axes(dense, in_axes(model, model.Q[0]))
    batch = MiniBatch(plain(images.cluster), plain(images.latent), plain(images.mask))
    loss, gradient = dense.loss_and_gradient(batch)
    found = model.loss(images)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    (slope,) = torch.autograd.grad(found, [model.Q])
    np.testing.assert_allclose(in_axes(model, slope[0]), in_axes(dense, gradient), atol=1e-13)
    attention, _ = dense.reconstruct(batch)
    np.testing.assert_allclose(plain(model.attention(images))[:, 0], attention, atol=1e-13)


@pytest.mark.parametrize("area_of", [TINY, TWO, MANY], ids=["tiny", "two", "many"])
def test_default_draws_what_the_dense_engine_draws(area_of):
    world = world_of(area_of, 2)
    images = draw_images(world, np.random.default_rng(8), 50)
    batch = draw(DenseWorld(area_of, world.latent, 2), np.random.default_rng(8), 50)
    for name in ("cluster", "latent", "mask"):
        np.testing.assert_array_equal(plain(getattr(images, name)), getattr(batch, name))
    assert images.noise is None
    assert not plain(images.roll).any()


def test_default_starts_at_zero_with_identity_values():
    model = RelaxedAttention(world_of(heads=2))
    size = model.positions.shape[1]
    assert model.Q.shape == model.V.shape == (2, size, size)
    assert model.Q.dtype == model.V.dtype == model.positions.dtype == torch.float64
    assert not plain(model.Q).any()
    np.testing.assert_array_equal(plain(model.V), [np.eye(size)] * 2)


# Theorems.


@pytest.mark.parametrize("content", [0.3, 1.0])
@pytest.mark.parametrize("heads", [1, 2])
def test_content_in_the_query_changes_nothing_where_it_is_masked(content, heads):
    """A masked query carries no content, so loss, its gradient and masked rows stay; visible rows do not."""
    found = []
    for c in (0.0, content):
        world = world_of(TWO, 3, content_in_query=c, heads=heads, noise=0.2)
        model, images = model_of(world), images_of(world, 5)
        loss = model.loss(images)
        (slope,) = torch.autograd.grad(loss, [model.Q])
        found.append((loss.item(), plain(slope), plain(model.attention(images)), plain(images.mask)))
    (loss, slope, attention, mask), (other_loss, other_slope, other_attention, other_mask) = found
    np.testing.assert_array_equal(mask, other_mask)
    assert other_loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(other_slope, slope, atol=1e-13)
    change = np.abs(attention - other_attention).max(axis=(1, 3))
    assert change[mask].max() < 1e-13
    assert change[~mask].max() > 1e-2


@pytest.mark.parametrize("relax", [{}, {"noise": 1.0}, {"coherence": 0.5}, {"positions": "sincos"}], ids=str)
def test_at_q_zero_attention_is_uniform(relax):
    world = world_of(**relax)
    model, images = RelaxedAttention(world), images_of(world)
    np.testing.assert_allclose(plain(model.attention(images)), 1 / world.patches, rtol=1e-14)
    shares = model.shares(images)
    assert shares["fp"] == shares["pp"] == 0


def test_upsilon_keeps_its_row_sums_at_orthogonal_positions_and_not_at_random_ones():
    """Σ_q Υ_{p→q} moves with the logits' mean, whose slope is zero where e_p·e_q = 1{p=q}."""
    sums = {}
    for positions in ("orthogonal", "random"):
        world = world_of(TWO, 3, positions=positions)
        model, images = model_of(world), images_of(world, 6)
        (slope,) = torch.autograd.grad(model.loss(images), [model.Q])
        e = plain(model.positions)
        sums[positions] = np.abs((e @ plain(slope[0]) @ e.T).sum(axis=1)).max()
    assert sums["orthogonal"] < 1e-14
    assert sums["random"] > 1e-4


def test_equal_heads_are_one_head_and_each_has_its_share_of_the_slope():
    one, three = (world_of(heads=heads) for heads in (1, 3))
    single, images = model_of(one), images_of(one, 5)
    model = RelaxedAttention(three)
    with torch.no_grad():
        axes = in_axes(single, single.Q[0])
        model.Q.copy_(from_axes(model, axes).expand(3, -1, -1))
    loss, losses = single.loss(images), model.loss(images)
    assert losses.item() == pytest.approx(loss.item(), rel=1e-12)
    (slope,), (slopes,) = torch.autograd.grad(loss, [single.Q]), torch.autograd.grad(losses, [model.Q])
    for h in range(3):
        np.testing.assert_allclose(in_axes(model, 3 * slopes[h]), in_axes(single, slope[0]), atol=1e-13)


def test_every_image_counts_once():
    world = world_of(MANY, 4, noise=0.5, jitter=0.3, heads=2)
    model, images = model_of(world), images_of(world, 4)
    oracle = oracle_of(world, model, images)
    names = ("cluster", "latent", "roll", "mask", "noise")
    singles = [oracle.change(**{name: getattr(oracle, name)[i : i + 1] for name in names}) for i in range(4)]
    assert model.loss(images).item() == pytest.approx(np.mean([s.loss() for s in singles]), rel=1e-10)
