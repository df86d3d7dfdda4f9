"""Partitions of the P positions into areas, realised: which patch lies in which area, for every cluster.

A partition without labels numbers patches area by area and needs no table, whatever P. Area 0 is the global one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mimlab.runs.errors import InputError
from mimlab.world.sizes import Runs, runs_from_sizes

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Partition:
    """``runs``: areas in index order. ``labels``: area of each patch, shape (P,); None = patches area by area."""

    runs: Runs
    labels: Array | None = field(default=None, repr=False)

    @property
    def patches(self) -> int:
        return sum(size * count for size, count in self.runs)

    @property
    def areas(self) -> int:
        return sum(count for _, count in self.runs)

    def size_of(self, area: int) -> int:
        """Patches in an area."""
        for size, count in self.runs:
            if area < count:
                return size
            area -= count
        raise IndexError(area)

    def area_of(self, patch: int) -> int:
        """The area that holds a patch (the paper's a_{k,p})."""
        if self.labels is not None:
            return int(self.labels[patch])
        first = 0
        for size, count in self.runs:
            if patch < size * count:
                return first + patch // size
            patch -= size * count
            first += count
        raise IndexError(patch)

    def first_patch(self, area: int) -> int:
        """The patch of lowest index in an area."""
        if self.labels is not None:
            return int(np.flatnonzero(self.labels == area)[0])
        start = 0
        for size, count in self.runs:
            if area < count:
                return start + area * size
            start += size * count
            area -= count
        raise IndexError(area)

    def all_labels(self) -> Array:
        """Area of every patch, shape (P,)."""
        if self.labels is not None:
            return self.labels
        sizes = np.repeat([s for s, _ in self.runs], [c for _, c in self.runs])
        return np.repeat(np.arange(len(sizes)), sizes)


def labelled(labels: Array) -> Partition:
    """The partition of an integer label per patch; labels must be 0..N-1, each used."""
    return Partition(runs_from_sizes(np.bincount(labels).tolist()), labels)


@dataclass(frozen=True)
class Layout:
    """Every cluster's partition: one Partition where all clusters share it, else one per cluster.

    grid: rows and columns, where the patches are a photograph's, numbered row by row; None where they have no plane.
    """

    clusters: int
    partitions: tuple[Partition, ...]
    grid: tuple[int, int] | None = None

    @property
    def shared(self) -> bool:
        """Whether one partition serves every cluster."""
        return len(self.partitions) == 1

    @property
    def patches(self) -> int:
        return self.partitions[0].patches

    def partition_of(self, cluster: int) -> Partition:
        return self.partitions[0 if self.shared else cluster]


def nested(base: Partition, clusters: int) -> tuple[Partition, ...]:
    """Cluster k halves every local area of cluster k-1 (the odd patch to the first half; an area of one patch stays);
    the global area is common to all."""
    result = [base]
    for _ in range(1, clusters):
        sizes = [result[-1].runs[0][0]]
        for size, count in result[-1].runs[1:]:
            sizes += [half for half in ((size + 1) // 2, size // 2) if half] * count
        result.append(Partition(runs_from_sizes(sizes)))
    return tuple(result)


def scattered(base: Partition, clusters: int, seed: int) -> tuple[Partition, ...]:
    """Cluster 0 keeps its positions; every other cluster has areas of the same sizes on a random permutation."""
    labels = base.all_labels()
    generator = np.random.default_rng([seed, 0x7061])
    return (base, *(Partition(base.runs, generator.permutation(labels)) for _ in range(1, clusters)))


def listed(base: Partition, lists: Sequence[Sequence[int]], clusters: int) -> tuple[Partition, ...]:
    """One list of sizes per cluster, each laid out area by area from patch 0."""
    if len(lists) != clusters:
        raise InputError(
            f"world: partitions lists {len(lists)} clusters but clusters = {clusters}; make them equal."
        )
    for cluster, sizes in enumerate(lists):
        if sum(sizes) != base.patches:
            raise InputError(
                f"world: partitions[{cluster}] covers {sum(sizes)} patches, the world has {base.patches}; "
                "each list must cover every patch once."
            )
    return tuple(Partition(runs_from_sizes(sizes)) for sizes in lists)
