"""Half attention for any law of latents: the reduced equation against closed forms, limits and the engines."""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimlab import InputError, Latent, World, simulate
from mimlab.world.rates import growth_constant, reduced_half_time


def by_partial_fractions(many: float, mask_ratio: float, z: float) -> float:
    """∫ dA / (γ z⁴ A² (1-A)³) from 1/N to 1/2: the equation for a constant latent, in A."""

    def primitive(a: float) -> float:  # of 1/(a²(1-a)³)
        return 3 * log(a / (1 - a)) - 1 / a + 2 / (1 - a) + 0.5 / (1 - a) ** 2

    return (primitive(0.5) - primitive(1 / many)) / (mask_ratio * z**4)


@settings(max_examples=25, deadline=None)
@given(many=st.floats(3, 1e12), ratio=st.floats(0.05, 0.95), z=st.floats(0.1, 5))
def test_a_constant_latent_has_a_closed_form(many, ratio, z):
    size = 4.0
    patches = many * (1 - ratio) * size
    if patches < size:
        return
    found = reduced_half_time(patches, size, ratio, Latent(low=z, high=z))
    assert found == pytest.approx(by_partial_fractions(many, ratio, z), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 5), values=st.lists(st.floats(0.2, 1.8), min_size=1, max_size=4))
def test_times_scale_with_the_inverse_fourth_power_of_latents(scale, values):
    law, scaled = Latent(values=tuple(values)), Latent(values=tuple(scale * v for v in values))
    assert growth_constant(scaled) == pytest.approx(growth_constant(law) / scale**4, rel=1e-6)
    one, other = (reduced_half_time(1e8, 100, 0.6, latent) for latent in (law, scaled))
    assert other == pytest.approx(one / scale**4, rel=1e-6)


def test_the_constant_of_a_uniform_law_by_another_quadrature():
    from scipy.integrate import quad

    def mean(phi: float) -> float:
        return quad(lambda z: z**3 * np.exp(z * phi), 0.5, 1.5)[0]

    assert growth_constant(Latent(low=0.5, high=1.5)) == pytest.approx(
        quad(lambda p: 1 / mean(p), 0, 60)[0], rel=1e-7
    )


@pytest.mark.parametrize(
    "latent", [Latent(low=1, high=1), Latent(low=0.2, high=1.8), Latent(values=(0.5, 0.5, 1.5))]
)
def test_the_constant_is_the_limit_of_the_time(latent):
    ratios = [
        reduced_half_time(p, p**0.3, 0.75, latent) / (growth_constant(latent) * p**0.7 / 0.1875)
        for p in (1e9, 1e15)
    ]
    assert abs(ratios[1] - 1) < abs(ratios[0] - 1) and ratios[1] == pytest.approx(1, abs=1e-3)


def test_half_is_never_reached_where_half_of_the_images_show_nothing():
    assert reduced_half_time(1e6, 10, 0.75, Latent(values=(0.0, 1.0))) is None
    assert reduced_half_time(1e6, 10, 0.75, Latent(values=(0.0, 1.0, 1.0))) is not None


def test_an_area_that_holds_half_of_the_image_needs_no_time():
    assert reduced_half_time(100, 100, 0.25, Latent(low=1, high=1)) == 0.0


@pytest.mark.parametrize("clusters", [2, 4, 8])
def test_clusters_take_so_many_times_as_long(clusters):
    """One image in K moves the features of a cluster, all of them move positions: Υ/Φ = K/(C_a - 1) of the logit."""
    alone, many = (
        simulate(World(10_000, 0.9, 0.3, clusters=k), engine="mean-field", stop_attention=0.5).summary
        for k in (1, clusters)
    )
    (query,) = many["queries"]
    assert query["predicted_half_time"] == pytest.approx(
        clusters * alone["queries"][0]["predicted_half_time"]
    )
    latent, size = Latent(low=1, high=1), query["area_size"]
    assert reduced_half_time(1e4, size, 0.75, latent, clusters) == pytest.approx(
        clusters * reduced_half_time(1e4, size, 0.75, latent)
    )
    by_positions = (1 + clusters / (size - 1)) / (1 + 1 / (size - 1))
    assert many["half_time"] == pytest.approx(clusters * alone["half_time"] / by_positions, rel=0.02)
    (verdict,) = [one for one in many["claims"] if one["claim"] == "half-attention time"]
    assert verdict["verdict"] == "holds"


def test_a_bad_size_is_refused():
    with pytest.raises(InputError, match="own_size"):
        reduced_half_time(100, 1000, 0.75, Latent(low=1, high=1))
