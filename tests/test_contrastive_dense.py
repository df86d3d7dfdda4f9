"""The lumped contrastive gradient against autograd on explicit images."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimlab.dynamics.dense import DenseAttention, DenseWorld, MiniBatch, draw  # noqa: E402
from mimlab.dynamics.dense_contrastive import Views, contrastive_loss_and_gradient  # noqa: E402
from mimlab.objectives.contrastive import ContrastiveLearning  # noqa: E402
from mimlab.objectives.pairs import Cells, Pairs, PairsObjective  # noqa: E402
from mimlab.world.latent import Latent  # noqa: E402

PARTITIONS = np.array([[0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 3], [1, 1, 0, 0, 0, 0, 0, 0]])
IMAGES, NEGATIVES = 12, 3


@pytest.fixture(scope="module")
def drawn():
    world = DenseWorld(PARTITIONS, Latent(low=0.5, high=1.5), masked=4)
    generator = np.random.default_rng(5)
    first = draw(world, generator, IMAGES)
    again = draw(world, generator, IMAGES)
    second = MiniBatch(first.cluster, first.latent, again.mask)
    away = np.array([generator.permutation(IMAGES - 1)[:NEGATIVES] for _ in range(IMAGES)])
    negatives = (np.arange(IMAGES)[:, None] + 1 + away) % IMAGES
    return world, Views(first, second, negatives), generator


@pytest.mark.parametrize("objective", [ContrastiveLearning(), ContrastiveLearning(0.5, 3, 0.1, 1e-3)])
def test_every_entry_of_every_row_has_the_gradient_of_autograd(drawn, objective):
    world, views, generator = drawn
    P = world.patches
    model = DenseAttention(world, seed=3)
    missing = np.arange(world.areas.max()) >= world.areas[:, None]
    phi = np.where(missing, -1, np.cumsum(~missing).reshape(missing.shape) - 1)
    n_phi = int(world.areas.sum())
    start = generator.normal(0.0, 1.0, (P, n_phi + P))
    axes = torch.cat([model.features[torch.as_tensor(~missing)], model.positions])  # unknowns in their order
    model.Q = model.positions.T @ torch.tensor(start) @ axes
    loss, gradient = contrastive_loss_and_gradient(model, views, objective)

    cells = Cells(np.ones(P, dtype=int), np.arange(P), PARTITIONS, phi)
    visible = np.stack([~views.first.mask, ~views.second.mask]).astype(int)
    pairs = Pairs(views.first.cluster, views.first.latent, visible, views.negatives)
    found = PairsObjective(cells, pairs, objective, np.full(P, 1 / P)).evaluate(start)
    by_autograd = -(model.positions @ gradient @ axes.T).numpy()
    np.testing.assert_allclose(found.loss, loss, rtol=1e-12)
    np.testing.assert_allclose(found.velocity, by_autograd, rtol=1e-9, atol=1e-14)
    assert np.abs(by_autograd).max() > 1e-4
