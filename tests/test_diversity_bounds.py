"""Lower bounds on NMI and diversity from areas and the attention that leaves them, against maps of any kind."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from mimlab import statistics
from mimlab.runs.errors import InputError
from mimlab.statistics import diversity_lower_bound, nmi_lower_bound

Array = np.ndarray


def attending(areas: Array, leaks: Array, inside: Array, outside: Array) -> Array:
    """The map whose row i has 1 - leaks[i] on its own area and the rest elsewhere, in proportion to given weights."""
    own = areas[:, None] == areas
    within = np.where(own, inside, 0)
    beyond = np.where(own, 0, outside)
    total = beyond.sum(axis=1, keepdims=True)
    leaks = np.where(total > 0, leaks[:, None], 0)
    beyond = np.divide(beyond, total, out=np.zeros_like(beyond), where=total > 0)
    found: Array = (1 - leaks) * within / within.sum(axis=1, keepdims=True) + leaks * beyond
    return found


@st.composite
def maps(draw: DrawFn) -> tuple[Array, Array]:
    """Areas of each patch, and rows that are anything inside and outside their own."""
    areas = np.array(draw(st.lists(st.integers(0, 5), min_size=2, max_size=24)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (len(areas), len(areas))
    sharpness = draw(st.sampled_from([0.0, 1.0, 8.0]))
    inside, outside = (np.exp(sharpness * rng.standard_normal(shape)) for _ in range(2))
    if draw(st.booleans()):  # what leaks goes to the same few places: nothing can be learned from it
        outside = np.broadcast_to(outside[0], shape)
    most = draw(st.sampled_from([0.0, 0.01, 0.2, 1.0]))
    return areas, attending(areas, most * rng.random(len(areas)), inside, outside)


def by_size(areas: Array) -> Array:
    return np.unique(areas, return_counts=True)[1]


@settings(deadline=None, max_examples=400, derandomize=True)
@given(maps())
def test_no_map_lies_below_the_bounds(case: tuple[Array, Array]) -> None:
    areas, A = case
    own = areas[:, None] == areas
    sizes, leak = by_size(areas), float(np.where(own, 0, A).sum() / len(A))
    assert statistics.nmi(A) >= nmi_lower_bound(sizes, leak) - 1e-12
    away = np.sqrt((np.where(own, 0, A) ** 2).sum(axis=1) / (A**2).sum(axis=1))
    assert statistics.diversity(A) >= diversity_lower_bound(sizes, leak=float(away.mean())) - 1e-12


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 1))
def test_even_attention_on_the_own_area_meets_the_bounds(sizes: list[int]) -> None:
    areas = np.repeat(np.arange(len(sizes)), sizes)
    own = (areas[:, None] == areas).astype(float)
    A = own / own.sum(axis=1, keepdims=True)
    assert nmi_lower_bound(sizes) == pytest.approx(statistics.nmi(A), abs=1e-12)
    assert diversity_lower_bound(sizes) == pytest.approx(statistics.diversity(A), abs=1e-12)


def test_equal_areas_with_an_even_leak_meet_the_bound() -> None:
    """Fano's inequality is an equality where the leak goes evenly to all other areas."""
    areas, leak = np.repeat(np.arange(6), 4), 0.3
    ones = np.ones((24, 24))
    A = attending(areas, np.full(24, leak), ones, ones)
    assert nmi_lower_bound([4], leak, counts=[6]) == pytest.approx(statistics.nmi(A), abs=1e-12)


def test_the_value_by_hand() -> None:
    """Two areas of 6 and 2: log 8 - (6 log 6 + 2 log 2)/8 = 0.5623, h(0.1) = 0.3251, log 1 = 0, over log 8."""
    assert nmi_lower_bound([6, 2], 0.1) == pytest.approx((0.562335 - 0.325083) / math.log(8), abs=1e-6)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 1))
def test_more_leak_never_raises_the_bounds(sizes: list[int]) -> None:
    leaks = np.linspace(0, 1, 101)
    for bound in (nmi_lower_bound, diversity_lower_bound):
        found = bound(sizes, leaks)
        assert found.shape == leaks.shape
        assert (np.diff(found) <= 1e-15).all()
        assert ((found >= 0) & (found <= 1)).all()


def test_like_areas_are_counted_and_need_no_list() -> None:
    several = nmi_lower_bound([50, *[5] * 10], 0.02)
    assert nmi_lower_bound([50, 5], 0.02, counts=[1, 10]) == pytest.approx(several, rel=1e-12)
    patches = 1e12
    large, small = patches**0.9, patches**0.3
    found = nmi_lower_bound([large, small], counts=[1, (patches - large) / small])
    assert found == pytest.approx(0.7 - 0.6 * patches**-0.1, rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "leak", "counts", "said"),
    [
        ([], 0.0, None, "sizes"),
        ([4, 0], 0.0, None, "sizes"),
        ([4, math.nan], 0.0, None, "sizes"),
        ([4, 2], -0.1, None, "leak"),
        ([4, 2], 1.1, None, "leak"),
        ([4, 2], math.nan, None, "leak"),
        ([4, 2], 0.0, [1], "counts"),
        ([4, 2], 0.0, [1, 0.5], "counts"),
        ([1], 0.0, None, "two patches"),
    ],
)
def test_what_is_no_share_or_area_is_refused(sizes, leak, counts, said) -> None:
    for bound in (nmi_lower_bound, diversity_lower_bound):
        with pytest.raises(InputError, match=said):
            bound(sizes, leak, counts=counts)
