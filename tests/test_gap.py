"""κc, κs, Δ and Δ_p against the definitions, on sizes from countable by hand to too large for 64 bits."""

from math import exp, inf, log, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimlab.runs.errors import InputError
from mimlab.world.gap import (
    AreaStatistics,
    area_statistics,
    global_exponent,
    information_gap,
    local_exponent,
    patch_gap,
    predicted_half_time,
    predicted_phi_global,
)

sizes_of_areas = st.lists(st.integers(1, 500), min_size=2, max_size=12)


def one_by_one(sizes):
    return area_statistics((size, 1) for size in sizes)


def test_powers_of_ten_by_hand():
    assert global_exponent(10**12, 10**9) == pytest.approx(0.75, rel=1e-15)
    assert local_exponent(10**12, [(10**3, 999_000_000)]) == pytest.approx(0.25, rel=1e-15)
    # Δ = (1 - 1/4) - 2(1 - 3/4)
    assert information_gap(10**12, 10**9, 10**3) == pytest.approx(0.25, abs=1e-14)
    # Δ_p = log_P(10^18 / (10^12 · 10^6)) = 0: the crossover
    assert patch_gap(10**12, 10**9, 10**6) == pytest.approx(0, abs=1e-14)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=10))
def test_statistics_follow_the_definitions_patch_by_patch(sizes):
    total, largest = sum(sizes), sizes[0]
    own = np.repeat(sizes[1:], sizes[1:]) if total < 10**4 else None
    found = one_by_one(sizes)
    kc = np.log(largest) / np.log(total)
    ks = np.log(np.mean(sizes[1:])) / np.log(total)
    assert found.global_exponent == pytest.approx(kc, abs=1e-12)
    assert found.local_exponent == pytest.approx(ks, abs=1e-12)
    assert found.information_gap == pytest.approx((1 - ks) - 2 * (1 - kc), abs=1e-12)
    if own is not None:
        expected = np.log(largest**2 / (total * own)) / np.log(total)
        listed = np.repeat([g.gap for g in found.patch_gaps], [g.patches for g in found.patch_gaps])
        np.testing.assert_allclose(np.sort(expected), listed, atol=1e-12)
        assert found.mean_patch_gap == pytest.approx(expected.mean(), abs=1e-12)
        assert found.two_phase_share == pytest.approx(np.mean(largest**2 > total * own), abs=1e-12)


@given(sizes_of_areas, st.randoms())
def test_only_the_global_area_and_the_multiset_of_local_sizes_matter(sizes, random):
    shuffled = sizes[1:]
    random.shuffle(shuffled)
    one, other = one_by_one(sizes), one_by_one([sizes[0], *shuffled])
    assert one.patch_gaps == other.patch_gaps
    assert one.two_phase_share == other.two_phase_share
    assert one.information_gap == other.information_gap


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 50))
def test_equal_areas_have_one_patch_gap_and_it_is_the_gap(largest, size, count):
    found = area_statistics([(largest, 1), (size, count)])
    assert [(g.own_size, g.patches) for g in found.patch_gaps] == [(size, size * count)]
    assert found.mean_patch_gap == pytest.approx(found.information_gap, abs=1e-12)
    assert found.patch_gaps[0].gap == pytest.approx(found.information_gap, abs=1e-12)


@given(sizes_of_areas)
def test_mean_patch_gap_never_exceeds_the_gap(sizes):
    found = one_by_one(sizes)
    assert found.mean_patch_gap <= found.information_gap + 1e-12


def test_sign_of_the_gap_can_hide_most_patches():
    # Ten single patches pull the mean local area down; nearly all local patches lie in the area of 300.
    found = area_statistics([(350, 1), (300, 1), (1, 10)])
    assert found.information_gap > 0 > found.mean_patch_gap
    assert found.two_phase_share == pytest.approx(10 / 310)


@pytest.mark.parametrize(
    "runs", [[(8, 3), (2, 4)], [(8, 1), (8, 2), (2, 4)], [(8, 1), (2, 2), (8, 2), (2, 2)]]
)
def test_run_length_encodings_of_the_same_areas_agree(runs):
    found, plain = area_statistics(runs), one_by_one([8, 8, 8, 2, 2, 2, 2])
    assert (found.patches, found.areas, found.global_size) == (32, 7, 8)
    assert found.patch_gaps == plain.patch_gaps
    assert found.local_exponent == pytest.approx(plain.local_exponent, rel=1e-15)


def test_a_million_million_patches():
    largest, small = round(10**10.8), round(10**3.6)
    count = (10**12 - largest) // small
    found = area_statistics([(largest, 1), (small, count)])
    assert found.information_gap == pytest.approx((1 - 0.3) - 2 * (1 - 0.9), abs=1e-4)
    assert found.two_phase_share == 1
    assert found.patch_gaps[0].patches == small * count


def test_share_at_the_crossover_is_decided_exactly():
    # C_1² = P · C_a for the area of 4 (64 = 16 · 4): Δ_p = 0, which is not above 0.
    assert area_statistics([(8, 1), (4, 1), (1, 4)]).two_phase_share == pytest.approx(4 / 8)


def test_predicted_phi_is_the_formula_and_tends_to_half_the_gap():
    patches, largest, own, ratio = 10_000, 3981, 16, 0.75
    expected = -0.5 * log(1 + 2 * 0.25 * largest**2 / (patches * own))
    assert predicted_phi_global(patches, largest, own, ratio) == pytest.approx(expected, rel=1e-13)
    for gap, slope in ((0.4, -0.2), (-0.4, 0.0)):
        patches = 1e60
        largest = patches**0.8
        phi = predicted_phi_global(patches, largest, patches ** (0.6 - gap), 0.75)
        assert phi / log(patches) == pytest.approx(slope, abs=0.01)


def test_predicted_phi_solves_the_first_phase():
    """dΦ/dt = -γ((1-γ)C_1/P)² e^{2Φ} from 0, integrated to the predicted half time, ends at the formula."""
    patches, largest, own, ratio, steps = 10_000, 3981, 100, 0.6, 20_000
    dt = predicted_half_time(patches, own, ratio) / steps
    rate = ratio * ((1 - ratio) * largest / patches) ** 2
    phi = 0.0
    for _ in range(steps):  # midpoint rule
        middle = phi - 0.5 * dt * rate * exp(2 * phi)
        phi -= dt * rate * exp(2 * middle)
    assert phi == pytest.approx(predicted_phi_global(patches, largest, own, ratio), rel=1e-5)


def test_no_local_area_is_null_in_the_record_and_refused_where_a_number_is_asked():
    found = area_statistics([(9, 1)])
    assert found.global_exponent == 1
    assert (
        found.local_exponent is found.information_gap is found.mean_patch_gap is found.two_phase_share is None
    )
    assert found.patch_gaps == ()
    with pytest.raises(InputError, match="no local area"):
        local_exponent(9, [])


@pytest.mark.parametrize(
    "runs", [[], [(1, 1)], [(0, 1), (4, 1)], [(4, 1), (-2, 1)], [(4, 1), (2, 0)], [(4.5, 1)]]
)
def test_sizes_that_make_no_world_are_refused(runs):
    with pytest.raises(InputError, match="area sizes"):
        AreaStatistics(tuple(runs))


@pytest.mark.parametrize("patches", [1, 0, -3, nan, inf])
def test_patches_without_a_logarithm_are_refused(patches):
    with pytest.raises(InputError, match="more than 1 patch"):
        global_exponent(patches, 1)


@pytest.mark.parametrize("size", [0, 0.5, 101, nan])
def test_areas_that_do_not_fit_are_refused(size):
    calls = (
        lambda: global_exponent(100, size),
        lambda: local_exponent(100, [(5, 2), (size, 1)]),
        lambda: information_gap(100, 10, size),
        lambda: patch_gap(100, size, 10),
        lambda: predicted_phi_global(100, 10, size, 0.5),
        lambda: predicted_half_time(100, size, 0.5),
    )
    for call in calls:
        with pytest.raises(InputError, match="between 1 and patches = 100"):
            call()


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, nan])
def test_mask_ratios_that_mask_none_or_all_are_refused(ratio):
    with pytest.raises(InputError, match="mask_ratio"):
        predicted_half_time(100, 10, ratio)
    with pytest.raises(InputError, match="mask_ratio"):
        predicted_phi_global(100, 10, 10, ratio)
