"""Attention statistics in closed form: P x P maps with a partition's symmetry (theory, sections 4 and 7).

The patches form areas, and the areas n classes: class i has `counts[i]` areas of `sizes[i]` patches. The
row of a patch in class i takes one logit on itself, one on the rest of its area, and one on all other areas
of each class j. Everything then follows from n x (n + 2) numbers: the cost is O(n³) whatever P, and the
result exact up to rounding, P = 10^12 included (derivation: docs/statistics.md). Sizes and counts are real
numbers >= 1: a mean field may use the ratio it has, whole or not.

What would give wrong numbers: a map that lacks the symmetry, such as attention under one particular mask,
or in a world of several partitions. Areas of one size whose rows differ (another latent law) need their own
class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mimlab.runs.errors import InputError
from mimlab.statistics.bounds import diversity_lower_bound, nmi_lower_bound
from mimlab.statistics.grouped import Floats, GroupedMap
from mimlab.statistics.terms import effective_rank_of

DENSE_LIMIT = 5000
"""Patches beyond which `BlockMap.dense` refuses: 5000² float64 numbers are 200 MB."""


@dataclass(frozen=True, eq=False)
class BlockMap(GroupedMap):
    """Attention between the patches of n classes of areas; the fields become read-only float64 arrays.

    sizes:        (n,)         patches in each area of class i, >= 1
    counts:       (n,)         areas of class i, >= 1
    self_logit:   (..., n)     logit of a patch of class i on itself
    own_logit:    (..., n)     on each other patch of its area; not used where sizes[i] = 1
    other_logit:  (..., n, n)  [i, j] on each patch of the other areas of class j; not used at [i, i] where
                               counts[i] = 1

    Leading axes hold several maps of one world, such as the recorded times of a run; every result has
    them, and a single map gives a scalar. All P rows count alike. Logits that are not used may be nan.

    Raises InputError where shapes disagree, a size or count is below 1, or a used logit is not finite.

    >>> uniform = BlockMap([4, 2], [1, 6], [0, 0], [0, 0], np.zeros((2, 2)))
    >>> uniform.row_entropy().round(4).tolist()
    [2.7726, 2.7726]
    >>> print(f"{uniform.nmi():.4f} {uniform.effective_rank():.4f}")
    0.0000 1.0000
    """

    sizes: Floats
    counts: Floats
    self_logit: Floats
    own_logit: Floats
    other_logit: Floats

    def __post_init__(self) -> None:
        n, maps = np.size(self.sizes), np.shape(self.self_logit)[:-1]
        shapes = {
            "sizes": (n,),
            "counts": (n,),
            "self_logit": (*maps, n),
            "own_logit": (*maps, n),
            "other_logit": (*maps, n, n),
        }
        for name, shape in shapes.items():
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or n == 0:
                raise InputError(f"{name} has shape {array.shape}; {n} classes need {shape}, and n >= 1")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for name in ("sizes", "counts"):
            array = getattr(self, name)
            if not np.all((array >= 1) & np.isfinite(array)):
                raise InputError(
                    f"{name} = {array.tolist()}: all must be finite and >= 1; leave out empty classes"
                )
        if not np.all(np.isfinite(self._logits)):
            raise InputError(
                "a logit in use is not finite; give finite numbers (nan only where there is no patch)"
            )

    def own_attention(self) -> Floats:
        """Weight that a row of class i puts on its own area, within [0, 1]. Shape (..., n)."""
        return self._weights[..., 0] + (self.sizes - 1) * self._weights[..., 1]

    def nmi_bound(self) -> Floats:
        """Least NMI of any map whose rows put as much on their own areas as these; see `bounds`. Shape (...).

        Raises InputError where P < 2, as does `diversity_bound`.
        """
        return self._bounded(nmi_lower_bound, 1 - self.own_attention())

    def diversity_bound(self) -> Floats:
        """Least diversity of any map whose rows have as much of their norm on their own areas; see `bounds`."""
        squares = self._multiplicity * self._weights**2
        return self._bounded(
            diversity_lower_bound, np.sqrt(squares[..., 2:].sum(axis=-1) / squares.sum(axis=-1))
        )

    def _bounded(self, bound: Callable[..., Floats], leaks: Floats) -> Floats:
        leak = np.clip(leaks @ (self._population / self.patches), 0, 1)
        return bound(self.sizes, leak, counts=self.counts)

    def mean_over(self, to_itself: float, own: Floats, other: Floats) -> Floats:
        """mean_p Σ_q a_pq f_pq of a function of pairs, such as their distance (`attention.distance`). Shape (...).

        to_itself: f_pp. own (n,): mean of f over pairs of one area of class i. other (n, n): over pairs of different
        areas of classes i and j. Where there are no such pairs, any finite number.
        """
        values = np.column_stack([np.full(self._n, to_itself), own, other])
        return self._over_map(self._weights * values) / self.patches

    def effective_rank(self) -> Floats:
        """Effective rank, within [1, P], of the P singular values (docs/statistics.md, section 3)."""
        row = np.arange(self._n)
        to_itself, own, other = (self._weights[..., row, group] for group in (0, 1, 2 + row))
        within = np.abs(to_itself - own)
        between = np.abs(to_itself - own + self.sizes * (own - other))
        root = np.sqrt(self._population)
        means = self._by_class(self._multiplicity * self._weights) * root[:, None] / root[None, :]
        values = np.concatenate([within, between, np.linalg.svdvals(means)], axis=-1)
        times = np.concatenate([self.counts * (self.sizes - 1), self.counts - 1, np.ones(self._n)])
        rank: Floats = effective_rank_of(values, times)
        return rank

    def dense(self) -> Floats:
        """The map itself, patches numbered area by area and class by class. Shape (..., P, P).

        Raises InputError where a size or count is not whole or P > DENSE_LIMIT.
        """
        sizes, counts = self.sizes.astype(np.int64), self.counts.astype(np.int64)
        if np.any(sizes != self.sizes) or np.any(counts != self.counts) or self.patches > DENSE_LIMIT:
            raise InputError(
                f"no explicit map for sizes {self.sizes.tolist()} and counts {self.counts.tolist()}: "
                f"it needs whole numbers and at most {DENSE_LIMIT} patches; the other methods need neither"
            )
        class_of_area = np.repeat(np.arange(self._n), counts)
        area = np.repeat(np.arange(class_of_area.size), sizes[class_of_area])
        row = class_of_area[area]
        own, other = self.own_logit[..., row, None], self.other_logit[..., row[:, None], row]
        logits = np.where(area[:, None] == area, own, other)
        logits = np.where(np.eye(area.size, dtype=bool), self.self_logit[..., row, None], logits)
        weights: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return weights

    # A row of class i is n + 2 groups of equal weights: the patch itself, the rest of its area, and the other
    # areas of each class. Arrays (..., n, n + 2) hold a number for each group, in that order.

    @property
    def _n(self) -> int:
        return self.sizes.size

    @property
    def _population(self) -> Floats:
        """Patches of each class, (n,)."""
        return self.sizes * self.counts

    @property
    def _keys(self) -> Floats:
        return self._population

    @cached_property
    def _multiplicity(self) -> Floats:
        """Keys in each group, (n, n + 2)."""
        other = (self.counts[None, :] - np.eye(self._n)) * self.sizes[None, :]
        return np.column_stack([np.ones(self._n), self.sizes - 1, other])

    @cached_property
    def _logits(self) -> Floats:
        """Logit of each group, (..., n, n + 2); an empty group repeats the logit on itself: no effect."""
        to_itself = self.self_logit[..., None]
        logits = np.concatenate([to_itself, self.own_logit[..., None], self.other_logit], axis=-1)
        return np.where(self._multiplicity > 0, logits, to_itself)

    def _by_class(self, groups: Floats) -> Floats:
        """Groups added up by the class of their keys, (..., n, n)."""
        own = groups[..., 0] + groups[..., 1]
        return groups[..., 2:] + own[..., None] * np.eye(self._n)

    def _as_keys(self, per_class: Floats) -> Floats:
        """A number for each class of keys, (..., n), as one for each group, (..., n, n + 2)."""
        own, other = per_class[..., :, None], per_class[..., None, :]
        return np.concatenate([own, own, np.broadcast_to(other, (*per_class.shape, self._n))], axis=-1)
