"""The law of the latents: moments, quadrature, sampling, and sums over areas carried to nodes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from mimlab.dynamics.sampled import _nodes_needed
from mimlab.world.latent import Latent

CONTINUOUS = [Latent(0.5, 1.5), Latent(0.0, 1.0), Latent(0.2, 3.0), Latent(1.0, 1.001), Latent(0.0, 0.05)]
DISCRETE = [
    Latent(1.3, 1.3),
    Latent(values=(0.2, 0.2, 0.2, 1.8)),
    Latent(values=(1.5, 0.0, 0.7)),
    Latent(values=tuple(np.linspace(0.5, 1.5, 41))),
]
ALL = CONTINUOUS + DISCRETE


def expectation(latent: Latent, f: np.ufunc | type) -> float:
    """By adaptive quadrature, or over the values as they were listed."""
    if latent.values is not None:
        return float(np.mean([f(v) for v in latent.values]))
    low, high = latent.support
    if low == high:
        return float(f(low))
    return float(quad(lambda z: f(z) / (high - low), low, high, epsabs=0, epsrel=1e-12)[0])


@pytest.mark.parametrize("latent", ALL)
@pytest.mark.parametrize("order", range(6))
def test_moments(latent: Latent, order: int) -> None:
    assert latent.moment(order) == pytest.approx(expectation(latent, lambda z: z**order), rel=1e-11)


@pytest.mark.parametrize("width", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_moments_of_a_narrow_law_do_not_cancel(width: float) -> None:
    """z = 1 + a uniform part of [0, width]: E[z²] = 1 + width + width²/3."""
    assert Latent(1.0, 1.0 + width).moment(2) == pytest.approx(1 + width + width**2 / 3, rel=1e-14, abs=0)
    assert Latent(1.0, 1.0 + width).mean == pytest.approx(1 + width / 2, rel=1e-14, abs=0)


@pytest.mark.parametrize("latent", ALL)
def test_quadrature_weights_are_a_law(latent: Latent) -> None:
    nodes, weights = latent.quadrature(8)
    assert weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert np.all(weights > 0)
    assert latent.support[0] <= nodes.min() <= nodes.max() <= latent.support[1]


@pytest.mark.parametrize("latent", ALL)
@pytest.mark.parametrize("power", [0, 1, 5, 15])
def test_quadrature_is_exact_for_polynomials(latent: Latent, power: int) -> None:
    """Eight Gauss points integrate degree 15."""
    nodes, weights = latent.quadrature(8)
    assert weights @ nodes**power == pytest.approx(latent.moment(power), rel=1e-12)


def test_values_listed_twice_are_twice_as_likely() -> None:
    latent = Latent(values=(1.8, 0.2, 0.2, 0.2))
    assert latent.atoms == (0.2, 1.8)
    assert latent.probabilities().tolist() == [0.75, 0.25]
    u = np.array([0.0, 0.7499, 0.75, 0.9999])
    assert latent.quantile(u).tolist() == [0.2, 0.2, 1.8, 1.8]


def test_a_constant_is_discrete_however_it_is_written() -> None:
    for latent in (Latent(0.7, 0.7), Latent(values=(0.7,)), Latent(values=(0.7, 0.7))):
        assert latent.atoms == (0.7,)
        assert latent.probabilities().tolist() == [1.0]
        assert latent.support == (0.7, 0.7)


@pytest.mark.parametrize("latent", ALL)
def test_quantiles_follow_the_law(latent: Latent) -> None:
    """At evenly spaced u the empirical law is the law, to the spacing."""
    count = 20_000
    z = latent.quantile((np.arange(count) + 0.5) / count)
    assert np.all(np.diff(z) >= 0)
    assert latent.support[0] <= z.min() <= z.max() <= latent.support[1]
    for order in (1, 2, 4):
        assert np.mean(z**order) == pytest.approx(latent.moment(order), rel=1e-3)


@pytest.mark.parametrize("latent", ALL)
def test_samples_follow_the_law_and_the_generator(latent: Latent) -> None:
    first, second = (latent.sample(np.random.default_rng(5), (200, 100)) for _ in range(2))
    assert first.shape == (200, 100)
    assert np.array_equal(first, second)
    spread = (latent.moment(2) - latent.mean**2) ** 0.5 if latent.atoms != (1.3,) else 0.0
    assert abs(first.mean() - latent.mean) <= 4 * spread / first.size**0.5 + 1e-12


# --- sums carried to nodes --------------------------------------------------------------------------------

KERNELS = {
    "1": lambda z, Phi: np.ones_like(z),
    "e^(zΦ)": lambda z, Phi: np.exp(z * Phi),
    "z e^(zΦ)": lambda z, Phi: z * np.exp(z * Phi),
    "z² e^(2zΦ)": lambda z, Phi: z**2 * np.exp(2 * z * Phi),
}


@pytest.mark.parametrize("name", list(KERNELS))
@pytest.mark.parametrize("reach", [8.0, 20.0])
@pytest.mark.parametrize("latent", CONTINUOUS)
def test_merging_carries_what_the_kernel_sums(latent: Latent, reach: float, name: str) -> None:
    """Every f that the kernel needs, to 1e-11 of the largest it could be, for every |Φ| up to the reach."""
    generator, count = np.random.default_rng(3), _nodes_needed(latent, reach)
    z, u = latent.sample(generator, (3, 50)), generator.integers(0, 9, (3, 50)).astype(float)
    nodes = latent.nodes(count)
    assert nodes.shape == (count,)
    assert np.all(np.diff(nodes) > 0)
    once, squared = latent.merge(z, (u, u * u), count)
    for Phi in (-reach, -reach / 3, -0.1, 0.0, 0.4, reach):
        f = KERNELS[name]
        largest = f(np.linspace(*latent.support, 999), Phi).max()
        for carried, weights in ((once, u), (squared, u * u)):
            expected = (weights * f(z, Phi)).sum(axis=1)
            error = np.abs(carried @ f(nodes, Phi) - expected) / (weights.sum(axis=1) * largest)
            assert error.max() < 1e-11


@pytest.mark.parametrize("latent", DISCRETE)
def test_merging_is_exact_for_discrete_latents(latent: Latent) -> None:
    """Any function at all: the weights are collected value by value."""
    generator = np.random.default_rng(4)
    z, u = latent.sample(generator, (5, 60)), generator.integers(0, 9, (5, 60)).astype(float)
    count = _nodes_needed(latent, 8.0)
    nodes = latent.nodes(count)
    assert tuple(nodes) == latent.atoms
    (carried,) = latent.merge(z, (u,), count)
    table = dict(zip(nodes.tolist(), generator.normal(size=count), strict=True))
    f = np.vectorize(table.__getitem__)
    assert carried.sum(axis=1).tolist() == u.sum(axis=1).tolist()
    np.testing.assert_allclose(carried @ f(nodes), (u * f(z)).sum(axis=1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("reach", [1e2, 1e4, 1e8, 1e300, float("inf")])
def test_no_number_of_nodes_is_asked_for_without_end(reach: float) -> None:
    """A run that flies apart has |Φ| beyond any interpolation: areas are then kept one by one."""
    assert _nodes_needed(Latent(0.5, 1.5), reach) > 30


@settings(max_examples=60)
@given(st.floats(0.0, 2.0), st.floats(0.01, 2.0), st.floats(0.5, 30.0))
def test_nodes_suffice_for_any_law(low: float, width: float, reach: float) -> None:
    latent = Latent(low, low + width)
    count = _nodes_needed(latent, reach)
    z = latent.quantile(np.linspace(0.0, 1.0, 37))[None, :]
    (carried,) = latent.merge(z, (np.ones_like(z),), count)
    for Phi in (-reach, reach):
        largest = np.exp(2 * Phi * np.array(latent.support)).max()
        expected = np.exp(2 * Phi * z).sum()
        assert abs(carried @ np.exp(2 * Phi * latent.nodes(count)) - expected) < 37e-11 * largest
