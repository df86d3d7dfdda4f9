"""Masked reconstruction (theory, sections 2 and 3): the objective, its mask and its floor."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log1p

import numpy as np

from mimlab.runs.checks import finite_number
from mimlab.runs.errors import InputError
from mimlab.world.latent import Latent

MOST_FACTORS = 100_000  # of a product written out


@dataclass(frozen=True)
class MaskedReconstruction:
    """Reconstruct masked patches from visible ones; round(mask_ratio * P) patches are masked, uniformly.

    Parameters
    ----------
    mask_ratio
        γ, strictly between 0 and 1.
    name
        Name of the objective: "masked".

    Raises InputError where ``mask_ratio`` does not lie strictly between 0 and 1 or another objective is named.

    >>> MaskedReconstruction(mask_ratio=0.75).masked(196)
    147
    """

    mask_ratio: float = 0.75
    name: str = "masked"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask_ratio", checked_ratio(self.mask_ratio))
        if self.name != "masked":
            raise InputError(f"objective: name = {self.name!r} is not known; the one objective is 'masked'.")

    def masked(self, patches: int) -> int:
        """Number of masked patches. Raises InputError where that is none or all of them."""
        return masked_patches(self.mask_ratio, patches)

    def query_masked(self, patches: int) -> float:
        """P(p in M)."""
        return self.masked(patches) / patches

    def hopeless(self, patches: int, own_size: int) -> float:
        """P(the rest of the query's area is all masked | the query is masked): nothing can be reconstructed then."""
        masked = self.masked(patches)
        return exp(log_none(patches - 1, own_size - 1, patches - masked)) if own_size <= masked else 0.0

    def floor(self, patches: int, own_size: int, latent: Latent) -> float:
        """Infimum over Q of the row's loss L_p: half the hopeless images' mean squared latent (theory, section 3)."""
        return 0.5 * self.query_masked(patches) * self.hopeless(patches, own_size) * latent.moment(2)


def checked_ratio(mask_ratio: object) -> float:
    """γ as a float. Raises InputError where it does not lie strictly between 0 and 1."""
    ratio = finite_number("objective.mask_ratio", mask_ratio)
    if not 0 < ratio < 1:
        raise InputError(f"objective: mask_ratio = {ratio} masks none or all; give a number between 0 and 1.")
    return ratio


def masked_patches(mask_ratio: float, patches: int) -> int:
    """Number of masked patches. Raises InputError where that is none or all of them."""
    masked = round(mask_ratio * patches)
    if not 0 < masked < patches:
        raise InputError(
            f"objective: mask_ratio = {mask_ratio} masks {masked} of {patches} patches; "
            "at least one must be masked and one visible."
        )
    return masked


def log_none(total: int, good: int, sample: int) -> float:
    """Log of the chance that a sample without replacement holds none of the good ones; good + sample <= total.

    It is the product over i < few of 1 - many/(total - i), few and many being the two numbers in either order. Gamma
    functions would cancel: lgamma(10^12) is known to 0.004.
    """
    few, many = sorted((good, sample))
    if few <= MOST_FACTORS:
        return float(np.log1p(-many / (total - np.arange(few))).sum())
    # Both numbers are small beside the total here, or the chance is below e^-700.
    return few * log1p(-many / (total - (few - 1) / 2))
