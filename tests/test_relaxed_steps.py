"""The relaxed model's optimisers against steps written out by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mimlab.dynamics.relaxed import RelaxedAttention  # noqa: E402

from .relaxed_oracle import TINY, TWO, images_of, model_of, plain, world_of  # noqa: E402

RATE = 0.01
FULL = {"value_matrix": 0.5, "positions": "learned"}
CASES = [
    {},
    {"momentum": 0.9},
    {"weight_decay": 0.3},
    {"momentum": 0.5, "weight_decay": 0.3},
    {"optimizer": "adam"},
    {"optimizer": "adam", "weight_decay": 0.3},
]


class ByHand:
    """Q, V and e, and a twin of the model that is asked for slopes there and nothing else."""

    def __init__(self, world, model):
        self.relax = relax = world.relax
        self.twin = RelaxedAttention(world)
        np.testing.assert_array_equal(plain(self.twin.features), plain(model.features))
        self.at = {name: plain(getattr(model, name)) for name in ("Q", "V", "positions")}
        self.rates = {"Q": 1.0}
        if relax.value_matrix:
            self.rates["V"] = relax.value_matrix
        if relax.positions == "learned":
            self.rates["positions"] = 1.0
        self.first = {name: np.zeros_like(self.at[name]) for name in self.rates}
        self.second = {name: np.zeros_like(self.at[name]) for name in self.rates}
        self.steps = 0

    def slopes(self, images):
        with torch.no_grad():
            for name, value in self.at.items():
                getattr(self.twin, name).copy_(torch.tensor(value))
        tensors = [getattr(self.twin, name) for name in self.rates]
        return dict(zip(self.rates, torch.autograd.grad(self.twin.loss(images), tensors), strict=True))

    def step(self, images, rate):
        """All slopes at the old values, then every value at once."""
        self.steps += 1
        for name, slope in self.slopes(images).items():
            g, old, eta = plain(slope), self.at[name], rate * self.rates[name]
            if self.relax.optimizer == "adam":
                self.first[name] = 0.9 * self.first[name] + 0.1 * g
                self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
                m = self.first[name] / (1 - 0.9**self.steps)
                v = self.second[name] / (1 - 0.999**self.steps)
                new = old - eta * m / (np.sqrt(v) + 1e-8)
            else:
                self.first[name] = self.relax.momentum * self.first[name] + g
                new = old - eta * self.first[name]
            centre = np.eye(old.shape[-1]) if name == "V" else 0.0
            if name != "positions":
                new = new - eta * self.relax.weight_decay * (old - centre)
            self.at[name] = new


@pytest.mark.parametrize("trained", [{}, {"value_matrix": 0.5}, {"positions": "learned"}, FULL], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_three_steps_are_those_by_hand(case, trained):
    world = world_of(TINY, 3, noise=0.3, heads=2, **case, **trained)
    model = model_of(world)
    hand = ByHand(world, model)
    start = dict(hand.at)
    for step in range(3):
        images = images_of(world, 4, seed=step)
        model.descend(images, RATE)
        hand.step(images, RATE)
        for name, expected in hand.at.items():
            np.testing.assert_allclose(
                plain(getattr(model, name)), expected, atol=1e-10, rtol=0, err_msg=name
            )
    moved = {name: not np.array_equal(hand.at[name], start[name]) for name in hand.at}
    assert moved == {
        "Q": True,
        "V": "value_matrix" in trained,
        "positions": trained.get("positions") == "learned",
    }


def test_the_rate_may_change_between_steps():
    world = world_of(TWO, 3, momentum=0.9)
    model = model_of(world)
    hand = ByHand(world, model)
    for rate in (0.5, 0.0, 2.0):
        images = images_of(world, 4, seed=int(10 * rate))
        model.descend(images, rate)
        hand.step(images, rate)
        np.testing.assert_allclose(plain(model.Q), hand.at["Q"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("case", [{"momentum": 0.9}, {"optimizer": "adam"}], ids=str)
def test_two_models_share_no_state(case):
    world = world_of(TWO, 3, **case)
    images = images_of(world, 4)
    alone, one, other = (model_of(world, seed=seed) for seed in (0, 0, 4))
    for _ in range(3):
        alone.descend(images, RATE)
    for _ in range(3):
        one.descend(images, RATE)
        other.descend(images, RATE)
    np.testing.assert_array_equal(plain(one.Q), plain(alone.Q))


def test_the_values_rate_is_relative():
    """After one plain step V has moved by value_matrix times its slope, whatever Q did."""
    moves = []
    for rate in (0.5, 2.0):
        world = world_of(TWO, 3, value_matrix=rate)
        model, images = RelaxedAttention(world), images_of(world, 4)
        model.descend(images, RATE)
        moves.append((plain(model.Q), plain(model.V) - np.eye(model.V.shape[-1])))
    np.testing.assert_allclose(moves[1][0], moves[0][0], atol=1e-15)
    np.testing.assert_allclose(moves[1][1], 4 * moves[0][1], atol=1e-15)
    assert np.abs(moves[0][1]).max() > 1e-5


def test_decay_pulls_values_to_the_identity_and_not_to_zero():
    world = world_of(TWO, 3, value_matrix=1.0, weight_decay=1.0)
    model, images = RelaxedAttention(world), images_of(world, 4)
    (slope,) = torch.autograd.grad(model.loss(images), [model.V])
    model.descend(images, RATE)
    expected = np.eye(model.V.shape[-1]) - RATE * plain(slope[0])
    np.testing.assert_allclose(plain(model.V[0]), expected, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_heads_that_start_equal_stay_equal(case):
    world = world_of(TWO, 3, heads=3, value_matrix=1.0, **case)
    model = RelaxedAttention(world)
    for step in range(4):
        model.descend(images_of(world, 4, seed=step), RATE)
    for tensor in (plain(model.Q), plain(model.V)):
        np.testing.assert_allclose(tensor[1:], tensor[:1].repeat(2, axis=0), atol=1e-10)
    assert np.abs(plain(model.Q)).max() > 1e-5


@pytest.mark.parametrize("case", CASES[:1], ids=str)
def test_heads_that_start_apart_stay_apart(case):
    world = world_of(TWO, 3, heads=2, **case)
    model = RelaxedAttention(world, seed=1, start=0.5)
    for step in range(4):
        model.descend(images_of(world, 4, seed=step), RATE)
    assert np.abs(plain(model.Q[0]) - plain(model.Q[1])).max() > 0.1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_loss_falls_on_the_same_images(case):
    world = world_of(TWO, 3, **case)
    model, images = RelaxedAttention(world), images_of(world, 64)
    before = model.loss(images).item()
    for _ in range(20):
        model.descend(images, 0.05)
    assert model.loss(images).item() < before - 1e-4
