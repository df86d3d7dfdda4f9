"""The paper's world: images with one large global area and many small local ones (theory, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mimlab.runs.checks import finite_number, items_of, whole_number
from mimlab.runs.errors import InputError
from mimlab.world.gap import AreaStatistics, area_statistics
from mimlab.world.latent import Latent
from mimlab.world.partition import Layout, Partition, labelled, listed, nested, scattered
from mimlab.world.sizes import PAPER_RANGE, Runs, runs_from_exponents, runs_from_sizes

if TYPE_CHECKING:
    from mimlab.world.photograph import PhotographAreas

LARGEST_WORLD = 10**15  # patches: numbers of them stay exact in float64
MOST_CLUSTERS = 10_000
LARGEST_TABLE = 10**7  # patches, when every patch needs a label (nested, random or listed partitions)


@dataclass(frozen=True)
class World:
    """A world, by its area sizes, by exponents, or from a photograph. Built, it is known to be consistent.

    Parameters
    ----------
    patches, global_exponent, local_exponent
        P, κc and κs: one global area of round(P^κc) patches, local areas of round(P^κs), the remainder given to the
        first local areas a patch each. Exponents outside the paper's range are accepted; ``warnings`` says so.
    area_sizes
        Or: sizes in patches; the first area is the global one, whatever its size.
    image
        Or: path of a photograph, whose patch grid is partitioned into areas of like appearance.
    patch_size
        Side of a patch of the photograph, in pixels after resizing.
    clusters
        K, drawn uniformly; each cluster has its own features.
    partitions
        "shared" (all clusters have the same areas), "nested", "random", or one list of sizes per cluster.
    latent
        Law of the latent strength of an area.
    max_cells
        Largest joint refinement of the clusters' partitions that is accepted.

    Raises
    ------
    InputError
        Where sizes do not fit, are given twice or not at all, or a number is out of range.

    >>> World(area_sizes=(6, 2, 2)).patches_total
    10
    """

    patches: int | None = None
    global_exponent: float | None = None
    local_exponent: float | None = None
    area_sizes: tuple[int, ...] | None = None
    image: str | None = None
    patch_size: int = 16
    clusters: int = 1
    partitions: str | tuple[tuple[int, ...], ...] = "shared"
    latent: Latent = field(default_factory=lambda: Latent(low=1.0, high=1.0))
    max_cells: int = 20_000

    def __post_init__(self) -> None:
        exponents = (self.patches, self.global_exponent, self.local_exponent)
        ways = [self.area_sizes is not None, self.image is not None, any(v is not None for v in exponents)]
        if sum(ways) != 1:
            raise InputError(
                "world: give exactly one of area_sizes, image, or (patches, global_exponent, local_exponent); "
                f"{sum(ways)} of the three were given."
            )
        for name in ("clusters", "patch_size", "max_cells"):
            object.__setattr__(self, name, whole_number(f"world.{name}", getattr(self, name)))
        if self.clusters > MOST_CLUSTERS:
            raise InputError(f"world.clusters = {self.clusters} is too many; at most {MOST_CLUSTERS}.")
        if self.area_sizes is not None:
            object.__setattr__(self, "area_sizes", checked_sizes("world.area_sizes", self.area_sizes))
        if self.image is not None:
            object.__setattr__(self, "image", str(self.image))
        if ways[2]:
            self._check_exponents()
        if isinstance(self.partitions, str):
            if self.partitions not in ("shared", "nested", "random"):
                raise InputError(
                    f"world: partitions = {self.partitions!r} is not known; give shared, nested, random, "
                    "or one list of sizes per cluster."
                )
        else:
            lists = items_of("world.partitions", self.partitions, "one list of sizes per cluster")
            checked = tuple(checked_sizes(f"world.partitions[{k}]", s) for k, s in enumerate(lists))
            object.__setattr__(self, "partitions", checked)
        if not isinstance(self.latent, Latent):
            raise InputError(
                f"world: latent = {self.latent!r} must be a Latent, such as Latent(low=0.5, high=1.5)."
            )
        if self.image is None:
            self._check_table(self.patches_total)
        if not isinstance(self.partitions, str):
            self._check_lists(self.partitions)

    def _check_exponents(self) -> None:
        for name in ("patches", "global_exponent", "local_exponent"):
            if getattr(self, name) is None:
                raise InputError(
                    f"world: {name} is missing; patches, global_exponent and local_exponent go together."
                )
        object.__setattr__(self, "patches", whole_number("world.patches", self.patches))
        self._check_table(self.patches or 0)
        for name in PAPER_RANGE:
            value = finite_number(f"world.{name}", getattr(self, name))
            if not 0 <= value <= 1:
                raise InputError(
                    f"world: {name} = {value} must lie in [0, 1]: an area has from 1 to P patches."
                )
            object.__setattr__(self, name, value)
        assert self.runs

    def _check_lists(self, lists: tuple[tuple[int, ...], ...]) -> None:
        if self.image is not None:
            raise InputError(
                "world: a photograph's areas lie where they lie; use partitions = shared or random."
            )
        listed(Partition(self.runs), lists, self.clusters)
        if runs_from_sizes(lists[0]) != self.runs:
            raise InputError(
                f"world: partitions[0] = {_start(lists[0])} differs from the world's own areas, which are cluster 0's; "
                "make them equal."
            )

    def _check_table(self, patches: int) -> None:
        if patches > LARGEST_WORLD:
            raise InputError(
                f"world: there are more than {LARGEST_WORLD:.0e} patches; lower patches or sizes."
            )
        if self.clusters > 1 and self.partitions != "shared" and patches > LARGEST_TABLE:
            raise InputError(
                f"world: partitions other than shared need a label for each of {patches} patches, at most "
                f"{LARGEST_TABLE}; lower patches or use partitions = shared."
            )

    @cached_property
    def photograph(self) -> PhotographAreas:
        """The photograph's resized pixels and areas. Raises InputError where there is no image or it cannot be read."""
        if self.image is None:
            raise InputError("world: it has no image.")
        from mimlab.world.photograph import load_photograph, segment

        return segment(load_photograph(self.image), patch_size=self.patch_size)

    @cached_property
    def base(self) -> Partition:
        """Cluster 0's partition."""
        if self.image is not None:
            return labelled(self.photograph.labels.ravel())
        return Partition(self.runs)

    @cached_property
    def runs(self) -> Runs:
        """Area sizes of cluster 0, run-length encoded in index order."""
        if self.image is not None:
            return self.base.runs
        if self.area_sizes is not None:
            return runs_from_sizes(self.area_sizes)
        assert (
            self.patches is not None and self.global_exponent is not None and self.local_exponent is not None
        )
        return runs_from_exponents(self.patches, self.global_exponent, self.local_exponent)

    @property
    def patches_total(self) -> int:
        """P, realised."""
        return sum(size * count for size, count in self.runs)

    def layout(self, seed: int = 0) -> Layout:
        """Every cluster's partition; ``seed`` matters for "random" only. Raises InputError where P needs a table."""
        base = self.base
        if (self.clusters == 1 and isinstance(self.partitions, str)) or self.partitions == "shared":
            grid = None if self.image is None else self.photograph.grid
            return Layout(self.clusters, (base,), grid)
        if self.partitions == "random":
            return Layout(self.clusters, scattered(base, self.clusters, seed))
        if self.partitions == "nested":
            if base.labels is not None:
                raise InputError(
                    "world: nested partitions need areas laid out in order; use shared or random."
                )
            return Layout(self.clusters, nested(base, self.clusters))
        lists: Any = self.partitions
        return Layout(self.clusters, listed(base, lists, self.clusters))

    def statistics(self) -> AreaStatistics:
        """κc, κs, Δ and the Δ_p of local patches, measured on the realised sizes of cluster 0 (theory, section 9)."""
        return area_statistics(self.runs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What in this world lies outside the paper's assumptions."""
        notes = []
        for name, (low, high) in PAPER_RANGE.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                notes.append(f"{name} = {value} lies outside the paper's range [{low}, {high}]")
        sizes = [size for size, _ in self.runs]
        if len(sizes) > 1 and sizes[0] < max(sizes[1:]):
            notes.append(
                f"the global area ({sizes[0]} patches) is smaller than a local one ({max(sizes[1:])})"
            )
        if self.latent.support[0] == 0:
            notes.append("latents reach 0; the paper takes them bounded away from it")
        return tuple(notes)


def checked_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Sizes as positive ints, at least one. Raises InputError otherwise."""
    items = items_of(name, sizes, "positive whole numbers")
    return tuple(whole_number(f"{name}[{i}]", size) for i, size in enumerate(items))


def _start(sizes: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, sizes[:8]))}{', ...' if len(sizes) > 8 else ''}]"
