"""One query row, lumped: which of its P² unknowns are equal for all time (theory, section 4).

Entries of a row are tied when a permutation of the positions that fixes the query and maps every cluster's partition to
itself exchanges them. Two cases find them exactly:
shared partitions -- areas of one size are alike, whatever their number, so nothing here grows with P;
several partitions -- positions in one cell of the joint refinement are alike, and where the partitions are laminar
(areas of different clusters nested or disjoint) also cells and areas that the forest's symmetries exchange. Otherwise
cells stay apart, which is exact too, only longer. Area 0 and the query's own areas always stand alone, so that they can
be read off.
Tying what no permutation exchanges would give wrong numbers silently; keeping apart what is tied never does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as counter

import numpy as np

from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout, Partition

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class View:
    """How one cluster (or all, where they share their areas) groups the row's cells into areas."""

    share: float  # probability of the clusters seen this way
    clusters: tuple[int, ...]
    cell_area: Array  # (cells,) column of the area that holds each cell
    area_phi: Array  # (areas,) index of the area's Phi
    area_index: (
        Array  # (areas,) index of the area in its partition; of the first, where a column stands for several
    )
    own: int  # column of the query's own area
    own_size: int  # C_a, the query included


@dataclass(frozen=True, eq=False)
class Row:
    """The lumped unknowns of query p: Phi of shape (len(phi_tied),), Upsilon of shape (len(upsilon_tied),).

    Upsilon[0] is the query's own position. ``cell_count[c]`` like areas, each with ``cell_size[c]`` patches, stand
    behind cell c (1 each, unless ``grouped``).
    """

    query: int
    patches: int
    cell_size: Array  # (cells,) the query excluded; may be 0 for the query's own cell
    cell_count: Array  # (cells,)
    cell_upsilon: Array  # (cells,)
    cell_patch: Array  # (cells,) a patch in the cell, -1 where it is empty
    phi_tied: Array  # (n_phi,) entries (clusters x areas) tied to each Phi
    upsilon_tied: Array  # (n_upsilon,) positions tied to each Upsilon
    views: tuple[View, ...]
    cell_of: Array | None  # (P,) cell of each patch; None where rows are ``grouped``

    @property
    def grouped(self) -> bool:
        """Whether there is one view, each of its cells an area that stands for ``cell_count`` like ones."""
        return self.cell_of is None

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return len(self.phi_tied) + len(self.upsilon_tied)

    @property
    def kind(self) -> tuple[bool, int]:
        """Whether the query's own area is the global one, and its size; of the first view."""
        view = self.views[0]
        return bool(view.area_index[view.own] == 0), view.own_size

    def phi_of(self, area: int) -> Array:
        """Index of the Phi of area ``area`` (0: the global one) in each view; shape (views,)."""
        return np.array([v.area_phi[int(np.flatnonzero(v.area_index == area)[0])] for v in self.views])

    @property
    def phi_own(self) -> Array:
        """Index of the Phi of the query's own area in each view; shape (views,)."""
        return np.array([v.area_phi[v.own] for v in self.views])


def row_of(layout: Layout, query: int, max_cells: int) -> Row:
    """Lump the row of ``query``. Raises InputError where the joint refinement exceeds ``max_cells`` cells."""
    if layout.shared:
        return _shared_row(layout.partitions[0], query, layout.clusters)
    return _refined_row(layout, query, max_cells)


def unlumped_row(layout: Layout, query: int) -> Row:
    """The row of ``query`` with nothing tied: a cell for every patch (the query's own empty), a Phi for every area of
    every cluster; for an engine that trains them all."""
    patches = layout.patches
    sizes = np.ones(patches, dtype=np.int64)
    sizes[query] = 0
    views, first = [], 0
    for k in range(layout.clusters):
        labels = layout.partition_of(k).all_labels()
        areas = np.arange(labels.max() + 1)
        own = int(labels[query])
        views.append(
            View(1 / layout.clusters, (k,), labels, first + areas, areas, own, int(np.sum(labels == own)))
        )
        first += len(areas)
    patch = np.where(sizes > 0, np.arange(patches), -1)
    tied = np.concatenate([[1.0], sizes.astype(float)])
    ones = np.ones(patches, dtype=np.int64)
    cells = np.arange(patches)
    return Row(query, patches, sizes, ones, cells + 1, patch, np.ones(first), tied, tuple(views), cells)


def _shared_row(partition: Partition, query: int, clusters: int) -> Row:
    own = partition.area_of(query)
    own_size = partition.size_of(own)
    groups: dict[tuple[bool, int], list[int]] = {}  # (is global, size) -> [number of areas, first area]
    first = 0
    for size, number in partition.runs:
        here = number - (first <= own < first + number)
        if here:
            start = first + (own == first)
            groups.setdefault((first == 0, size), [0, start])[0] += here
        first += number
    sizes = np.array([own_size - 1, *(size for _, size in groups)], dtype=np.int64)
    counts = np.array([1, *(number for number, _ in groups.values())], dtype=np.int64)
    areas = np.array([own, *(start for _, start in groups.values())], dtype=np.int64)
    columns = np.arange(len(sizes))
    patches = [_patch_beside(partition, own, query), *(partition.first_patch(int(a)) for a in areas[1:])]
    view = View(1.0, tuple(range(clusters)), columns, columns, areas, 0, own_size)
    return Row(
        query=query,
        patches=partition.patches,
        cell_size=sizes,
        cell_count=counts,
        cell_upsilon=columns + 1,
        cell_patch=np.array(patches),
        phi_tied=(counts * clusters).astype(float),
        upsilon_tied=np.concatenate([[1.0], (sizes * counts).astype(float)]),
        views=(view,),
        cell_of=None,
    )


def _patch_beside(partition: Partition, area: int, query: int) -> int:
    """A patch of the area other than the query, -1 if there is none."""
    if partition.labels is not None:
        others = np.flatnonzero(partition.labels == area)
        others = others[others != query]
        return int(others[0]) if len(others) else -1
    if partition.size_of(area) == 1:
        return -1
    first = partition.first_patch(area)
    return first if first != query else first + 1


def joint_cells(layout: Layout, max_cells: int) -> tuple[Array, Array]:
    """The joint refinement: cell of each patch, shape (P,), and area of each cell in each cluster, (cells, clusters).

    Raises InputError where there are more than ``max_cells`` cells.
    """
    labels = np.stack([p.all_labels() for p in layout.partitions], axis=1)
    areas, cells = np.unique(labels, axis=0, return_inverse=True)
    if len(areas) > max_cells:
        raise InputError(
            f"world: the {layout.clusters} clusters' partitions refine each other into {len(areas)} cells, more than "
            f"max_cells = {max_cells}; use partitions = shared or nested, fewer clusters or larger areas, or raise "
            "max_cells."
        )
    return cells.ravel(), areas


def _refined_row(layout: Layout, query: int, max_cells: int) -> Row:
    cell_of, cell_areas = joint_cells(layout, max_cells)
    cells, clusters = cell_areas.shape
    sizes = np.bincount(cell_of, minlength=cells)
    own_cell = int(cell_of[query])
    sizes[own_cell] -= 1
    positions = np.arange(len(cell_of))
    patch = np.full(cells, -1)
    keep = positions != query
    patch[cell_of[keep][::-1]] = positions[keep][::-1]
    area_orbit, cell_orbit = _orbits(cell_areas, sizes, own_cell)
    upsilon = np.asarray(cell_orbit) + 1
    views = []
    for k in range(clusters):
        present, column = np.unique(cell_areas[:, k], return_inverse=True)
        phi = np.array([area_orbit[k, int(area)] for area in present])
        own = int(column[own_cell])
        size = int(sizes[column == own].sum()) + 1
        views.append(View(1 / clusters, (k,), column, phi, present, own, size))
    phi_tied = np.bincount(np.concatenate([v.area_phi for v in views])).astype(float)
    tied = np.bincount(upsilon, weights=sizes)
    tied[0] = 1.0
    ones = np.ones(cells, dtype=np.int64)
    return Row(query, len(cell_of), sizes, ones, upsilon, patch, phi_tied, tied, tuple(views), cell_of)


def _orbits(cell_areas: Array, sizes: Array, own_cell: int) -> tuple[dict[tuple[int, int], int], list[int]]:
    """Orbit of every (cluster, area) and of every cell under the symmetries that fix the query.

    A laminar family is a forest with the cells as leaves; its symmetries exchange siblings with equal canonical
    forms, so two nodes share an orbit exactly if their parents do and their canonical forms agree (docs/derivations.md,
    "Which entries are tied").
    """
    cells, clusters = cell_areas.shape
    members: dict[frozenset[int], list[tuple[int, int]]] = {}
    for k in range(clusters):
        order = np.argsort(cell_areas[:, k], kind="stable")
        for block in np.split(order, np.flatnonzero(np.diff(cell_areas[order, k])) + 1):
            members.setdefault(frozenset(block.tolist()), []).append((k, int(cell_areas[block[0], k])))
    nodes = sorted(members, key=len, reverse=True)
    holder = np.full(cells, -1)  # smallest area so far that contains the cell
    parent = []
    for index, node in enumerate(nodes):
        above = {int(holder[c]) for c in node}
        if len(above) > 1:  # areas cross: no forest, keep every cell and area apart
            singles = {label: i for i, label in enumerate(label for node in nodes for label in members[node])}
            return singles, list(range(cells))
        parent.append(above.pop())
        holder[list(node)] = index

    children: list[list[int]] = [[] for _ in nodes]
    for index, above_index in enumerate(parent):
        if above_index >= 0:
            children[above_index].append(index)
    names: dict[object, int] = {}
    cell_form = [names.setdefault(("cell", int(s), c == own_cell), len(names)) for c, s in enumerate(sizes)]
    form = [0] * len(nodes)
    for index in reversed(range(len(nodes))):
        here = nodes[index]
        leaves = sorted(cell_form[c] for c in here if holder[c] == index)
        labels = tuple((k, area == 0) for k, area in members[here])
        key = ("area", labels, tuple(leaves), tuple(sorted(form[child] for child in children[index])))
        form[index] = names.setdefault(key, len(names))

    fresh = counter()
    seen: dict[tuple[int, int], int] = {}
    orbit: list[int] = []
    for index in range(len(nodes)):  # parents come first
        place = (orbit[parent[index]] if parent[index] >= 0 else -1, form[index])
        if place not in seen:
            seen[place] = next(fresh)
        orbit.append(seen[place])
    labels_of = {(orbit[i], k): None for i, node in enumerate(nodes) for k, _ in members[node]}
    phi = {key: i for i, key in enumerate(labels_of)}
    area_orbit = {(k, area): phi[orbit[i], k] for i, node in enumerate(nodes) for k, area in members[node]}
    cell_keys = [(orbit[int(holder[c])], cell_form[c]) for c in range(cells)]
    cell_ids = {key: i for i, key in enumerate(dict.fromkeys(cell_keys))}
    return area_orbit, [cell_ids[key] for key in cell_keys]
