"""Loss, gradient and attention of one row: theory section 3, for any engine's draws.

With a the query's own area and j any other, per draw (mask and latents):

    A_j = (unmasked patches of j) e^{Υ + z_j Φ_j} / Z          Z over all P patches, masked ones at e^{Υ}
    L_p = ½ (m/P) E[ z_a²(1-A_a)² + S ]                        S = Σ_{j≠a} z_j² A_j²
    G   = S - z_a² A_a (1-A_a)
    -∂L/∂Φ_j = (m/P) E[ z_j A_j (G - g_j) ]                    g_j = z_j² A_j, and g_a = -z_a² (1-A_a)
    -∂L/∂Υ_q = (m/P) E[ attn_q (G - g_q) ]                     g_q = 0 where q is masked

The gradient returned is that of ONE entry: the tied total over the number of tied entries (section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from mimlab.objectives.draws import Draws
from mimlab.world.row import Row

Array = np.ndarray

# Entries (states x draws x columns) that are evaluated at once: they stay in the cache.
LARGEST_BLOCK = 60_000


@dataclass(frozen=True, eq=False)
class Evaluation:
    """States of a row, measured: everything conditional on the query being masked unless said otherwise. Each field
    has the leading shape of the states; of a single state all but velocity are numbers."""

    loss: Any  # L_p, the factor P(p in M) included
    excess: Any  # L_p less its floor on the same draws, summed without the cancellation
    velocity: Array  # (..., n_phi + n_upsilon): -dL/d(one entry of Phi, Upsilon)
    attention_own: Any  # mean over solvable draws and clusters; nan where there is none
    attention_global: Any


@dataclass(frozen=True, eq=False)
class RowObjective:
    """The masked objective of one row over given draws. ``state`` is (Phi, Upsilon) concatenated."""

    row: Row
    draws: tuple[Draws, ...]
    query_masked: float  # m/P

    @cached_property
    def global_phi(self) -> Array:
        """Index of the global area's Phi in each view; shape (views,)."""
        return self.row.phi_of(0)

    @cached_property
    def blocks(self) -> list[tuple[Draws, int]]:
        """The draws in blocks that stay in the cache, each with the index of its view's global Phi."""
        pairs = zip(self.draws, self.global_phi, strict=True)
        return [(block, int(at)) for draws, at in pairs for block in draws.split(LARGEST_BLOCK)]

    @cached_property
    def tied(self) -> Array:
        """Entries tied to each unknown; shape as the state."""
        return np.concatenate([self.row.phi_tied, np.maximum(self.row.upsilon_tied, 1.0)])

    @cached_property
    def solvable(self) -> float:
        """P(the query's area is not wholly masked | the query is masked); nan where it always is."""
        chance = sum(d.share * float(d.weight @ d.solvable) for d in self.draws)
        return chance if chance > 0 else float("nan")

    def velocity(self, state: Array) -> Array:
        """Right-hand side of the gradient flow; shape as ``state``."""
        return self.evaluate(state).velocity

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def evaluate(self, state: Array) -> Evaluation:
        """Loss, velocity and attention at ``state``, of shape (n_phi + n_upsilon,) or, for several, (states, ...).

        Not finite where float64 cannot hold what a state implies (|Upsilon| beyond 700, say): a run then diverges."""
        n_phi = len(self.row.phi_tied)
        if state.ndim == 1:
            Phi, Upsilon = state[:n_phi], state[n_phi:]
            return self._together([_evaluate(draws, Phi, Upsilon, at) for draws, at in self.blocks])
        entries = max(draws.z.size + draws.counts.size for draws, _ in self.blocks)
        together = max(1, LARGEST_BLOCK // entries)  # states that are evaluated at once
        done = []
        for first in range(0, len(state), together):
            Phi, Upsilon = np.split(state[first : first + together], [n_phi], axis=1)
            done.append(self._together([_evaluate(draws, Phi, Upsilon, at) for draws, at in self.blocks]))
        return Evaluation(*(np.concatenate([getattr(e, f.name) for e in done]) for f in fields(Evaluation)))

    def _together(self, parts: Sequence[Evaluation]) -> Evaluation:
        """Views, each weighted by its share, and the factors that they have in common."""
        loss = excess = own = everywhere = 0.0
        velocity = np.zeros(len(self.tied))
        for (draws, _), part in zip(self.blocks, parts, strict=True):
            loss = loss + draws.share * part.loss
            excess = excess + draws.share * part.excess
            velocity = velocity + draws.share * part.velocity
            own = own + draws.share * part.attention_own
            everywhere = everywhere + draws.share * part.attention_global
        return Evaluation(
            self.query_masked * loss,
            self.query_masked * excess,
            self.query_masked * velocity / self.tied,
            own / self.solvable,
            everywhere / self.solvable,
        )


def _evaluate(draws: Draws, Phi: Array, Upsilon: Array, global_phi: int) -> Evaluation:
    """One view's expectations; velocity is the total over tied entries, attention not yet divided by P(solvable).
    Phi (..., n_phi) and Upsilon (..., n_upsilon) have leading axes for several states; arrays below are (..., draws) or
    (..., draws, columns)."""
    z, own, weight, upsilon, merged = draws.z, draws.own, draws.weight, draws.cell_upsilon, draws.merged
    position = np.exp(Upsilon - np.maximum.reduce(Upsilon, axis=-1, keepdims=True))
    base = draws.counts * _of_columns(position, upsilon)  # per cell
    column = base if draws.starts is None else np.add.reduceat(base, draws.starts, axis=-1)
    logit = z * _of_columns(Phi, draws.phi)
    if draws.blank is not None:  # where nothing is visible, there is no feature
        logit = np.where(draws.blank, 0.0, logit)
    shift = np.maximum.reduce(logit, axis=-1, initial=0.0)  # of each draw: no exponent exceeds 0, one is 0
    if merged is not None:
        merged_logit = merged.z * Phi.take(merged.phi, axis=-1)
        merged_shift = np.maximum.reduce(merged_logit, axis=-1, keepdims=True, initial=0.0)
        merged_feature = np.exp(merged_logit - merged_shift) * position.take(merged.upsilon, axis=-1)
        shift = np.maximum(shift, merged_shift)
    feature = np.exp(logit - shift[..., None])
    hidden = np.exp(-shift)  # a masked patch has no feature

    mass = column * feature
    Z = np.add.reduce(mass, axis=-1) + (position @ draws.masked.T) * hidden
    if merged is not None:
        merged_scale = np.exp(merged_shift - shift)
        Z = Z + (merged_feature @ merged.counts.T) * merged_scale
    A = mass / Z[..., None]

    gA = np.square(z * A)  # A_j g_j for j != a
    if draws.crowd is not None:
        gA /= draws.crowd
    A_own, z_squared = A[..., own], draws.z_own_squared
    short = 1.0 - A_own
    g_own = -z_squared * A_own * short  # A_a g_a
    S = np.add.reduce(gA, axis=-1) - gA[..., own]
    if merged is not None:
        per_mass = merged_scale / Z
        merged_square = np.square(merged.z * merged_feature)
        S = S + (merged_square @ merged.pairs.T) * np.square(per_mass)
    G = S + g_own
    gA[..., own] = g_own

    pull = A * G[..., None] - gA  # A_j (G - g_j)
    total_phi = sums_by_index(weight @ (z * pull), draws.phi, Phi.shape[-1])
    if draws.starts is None:
        per_cell = weight @ pull
    else:  # split a column's pull among its cells by their masses; an empty column pulls nothing
        rate = np.divide(pull, column, out=np.zeros_like(pull), where=column != 0)
        per_cell = ((weight[:, None] * rate)[..., draws.cell_column] * base).sum(axis=-2)
    total_upsilon = sums_by_index(per_cell, upsilon, Upsilon.shape[-1])
    total_upsilon += ((weight * G / Z * hidden) @ draws.masked) * position

    unsolved, solved = z_squared * np.square(short), draws.solved
    everywhere = (solved @ A) @ (draws.phi == global_phi)
    if merged is not None:
        merged_pull = _over_draws(weight * G * per_mass, merged.counts) * merged_feature
        merged_pull -= _over_draws(weight * np.square(per_mass), merged.pairs) * merged_square
        total_phi += sums_by_index(merged.z * merged_pull, merged.phi, Phi.shape[-1])
        total_upsilon += sums_by_index(merged_pull, merged.upsilon, Upsilon.shape[-1])
        if (merged.phi == global_phi).any():
            mean = _over_draws(solved * per_mass, merged.counts)
            everywhere = everywhere + (mean * merged_feature) @ (merged.phi == global_phi)
    loss_others = S @ weight
    return Evaluation(
        0.5 * (loss_others + unsolved @ weight),
        0.5 * (loss_others + unsolved @ solved),  # where hopeless, all of the second term is floor
        np.concatenate([total_phi, total_upsilon], axis=-1),
        A_own @ solved,
        everywhere,
    )


def _over_draws(factor: Array, values: Array) -> Array:
    """sum_d factor_d values_d; ``values`` of shape (1, nodes) stand for every draw."""
    if len(values) == factor.shape[-1]:
        return np.asarray(factor @ values)
    return np.asarray(np.add.reduce(factor, axis=-1, keepdims=True) * values[0])


def sums_by_index(values: Array, index: Array, length: int) -> Array:
    """Sums of values (..., k) that share an index; shape (..., length)."""
    if values.ndim == 1:
        return np.bincount(index, values, minlength=length)
    return np.stack([np.bincount(index, line, minlength=length) for line in values])


def _of_columns(values: Array, index: Array) -> Array:
    """Values (..., k) at an index (columns,), ready to meet (draws, columns)."""
    taken = values.take(index, axis=-1)
    return taken if taken.ndim == 1 else taken[..., None, :]
