"""The contrastive objective over explicit pairs against an oracle: loss, attention, gradient, properties."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimlab.objectives.contrastive import ContrastiveLearning

from .contrastive_cases import build, cases, close, close_slopes, large, numbered, setups
from .contrastive_oracle import Oracle, found_for

few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
fewer = settings(max_examples=8, deadline=None, derandomize=True, database=None)


# (0) The settings, and what comes back.


def test_settings_have_defaults_and_are_frozen():
    """The four settings and their defaults."""
    learning = ContrastiveLearning()
    assert learning.mask_ratio == 0.5
    assert learning.negatives == 4
    assert learning.temperature == 1.0
    assert learning.regulariser == 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        learning.temperature = 2.0


@cases
def test_shapes_and_no_side_effects(setup):
    """Shapes are as stated, the state is left alone, a second call says the same."""
    state = setup.state.copy()
    first, second = found_for(setup), found_for(setup)
    np.testing.assert_array_equal(setup.state, state)
    assert isinstance(first.loss, float)
    assert first.velocity.shape == state.shape
    assert first.attention.shape == (len(setup.share), *setup.phi.shape)
    close(second.loss, first.loss)
    close(second.velocity, first.velocity)


# ---------------------------------------------------------------------------------------------------------
# (1) Loss and attention by definition.


@cases
def test_loss_is_the_definition(setup):
    """Whole rows, every patch a vector."""
    close(found_for(setup).loss, Oracle(setup, whole=True).loss())


@cases
def test_attention_is_the_mean_over_images_and_views(setup):
    """Attention on visible patches by area, nan where there is none to speak of."""
    close(found_for(setup).attention, Oracle(setup, whole=True).mean_attention())


@few
@given(setups())
def test_loss_and_attention_with_any_shares(setup):
    """The same with random layouts and with shares that make no whole rows."""
    found, oracle = found_for(setup), Oracle(setup)
    close(found.loss, oracle.loss())
    close(found.attention, oracle.mean_attention())


@pytest.mark.parametrize("sign", ["plus", "minus", "mixed"])
@pytest.mark.parametrize("temperature", [1.0, 1e-3])
def test_nothing_overflows(sign, temperature):
    """Logits near 900, and similarities of many temperatures, still give finite numbers.

    Rounding of such a logit alone is 1e-13, of such a similarity 1e-10: hence the wider tolerances.
    """
    setup = large(sign, 30.0).change(temperature=temperature, regulariser=0.01)
    found, oracle = found_for(setup), Oracle(setup, whole=True)
    assert np.isfinite(found.velocity).all()
    np.testing.assert_allclose(found.loss, oracle.loss(), rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(found.attention, oracle.mean_attention(), rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------
# (2) The velocity by central differences, with F of X++ and X_s held.


@cases
def test_velocity_is_minus_the_slope_by_one_entry_of_one_row(setup):
    """Each entry of one row of each class moved alone, then averaged over ties."""
    expected = Oracle(setup, whole=True).velocity_by_entry()
    assert np.abs(expected).max() > 1e-5, "the case should have something to see"
    close_slopes(found_for(setup).velocity, expected)


@cases
def test_velocity_is_the_total_slope_shared_out(setup):
    """Each unknown moved, over the number of rows and of ties."""
    close_slopes(found_for(setup).velocity, Oracle(setup, whole=True).velocity_by_unknown())


@fewer
@given(setups())
def test_velocity_of_random_problems(setup):
    """The same with random layouts and with shares that make no whole rows."""
    close_slopes(found_for(setup).velocity, Oracle(setup).velocity_by_unknown())


@cases
def test_regulariser_pulls_every_unknown_to_zero(setup):
    """The regulariser adds -lambda * state to the velocity, and its term to the loss."""
    free, pulled = setup.change(regulariser=0.0), setup.change(regulariser=0.25)
    before, after = found_for(free), found_for(pulled)
    oracle = Oracle(pulled, whole=True)
    close(after.velocity, before.velocity - 0.25 * setup.state)
    close(after.loss, before.loss + oracle.penalty(oracle.phi, oracle.upsilon))
    close(after.attention, before.attention)


# ---------------------------------------------------------------------------------------------------------
# (3) Properties.


@few
@given(setups(regulariser=(0.0,)), st.integers(0, 2**32 - 1))
def test_a_constant_on_all_of_y_changes_nothing(setup, seed):
    """Softmax does not see a constant; each class gets its own."""
    n_phi, _ = setup.unknowns
    state = setup.state.copy()
    state[:, n_phi:] += np.random.default_rng(seed).uniform(-5, 5, (len(state), 1))
    before, after = found_for(setup), found_for(setup.change(state=state))
    close(after.velocity, before.velocity)
    close(after.loss, before.loss)
    close(after.attention, before.attention)


@few
@given(setups(regulariser=(0.0,)))
def test_the_data_do_not_push_all_of_y_together(setup):
    """For the same reason a row's velocities of Y, counted by position, sum to 0."""
    n_phi, n_upsilon = setup.unknowns
    ties = [setup.size[setup.upsilon == u].sum() for u in range(n_upsilon)]
    np.testing.assert_allclose(found_for(setup).velocity[:, n_phi:] @ np.array(ties), 0.0, atol=1e-13)


@few
@given(setups())
def test_equal_rows_have_equal_velocity_whatever_their_share(setup):
    """Velocity is by one row: the share of its class does not enter once the states agree."""
    state = np.repeat(setup.state[:1], len(setup.share), axis=0)
    found = found_for(setup.change(state=state))
    alone = found_for(setup.change(state=state[:1], share=np.ones(1)))
    for r in range(len(state)):
        close(found.velocity[r], alone.velocity[0])
        close(found.attention[r], alone.attention[0])
    close(found.loss, alone.loss)


@few
@given(setups(), st.integers(0, 2), st.sampled_from([0.5, 0.2]))
def test_splitting_a_class_changes_nothing(setup, r, part):
    """A class is its rows: two halves (or unequal parts) with its state are the same problem."""
    r %= len(setup.share)
    share = np.append(setup.share, setup.share[r] * (1 - part))
    share[r] *= part
    state = np.concatenate([setup.state, setup.state[r : r + 1]])
    whole, split = found_for(setup), found_for(setup.change(share=share, state=state))
    close(split.loss, whole.loss)
    close(split.velocity, np.concatenate([whole.velocity, whole.velocity[r : r + 1]]))
    close(split.attention, np.concatenate([whole.attention, whole.attention[r : r + 1]]))


@few
@given(setups(), st.integers(0, 2**32 - 1))
def test_the_order_of_negatives_does_not_matter(setup, seed):
    """Each pair's negatives get their own order."""
    negatives = np.random.default_rng(seed).permuted(setup.negatives, axis=1)
    before, after = found_for(setup), found_for(setup.change(negatives=negatives))
    close(after.loss, before.loss)
    close(after.velocity, before.velocity)
    close(after.attention, before.attention)


@few
@given(setups(), st.integers(0, 2**32 - 1))
def test_the_order_of_pairs_does_not_matter(setup, seed):
    """E is a plain mean over pairs."""
    order = np.random.default_rng(seed).permutation(len(setup.cluster))
    moved = setup.change(
        cluster=setup.cluster[order],
        latent=setup.latent[order],
        visible=setup.visible[:, order],
        negatives=np.argsort(order)[setup.negatives[order]],
    )
    before, after = found_for(setup), found_for(moved)
    close(after.loss, before.loss)
    close(after.velocity, before.velocity)
    close(after.attention, before.attention)


@few
@given(setups())
def test_untied_velocities_average_to_the_tied_ones(setup):
    """With a number for every area and cell, velocities average over entries to those of the tied state."""
    n_phi, n_upsilon = setup.unknowns
    phi = numbered(setup.area, setup.phi.shape[1])
    tied = np.concatenate([setup.phi[phi >= 0], n_phi + setup.upsilon])
    entries = np.concatenate([np.ones(int((phi >= 0).sum())), setup.size])
    untied = setup.change(phi=phi, upsilon=np.arange(len(setup.size)), state=setup.state[:, tied])
    loose, found = found_for(untied), found_for(setup)
    close(found.loss, loose.loss)
    for u in range(n_phi + n_upsilon):
        mean = loose.velocity[:, tied == u] @ entries[tied == u] / entries[tied == u].sum()
        close(found.velocity[:, u], mean)


@few
@given(setups(regulariser=(0.0,)))
def test_images_all_alike_cannot_be_told_apart(setup):
    """One cluster, latents 1, everything visible: the loss is that of a blind guess, and nothing moves."""
    alike = setup.change(
        cluster=np.zeros_like(setup.cluster),
        latent=np.ones_like(setup.latent),
        visible=np.broadcast_to(setup.size, setup.visible.shape).copy(),
    )
    found = found_for(alike)
    close(found.loss, setup.temperature * math.log(1 + setup.negatives.shape[1]))
    np.testing.assert_allclose(found.velocity, 0.0, atol=1e-14)


# ---------------------------------------------------------------------------------------------------------
# (4) The closed form with everything visible and latents 1.

CLOSED_FORM_LAYOUTS = {
    "the same partition": ([2, 1, 1, 2], [[0, 0, 1, 1]] * 3),
    "equal areas": ([2, 2, 2, 2], [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]),
    "three areas": ([1, 2, 1, 2, 3], [[0, 1, 0, 1, 2], [1, 2, 1, 0, 0], [2, 0, 2, 1, 1]]),
}


@pytest.mark.parametrize("layout", list(CLOSED_FORM_LAYOUTS))
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("regulariser", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_velocity_has_its_closed_form(layout, temperature, regulariser, seed):
    """All images of a cluster have one F, so the pull on it counts only the negatives of the same cluster."""
    size, area = CLOSED_FORM_LAYOUTS[layout]
    cluster = [0, 0, 1, 2, 0, 1]
    setup = build(seed, size, area, [1], 3, cluster, temperature=temperature, regulariser=regulariser)
    n = setup.negatives.shape[1]
    setup = setup.change(
        latent=np.ones_like(setup.latent),
        visible=np.broadcast_to(setup.size, setup.visible.shape).copy(),
    )
    clusters, areas = setup.phi.shape
    n_phi, _ = setup.unknowns
    expected_loss = 0.0
    expected = np.zeros(setup.state.shape[1])
    expected_attention = np.zeros((1, clusters, areas))
    for d, k in enumerate(cluster):
        logits = setup.state[0, setup.phi[k][setup.area[k]]] + setup.state[0, n_phi:]
        by_position = np.exp(logits) / (setup.size @ np.exp(logits))
        total = np.array([(setup.size * by_position)[setup.area[k] == j].sum() for j in range(areas)])
        f, square = total, total @ total
        m = sum(cluster[s] == k for s in setup.negatives[d])
        z = (1 + m) * math.exp(square / temperature) + n - m
        pull = (n - m) / z * f
        excess = pull - pull @ total
        expected[setup.phi[k]] += total * excess / setup.positions / len(cluster)
        expected[n_phi:] += by_position * excess[setup.area[k]] / setup.positions / len(cluster)
        expected_loss += temperature * (math.log(z) - square / temperature) / len(cluster)
        expected_attention[0, k] = total
    found = found_for(setup)
    close(found.velocity[0], expected - regulariser * setup.state[0])
    close(found.attention, expected_attention)
    ties = np.concatenate([np.ones(n_phi), setup.size])
    penalty = regulariser / 2 * setup.positions * (ties @ setup.state[0] ** 2)
    close(found.loss, expected_loss + penalty)
