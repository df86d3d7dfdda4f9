"""The contrastive objective where rows of one type are alike and types are not (theory, section 6; one partition).

A type is what tells rows apart from Q = 0 on: whether their own area is the global one, and its size. Rows of area a
use the unknowns of their type (`world.row.row_of`), their own area's apart, so that attention depends on the area:

    A_{a,j} = Σ_copies weight e^{...}/Z_a         copies: the row's own position is visible (u_a/C_a), or masked
    f_j     = z_j Σ_a (C_a/P) A_{a,j}             B_j, G and -∂L/∂(one entry of one row) as in `objectives.pairs`

Given the counts, which patches of an area are visible is uniform and the pooled output does not depend on it, so the
mean over copies is exact. Sums over the other areas leave one out of a running sum from either side: nothing cancels,
and nothing grows with the square of the number of areas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.kernel import sums_by_index
from mimlab.objectives.pairs import Pairs, contrast
from mimlab.world.partition import Partition
from mimlab.world.row import Row

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class TypedEvaluation:
    """All rows, measured, by type. loss: with the regulariser. velocity: of one entry of one row, (row.size,) a type.
    attention: of the rows of the type's first area on each area, mean over images and both views, (J,) a type."""

    loss: float
    velocity: list[Array]
    attention: list[Array]


class _Copies(NamedTuple):
    """Rows of the areas of one type whose own position is visible, or masked; arrays (images, areas of the type)."""

    weight: Array  # share of the rows
    Z: Array
    itself: Array  # attention on the own position; on a visible one, 0 where it is masked
    itself_hidden: Array
    beside: Array  # on the rest of the own area, visible and masked
    beside_hidden: Array

    @property
    def own(self) -> Array:
        """A_{a,a}."""
        own: Array = self.itself + self.beside
        return own


class _Seen(NamedTuple):
    """Images through the rows of one type: masses of each area as another one's, (images, J), and both copies."""

    seen: Array
    hidden: Array
    copies: tuple[_Copies, ...]

    def first(self, images: int) -> _Seen:
        """The first few of the images."""
        copies = tuple(_Copies(*(part[:images] for part in copy)) for copy in self.copies)
        return _Seen(self.seen[:images], self.hidden[:images], copies)


@dataclass(frozen=True, eq=False)
class _Type:
    """Rows of one type. areas: theirs. column: of each area as another's, in the row; known: whether it ever is."""

    row: Row
    areas: Array
    size: int  # C_a
    column: Array  # (J,)
    known: Array  # (J,) bool

    @property
    def rows(self) -> int:
        """Rows of this type, of all P."""
        return len(self.areas) * self.size

    @cached_property
    def tied(self) -> Array:
        """Entries of a row that each unknown stands for; shape (row.size,)."""
        return np.concatenate([self.row.phi_tied, self.row.upsilon_tied])


@dataclass(frozen=True, eq=False)
class TypedRows:
    """The contrastive objective of all rows over given pairs, whose cells are the areas. rows: one of each type."""

    partition: Partition
    rows: Sequence[Row]
    pairs: Pairs
    objective: ContrastiveLearning

    @cached_property
    def sizes(self) -> Array:
        """C_j, shape (J,)."""
        return np.concatenate([np.full(number, size) for size, number in self.partition.runs])

    @cached_property
    def types(self) -> list[_Type]:
        """The types, in the order of `rows`."""
        return [_type_of(row, self.sizes) for row in self.rows]

    def loss(self, states: Sequence[Array]) -> float:
        """The loss alone, with the regulariser, at less than half the work."""
        return self._contrasted(states)[0]

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def evaluate(self, states: Sequence[Array]) -> TypedEvaluation:
        """Loss, velocity and attention at a state of each type, (row.size,). Not finite where float64 cannot hold what
        they imply: a run then diverges."""
        loss, B, seen = self._contrasted(states)
        pairs = self.pairs
        velocity, attention = [], []
        for kind, state, views in zip(self.types, states, seen, strict=True):
            total = _pulls(kind, views.first(len(pairs)), pairs.latent, pairs.latent * B)
            entries = self.partition.patches * len(pairs) * np.maximum(kind.tied, 1.0)
            velocity.append(total / entries - self.objective.regulariser * state)
            attention.append(_of_first_area(kind, views))
        return TypedEvaluation(loss, velocity, attention)

    @cached_property
    def _images(self) -> tuple[Array, Array, Array]:
        """Latents, visible and masked counts of both views, one after the other; (2 D, J) each."""
        pairs = self.pairs
        visible = pairs.visible.reshape(-1, len(self.sizes))
        return np.concatenate([pairs.latent, pairs.latent]), visible, self.sizes - visible

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _contrasted(self, states: Sequence[Array]) -> tuple[float, Array, list[_Seen]]:
        """The loss, B (D, J), and both views through the rows of each type."""
        seen = [self._through(kind, state) for kind, state in zip(self.types, states, strict=True)]
        pooled = sum(_pooled(kind, views) for kind, views in zip(self.types, seen, strict=True))
        f, other = np.split(self._images[0] * pooled / self.partition.patches, 2)
        loss, B = contrast(f, other, self.pairs, self.objective)
        for kind, state in zip(self.types, states, strict=True):
            loss += self.objective.regulariser / 2 * kind.rows * float(kind.tied @ state**2)
        return loss, B, seen

    def _through(self, kind: _Type, state: Array) -> _Seen:
        row, size, (z, visible, hidden) = kind.row, kind.size, self._images
        n_phi, place = len(row.phi_tied), row.views[0]
        Phi, Upsilon = state[:n_phi], state[n_phi:]
        beside = Upsilon[row.cell_upsilon]
        flat = np.where(kind.known, beside[kind.column], -np.inf)  # (J,)
        logit = np.where(visible > 0, z * Phi[place.area_phi[kind.column]] + flat, -np.inf)
        blank = np.where(hidden > 0, flat, -np.inf)

        u, z_own = visible[:, kind.areas], z[:, kind.areas]
        feature = z_own * Phi[place.area_phi[place.own]]
        there = beside[place.own] if size > 1 else -np.inf
        itself = np.where(u > 0, feature + Upsilon[0], -np.inf)
        others = np.where(u > 0, feature + there, -np.inf)
        shift = np.max(
            [a.max(axis=1) for a in (logit, blank, itself, others)]
            + [np.full(len(z), max(Upsilon[0], there))],
            axis=0,
        )[:, None]
        seen, masked = visible * np.exp(logit - shift), hidden * np.exp(blank - shift)
        rest = _without(seen + masked)[:, kind.areas]
        feature_mass, flat_mass = np.exp(others - shift), np.exp(there - shift)
        copies, none = [], np.zeros_like(u, dtype=float)
        for weight, alone, alone_hidden, seen_beside in (
            (u / size, np.exp(itself - shift), none, np.maximum(u - 1, 0)),
            (1 - u / size, none, np.exp(Upsilon[0] - shift) + none, np.minimum(u, size - 1)),
        ):
            own, own_hidden = seen_beside * feature_mass, (size - 1 - seen_beside) * flat_mass
            Z = rest + alone + alone_hidden + own + own_hidden
            parts = (alone / Z, alone_hidden / Z, own / Z, own_hidden / Z)
            copies.append(_Copies(weight, Z, *parts))
        return _Seen(seen, masked, tuple(copies))


def _type_of(row: Row, sizes: Array) -> _Type:
    place = row.views[0]
    everywhere = np.arange(len(sizes))
    key = list(zip((everywhere == 0).tolist(), sizes.tolist(), strict=True))
    columns = {key[int(area)]: c for c, area in enumerate(place.area_index) if c != place.own}
    own = key[int(place.area_index[place.own])]
    return _Type(
        row,
        np.array([area for area in everywhere if key[area] == own]),
        place.own_size,
        np.array([columns.get(one, place.own) for one in key]),
        np.array([one in columns for one in key]),
    )


def _without(values: Array) -> Array:
    """Sums over all columns but one, with no difference taken; shape as values, (images, J)."""
    found = np.zeros_like(values)
    np.cumsum(values[:, :-1], axis=1, out=found[:, 1:])
    found[:, :-1] += np.cumsum(values[:, :0:-1], axis=1)[:, ::-1]
    return found


def _spread(kind: _Type, values: Array, areas: int) -> Array:
    """Values of the type's areas (images, n) among all areas (images, J), 0 elsewhere."""
    found = np.zeros((len(values), areas))
    found[:, kind.areas] = values
    return found


def _pooled(kind: _Type, view: _Seen) -> Array:
    """Attention on each area summed over the type's rows, (images, J)."""
    areas = view.seen.shape[1]
    per_mass = sum(copy.weight / copy.Z for copy in view.copies)
    own = sum(copy.weight * copy.own for copy in view.copies)
    pooled: Array = view.seen * _without(_spread(kind, per_mass, areas)) + _spread(kind, own, areas)
    return kind.size * pooled


def _of_first_area(kind: _Type, view: _Seen) -> Array:
    """Attention of the rows of the type's first area on each area, mean over images; (J,)."""
    per_mass = sum(copy.weight[:, :1] / copy.Z[:, :1] for copy in view.copies)
    found: Array = np.mean(view.seen * per_mass, axis=0)
    found[kind.areas[0]] = np.mean(sum(copy.weight[:, 0] * copy.own[:, 0] for copy in view.copies))
    return found


def _pulls(kind: _Type, view: _Seen, z: Array, pull: Array) -> Array:
    """Sums over images and tied entries, mean over the type's rows; (row.size,). pull: z_j B_j."""
    row, areas = kind.row, z.shape[1]
    place, n_phi = row.views[0], len(row.phi_tied)
    Phi, Upsilon = np.zeros(n_phi), np.zeros(len(row.upsilon_tied))
    z_own, pull_own = z[:, kind.areas], pull[:, kind.areas]
    elsewhere = _without(view.seen * pull)[:, kind.areas]
    lead, drag = np.zeros_like(z_own), np.zeros_like(z_own)  # of the other areas' masses
    for copy in view.copies:
        weight = copy.weight / len(kind.areas)
        G = elsewhere / copy.Z + copy.own * pull_own
        lead, drag = lead + weight / copy.Z, drag + weight * G / copy.Z
        Phi[place.area_phi[place.own]] += np.sum(weight * z_own * copy.own * (pull_own - G))
        Upsilon[0] += np.sum(weight * (copy.itself * pull_own - (copy.itself + copy.itself_hidden) * G))
        beside = copy.beside * pull_own - (copy.beside + copy.beside_hidden) * G
        Upsilon[row.cell_upsilon[place.own]] += np.sum(weight * beside)
    drag = _without(_spread(kind, drag, areas))
    pulled = view.seen * (pull * _without(_spread(kind, lead, areas)) - drag)
    Phi += sums_by_index((z * pulled).sum(axis=0), place.area_phi[kind.column], n_phi)
    by_area = (pulled - view.hidden * drag).sum(axis=0)
    return np.concatenate(
        [Phi, Upsilon + sums_by_index(by_area, row.cell_upsilon[kind.column], len(Upsilon))]
    )
