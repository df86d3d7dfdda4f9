"""Lumping a row: what is tied must be exchanged by a symmetry, and must move as the unlumped entries do.

Symmetries are found by trying every permutation of the positions that fixes the query: it must map each cluster's
partition to itself, and its area 0 to itself, since the package keeps the global area apart by design."""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mimlab
from mimlab.dynamics.enumerated import enumerated_draws
from mimlab.dynamics.sampled import sampled_replicates
from mimlab.objectives.draws import Draws
from mimlab.objectives.kernel import RowObjective
from mimlab.world.partition import Layout, Partition, labelled
from mimlab.world.row import Row, joint_cells, row_of, unlumped_row
from mimlab.world.sizes import runs_from_sizes

Array = np.ndarray
Labels = tuple[tuple[int, ...], ...]  # area of every patch, for every cluster
MANY = 20_000


def layout_of(labels: Labels) -> Layout:
    return Layout(len(labels), tuple(labelled(np.array(line)) for line in labels))


def consecutive(*lists: Sequence[int]) -> Labels:
    return tuple(tuple(np.repeat(np.arange(len(sizes)), sizes).tolist()) for sizes in lists)


def renumbered(line: Sequence[int]) -> tuple[int, ...]:
    """Labels 0, 1, ... in order of first appearance."""
    number = {label: i for i, label in enumerate(dict.fromkeys(line))}
    return tuple(number[label] for label in line)


# --- the unknown of every entry, as the row lumps them ----------------------------------------------------


def unknowns(layout: Layout, row: Row) -> tuple[list[Array], Array]:
    """Index of the Phi of every area of every cluster, and of the Upsilon of every position."""
    phis = []
    if row.cell_of is None:  # one view of areas; those of one size are alike, the global and own ones apart
        base, view = layout.partitions[0], row.views[0]
        own = base.area_of(row.query)
        column = {
            (int(area) == 0, int(area) == own, base.size_of(int(area))): c
            for c, area in enumerate(view.area_index)
        }
        columns = np.array([column[a == 0, a == own, base.size_of(a)] for a in range(base.areas)])
        phis = [view.area_phi[columns]] * layout.clusters
        positions = row.cell_upsilon[columns][base.all_labels()]
    else:
        assert [view.clusters for view in row.views] == [(k,) for k in range(layout.clusters)]
        phis = [view.area_phi[np.argsort(view.area_index)] for view in row.views]
        positions = row.cell_upsilon[row.cell_of].copy()
    positions[row.query] = 0
    return phis, positions


def expanded(layout: Layout, row: Row, state: Array) -> Array:
    """A lumped state (or velocity) with an entry for everything, as ``unlumped_row`` orders them."""
    phis, positions = unknowns(layout, row)
    plain = unlumped_row(layout, row.query)
    Upsilon = state[len(row.phi_tied) :]
    cells = Upsilon[positions]
    cells[row.query] = 0.0  # its own cell is empty: the query's Upsilon comes first
    assert len(plain.upsilon_tied) == 1 + layout.patches
    return np.concatenate([state[: len(row.phi_tied)][np.concatenate(phis)], Upsilon[:1], cells])


# --- symmetries by brute force ----------------------------------------------------------------------------


def symmetries(labels: Labels, query: int) -> Array:
    """Every permutation of the positions that fixes the query and preserves each partition and its area 0."""
    patches = len(labels[0])
    others = [q for q in range(patches) if q != query]
    found = np.tile(np.arange(patches), (int(np.prod(range(1, patches))), 1))
    found[:, others] = np.array(list(permutations(others)), dtype=int).reshape(len(found), -1)
    for line in map(np.array, labels):
        together = line[:, None] == line[None, :]
        moved = line[found]
        keeps = ((moved[:, :, None] == moved[:, None, :]) == together).all(axis=(1, 2))
        found = found[keeps & ((moved == 0) == (line == 0)).all(axis=1)]
    return found


def orbits(labels: Labels, query: int) -> tuple[Array, Array]:
    """Whether a symmetry takes position q to r, and area i to j; areas of all clusters one after another."""
    group, patches = symmetries(labels, query), len(labels[0])
    positions = np.zeros((patches, patches), dtype=bool)
    np.logical_or.at(positions, (np.arange(patches)[None, :], group), True)
    areas = [(k, j) for k, line in enumerate(labels) for j in range(max(line) + 1)]
    index = {area: i for i, area in enumerate(areas)}
    meet = np.zeros((len(areas), len(areas)), dtype=bool)
    for k, line in enumerate(labels):
        for q in range(patches):
            for r in np.unique(group[:, q]):
                meet[index[k, line[q]], index[k, line[r]]] = True
    return positions, meet


def ties(layout: Layout, query: int) -> tuple[Array, Array]:
    """The same two tables as the row has them."""
    phis, positions = unknowns(layout, row_of(layout, query, MANY))
    phi = np.concatenate(phis)
    return positions[:, None] == positions[None, :], phi[:, None] == phi[None, :]


def laminar(labels: Labels) -> bool:
    """Whether areas of any two clusters are nested or disjoint."""
    areas = [frozenset(np.flatnonzero(np.array(line) == j)) for line in labels for j in set(line)]
    return all(not (a & b) or a <= b or b <= a for a in areas for b in areas)


def assert_ties_are_symmetries(labels: Labels, complete: bool) -> None:
    layout = layout_of(labels)
    for query in range(len(labels[0])):
        for tied, exchanged in zip(ties(layout, query), orbits(labels, query), strict=True):
            assert not np.any(tied & ~exchanged), f"query {query}: tied without a symmetry"
            if complete:
                assert np.array_equal(tied, exchanged), f"query {query}: a symmetry was missed"


@st.composite
def any_partitions(draw: st.DrawFn) -> Labels:
    patches, clusters = draw(st.integers(2, 6)), draw(st.integers(2, 3))
    line = st.lists(st.integers(0, 3), min_size=patches, max_size=patches).map(renumbered)
    return tuple(draw(line) for _ in range(clusters))


@st.composite
def laminar_partitions(draw: st.DrawFn) -> Labels:
    """A random tree over the positions; every cluster cuts it at depths of its own, branch by branch."""
    patches, clusters = draw(st.integers(2, 6)), draw(st.integers(2, 3))
    splits: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def grow(block: tuple[int, ...]) -> None:
        if len(block) == 1:
            return
        into = draw(st.lists(st.integers(0, 2), min_size=len(block), max_size=len(block)))
        parts = [tuple(q for q, i in zip(block, into, strict=True) if i == part) for part in set(into)]
        if len(parts) > 1:
            splits[block] = parts
            for part in parts:
                grow(part)

    everything = tuple(range(patches))
    grow(everything)

    def cut(block: tuple[int, ...]) -> list[tuple[int, ...]]:
        if block in splits and draw(st.booleans()):
            return [area for part in splits[block] for area in cut(part)]
        return [block]

    result = []
    for _ in range(clusters):
        areas = cut(everything)
        shuffled = draw(st.permutations(range(len(areas))))
        line = [0] * patches
        for number, area in zip(shuffled, areas, strict=True):
            for q in area:
                line[q] = number
        result.append(tuple(line))
    return tuple(result)


thorough = settings(max_examples=120)


@thorough
@given(any_partitions())
def test_nothing_is_tied_without_a_symmetry(labels: Labels) -> None:
    assert_ties_are_symmetries(labels, complete=laminar(labels))


@thorough
@given(laminar_partitions())
def test_every_symmetry_of_laminar_partitions_is_found(labels: Labels) -> None:
    assert laminar(labels)
    assert_ties_are_symmetries(labels, complete=True)


@pytest.mark.parametrize(
    "labels",
    [
        consecutive([3, 2, 2], [3, 1, 1, 2]),
        consecutive([3, 2, 2], [3, 1, 1, 1, 1]),
        consecutive([1, 2, 2, 2], [1, 6], [7]),
        consecutive([4, 3], [2, 2, 3], [1, 1, 2, 1, 1, 1]),
        consecutive([2, 2, 3], [4, 3], [7]),
    ],
)
def test_laminar_lists_of_seven_patches(labels: Labels) -> None:
    assert_ties_are_symmetries(labels, complete=True)


@pytest.mark.parametrize(
    "labels",
    [
        consecutive([3, 2, 2], [2, 3, 2]),
        consecutive([1, 3, 3], [1, 2, 2, 2]),
        consecutive([3, 4], [4, 3], [2, 5]),
        ((0, 0, 1, 1, 2, 2, 2), (0, 1, 0, 1, 2, 2, 2)),
    ],
)
def test_crossing_lists_of_seven_patches(labels: Labels) -> None:
    assert not laminar(labels)
    assert_ties_are_symmetries(labels, complete=False)


@settings(thorough, max_examples=60)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5).filter(lambda sizes: 2 <= sum(sizes) <= 7))
def test_shared_partitions_tie_areas_of_one_size(sizes: list[int]) -> None:
    layout = Layout(1, (Partition(runs_from_sizes(sizes)),))
    for query in range(sum(sizes)):
        expected = orbits(consecutive(sizes), query)
        for tied, exchanged in zip(ties(layout, query), expected, strict=True):
            assert np.array_equal(tied, exchanged)


# --- what a row says of itself ----------------------------------------------------------------------------


def every_layout() -> list[Layout]:
    def world(**keys: object) -> mimlab.World:
        return mimlab.World(**keys)  # type: ignore[arg-type]

    three = {"area_sizes": (5, 3, 2, 2, 1, 3), "clusters": 3}
    return [
        world(area_sizes=(5, 3, 2, 2, 1, 3)).layout(),
        world(**three).layout(),
        world(**three, partitions="nested").layout(),
        world(**three, partitions="random").layout(seed=1),
        world(area_sizes=(6, 6), clusters=2, partitions=((6, 6), (3, 9))).layout(),
        world(area_sizes=(4,)).layout(),
        Layout(1, (labelled(np.array([2, 0, 1, 1, 0, 2, 3])),)),
        Layout(2, (labelled(np.array([2, 0, 1, 1, 0, 2, 3])),)),
    ]


@pytest.mark.parametrize("layout", every_layout())
def test_rows_account_for_every_entry(layout: Layout) -> None:
    for query in range(layout.patches):
        row = row_of(layout, query, MANY)
        phis, positions = unknowns(layout, row)
        counted = np.bincount(positions, minlength=len(row.upsilon_tied))
        assert row.upsilon_tied.tolist() == counted.tolist()
        assert row.phi_tied.tolist() == np.bincount(np.concatenate(phis)).tolist()
        assert np.sum(row.cell_size * row.cell_count) == layout.patches - 1
        assert sum(view.share * len(view.clusters) for view in row.views) == pytest.approx(
            1.0 if len(row.views) > 1 else layout.clusters
        )
        for view in row.views:
            partition = layout.partition_of(view.clusters[0])
            own = partition.area_of(query)
            assert view.area_index[view.own] == own
            assert view.own_size == partition.size_of(own)
        for k, phi in enumerate(phis):
            view = row.views[0 if len(row.views) == 1 else k]
            partition = layout.partition_of(k)
            assert row.phi_own[row.views.index(view)] == phi[partition.area_of(query)]
            assert row.phi_of(0)[row.views.index(view)] == phi[0]
            for apart in (0, partition.area_of(query)):
                assert np.sum(phi == phi[apart]) == 1, "the global and own areas stand alone"


@pytest.mark.parametrize("layout", every_layout())
def test_cells_name_the_first_of_their_patches(layout: Layout) -> None:
    labels = layout.partitions[0].all_labels()
    for query in range(layout.patches):
        row = row_of(layout, query, MANY)
        _, positions = unknowns(layout, row)
        for cell, patch in enumerate(row.cell_patch):
            assert (patch == -1) == (row.cell_size[cell] == 0)
            members = positions == row.cell_upsilon[cell] if row.cell_of is None else row.cell_of == cell
            order = sorted((area, q) for q, area in enumerate(labels) if members[q] and q != query)
            assert [q for _, q in order[:1]] == ([patch] if patch >= 0 else [])


def test_areas_alike_are_tied_whatever_their_number() -> None:
    """Five unknowns for a global query, seven for a local one, as theory section 4 counts; nine where sizes differ."""
    layout = mimlab.World(area_sizes=(10**6, *[100] * 50)).layout()
    assert row_of(layout, 0, MANY).size == 5
    assert row_of(layout, 10**6 + 250, MANY).size == 7
    vast = mimlab.World(patches=10**12, global_exponent=0.9, local_exponent=0.3).layout()
    row = row_of(vast, 10**12 - 1, MANY)
    assert row.size == 9
    assert row.upsilon_tied.sum() == 10**12


def test_the_joint_refinement_is_that_of_the_labels() -> None:
    layout = mimlab.World(area_sizes=(20, *[4] * 5), clusters=3, partitions="random").layout(seed=2)
    cells, areas = joint_cells(layout, MANY)
    labels = [tuple(p.all_labels()[q] for p in layout.partitions) for q in range(40)]
    assert len(areas) == len(set(labels))
    assert [tuple(areas[cell]) for cell in cells] == labels


# --- lumped moves as unlumped -----------------------------------------------------------------------------


def assert_same_kernel(
    layout: Layout, query: int, lumped: tuple[Draws, ...], plain: tuple[Draws, ...], seed: int
) -> None:
    """Loss, attention and velocity at a tied state: those of the row with nothing tied, and tied again."""
    row = row_of(layout, query, MANY)
    together = RowObjective(row, lumped, 0.7)
    apart = RowObjective(unlumped_row(layout, query), plain, 0.7)
    state = np.random.default_rng(seed).normal(size=row.size)
    state[len(row.phi_tied) :][row.upsilon_tied == 0] = 0.0
    found, expected = together.evaluate(state), apart.evaluate(expanded(layout, row, state))
    for name in ("loss", "excess", "attention_own", "attention_global"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12, nan_ok=True)
    velocity = expanded(layout, row, found.velocity)
    np.testing.assert_allclose(velocity, expected.velocity, rtol=0, atol=1e-14)


def assert_lumped_is_unlumped(layout: Layout, latent: mimlab.Latent, masked: int, seed: int) -> None:
    for query in range(layout.patches):
        lumped = enumerated_draws(row_of(layout, query, MANY), latent, masked)
        plain = enumerated_draws(unlumped_row(layout, query), latent, masked)
        assert_same_kernel(layout, query, lumped, plain, seed)


TWO = mimlab.Latent(values=(0.4, 1.3))


@settings(thorough, max_examples=40)
@given(laminar_partitions() | any_partitions(), st.data())
def test_lumped_equals_unlumped(labels: Labels, data: st.DataObject) -> None:
    patches = len(labels[0])
    assume(max(max(line) for line in labels) <= 3)
    masked = data.draw(st.integers(1, patches - 1))
    assert_lumped_is_unlumped(layout_of(labels), TWO, masked, data.draw(st.integers(0, 100)))


@pytest.mark.parametrize(("clusters", "masked"), [*product((1, 2, 3), (2, 5))])
def test_lumped_equals_unlumped_where_clusters_share(clusters: int, masked: int) -> None:
    layout = Layout(clusters, (Partition(((3, 1), (2, 1), (1, 2))),))
    assert_lumped_is_unlumped(layout, TWO, masked, seed=8)


@pytest.mark.parametrize("query", [0, 9, 21])
def test_merged_areas_move_as_unlumped_ones(query: int) -> None:
    """The sampled engine's own masks and latents: with merged columns, with a column an area, with nothing tied."""
    layout = Layout(1, (Partition(((8, 1), (2, 12))),))
    row, latent = row_of(layout, query, MANY), mimlab.Latent(0.9, 1.0)
    merging, keeping = (sampled_replicates(row, latent, 20, 64, 5, reach)[3] for reach in (2.0, 1e6))
    assert merging[0].merged is not None and keeping[0].merged is None
    counts, z = keeping[0].counts, keeping[0].z  # columns: own, then areas in the row's order
    areas = list(dict.fromkeys([layout.partitions[0].area_of(query), *range(13)]))
    plain = unlumped_row(layout, query)
    labels = layout.partitions[0].all_labels()
    seen = np.zeros((len(counts), layout.patches))
    for column, area in enumerate(areas):
        members = [q for q in np.flatnonzero(labels == area) if q != query]
        for draw, visible in enumerate(counts[:, column].astype(int)):
            seen[draw, members[:visible]] = 1.0
    z_of_area = np.empty_like(z)
    z_of_area[:, areas] = z
    masked = np.concatenate([np.ones((len(seen), 1)), plain.cell_size - seen], axis=1)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    apart = Draws(
        share=1.0,
        weight=keeping[0].weight,
        counts=seen[:, order],
        starts=starts,
        cell_upsilon=plain.cell_upsilon[order],
        phi=np.arange(13),
        z=z_of_area,
        masked=masked,
        own=int(labels[query]),
        solvable=keeping[0].solvable,
    )
    # Which of an area's patches are visible is drawn among equals: only sums can agree.
    state = np.random.default_rng(1).normal(size=row.size)
    merged, kept = (RowObjective(row, draws, 0.7) for draws in (merging, keeping))
    full = RowObjective(plain, (apart,), 0.7).evaluate(expanded(layout, row, state))
    phis, positions = unknowns(layout, row)
    total = np.concatenate(
        [
            np.bincount(phis[0], full.velocity[:13]),
            full.velocity[13:14],
            np.bincount(positions, np.delete(full.velocity[13:], 0), minlength=len(row.upsilon_tied))[1:],
        ]
    )
    for found in (merged.evaluate(state), kept.evaluate(state)):
        assert found.loss == pytest.approx(full.loss, rel=1e-10)
        assert found.attention_own == pytest.approx(full.attention_own, rel=1e-10)
        assert found.attention_global == pytest.approx(full.attention_global, rel=1e-10)
        np.testing.assert_allclose(found.velocity * kept.tied, total, rtol=0, atol=1e-11)
