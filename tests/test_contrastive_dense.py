"""The contrastive objective on explicit images, by autograd: against the lumped gradient, and against plain loops."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimlab.dynamics.dense import DenseAttention, DenseWorld  # noqa: E402
from mimlab.dynamics.dense_contrastive import ContrastiveAttention, Views  # noqa: E402
from mimlab.dynamics.relax import Relaxation  # noqa: E402
from mimlab.dynamics.relaxed import RelaxedWorld  # noqa: E402
from mimlab.objectives.contrastive import ContrastiveLearning  # noqa: E402
from mimlab.objectives.pairs import Cells, Pairs, PairsObjective  # noqa: E402
from mimlab.world.latent import Latent  # noqa: E402

from .relaxed_oracle import TINY, TWO, oracle_of, plain, told_apart, told_apart_slope, world_of  # noqa: E402

PARTITIONS = np.array([[0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 3], [1, 1, 0, 0, 0, 0, 0, 0]])
LATENT = Latent(low=0.5, high=1.5)
IMAGES, NEGATIVES = 12, 3


def started(world, objective, seed=0, scale=0.7) -> ContrastiveAttention:
    """A layer with Q drawn at random; V too, where it is trained."""
    model = ContrastiveAttention(world, objective, seed=seed, start=scale)
    if world.relax.value_matrix:
        with torch.no_grad():
            model.V.add_(0.3 * torch.tensor(np.random.default_rng(seed).normal(size=tuple(model.V.shape))))
    return model


@pytest.mark.parametrize("objective", [ContrastiveLearning(), ContrastiveLearning(0.5, 3, 0.1, 1e-3)])
def test_one_step_moves_every_entry_by_the_gradient_in_closed_form(objective):
    """Of every row, over given views: what `objectives.pairs` derives against what autograd finds."""
    world = RelaxedWorld(PARTITIONS, LATENT, 4, Relaxation())
    model = ContrastiveAttention(world, objective, seed=3)
    generator = np.random.default_rng(5)
    views = model.draw(generator, IMAGES)
    P, n_phi = world.patches, int(world.areas.sum())
    missing = np.arange(world.areas.max()) >= world.areas[:, None]
    phi = np.where(missing, -1, np.cumsum(~missing).reshape(missing.shape) - 1)
    axes = torch.cat([model.features[torch.as_tensor(~missing)], model.positions])  # unknowns in their order
    start = generator.normal(0.0, 1.0, (P, n_phi + P))
    with torch.no_grad():
        model.Q.copy_(model.positions.T @ torch.tensor(start) @ axes)
    loss = model.descend(views, learning_rate=0.5)

    cells = Cells(np.ones(P, dtype=int), np.arange(P), PARTITIONS, phi)
    visible = np.stack([~views.mask, ~views.second.mask]).astype(int)
    pairs = Pairs(views.cluster, views.latent, visible, views.negatives)
    found = PairsObjective(cells, pairs, objective, np.full(P, 1 / P)).evaluate(start)
    moved = plain(model.positions @ model.Q[0] @ axes.T) - start
    np.testing.assert_allclose(found.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(0.5 * found.velocity, moved, rtol=1e-9, atol=1e-13)
    assert np.abs(moved).max() > 1e-4


def test_every_row_reads_the_attention_of_the_closed_form():
    world = RelaxedWorld(PARTITIONS, LATENT, 4, Relaxation())
    model = started(world, ContrastiveLearning(negatives=2))
    looked_at = model.evaluated(range(world.patches), np.random.SeedSequence(0).spawn(8), 240)
    (views,) = looked_at
    measures = model.measured(looked_at, range(world.patches))
    P, rows = world.patches, np.arange(world.patches)
    phi, upsilon = model.correlations()
    there = ~np.isnan(phi[0])
    numbers = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
    state = np.concatenate([phi[:, there], upsilon], axis=1)
    visible = np.stack([~views.mask, ~views.second.mask]).astype(int)
    pairs = Pairs(views.cluster, views.latent, visible, views.negatives)
    cells = Cells(np.ones(P, dtype=int), np.arange(P), PARTITIONS, numbers)
    found = PairsObjective(cells, pairs, model.objective, np.full(P, 1 / P)).evaluate(state)
    share = np.bincount(views.cluster) / len(views)
    on_global = found.attention[:, :, 0] @ share
    on_own = np.stack([found.attention[rows, k, PARTITIONS[k]] for k in range(3)], axis=1) @ share
    np.testing.assert_allclose([m.attention_global for m in measures], on_global, rtol=1e-12)
    np.testing.assert_allclose([m.attention_own for m in measures], on_own, rtol=1e-12)
    np.testing.assert_allclose([m.loss for m in measures], found.loss, rtol=1e-12)
    assert np.isnan([m.floor for m in measures]).all()


def test_the_layer_without_a_relaxation_is_the_plain_one():
    """Attention of both views, through the code of either."""
    world = RelaxedWorld(PARTITIONS, LATENT, 4, Relaxation())
    model = started(world, ContrastiveLearning(negatives=2))
    dense = DenseAttention(DenseWorld(PARTITIONS, LATENT, 4), seed=0)
    dense.features, dense.positions, dense.Q = model.features, model.positions.detach(), model.Q[0].detach()
    views = model.draw(np.random.default_rng(1), 6)
    for view in (views, views.second):
        np.testing.assert_allclose(model.reconstruct(view)[0], dense.reconstruct(view)[0], atol=1e-13)


RELAXED = [
    {},
    {"content_in_query": 0.5},
    {"content_in_query": 1.0, "heads": 2, "noise": 0.5},
    {"coherence": 0.4, "shared_features": 1.0, "signed_latents": 0.3, "value_matrix": 1.0},
    {"positions": "learned", "jitter": 0.4, "content_in_query": 0.7, "mask_shape": "block"},
    {"positions": "random", "latent_correlation": 0.5, "heads": 2, "value_matrix": 0.5, "noise": 1.0},
]


@pytest.mark.parametrize("relax", RELAXED, ids=str)
def test_loss_and_attention_are_those_of_plain_loops(relax):
    """Every vector by itself: the mean output of masked and visible rows, whose queries differ by their content."""
    world, objective = world_of(TWO, **relax), ContrastiveLearning(0.5, 2, 0.3, 0.01)
    model = started(world, objective)
    views = model.draw(np.random.default_rng(7), 5)
    first, second = (oracle_of(world, model, view) for view in (views, views.second))
    expected = told_apart(first, second.outputs(), views.negatives, 0.3, 0.01)
    assert model.loss(views).item() == pytest.approx(expected, rel=1e-10)
    for view, oracle in ((views, first), (views.second, second)):
        np.testing.assert_allclose(
            model.reconstruct(view)[0], oracle.attention().mean(axis=1), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("relax", RELAXED, ids=str)
def test_gradients_are_finite_differences_of_the_first_view_alone(relax):
    world, objective = world_of(TINY, 3, **relax), ContrastiveLearning(0.5, 2, 0.3, 0.01)
    model = started(world, objective)
    views = model.draw(np.random.default_rng(2), 3)
    first, second = (oracle_of(world, model, view) for view in (views, views.second))
    trained = {"Q": "Q"} | ({"V": "V"} if world.relax.value_matrix else {})
    if world.relax.positions == "learned":
        trained["positions"] = "e"
    slopes = torch.autograd.grad(model.loss(views), [getattr(model, name) for name in trained])
    for name, slope in zip(trained.values(), slopes, strict=True):
        expected = told_apart_slope(first, name, second.outputs(), views.negatives, 0.3, 0.01)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(plain(slope), expected, atol=1e-7, err_msg=name)


def test_content_in_the_query_changes_visible_rows_alone():
    found = []
    for c in (0.0, 0.5):
        world = world_of(TWO, 3, content_in_query=c)
        model = started(world, ContrastiveLearning(negatives=2))
        views = model.draw(np.random.default_rng(3), 8)
        found.append((model.reconstruct(views)[0], model.loss(views).item(), views.mask))
    (without, loss, mask), (with_content, other_loss, _) = found
    change = np.abs(without - with_content).max(axis=2)
    assert change[mask].max() < 1e-14 and change[~mask].max() > 0.01
    assert abs(loss - other_loss) > 1e-6  # beyond rounding; how much is a run's affair


# What is drawn.


def test_the_image_is_one_and_its_masks_are_two():
    world = world_of(TWO, 3, noise=0.5, jitter=0.5, signed_latents=0.5)
    views = ContrastiveAttention(world, ContrastiveLearning(negatives=3)).draw(np.random.default_rng(0), 400)
    assert isinstance(views, Views)
    for name in ("cluster", "latent", "roll", "noise"):
        assert getattr(views.second, name) is getattr(views, name)
    first, second = views.mask, views.second.mask
    assert (first.sum(axis=1) == 3).all() and (second.sum(axis=1) == 3).all()
    # Drawn apart: both are masked in γ² of the places.
    assert (first & second).mean() == pytest.approx(0.25, abs=0.03)
    assert first.mean(axis=0) == pytest.approx(0.5, abs=0.1) and second.mean(axis=0) == pytest.approx(
        0.5, abs=0.1
    )


def test_blocks_of_both_views_are_drawn_apart():
    world = world_of(TWO, 2, mask_shape="block")
    views = ContrastiveAttention(world, ContrastiveLearning(negatives=1)).draw(np.random.default_rng(0), 300)
    for mask in (views.mask, views.second.mask):
        assert (mask & np.roll(mask, 1, axis=1)).sum(axis=1).tolist() == [1] * 300
    assert (views.mask == views.second.mask).all(axis=1).mean() == pytest.approx(1 / 6, abs=0.07)


@pytest.mark.parametrize("negatives", [1, 3, 11])
def test_negatives_are_other_images_each_once(negatives):
    model = ContrastiveAttention(world_of(TWO), ContrastiveLearning(negatives=negatives))
    seen = np.zeros((IMAGES, IMAGES))
    for seed in range(60):
        found = model.draw(np.random.default_rng(seed), IMAGES).negatives
        assert found.shape == (IMAGES, negatives)
        np.add.at(seen, (np.arange(IMAGES)[:, None], found), 1)
    assert (np.diag(seen) == 0).all() and seen.max() <= 60
    others = seen[~np.eye(IMAGES, dtype=bool)] / 60
    assert others == pytest.approx(negatives / 11, abs=0.25)


def test_evaluation_has_eight_sets_that_share_no_image():
    model = started(world_of(TWO), ContrastiveLearning(negatives=3))
    (views,) = model.evaluated([0], np.random.SeedSequence(1).spawn(6), 64)
    assert (views.negatives // 8 == np.arange(64)[:, None] // 8).all()
    assert (views.negatives != np.arange(64)[:, None]).all()
    # The error of the loss is that of eight losses, each of a set by itself.
    sets = [replace(one, negatives=one.negatives - 8 * place) for place, one in enumerate(views.pieces(8))]
    alone = [model.loss(one).item() for one in sets]
    (found,) = model.measured([views], [0])
    assert found.loss == pytest.approx(np.mean(alone), rel=1e-12)
    assert found.loss_se == pytest.approx(np.std(alone, ddof=1) / 8**0.5, rel=1e-9)


def test_the_standard_error_of_the_loss_is_that_of_other_images():
    """Over 60 sets of evaluation images the loss scatters as it says, though images share their negatives."""
    world = world_of(TWO, 3)
    model = started(world, ContrastiveLearning(negatives=4), scale=1.0)
    looks = [
        model.measured(model.evaluated([0], np.random.SeedSequence(seed).spawn(6), 128), [0])[0]
        for seed in range(60)
    ]
    for name in ("loss", "attention_own", "attention_global"):
        scatter = np.std([getattr(look, name) for look in looks], ddof=1)
        said = np.mean([getattr(look, f"{name}_se") ** 2 for look in looks]) ** 0.5
        assert 0.7 < scatter / said < 1.4, name


def test_pieces_change_nothing(monkeypatch):
    """Many images at a time, or a few, whose attention is computed again for the gradient."""
    world = world_of(TWO, 3, content_in_query=0.5, heads=2, value_matrix=0.5)
    model = started(world, ContrastiveLearning(negatives=2))
    views = model.draw(np.random.default_rng(0), 7)
    found = []
    for piece in (2**21, 200):
        monkeypatch.setattr("mimlab.dynamics.dense.PIECE", piece)
        loss = model.loss(views)
        found.append((loss.item(), *map(plain, torch.autograd.grad(loss, [model.Q, model.V]))))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
