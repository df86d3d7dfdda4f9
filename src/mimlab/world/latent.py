"""The law of the latents z_j: how strong an area's feature is in an image (theory, section 1).

Latents are independent with one law, uniform on [low, high] or equally likely values. Everything the engines need of
that law is here: moments, quadrature, the inverse distribution function, and interpolation nodes in z that let many
areas be summed once and for all (docs/derivations.md, "Merging like areas").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimlab.runs.checks import finite_number, items_of
from mimlab.runs.errors import InputError

Array = np.ndarray

LARGEST = 1e3  # a law's largest latent, and the inverse of the least that it may be


@dataclass(frozen=True)
class Latent:
    """Uniform on ``[low, high]`` (equal: a constant), or one of ``values``, equally likely. Never negative.

    Parameters
    ----------
    low, high
        Ends of the interval, the paper's L and U; equal for a constant.
    values
        Or: equally likely values; repeat one to make it likelier.

    Raises InputError for a law that is empty, negative, not finite, zero throughout, or given twice.

    >>> Latent(low=0.5, high=1.5).mean
    1.0
    >>> Latent(values=(0.5, 1.5)).moment(2)
    1.25
    """

    low: float | None = None
    high: float | None = None
    values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.values is not None:
            if self.low is not None or self.high is not None:
                raise InputError("latent: both values and low/high are given; give one of the two.")
            items = items_of("latent.values", self.values, "numbers")
            numbers = tuple(finite_number(f"latent.values[{i}]", v) for i, v in enumerate(items))
            object.__setattr__(self, "values", numbers)
        else:
            if self.low is None or self.high is None:
                raise InputError("latent: give low and high (equal for a constant), or values.")
            numbers = finite_number("latent.low", self.low), finite_number("latent.high", self.high)
            object.__setattr__(self, "low", numbers[0])
            object.__setattr__(self, "high", numbers[1])
            if numbers[0] > numbers[1]:
                raise InputError(f"latent: low = {self.low} exceeds high = {self.high}; swap them.")
        if min(numbers) < 0:
            raise InputError(f"latent: {min(numbers)} is negative; latents are strengths, give numbers >= 0.")
        if max(numbers) == 0:
            raise InputError("latent: every latent is 0, so images are empty; give a positive value.")
        if not 1 / LARGEST <= max(numbers) <= LARGEST:
            raise InputError(
                f"latent: the largest, {max(numbers):.3g}, is not between {1 / LARGEST:g} and {LARGEST:g}; "
                "latents are of order one, rescale them."
            )

    @property
    def atoms(self) -> tuple[float, ...] | None:
        """The distinct values of a discrete latent, ascending; None where the law is continuous."""
        if self.values is not None:
            return tuple(sorted(set(self.values)))
        assert self.low is not None and self.high is not None
        return (self.low,) if self.low == self.high else None

    @property
    def support(self) -> tuple[float, float]:
        """The paper's (L, U): smallest and largest latent."""
        numbers = self.values if self.values is not None else (self.low, self.high)
        return float(min(numbers)), float(max(numbers))  # type: ignore[type-var, arg-type]

    def probabilities(self) -> Array:
        """Probability of each of ``atoms``; shape (atoms,)."""
        if self.values is None:
            return np.ones(1)
        return np.unique(self.values, return_counts=True)[1] / len(self.values)

    def moment(self, order: int) -> float:
        """E[z^order], exact."""
        if self.atoms is not None:
            return float(self.probabilities() @ np.asarray(self.atoms) ** order)
        low, high = self.support
        return sum(low**i * high ** (order - i) for i in range(order + 1)) / (order + 1)  # no cancellation

    @property
    def mean(self) -> float:
        """E[z]."""
        return self.moment(1)

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        """Nodes in z and weights that sum to 1: the atoms themselves, or Gauss-Legendre with ``nodes`` points."""
        if self.atoms is not None:
            return np.asarray(self.atoms), self.probabilities()
        low, high = self.support
        x, w = np.polynomial.legendre.leggauss(nodes)
        return low + (high - low) * (x + 1) / 2, w / 2

    def quantile(self, u: Array) -> Array:
        """Inverse distribution function at ``u`` in [0, 1), any shape."""
        if self.atoms is not None:
            cumulative = np.cumsum(self.probabilities())
            return np.asarray(self.atoms)[np.searchsorted(cumulative[:-1], u, side="right")]
        low, high = self.support
        return low + (high - low) * u

    def sample(self, generator: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
        """Independent latents of the given shape."""
        return self.quantile(generator.random(shape))

    def nodes(self, count: int) -> Array:
        """Interpolation nodes: the atoms, or ``count`` Chebyshev points of [low, high], ascending."""
        if self.atoms is not None:
            return np.asarray(self.atoms)
        low, high = self.support
        x = -np.cos(np.pi * (np.arange(count) + 0.5) / count)
        return low + (high - low) * (x + 1) / 2

    def merge(self, z: Array, weights: tuple[Array, ...], count: int) -> tuple[Array, ...]:
        """Carry sums over areas to sums over nodes: for each w in ``weights`` the W_v of shape (draws, nodes) with
        sum_j w_j f(z_j) = sum_v W_v f(node_v) for every f that the nodes resolve (every f, for a discrete latent).

        ``z`` and each w have shape (draws, areas). W_v may be negative: they are interpolation weights, not counts.
        """
        if self.atoms is not None:
            values = np.asarray(self.atoms)
            found = np.searchsorted(values, z)
            return tuple(
                np.stack([np.where(found == v, w, 0.0).sum(axis=1) for v in range(len(values))], axis=1)
                for w in weights
            )
        low, high = self.support
        x = 2 * (z - low) / (high - low) - 1
        previous, current = np.ones_like(x), x.copy()
        moments = np.empty((len(weights), z.shape[0], count))
        for order in range(count):  # Chebyshev moments sum_j w_j T_order(x_j)
            for index, w in enumerate(weights):
                moments[index, :, order] = np.einsum("dj,dj->d", w, previous)
            previous, current = current, 2 * x * current - previous
        theta = np.pi * (np.arange(count) + 0.5) / count
        basis = np.cos(np.outer(np.arange(count), np.pi - theta)) * (
            2 / count
        )  # T_k(x_v), x_v = -cos(theta_v)
        basis[0] /= 2
        return tuple(m @ basis for m in moments)
