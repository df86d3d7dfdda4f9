"""Statistics of a P x P map whose rows fall into classes of like ones, each row into groups of equal weights.

What a subclass says is how many rows and keys there are of each kind; the statistics of theory, section 7, are then
sums over rows' classes and groups (docs/statistics.md). Arrays (..., n, g) hold a number for each group of a row of
each of the n classes; leading axes hold several maps of one shape. The results are exact up to rounding, whatever P.
"""

import math
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mimlab.runs.errors import InputError
from mimlab.statistics.terms import divergence, surprise

Floats = NDArray[np.float64]


class GroupedMap(ABC):
    """Rows in classes, keys in groups. Every result has the leading axes, and a single map gives a scalar."""

    @property
    def patches(self) -> float:
        """P, the number of patches."""
        return float(self._population.sum())

    def row_entropy(self) -> Floats:
        """H of a row of class i, in nats, within [0, log P]. Shape (..., n)."""
        return self._over_row(surprise(self._weights))

    def entropy(self) -> Floats:
        """Mean entropy of the P rows, in nats, within [0, log P]; see `attention.entropy`. Shape (...)."""
        return self._over_map(surprise(self._weights)) / self.patches

    def information(self) -> Floats:
        """Mutual information, in nats, within [0, log P]; see `attention.information`. Shape (...)."""
        mean = self._as_keys(self._mean_row(self._weights))
        return self._over_map(divergence(self._weights, mean)) / self.patches

    def nmi(self) -> Floats:
        """Normalised information, within [0, 1], 0 where H(ā) = 0; see `attention.nmi`. Shape (...)."""
        H_mean = np.sum(self._keys * surprise(self._mean_row(self._weights)), axis=-1)
        scale = np.sqrt(math.log(self.patches) * np.maximum(H_mean, 0))
        found = np.where(H_mean > 0, self.information() / np.where(H_mean > 0, scale, 1), 0)
        return np.maximum(found, 0)[()]  # rounding

    def diversity(self) -> Floats:
        """1 - mean cosine of two rows, within [0, 1]; see `attention.diversity`. Shape (...).

        Raises InputError where P < 2.
        """
        return self._scatter(self._weights / np.sqrt(self._over_row(self._weights**2))[..., None])

    def spread(self) -> Floats:
        """Mean squared distance of two rows, within [0, 2]; see `attention.spread`. Shape (...).

        Raises InputError where P < 2.
        """
        return 2 * self._scatter(self._weights)

    @abstractmethod
    def effective_rank(self) -> Floats:
        """Effective rank, within [1, P]; see `attention.effective_rank`. Shape (...)."""

    @property
    @abstractmethod
    def _population(self) -> Floats:
        """Rows of each class, (n,)."""

    @property
    @abstractmethod
    def _keys(self) -> Floats:
        """Keys of each class of keys, (k,)."""

    @property
    @abstractmethod
    def _multiplicity(self) -> Floats:
        """Keys in each group, (n, g)."""

    @property
    @abstractmethod
    def _logits(self) -> Floats:
        """Logit of each group, (..., n, g)."""

    @abstractmethod
    def _by_class(self, groups: Floats) -> Floats:
        """Groups added up by the class of their keys, (..., n, k)."""

    @abstractmethod
    def _as_keys(self, per_class: Floats) -> Floats:
        """A number for each class of keys, (..., k), as one for each group, (..., n, g)."""

    @cached_property
    def _weights(self) -> Floats:
        """Weight of one key of each group, (..., n, g)."""
        weights: Floats = np.exp(self._logits - self._logits.max(axis=-1, keepdims=True))
        return weights / self._over_row(weights)[..., None]

    def _over_row(self, groups: Floats) -> Floats:
        """Sum over the keys of a row of each class, (..., n)."""
        total: Floats = np.sum(self._multiplicity * groups, axis=-1)
        return total

    def _over_map(self, groups: Floats) -> Floats:
        """Sum over all queries and keys, (...)."""
        total: Floats = np.sum(self._population * self._over_row(groups), axis=-1)
        return total

    def _mean_row(self, values: Floats) -> Floats:
        """Mean over all queries of a row of `values`: equal for all keys of a class, (..., k)."""
        share = self._population / self.patches
        return share @ self._by_class(self._multiplicity * values) / self._keys

    def _scatter(self, values: Floats) -> Floats:
        """Half the mean squared distance of two rows of `values`, Σ_i ‖a_i - ā‖² / (P - 1), (...)."""
        if self.patches < 2:
            raise InputError(
                f"diversity and spread compare two patches; P = {self.patches:g}, give at least 2"
            )
        deviation = values - self._as_keys(self._mean_row(values))
        return self._over_map(deviation**2) / (self.patches - 1)
