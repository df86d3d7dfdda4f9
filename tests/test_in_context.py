"""The in-context copy task on the dense engine, against its definition in plain NumPy."""

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimlab import InputError, Latent
from mimlab.objectives.in_context import InContextLearning, copying_half_time

from . import in_context_oracle as oracle
from .in_context_oracle import Task

torch = pytest.importorskip("torch")

from mimlab.dynamics.dense import DenseAttention, DenseWorld, MiniBatch, draw, measure  # noqa: E402
from mimlab.dynamics.dense_in_context import InContextWorld, shares  # noqa: E402

ONE = Latent(low=1.0, high=1.0)
TASK = Task((2, 3, 2), vocabulary=3, masked=2, in_weights=0.3, values=(0.5, 1.5))
TASKS = {
    "pairs": Task((2, 2), 2, 1),
    "uneven, two latents": TASK,
    "one token": Task((3, 2), 1, 2),
    "tied": Task((2, 3), 2, 2, in_weights=1.0),
}


def world_of(task: Task) -> InContextWorld:
    latent = Latent(values=task.values)
    return InContextWorld(np.array([task.area_of]), latent, task.masked, task.vocabulary, task.in_weights)


def batch_of(images: list[oracle.Image]) -> MiniBatch:
    return MiniBatch(
        np.zeros(len(images), dtype=np.int64),
        np.array([image.latent for image in images]),
        np.array([image.mask for image in images]),
        token=np.array([image.token for image in images]),
    )


def model_at_random_q(task: Task) -> DenseAttention:
    model = DenseAttention(world_of(task), seed=1)
    model.Q = torch.tensor(np.random.default_rng(2).normal(0, 1, model.Q.shape))
    return model


def some(task: Task, number: int) -> list[oracle.Image]:
    images = list(task.images())
    return [images[i] for i in np.random.default_rng(3).integers(len(images), size=number)]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_closed_form_is_the_slope_of_the_loss(task):
    """The oracle itself: central differences of the loss as defined."""
    generator = np.random.default_rng(0)
    phi, upsilon = generator.normal(size=task.vocabulary), generator.normal(size=len(task.area_of))
    for image in some(task, 3):
        for p in task.copies:
            along = np.concatenate(oracle.velocity(task, image, p, phi, upsilon))
            both = np.concatenate([phi, upsilon])
            for i, found in enumerate(along):
                step = 1e-5 * np.eye(len(both))[i]
                ends = [
                    oracle.loss(task, image, p, *np.split(at, [task.vocabulary]))
                    for at in (both - step, both + step)
                ]
                assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_loss_gradient_and_attention_are_the_definition(task):
    model = model_at_random_q(task)
    phi, upsilon = model.correlations()
    P = len(task.area_of)
    for image in some(task, 4):
        batch = batch_of([image])
        loss, gradient = model.loss_and_gradient(batch)
        axes = torch.cat([model.features[0], model.positions])
        found = -(model.positions @ gradient @ axes.T).numpy()
        expected = [np.concatenate(oracle.velocity(task, image, p, phi[p, 0], upsilon[p])) for p in range(P)]
        np.testing.assert_allclose(found, expected, atol=1e-13)
        assert loss == pytest.approx(
            sum(oracle.loss(task, image, p, phi[p, 0], upsilon[p]) for p in range(P))
        )
        attention, _ = model.reconstruct(batch)
        np.testing.assert_allclose(
            attention[0], [oracle.attention(task, image, phi[p, 0], upsilon[p]) for p in range(P)], rtol=1e-10
        )


def test_every_image_as_batch_is_exact_descent():
    task = Task((2, 2, 2), 2, 2)
    model, batch = DenseAttention(world_of(task), seed=4), batch_of(list(task.images()))
    for _ in range(30):
        model.descend(batch, 2.0)
    phi, upsilon = model.correlations()
    for p in task.copies:
        expected = oracle.descend(task, p, 2.0, 30)
        np.testing.assert_allclose(phi[p, 0], expected[0], atol=1e-10)
        np.testing.assert_allclose(upsilon[p], expected[1], atol=1e-10)
    assert np.ptp(phi[task.copies[0], 0]) < 1e-10  # no token is special
    assert np.argmax(upsilon[1]) == 0  # the source of patch 1
    assert np.abs(upsilon[0]).max() < 1e-12  # the context is never masked and learns nothing


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4).filter(lambda sizes: max(sizes) > 1),
    vocabulary=st.integers(1, 5),
    in_weights=st.sampled_from([0.0, 0.5, 1.0]),
    data=st.data(),
)
def test_symmetries_of_any_task(sizes, vocabulary, in_weights, data):
    """Υ of a row keeps its sum, rows of context do not move, and tokens renamed, in images and in Q, change nothing."""
    copies = sum(sizes) - len(sizes)
    masked = data.draw(st.integers(1, copies))
    world = world_of(Task(tuple(sizes), vocabulary, masked, in_weights, (0.5, 1.5)))
    batch = draw(world, np.random.default_rng(8), 16)
    model, renamed = DenseAttention(world, seed=9), DenseAttention(world, seed=9)
    order = np.array(data.draw(st.permutations(range(vocabulary))))
    renamed.features = renamed.features[:, np.argsort(order)]  # token order[v] has what was v's feature
    for _ in range(3):
        model.descend(batch, 3.0)
        renamed.descend(replace(batch, token=order[batch.token]), 3.0)
    np.testing.assert_allclose(renamed.Q, model.Q, atol=1e-12)
    phi, upsilon = model.correlations()
    np.testing.assert_allclose(upsilon.sum(axis=1), 0, atol=1e-12)
    for moved in (phi, upsilon):
        assert np.abs(moved[world.context]).max() < 1e-12


@pytest.mark.parametrize("hidden", [None, 3])
def test_draws_spare_the_context_and_are_uniform_elsewhere(hidden):
    world = world_of(TASK)
    n = 20_000
    batch = draw(world, np.random.default_rng(5), n, hidden)
    copies = TASK.copies
    assert not batch.mask[:, [0, 2, 5]].any()
    assert (batch.mask.sum(axis=1) == TASK.masked).all()
    rate = batch.mask.mean(axis=0)
    others = [q for q in copies if q != hidden]
    expected = (TASK.masked - (hidden is not None)) / len(others)
    np.testing.assert_allclose(rate[others], expected, atol=4 * 0.5 / n**0.5)
    assert batch.weight == pytest.approx(1.0 if hidden is None else TASK.masked / len(copies))
    seen = Counter(map(tuple, batch.token.tolist()))
    chances: Counter[tuple[int, ...]] = Counter()
    for image in TASK.images():
        chances[image.token] += image.chance
    for token, chance in chances.items():
        assert seen[token] / n == pytest.approx(chance, abs=4 * (chance / n) ** 0.5)


def test_tokens_tied_to_areas_are_the_world_of_masked_reconstruction():
    """in_weights = 1 with a token for each area: number for number the same layer on the same images."""
    task = Task((2, 3, 2), 3, 2, in_weights=1.0)
    tied, plain = world_of(task), DenseWorld(np.array([task.area_of]), ONE, task.masked)
    assert tied.space == plain.space
    batch = draw(tied, np.random.default_rng(6), 20)
    models = [DenseAttention(world, seed=7) for world in (tied, plain)]
    for _ in range(20):
        losses = [model.descend(batch, 1.0) for model in models]
        assert losses[0] == losses[1]
    np.testing.assert_array_equal(*(model.Q.numpy() for model in models))


def test_measured_attention_is_that_on_visible_patches_of_the_own_area():
    model, images = model_at_random_q(TASK), [image for image in TASK.images() if image.mask[3]][:40]
    phi, upsilon = model.correlations([3])
    found = measure(model, batch_of(images), 3)
    attention = [oracle.attention(TASK, image, phi[0, 0], upsilon[0]) for image in images]
    own = [a[2] + (0.0 if image.mask[4] else a[4]) for a, image in zip(attention, images, strict=True)]
    assert found.attention_own == pytest.approx(np.mean(own))
    assert found.floor == 0.0


def test_shares_by_loops():
    model, images = model_at_random_q(TASK), some(TASK, 25)
    phi, upsilon = model.correlations(TASK.copies)
    rows = [(phi[i, 0], upsilon[i]) for i in range(len(TASK.copies))]
    found = shares(world_of(TASK), batch_of(images), phi, upsilon)
    assert found == pytest.approx(oracle.shares(TASK, images, rows))


@pytest.mark.parametrize(("tokens", "ratio"), [(16, 0.5), (64, 0.75), (256, 1.0)])
def test_predicted_half_time_is_that_of_the_reduced_dynamics(tokens, ratio):
    """T_half = (P + 3 log P + 3/2)/γ leaves out what the other logits do: of relative order log P / P."""
    P = 2 * tokens
    expected = oracle.half_time_of_pairs(tokens, ratio)
    assert copying_half_time(P, ratio) == pytest.approx((P + 3 * log(P) + 1.5) / ratio)
    assert copying_half_time(P, ratio) == pytest.approx(expected, rel=2 * log(P) / P)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mask_ratio": 0}, "mask_ratio"),
        ({"mask_ratio": 1.5}, "mask_ratio"),
        ({"vocabulary": 0}, "vocabulary"),
        ({"vocabulary": 2.5}, "vocabulary"),
        ({"in_weights": -0.1}, "in_weights"),
        ({"in_weights": 1.1}, "in_weights"),
        ({"name": "masked"}, "name"),
    ],
)
def test_what_is_no_objective_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        InContextLearning(**given)
