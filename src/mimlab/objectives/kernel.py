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

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mimlab.objectives.draws import Draws
from mimlab.world.row import Row

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A row's state, measured: everything conditional on the query being masked unless said otherwise."""

    loss: float  # L_p, the factor P(p in M) included
    excess: float  # L_p less its floor on the same draws, summed without the cancellation
    velocity: Array  # (n_phi + n_upsilon,): -dL/d(one entry of Phi, Upsilon)
    attention_own: float  # mean over solvable draws and clusters; nan where there is none
    attention_global: float


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

    def evaluate(self, state: Array) -> Evaluation:
        """Loss, velocity and attention at ``state``."""
        n_phi = len(self.row.phi_tied)
        Phi, Upsilon = state[:n_phi], state[n_phi:]
        total = np.zeros_like(state)
        loss = excess = own = everywhere = 0.0
        for view, draws in enumerate(self.draws):
            part = _evaluate(draws, Phi, Upsilon, int(self.global_phi[view]))
            loss += draws.share * part.loss
            excess += draws.share * part.excess
            own += draws.share * part.attention_own
            everywhere += draws.share * part.attention_global
            total += draws.share * part.velocity
        return Evaluation(
            self.query_masked * loss,
            self.query_masked * excess,
            self.query_masked * total / self.tied,
            own / self.solvable,
            everywhere / self.solvable,
        )


def _evaluate(draws: Draws, Phi: Array, Upsilon: Array, global_phi: int) -> Evaluation:
    """One view's expectations; velocity is the total over tied entries, attention not yet divided by P(solvable)."""
    z, own, weight, upsilon, merged = draws.z, draws.own, draws.weight, draws.cell_upsilon, draws.merged
    position = np.exp(Upsilon - Upsilon.max())
    base = draws.counts * position[upsilon]  # per cell
    column = base if draws.starts is None else np.add.reduceat(base, draws.starts, axis=1)
    logit = np.where(column > 0, z * Phi[draws.phi], 0.0)  # where nothing is visible, there is no feature
    shift = np.maximum(logit.max(axis=1), 0.0)  # of each draw: no exponent exceeds 0, one is 0
    if merged is not None:
        merged_logit = merged.z * Phi[merged.phi]
        merged_shift = max(0.0, float(merged_logit.max()))
        merged_feature = np.exp(merged_logit - merged_shift) * position[merged.upsilon]
        shift = np.maximum(shift, merged_shift)
    feature = np.exp(logit - shift[:, None])
    hidden = np.exp(-shift)  # a masked patch has no feature

    mass = column * feature
    Z = mass.sum(axis=1) + (draws.masked @ position) * hidden
    if merged is not None:
        merged_scale = np.exp(merged_shift - shift)
        Z += (merged.counts @ merged_feature) * merged_scale
    A = mass / Z[:, None]

    gA = np.square(z * A)  # A_j g_j for j != a
    if draws.crowd is not None:
        gA /= draws.crowd
    z_own, A_own = z[:, own], A[:, own]
    z_squared = z_own * z_own
    unsolved = z_squared * np.square(1.0 - A_own)
    S = gA.sum(axis=1) - gA[:, own]
    if merged is not None:
        per_mass = merged_scale / Z
        merged_square = np.square(merged.z * merged_feature)
        S += (merged.pairs @ merged_square) * np.square(per_mass)
    g_own = z_squared * A_own * (A_own - 1.0)  # A_a g_a
    G = S + g_own
    gA[:, own] = g_own

    pull = A * G[:, None] - gA  # A_j (G - g_j)
    velocity_phi = np.bincount(draws.phi, weight @ (z * pull), minlength=len(Phi))
    if draws.starts is None:
        per_cell = weight @ pull
    else:  # split a column's pull among its cells by their masses; an empty column pulls nothing
        rate = np.divide(pull, column, out=np.zeros_like(pull), where=column != 0)
        per_cell = ((weight[:, None] * rate)[:, draws.cell_column] * base).sum(axis=0)
    velocity_upsilon = np.bincount(upsilon, per_cell, minlength=len(Upsilon))
    velocity_upsilon += ((weight * G / Z * hidden) @ draws.masked) * position

    solved = weight * draws.solvable
    everywhere = float((solved @ A)[draws.phi == global_phi].sum())
    if merged is not None:
        merged_pull = _over_draws(weight * G * per_mass, merged.counts) * merged_feature
        merged_pull -= _over_draws(weight * np.square(per_mass), merged.pairs) * merged_square
        velocity_phi += np.bincount(merged.phi, merged.z * merged_pull, minlength=len(Phi))
        velocity_upsilon += np.bincount(merged.upsilon, merged_pull, minlength=len(Upsilon))
        here = merged.phi == global_phi
        if here.any():
            everywhere += float(_over_draws(solved * per_mass, merged.counts[:, here]) @ merged_feature[here])
    return Evaluation(
        0.5 * float(weight @ (S + unsolved)),
        0.5 * float(weight @ S + solved @ unsolved),  # where hopeless, all of the second term is floor
        np.concatenate([velocity_phi, velocity_upsilon]),
        float(solved @ A_own),
        everywhere,
    )


def _over_draws(factor: Array, values: Array) -> Array:
    """sum_d factor_d values_d; ``values`` of shape (1, nodes) stand for every draw."""
    return np.asarray(factor @ values if len(values) == len(factor) else factor.sum() * values[0])
