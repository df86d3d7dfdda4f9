"""Worlds: sizes from exponents, partitions of positions, and what a world says of itself (theory, sections 1 and 9)."""

from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mimlab
from mimlab.world.partition import Layout, Partition, labelled, listed, nested, scattered
from mimlab.world.sizes import Runs, runs_from_exponents, runs_from_sizes

quick = settings(max_examples=80)
size_lists = st.lists(st.integers(1, 6), min_size=1, max_size=12)


def expanded(runs: Runs) -> list[int]:
    return [size for size, count in runs for _ in range(count)]


# --- sizes ------------------------------------------------------------------------------------------------


@quick
@given(size_lists)
def test_runs_are_the_list_shortened(sizes: list[int]) -> None:
    runs = runs_from_sizes(sizes)
    assert expanded(runs) == sizes
    assert runs[0][1] == 1, "the global area stands alone"
    assert all(first[0] != second[0] for first, second in pairwise(runs[1:]))


def handed_out(patches: int, large: int, small: int) -> list[int]:
    """The rule, literally: local areas of `small`, what remains a patch each to the first ones, in turns."""
    sizes = [small] * ((patches - large) // small)
    for patch in range((patches - large) % small):
        sizes[patch % len(sizes)] += 1
    return [large, *sizes]


exponents = st.tuples(st.integers(2, 4000), st.floats(0.3, 1.0), st.floats(0.0, 0.7))


@settings(quick, max_examples=200)
@given(exponents)
def test_sizes_from_exponents_follow_the_rule(drawn: tuple[int, float, float]) -> None:
    patches, global_exponent, local_exponent = drawn
    large, small = round(patches**global_exponent), max(1, round(patches**local_exponent))
    if large + small > patches:
        with pytest.raises(mimlab.InputError, match=str(patches)):
            runs_from_exponents(patches, global_exponent, local_exponent)
        return
    sizes = expanded(runs_from_exponents(patches, global_exponent, local_exponent))
    assert sizes == handed_out(patches, large, small)
    assert sum(sizes) == patches
    assert max(sizes[1:]) - min(sizes[1:]) <= 1


@pytest.mark.parametrize("power", [4, 6, 9, 12, 15])
@pytest.mark.parametrize(("global_exponent", "local_exponent"), [(0.9, 0.3), (0.51, 0.5), (0.999, 0.001)])
def test_sizes_cover_every_patch_at_any_number_of_them(
    power: int, global_exponent: float, local_exponent: float
) -> None:
    """At most three runs, whatever P: nothing grows with the number of areas."""
    world = mimlab.World(patches=10**power, global_exponent=global_exponent, local_exponent=local_exponent)
    assert world.patches_total == 10**power
    assert len(world.runs) <= 3
    assert world.runs[0] == (round((10**power) ** global_exponent), 1)


def test_a_world_by_exponents_is_the_world_of_those_sizes() -> None:
    by_exponents = mimlab.World(patches=60, global_exponent=0.8, local_exponent=0.4)
    by_sizes = mimlab.World(area_sizes=tuple(expanded(by_exponents.runs)))
    assert by_exponents.runs == by_sizes.runs
    first, second = (
        mimlab.simulate(world, engine="mean-field", stop_attention=0.6) for world in (by_exponents, by_sizes)
    )
    assert first.trajectory.equals(second.trajectory)
    assert first.correlations.equals(second.correlations)


def test_whole_numbers_of_any_kind_are_sizes() -> None:
    plain = mimlab.World(area_sizes=(4, 2, 2))
    for sizes in ([4, 2, 2], (4.0, 2.0, 2.0), np.array([4, 2, 2]), tuple(np.array([4, 2, 2], dtype=np.int8))):
        world = mimlab.World(area_sizes=sizes)  # type: ignore[arg-type]
        assert world == plain
        assert all(type(size) is int for size in world.area_sizes or ())


# --- partitions -------------------------------------------------------------------------------------------


def assert_consistent(partition: Partition) -> None:
    """Every way of asking gives one answer."""
    labels = partition.all_labels()
    assert labels.shape == (partition.patches,)
    assert set(labels.tolist()) == set(range(partition.areas))
    for patch in range(partition.patches):
        assert partition.area_of(patch) == labels[patch]
    for area in range(partition.areas):
        assert partition.size_of(area) == np.sum(labels == area)
        assert partition.first_patch(area) == np.flatnonzero(labels == area)[0]


@quick
@given(size_lists)
def test_areas_in_order(sizes: list[int]) -> None:
    partition = Partition(runs_from_sizes(sizes))
    assert_consistent(partition)
    assert np.all(np.diff(partition.all_labels()) >= 0)
    with pytest.raises(IndexError):
        partition.area_of(partition.patches)
    for ask in (partition.size_of, partition.first_patch):
        with pytest.raises(IndexError):
            ask(partition.areas)


@quick
@given(size_lists, st.integers(0, 1000))
def test_areas_anywhere(sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    partition = labelled(labels)
    assert_consistent(partition)
    assert expanded(partition.runs) == sizes


def test_positions_of_a_partition_too_large_for_a_table() -> None:
    """P = 10^15: found by arithmetic on three runs."""
    base = mimlab.World(patches=10**15, global_exponent=0.9, local_exponent=0.3).base
    (large, _), (long, longer), (short, _) = base.runs
    assert [base.area_of(p) for p in (0, large - 1, large, large + long)] == [0, 0, 1, 2]
    assert base.area_of(10**15 - 1) == base.areas - 1
    assert base.first_patch(longer + 1) == large + long * longer
    assert base.first_patch(base.areas - 1) + short == 10**15
    for area in (1, longer, longer + 1, base.areas - 1):
        assert base.area_of(base.first_patch(area)) == area
        assert base.area_of(base.first_patch(area) - 1) == area - 1


@quick
@given(size_lists, st.integers(1, 4))
def test_nested_halves_every_local_area(sizes: list[int], clusters: int) -> None:
    base = Partition(runs_from_sizes(sizes))
    partitions = nested(base, clusters)
    assert len(partitions) == clusters
    for coarse, fine in pairwise(partitions):
        assert_consistent(fine)
        assert fine.patches == base.patches
        above, below = coarse.all_labels(), fine.all_labels()
        for area in range(coarse.areas):
            size, parts = coarse.size_of(area), np.unique(below[above == area], return_counts=True)[1]
            halves = [size] if area == 0 or size == 1 else [size - size // 2, size // 2]
            assert parts.tolist() == halves


@quick
@given(size_lists, st.integers(2, 4), st.integers(0, 100))
def test_random_partitions_move_all_clusters_but_the_first(
    sizes: list[int], clusters: int, seed: int
) -> None:
    base = Partition(runs_from_sizes(sizes))
    partitions = scattered(base, clusters, seed)
    again = scattered(base, clusters, seed)
    assert partitions[0] is base
    for partition, repeated in zip(partitions, again, strict=True):
        assert_consistent(partition)
        assert partition.runs == base.runs
        assert np.array_equal(partition.all_labels(), repeated.all_labels())


def test_random_partitions_depend_on_the_seed_and_on_the_cluster() -> None:
    base = Partition(((20, 1), (5, 8)))
    labels = [p.all_labels().tolist() for seed in (0, 1) for p in scattered(base, 3, seed)[1:]]
    assert len({tuple(line) for line in labels}) == 4


def test_listed_partitions_lie_area_by_area() -> None:
    lists = ((4, 2, 2), (3, 5), (8,))
    partitions = listed(Partition(runs_from_sizes(lists[0])), lists, 3)
    for partition, sizes in zip(partitions, lists, strict=True):
        assert_consistent(partition)
        assert expanded(partition.runs) == list(sizes)


@pytest.mark.parametrize("partitions", ["shared", "nested", "random"])
def test_one_cluster_has_its_own_partition_alone(partitions: str) -> None:
    layout = mimlab.World(area_sizes=(4, 2, 2), partitions=partitions).layout()
    assert layout.shared
    assert layout.partition_of(0).runs == ((4, 1), (2, 2))


def test_layout_of_several_clusters() -> None:
    def of(partitions: str | tuple[tuple[int, ...], ...], seed: int = 0) -> Layout:
        return mimlab.World(area_sizes=(4, 2, 2), clusters=2, partitions=partitions).layout(seed)

    shared, apart, spread, given = (of(p) for p in ("shared", "nested", "random", ((4, 2, 2), (2, 6))))
    assert shared.shared
    assert shared.partition_of(1) is shared.partition_of(0)
    assert not apart.shared and apart.partition_of(1).runs == ((4, 1), (1, 4))
    assert not spread.shared and spread.partition_of(1).runs == ((4, 1), (2, 2))
    assert not given.shared and given.partition_of(1).runs == ((2, 1), (6, 1))
    assert all(layout.patches == 8 and layout.clusters == 2 for layout in (shared, apart, spread, given))


# --- what a world says of itself --------------------------------------------------------------------------


def test_statistics_are_those_of_the_realised_sizes() -> None:
    world = mimlab.World(patches=100, global_exponent=0.7, local_exponent=0.5)
    assert world.runs == ((25, 1), (11, 5), (10, 2))
    facts = world.statistics()
    mean = 75 / 7
    assert facts.global_exponent == pytest.approx(log(25) / log(100), rel=1e-12)
    assert facts.local_exponent == pytest.approx(log(mean) / log(100), rel=1e-12)
    assert facts.information_gap == pytest.approx(log(25**2 / (100 * mean)) / log(100), rel=1e-12)
    assert [(own.own_size, own.patches) for own in facts.patch_gaps] == [(11, 55), (10, 20)]


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({"patches": 1000, "global_exponent": 0.4, "local_exponent": 0.3}, "global_exponent = 0.4"),
        ({"patches": 1000, "global_exponent": 0.8, "local_exponent": 0.6}, "local_exponent = 0.6"),
        ({"area_sizes": (2, 5, 3)}, "smaller than a local one"),
        ({"area_sizes": (5, 2), "latent": mimlab.Latent(values=(0.0, 1.0))}, "latents reach 0"),
    ],
)
def test_what_the_paper_excludes_is_warned_about(world: dict[str, object], words: str) -> None:
    (note,) = mimlab.World(**world).warnings  # type: ignore[arg-type]
    assert words in note


def test_what_the_paper_allows_is_not_warned_about() -> None:
    world = mimlab.World(
        patches=1000, global_exponent=0.8, local_exponent=0.3, latent=mimlab.Latent(0.5, 1.5)
    )
    assert world.warnings == ()
