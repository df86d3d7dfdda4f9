"""The dense engine against its definition in plain loops, and against what any such layer must obey."""

from itertools import combinations
from math import exp

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimlab.dynamics import dense  # noqa: E402
from mimlab.dynamics.dense import (  # noqa: E402
    DenseAttention,
    DenseWorld,
    MiniBatch,
    draw,
    measure,
    orthonormal,
    train_dense,
)
from mimlab.runs.errors import InputError  # noqa: E402
from mimlab.world.latent import Latent  # noqa: E402

UNIFORM = Latent(low=0.5, high=1.5)
CONSTANT = Latent(low=1.0, high=1.0)
# Two clusters whose areas differ in number, size and place; the last patch is alone in its area in cluster 1.
AREAS = np.array([[0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 0, 1, 2, 2, 3]])


def world_of(latent=UNIFORM, masked=5, areas=AREAS):
    return DenseWorld(areas, latent, masked)


def model_at_random_q(world, seed=0, **options):
    model = DenseAttention(world, **options)
    model.Q = torch.tensor(np.random.default_rng(seed).normal(size=(world.space, world.space)))
    return model


def images_of(world, images, seed=0, **options):
    return draw(world, np.random.default_rng(seed), images, **options)


def every_mask(world, hidden=None):
    """All masks once, for one cluster and latents 1; given that ``hidden`` is masked, where there is one."""
    chosen = [m for m in combinations(range(world.patches), world.masked) if hidden is None or hidden in m]
    mask = np.zeros((len(chosen), world.patches), dtype=bool)
    for i, positions in enumerate(chosen):
        mask[i, list(positions)] = True
    weight = 1.0 if hidden is None else world.masked / world.patches
    return MiniBatch(np.zeros(len(mask), dtype=int), np.ones((len(mask), world.areas[0])), mask, weight)


def row_by_loops(area, z, mask, p, phi, upsilon):
    """Theory, section 3, for one image and one row: loss, -∂L/∂Phi, -∂L/∂Upsilon, attention, A."""
    weights = [exp(upsilon[q] + (0.0 if mask[q] else z[area[q]] * phi[area[q]])) for q in range(len(area))]
    attn = [weight / sum(weights) for weight in weights]
    areas, a = range(max(area) + 1), area[p]
    A = [sum(attn[q] for q in range(len(area)) if area[q] == j and not mask[q]) for j in areas]
    loss = 0.5 * (z[a] ** 2 * (1 - A[a]) ** 2 + sum(z[j] ** 2 * A[j] ** 2 for j in areas if j != a))
    g = [z[j] * (z[j] * A[j] - (z[a] if j == a else 0.0)) for j in areas]
    G = sum(A[j] * g[j] for j in areas)
    inside = 1.0 if mask[p] else 0.0
    along_phi = [inside * z[j] * A[j] * (G - g[j]) for j in areas]
    along_upsilon = [inside * attn[q] * (G - (0.0 if mask[q] else g[area[q]])) for q in range(len(area))]
    return inside * loss, along_phi, along_upsilon, attn, A


@pytest.mark.parametrize("basis", ["random", "canonical"])
def test_gradient_of_q_is_the_closed_form_on_each_image(basis):
    world = world_of()
    model = model_at_random_q(world, basis=basis)
    phi, upsilon = model.correlations()
    images = images_of(world, 6)
    assert set(images.cluster) == {0, 1}
    for image in images.pieces(1):
        k, z, mask = image.cluster[0], image.latent[0], image.mask[0]
        total, expected = 0.0, np.zeros((world.space, world.space))
        for p in range(world.patches):
            loss, along_phi, along_upsilon, *_ = row_by_loops(AREAS[k], z, mask, p, phi[p, k], upsilon[p])
            total += loss
            for j, slope in enumerate(along_phi):
                expected -= slope * np.outer(model.positions[p], model.features[k, j])
            for q, slope in enumerate(along_upsilon):
                expected -= slope * np.outer(model.positions[p], model.positions[q])
        loss, gradient = model.loss_and_gradient(image)
        assert loss == pytest.approx(total, rel=1e-12)
        np.testing.assert_allclose(gradient.numpy(), expected, atol=1e-13)


def test_gradient_of_a_batch_is_the_mean_over_its_images():
    world = world_of()
    model = model_at_random_q(world)
    images = images_of(world, 7)
    singles = [model.loss_and_gradient(image) for image in images.pieces(1)]
    loss, gradient = model.loss_and_gradient(images)
    assert loss == pytest.approx(np.mean([single[0] for single in singles]), rel=1e-12)
    np.testing.assert_allclose(
        gradient, np.mean([single[1].numpy() for single in singles], axis=0), atol=1e-14
    )


def test_a_batch_taken_in_several_passes_gives_the_same(monkeypatch):
    world = world_of()
    model = model_at_random_q(world)
    images = images_of(world, 7)
    loss, gradient = model.loss_and_gradient(images)
    attention, losses = model.reconstruct(images)
    monkeypatch.setattr(dense, "PIECE", 3 * world.patches**2)
    assert model._images_a_pass(world.patches) == 3
    again_loss, again_gradient = model.loss_and_gradient(images)
    assert again_loss == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(again_gradient, gradient, atol=1e-14)
    for one, other in zip(model.reconstruct(images), (attention, losses), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)


def test_reconstruction_is_softmax_attention_on_the_tokens():
    """F from tokens, all of them, one at a time: nothing skipped because it is zero."""
    world = world_of()
    model = model_at_random_q(world)
    images = images_of(world, 4)
    attention, losses = model.reconstruct(images)
    E, V, Q = model.positions.numpy(), model.features.numpy(), model.Q.numpy()
    for i in range(len(images)):
        k, mask = images.cluster[i], images.mask[i]
        X = np.array([images.latent[i, j] * V[k, j] for j in AREAS[k]])
        MX = np.where(mask[:, None], 0.0, X)
        for p in range(world.patches):
            weights = np.exp([E[p] @ Q @ (MX[q] + E[q]) for q in range(world.patches)])
            F = sum(weight * MX[q] for q, weight in enumerate(weights / weights.sum()))
            np.testing.assert_allclose(attention[i, p], weights / weights.sum(), rtol=1e-10)
            assert losses[i, p] == pytest.approx(0.5 * mask[p] * np.sum((F - X[p]) ** 2), rel=1e-10)


def test_basis_is_orthonormal_and_nothing_depends_on_it():
    axes = orthonormal(14, "random", 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(14), atol=1e-14)
    assert np.abs(axes).min() > 0
    runs = [
        train_dense(world_of(), learning_rate=2.0, steps=15, batch=8, seed=4, observe=[0, 4], basis=basis)
        for basis in ("random", "canonical")
    ]
    one, other = (run.records[-1] for run in runs)
    np.testing.assert_allclose(one.phi, other.phi, atol=1e-12)
    np.testing.assert_allclose(one.upsilon, other.upsilon, atol=1e-12)
    for first, second in zip(one.measures, other.measures, strict=True):
        assert vars(first) == pytest.approx(vars(second), rel=1e-10)


def test_rows_decouple():
    options = {"learning_rate": 2.0, "steps": 15, "batch": 8, "seed": 4, "record": [7]}
    whole = train_dense(world_of(), **options, observe=[8, 3])
    for index, row in enumerate(whole.rows):
        alone = train_dense(world_of(), **options, rows=[row])
        for one, other in zip(whole.records, alone.records, strict=True):
            np.testing.assert_allclose(one.phi[index], other.phi[0], atol=1e-13)
            np.testing.assert_allclose(one.upsilon[index], other.upsilon[0], atol=1e-13)
            assert vars(one.measures[index]) == pytest.approx(vars(other.measures[0]), rel=1e-10, nan_ok=True)
    untrained = train_dense(world_of(), **options, rows=[3], observe=[2]).records[-1]
    assert max(np.nanmax(np.abs(untrained.phi)), np.abs(untrained.upsilon).max()) < 1e-14


def test_upsilon_of_a_row_sums_to_zero_at_all_times():
    run = train_dense(
        world_of(), learning_rate=3.0, steps=30, batch=8, seed=0, record=range(0, 30, 10), evaluation=2
    )
    assert [record.step for record in run.records] == [0, 10, 20, 30]
    assert np.abs(run.records[-1].upsilon).max() > 0.05
    for record in run.records:
        np.testing.assert_allclose(record.upsilon.sum(axis=1), 0, atol=1e-12)


def test_all_masks_as_batch_is_exact_gradient_descent():
    area = [0, 0, 0, 1, 1, 2]
    world = world_of(CONSTANT, 4, np.array([area]))
    images = every_mask(world)
    model = DenseAttention(world)
    rate, rows = 4.0, range(world.patches)
    phi, upsilon = np.zeros((world.patches, 3)), np.zeros((world.patches, world.patches))
    for _ in range(25):
        model.descend(images, rate)
        slopes = [
            [row_by_loops(area, [1.0] * 3, mask, p, phi[p], upsilon[p])[1:3] for mask in images.mask]
            for p in rows
        ]
        for p in rows:
            phi[p] += rate * np.mean([along_phi for along_phi, _ in slopes[p]], axis=0)
            upsilon[p] += rate * np.mean([along_upsilon for _, along_upsilon in slopes[p]], axis=0)
    found = model.correlations()
    assert phi[3, 1] > 0.5 and phi[3, 0] < -0.1
    np.testing.assert_allclose(found[0][:, 0], phi, atol=1e-12)
    np.testing.assert_allclose(found[1], upsilon, atol=1e-12)


def test_masks_given_that_the_row_is_masked_have_the_same_expectation():
    world = world_of(CONSTANT, 4, np.array([[0, 0, 0, 1, 1, 2, 2]]))
    model = model_at_random_q(world)
    plain, given = (model.loss_and_gradient(every_mask(world, hidden), [3]) for hidden in (None, 3))
    assert given[0] == pytest.approx(plain[0], rel=1e-12)
    np.testing.assert_allclose(given[1], plain[1], atol=1e-14)


@pytest.mark.parametrize("hidden", [None, 2])
def test_draws_are_uniform(hidden):
    world = world_of(masked=3)
    images = images_of(world, 20_000, hidden=hidden)
    assert (images.mask.sum(axis=1) == 3).all()
    expected = np.full(9, 3 / 9) if hidden is None else np.where(np.arange(9) == 2, 1.0, 2 / 8)
    np.testing.assert_allclose(images.mask.mean(axis=0), expected, atol=0.015)  # 4.5 standard deviations
    assert images.cluster.mean() == pytest.approx(0.5, abs=0.016)
    assert images.latent.mean(axis=0) == pytest.approx(np.ones(4), abs=0.01)
    assert images.weight == (1.0 if hidden is None else 3 / 9)


def test_conditional_masks_train_the_row_to_the_same_place():
    # Over seeds the differences have standard deviations 0.045 and 0.028; without its weight the second run
    # would be 9/5 times as far along.
    options = {"learning_rate": 1.0, "steps": 40, "batch": 256, "rows": [4]}
    plain, given = (
        train_dense(world_of(), seed=seed, conditional=conditional, **options).records[-1]
        for seed, conditional in ((1, False), (2, True))
    )
    assert plain.phi[0, 0, 1] > 0.8
    np.testing.assert_allclose(given.phi, plain.phi, atol=0.15)
    np.testing.assert_allclose(given.upsilon, plain.upsilon, atol=0.1)


def test_measure_is_what_it_says_by_loops():
    world = world_of()
    model = model_at_random_q(world, seed=5)
    phi, upsilon = model.correlations()
    for row, hidden in ((4, None), (4, 4), (8, 8)):
        images = images_of(world, 300, seed=6, hidden=hidden)
        losses, floors, own, first = [], [], [], []
        for k, z, mask in zip(images.cluster, images.latent, images.mask, strict=True):
            area = AREAS[k]
            loss, _, _, _, A = row_by_loops(area, z, mask, row, phi[row, k], upsilon[row])
            hopeless = all(mask[q] for q in range(world.patches) if area[q] == area[row])
            losses.append(loss)
            floors.append(0.5 * z[area[row]] ** 2 if hopeless else 0.0)
            if mask[row] and not hopeless:
                own.append(A[area[row]])
                first.append(A[0])
        found = measure(model, images, row)
        weight = 1.0 if hidden is None else 5 / 9
        assert 0 < len(own) < len(images) and sum(floors) > 0
        assert found.loss == pytest.approx(weight * np.mean(losses), rel=1e-10)
        assert found.floor == pytest.approx(weight * np.mean(floors), rel=1e-10)
        assert found.attention_own == pytest.approx(np.mean(own), rel=1e-10)
        assert found.attention_global == pytest.approx(np.mean(first), rel=1e-10)


def test_attention_of_a_row_that_is_always_hopeless_is_nan():
    world = world_of(areas=np.array([[0, 0, 0, 0, 1]]), masked=2)
    found = measure(DenseAttention(world), images_of(world, 50), 4)
    assert np.isnan([found.attention_own, found.attention_global]).all()
    assert found.floor > 0


def test_loss_falls_towards_its_floor_and_the_row_learns_its_area():
    run = train_dense(world_of(), learning_rate=4.0, steps=120, batch=32, seed=0, rows=[4], record=[10, 40])
    excess = [record.measures[0].loss - record.measures[0].floor for record in run.records]
    own = [record.measures[0].attention_own for record in run.records]
    assert len({record.measures[0].floor for record in run.records}) == 1  # the same images each time
    assert excess == sorted(excess, reverse=True) and excess[-1] < 0.1 * excess[0]
    assert own == sorted(own) and own[-1] > 0.8
    phi = run.records[-1].phi[0]
    assert phi[0, 1] == np.nanmax(phi[0]) and phi[1, 0] == np.nanmax(phi[1])
    np.testing.assert_array_equal(np.isnan(phi), [[False, False, False, True], [False] * 4])
    assert run.records[-1].time == 480.0


def test_the_caller_stops_a_run():
    run = train_dense(
        world_of(),
        learning_rate=4.0,
        steps=200,
        batch=16,
        seed=0,
        rows=[4],
        record=range(0, 200, 5),
        stop=lambda record: record.measures[0].attention_own >= 0.5,
    )
    own = [record.measures[0].attention_own for record in run.records]
    assert run.status == "stopped" and run.records[-1].step < 200
    assert own[-1] >= 0.5 > max(own[:-1])


class Overflowing:
    """A law that no configuration can name: Latent refuses such numbers."""

    def sample(self, generator, shape):
        return np.full(shape, 1e100)


def test_numbers_that_overflow_end_the_run_as_diverged():
    run = train_dense(world_of(Overflowing()), learning_rate=1.0, steps=9, batch=2, seed=0)
    assert run.status == "diverged" and [record.step for record in run.records] == [0]


def test_the_same_seed_gives_the_same_run_and_another_does_not():
    options = {"learning_rate": 2.0, "steps": 5, "batch": 4, "rows": [1], "evaluation": 4}
    one, same, other = (train_dense(world_of(), seed=seed, **options).records[-1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.upsilon, same.upsilon)
    assert np.abs(one.upsilon - other.upsilon).max() > 1e-3


def test_single_precision_agrees_to_single_precision():
    options = {"learning_rate": 2.0, "steps": 10, "batch": 8, "seed": 1, "rows": [4]}
    single, double = (
        train_dense(world_of(), dtype=dtype, **options).records[-1] for dtype in ("float32", "float64")
    )
    assert 0 < np.abs(single.upsilon - double.upsilon).max() < 1e-5
    assert single.upsilon.dtype == np.float64


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: world_of(masked=9), "9 of 9 patches"),
        (lambda: world_of(masked=0), "0 of 9 patches"),
        (lambda: world_of(areas=np.array([[0, 0, 2, 2, 2, 2]])), "areas of cluster 0"),
        (lambda: world_of(areas=np.array([0, 0, 1, 1, 1, 1])), "integers"),
        (lambda: world_of(areas=np.zeros((1, 20_000), dtype=int)), "at most 12000"),
        (lambda: DenseAttention(world_of(), basis="odd"), "random or canonical"),
        (lambda: DenseAttention(world_of(), dtype="float16"), "float64 or float32"),
    ],
)
def test_what_cannot_be_built_is_refused(build, words):
    with pytest.raises(InputError, match=words):
        build()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": [9]}, "rows = "),
        ({"rows": []}, "rows = "),
        ({"observe": [1, 1]}, "observe = "),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"steps": 0}, "steps = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"conditional": True}, "one position only"),
    ],
)
def test_what_cannot_be_run_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        train_dense(world_of(), **({"learning_rate": 1.0, "steps": 1, "batch": 1, "seed": 0} | change))
