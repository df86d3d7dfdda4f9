"""The information gap: κc, κs, Δ and each patch's Δ_p, on realised area sizes (theory, sections 1 and 9).

With C_1 patches in the global area, C in a local one and C_a in the area of patch p,

    κc = log_P C_1,   κs = log_P C,   Δ = (1-κs) - 2(1-κc),   Δ_p = log_P(C_1² / (P C_a)).

Exact for the sizes given: nothing is rounded to a power of P. Where local areas are unequal, C is their mean,
taken over areas as in the paper; Δ is then one number for patches that differ, and Δ_p is what decides for
patch p. Because x log x is convex, the mean of Δ_p over local patches never exceeds Δ, with equality only for
equal areas: reading a photograph's regime off Δ alone therefore errs towards two phases.

The two predictions hold for a constant latent z = 1 and to leading order in P; with few patches the crossover
at Δ_p = 0 is smooth (theory, sections 5 and 9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, log, log1p
from numbers import Integral
from typing import Any, NamedTuple

from mimlab.runs.errors import InputError
from mimlab.world.sizes import Runs


def global_exponent(patches: float, size: float) -> float:
    """κc = log_P C_1 of a global area of ``size`` patches; in [0, 1] (theory, section 1).

    Raises InputError unless ``patches`` > 1 and ``size`` lies in [1, patches].

    >>> global_exponent(256, 64)
    0.75
    """
    _check_sizes(patches, size=size)
    return log(size) / log(patches)


def local_exponent(patches: float, sizes: Iterable[tuple[float, int]]) -> float:
    """κs = log_P of the mean local area, each area counted once (theory, sections 1 and 9).

    ``sizes`` are the local areas alone, run-length encoded: (size in patches, number of such areas), in any
    order. Raises InputError where there is no local area or a size lies outside [1, patches].

    >>> local_exponent(10_000, [(150, 1), (50, 1)])
    0.5
    """
    runs = list(sizes)
    areas = sum(count for _, count in runs)
    if areas < 1:
        raise InputError(
            "local_exponent: there is no local area, so κs and Δ are not defined; "
            "give at least one area beside the global one."
        )
    for size, _ in runs:
        _check_sizes(patches, size=size)
    return log(sum(size * count for size, count in runs) / areas) / log(patches)


def information_gap(patches: float, global_size: float, local_size: float) -> float:
    """Δ = (1-κs) - 2(1-κc) for a global area and (mean) local areas of the given sizes (theory, section 1).

    In [-2, 1]. Positive: a local query learns in two phases; negative: in one. Raises InputError for sizes
    outside [1, patches].

    >>> round(information_gap(10_000, 10_000**0.9, 10_000**0.3), 12)
    0.5
    """
    _check_sizes(patches, global_size=global_size, local_size=local_size)
    ratio = (global_size / patches) * (
        global_size / local_size
    )  # one logarithm: a gap of 0 is 0, not rounding
    return 0.0 if global_size * global_size == patches * local_size else log(ratio) / log(patches)


def patch_gap(patches: float, global_size: float, own_size: float) -> float:
    """Δ_p = log_P(C_1² / (P C_a)) of a patch whose area has ``own_size`` patches (theory, section 9).

    The same function as Δ, of the patch's own area where Δ takes the mean local one.
    """
    return information_gap(patches, global_size, own_size)


def predicted_phi_global(patches: float, global_size: float, own_size: float, mask_ratio: float) -> float:
    """Φ_{p→v_1} at half attention: -½ log(1 + 2(1-γ) C_1² / (P C_a)), natural log (theory, section 5).

    For z = 1 and to leading order in P: checks found it 4-7% deeper at P = 10^4. Tends to -(Δ_p/2) log P for
    Δ_p > 0 and to 0 for Δ_p < 0. Raises InputError for sizes outside [1, patches] or a mask ratio outside
    (0, 1).
    """
    _check_sizes(patches, global_size=global_size, own_size=own_size)
    _check_mask_ratio(mask_ratio)
    return -0.5 * log1p(2 * (1 - mask_ratio) * (global_size / patches) * (global_size / own_size))


def predicted_half_time(patches: float, own_size: float, mask_ratio: float, clusters: int = 1) -> float:
    """Time at which a query's attention on its own area reaches ½: K P / (γ(1-γ) C_a) (theory, section 5).

    Only images of a cluster, one in K, move the Φ of its features. In units of learning rate × steps; for z = 1 and
    K = 1 right up to a factor that checks found between 0.94 and 1.6; positions, common to the clusters, make it less
    by 1 + K/(C_a - 1).
    Raises InputError for a size outside [1, patches] or a mask ratio outside (0, 1).

    >>> predicted_half_time(10_000, 16, 0.5)
    2500.0
    """
    _check_sizes(patches, own_size=own_size)
    _check_mask_ratio(mask_ratio)
    return clusters * patches / (mask_ratio * (1 - mask_ratio) * own_size)


class PatchGap(NamedTuple):
    """One value of Δ_p and who has it: all local patches in areas of one size."""

    gap: float
    own_size: int
    patches: int


@dataclass(frozen=True)
class AreaStatistics:
    """Exponents and gaps of one partition, from its realised sizes.

    ``runs``: areas in index order, run-length encoded as (size in patches, number of such areas); the first
    area is the global one, whatever its size. The work grows with the number of runs, not of patches.

    Where there is no local area, ``local_exponent``, ``information_gap``, ``mean_patch_gap`` and
    ``two_phase_share`` are None and ``patch_gaps`` is empty. Raises InputError for no area at all, for sizes
    or counts that are not positive whole numbers, and for a single patch (log P = 0).

    >>> statistics = AreaStatistics(((60, 1), (10, 2), (5, 4)))
    >>> statistics.patches, statistics.areas, statistics.two_phase_share
    (100, 7, 1.0)
    >>> [(own.own_size, own.patches) for own in statistics.patch_gaps]
    [(10, 20), (5, 20)]
    """

    runs: Runs

    def __post_init__(self) -> None:
        runs = tuple((_whole("size", size), _whole("count", count)) for size, count in self.runs)
        object.__setattr__(self, "runs", runs)
        if not runs:
            raise InputError("area sizes: none given; give at least the global area's size.")
        if self.patches < 2:
            raise InputError(
                "area sizes: one patch alone has no exponents (log P = 0); give at least 2 patches."
            )

    @cached_property
    def patches(self) -> int:
        """P."""
        return sum(size * count for size, count in self.runs)

    @cached_property
    def areas(self) -> int:
        """Number of areas, the global one included."""
        return sum(count for _, count in self.runs)

    @property
    def global_size(self) -> int:
        """C_1, in patches."""
        return self.runs[0][0]

    @cached_property
    def local_runs(self) -> Runs:
        """The local areas alone, run-length encoded in index order."""
        (size, count), *rest = self.runs
        return (*(((size, count - 1),) if count > 1 else ()), *rest)

    @property
    def global_exponent(self) -> float:
        """κc."""
        return global_exponent(self.patches, self.global_size)

    @property
    def local_exponent(self) -> float | None:
        """κs, from the mean local area; None without local areas."""
        return local_exponent(self.patches, self.local_runs) if self.local_runs else None

    @property
    def information_gap(self) -> float | None:
        """Δ, from κc and κs; None without local areas."""
        if not self.local_runs:
            return None
        mean = (self.patches - self.global_size) / (self.areas - 1)
        return information_gap(self.patches, self.global_size, mean)

    @cached_property
    def patch_gaps(self) -> tuple[PatchGap, ...]:
        """The distribution of Δ_p over local patches, one entry per distinct area size, Δ_p ascending."""
        held: Counter[int] = Counter()
        for size, count in self.local_runs:
            held[size] += size * count
        return tuple(
            PatchGap(patch_gap(self.patches, self.global_size, size), size, held[size])
            for size in sorted(held, reverse=True)
        )

    @property
    def mean_patch_gap(self) -> float | None:
        """Mean of Δ_p over local patches: at most Δ, and Δ for equal areas. None without local areas."""
        if not self.local_runs:
            return None
        return sum(own.gap * own.patches for own in self.patch_gaps) / (self.patches - self.global_size)

    @property
    def two_phase_share(self) -> float | None:
        """Share of local patches with Δ_p > 0, decided in integers; in [0, 1]. None without local areas."""
        if not self.local_runs:
            return None
        two_phase = sum(
            own.patches for own in self.patch_gaps if self.global_size**2 > self.patches * own.own_size
        )
        return two_phase / (self.patches - self.global_size)


def area_statistics(runs: Iterable[tuple[int, int]]) -> AreaStatistics:
    """κc, κs, Δ and Δ_p of areas given as (size, count), the first the global one; see AreaStatistics."""
    return AreaStatistics(tuple(runs))


def _check_sizes(patches: float, **sizes: float) -> None:
    """Raise InputError unless P > 1 and every size lies in [1, P]; both may be real (mean field)."""
    if not isfinite(patches) or patches <= 1:
        raise InputError(
            f"patches = {patches} gives no exponents (log P must be positive); give more than 1 patch."
        )
    for name, size in sizes.items():
        if not 1 <= size <= patches:
            raise InputError(f"{name} = {size} must lie between 1 and patches = {patches}.")


def _check_mask_ratio(mask_ratio: float) -> None:
    if not 0 < mask_ratio < 1:
        raise InputError(
            f"mask_ratio = {mask_ratio} must lie strictly between 0 (masks none) and 1 (masks all)."
        )


def _whole(name: str, value: Any) -> int:
    """``value`` as a Python int, which never overflows. Raises InputError unless positive and whole."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"area sizes: {name} = {value!r} must be a positive whole number.")
    return int(value)
