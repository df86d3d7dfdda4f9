"""The objective's own numbers: how many patches are masked, how often an image is hopeless, and the floor."""

from fractions import Fraction
from itertools import combinations
from math import perm

import numpy as np
import pytest

import mimlab
from mimlab.objectives.masked import log_none


@pytest.mark.parametrize(("patches", "masked"), [(196, 147), (10, 8), (2, 2), (6, 4), (10**12, 75 * 10**10)])
def test_so_many_patches_are_masked(patches: int, masked: int) -> None:
    """Halves go to the even number, as Python rounds: 7.5 to 8, 4.5 to 4, 1.5 to 2, which is all of 2."""
    objective = mimlab.MaskedReconstruction(0.75)
    if masked == patches:
        with pytest.raises(mimlab.InputError):
            objective.masked(patches)
        return
    assert objective.masked(patches) == masked
    assert objective.query_masked(patches) == masked / patches


@pytest.mark.parametrize("own", [1, 2, 3, 6])
def test_hopeless_is_a_share_of_all_masks(own: int) -> None:
    """Of the masks that hide patch 0, those that hide all of 0..own-1."""
    masks = [set(mask) for mask in combinations(range(9), 6) if 0 in mask]
    share = sum(set(range(own)) <= mask for mask in masks) / len(masks)
    objective = mimlab.MaskedReconstruction(6 / 9)
    assert objective.hopeless(9, own) == pytest.approx(share, rel=1e-14)
    latent = mimlab.Latent(values=(0.5, 1.5))
    assert objective.floor(9, own, latent) == pytest.approx(0.5 * 6 / 9 * share * 1.25, rel=1e-14)


@pytest.mark.parametrize(
    ("patches", "own", "ratio"),
    [
        (12, 4, 0.75),
        (12, 1, 0.75),
        (12, 9, 0.75),
        (12, 10, 0.75),
        (3000, 1500, 0.999),
        (10**4, 17, 0.75),
        (10**6, 2000, 0.9999),
        (10**12, 2000, 0.9999),
        (10**15, 3000, 0.999),
    ],
)
def test_hopeless_is_an_exact_fraction_at_any_size(patches: int, own: int, ratio: float) -> None:
    """Gamma functions gave .018 for .819 at P = 10^15."""
    objective = mimlab.MaskedReconstruction(ratio)
    masked = objective.masked(patches)
    exact = Fraction(perm(masked - 1, own - 1), perm(patches - 1, own - 1))
    assert objective.hopeless(patches, own) == pytest.approx(float(exact), rel=1e-10, abs=1e-300)


def test_hopeless_where_factors_are_too_many_to_write_out() -> None:
    """Either side of the limit: the shorter product, and one factor in the middle for all."""
    for good in (99_990, 100_010):
        expected = -np.sum(np.log1p(150_000 / (10**9 - 150_000 - np.arange(good, dtype=float))))
        assert log_none(10**9, good, 150_000) == pytest.approx(expected, rel=1e-9)
