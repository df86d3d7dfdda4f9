"""The definition of masked reconstruction, carried out literally: slow, unlumped, independent of the package.

Every mask of exactly `masked` positions and every combination of latent values is visited, so every
expectation is exact (theory, sections 1-3). Nothing is tied: row p of Q holds an entry per feature of every
cluster and an entry per position.

Features and position encodings are one-hot vectors of one space: feature j of cluster k is coordinate
`world.feature(k, j)`, position q is coordinate `world.features + q`. Hence, for a row = e_pᵀQ,

    Phi[p][k][j] = Q[p, world.feature(k, j)]        Upsilon[p][q] = Q[p, world.features + q]

There are three computations of the gradient, kept apart on purpose: differences of the loss as defined, the
closed form of section 3 in plain loops, and the closed form over stacked draws, the only one fast enough to
descend with for hundreds of steps.
Misuse that would mislead: latents are the equally likely values of a discrete law; a continuous one has no
enumeration.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """P positions; for each cluster a partition of them into areas, the first being the global one."""

    partitions: tuple[tuple[tuple[int, ...], ...], ...]
    values: tuple[float, ...]
    masked: int

    @property
    def patches(self) -> int:
        return sum(len(area) for area in self.partitions[0])

    @property
    def features(self) -> int:
        return sum(len(areas) for areas in self.partitions)

    @property
    def size(self) -> int:
        """Length of a row of Q."""
        return self.features + self.patches

    def feature(self, k: int, j: int) -> int:
        return sum(len(areas) for areas in self.partitions[:k]) + j

    def area_of(self, k: int, q: int) -> int:
        return next(j for j, area in enumerate(self.partitions[k]) if q in area)


def world_of(sizes: Sequence[Sequence[int]], values: Sequence[float], mask_ratio: float) -> World:
    """One list of area sizes per cluster, each laid out consecutively from position 0."""
    partitions = []
    for cluster in sizes:
        ends = list(itertools.accumulate(cluster))
        partitions.append(
            tuple(tuple(range(end - size, end)) for size, end in zip(cluster, ends, strict=True))
        )
    patches = sum(sizes[0])
    return World(tuple(partitions), tuple(values), round(mask_ratio * patches))


@dataclass(frozen=True)
class Draw:
    """One image and one mask: cluster k, latent z[j] of its area j, the masked positions."""

    probability: float
    k: int
    z: tuple[float, ...]
    mask: frozenset[int]


def draws(world: World) -> Iterator[Draw]:
    """Everything that can happen, with its probability."""
    masks = list(itertools.combinations(range(world.patches), world.masked))
    for k, areas in enumerate(world.partitions):
        latents = list(itertools.product(world.values, repeat=len(areas)))
        probability = 1.0 / (len(world.partitions) * len(latents) * len(masks))
        for z in latents:
            for mask in masks:
                yield Draw(probability, k, z, frozenset(mask))


# --- the loss by its definition (section 2) ---------------------------------------------------------------


def image_of(world: World, draw: Draw) -> Array:
    """X, shape (P, size): X_q = z_j v_{k,j}."""
    X = np.zeros((world.patches, world.size))
    for j, area in enumerate(world.partitions[draw.k]):
        for q in area:
            X[q, world.feature(draw.k, j)] = draw.z[j]
    return X


def attention_of(world: World, row: Array, MX: Array) -> Array:
    """Softmax over all positions of e_pᵀQ (M(X)_q + e_q)."""
    e = np.eye(world.size)[world.features :]
    logits = np.array([row @ (MX[q] + e[q]) for q in range(world.patches)])
    weights = np.exp(logits - logits.max())
    attn: Array = weights / weights.sum()
    return attn


def squared_error(world: World, row: Array, p: int, draw: Draw) -> float:
    """‖F_p - X_p‖² of one draw."""
    X = image_of(world, draw)
    MX = X.copy()
    MX[sorted(draw.mask)] = 0.0
    F = sum(weight * MX[q] for q, weight in enumerate(attention_of(world, row, MX)))
    return float(np.sum((F - X[p]) ** 2))


def loss_by_definition(world: World, row: Array, p: int) -> float:
    """L_p = ½ E[1{p∈M} ‖F_p - X_p‖²]."""
    return sum(0.5 * d.probability * squared_error(world, row, p, d) for d in draws(world) if p in d.mask)


def whole_loss_by_definition(world: World, Q: Array) -> float:
    """L(Q) = ½ E Σ_{p∈M} ‖F_p - X_p‖², with no use of rows decoupling."""
    return sum(
        0.5 * d.probability * sum(squared_error(world, Q[p], p, d) for p in d.mask) for d in draws(world)
    )


def gradient_by_differences(world: World, row: Array, p: int, width: float = 1e-5) -> Array:
    """∂L_p/∂row by central differences."""
    gradient = np.zeros(world.size)
    for i in range(world.size):
        step = np.zeros(world.size)
        step[i] = width
        ahead, behind = (loss_by_definition(world, row + sign * step, p) for sign in (1, -1))
        gradient[i] = (ahead - behind) / (2 * width)
    return gradient


# --- the closed form (section 3) in loops -----------------------------------------------------------------


def gradient_by_loops(world: World, row: Array, p: int) -> Array:
    """∂L_p/∂row by section 3's formulas, one draw and one entry at a time."""
    gradient = np.zeros(world.size)
    for d in draws(world):
        if p not in d.mask:
            continue
        a = world.area_of(d.k, p)
        area_at = [world.area_of(d.k, q) for q in range(world.patches)]
        weights = []
        for q, j in enumerate(area_at):
            seen = 0.0 if q in d.mask else d.z[j] * row[world.feature(d.k, j)]
            weights.append(math.exp(row[world.features + q] + seen))
        attn = [weight / sum(weights) for weight in weights]
        A = [sum(attn[q] for q in area if q not in d.mask) for area in world.partitions[d.k]]
        g = [
            z * (z * A_j - (d.z[a] if j == a else 0.0)) for j, (z, A_j) in enumerate(zip(d.z, A, strict=True))
        ]
        G = sum(A_j * g_j for A_j, g_j in zip(A, g, strict=True))
        for j, z in enumerate(d.z):
            gradient[world.feature(d.k, j)] -= d.probability * z * A[j] * (G - g[j])
        for q, j in enumerate(area_at):
            g_q = 0.0 if q in d.mask else g[j]
            gradient[world.features + q] -= d.probability * attn[q] * (G - g_q)
    return gradient


def descend(world: World, learning_rate: float, steps: int) -> Array:
    """Q, shape (P, size), after `steps` of gradient descent on all P² + P·features entries from Q(0) = 0."""
    Q = np.zeros((world.patches, world.size))
    for _ in range(steps):
        Q = Q - learning_rate * np.array([gradient_by_loops(world, Q[p], p) for p in range(world.patches)])
    return Q


# --- the same over stacked draws: fast enough for hundreds of steps ---------------------------------------


@dataclass(frozen=True)
class Stack:
    """The S draws in which p is masked, as arrays.

    seen (S, P, features): 1 where q is visible and shows the feature. z (S, features): latents, 0 for the
    features of other clusters. own and first (S, features): one-hot, the feature of p's area and of the
    global area.
    """

    probability: Array
    seen: Array
    z: Array
    own: Array
    first: Array


@lru_cache(maxsize=64)
def stack(world: World, p: int) -> Stack:
    chosen = [d for d in draws(world) if p in d.mask]
    seen = np.zeros((len(chosen), world.patches, world.features))
    z, own, first = (np.zeros((len(chosen), world.features)) for _ in range(3))
    for s, d in enumerate(chosen):
        for j, area in enumerate(world.partitions[d.k]):
            z[s, world.feature(d.k, j)] = d.z[j]
            for q in set(area) - d.mask:
                seen[s, q, world.feature(d.k, j)] = 1.0
        own[s, world.feature(d.k, world.area_of(d.k, p))] = 1.0
        first[s, world.feature(d.k, 0)] = 1.0
    return Stack(np.array([d.probability for d in chosen]), seen, z, own, first)


def attention_of_stack(world: World, row: Array, p: int) -> tuple[Array, Array]:
    """attn (S, P) and the area attentions A (S, features)."""
    drawn = stack(world, p)
    phi, upsilon = row[: world.features], row[world.features :]
    logits = upsilon + np.einsum("sqf,sf->sq", drawn.seen, drawn.z * phi)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    attn = weights / weights.sum(axis=1, keepdims=True)
    return attn, np.einsum("sq,sqf->sf", attn, drawn.seen)


def gradient(world: World, row: Array, p: int) -> Array:
    """∂L_p/∂row, section 3 over stacked draws."""
    drawn = stack(world, p)
    attn, A = attention_of_stack(world, row, p)
    z, probability = drawn.z, drawn.probability
    g = z * (z * A - drawn.own * (drawn.own * z).sum(axis=1, keepdims=True))
    G = (A * g).sum(axis=1, keepdims=True)
    descent_phi = probability @ (z * A * (G - g))
    descent_upsilon = probability @ (attn * (G - np.einsum("sqf,sf->sq", drawn.seen, g)))
    return -np.concatenate([descent_phi, descent_upsilon])


def descend_row(world: World, p: int, learning_rate: float, steps: int) -> Array:
    """Row p of Q at steps 0, 1, ..., steps of gradient descent from 0; shape (steps + 1, size)."""
    path = np.zeros((steps + 1, world.size))
    for t in range(steps):
        path[t + 1] = path[t] - learning_rate * gradient(world, path[t], p)
    return path


@dataclass(frozen=True)
class Measured:
    """Attentions are conditional on p masked and its area not wholly masked; NaN where that cannot happen."""

    loss: float
    loss_floor: float
    attention_own: float
    attention_global: float

    @property
    def excess_loss(self) -> float:
        return self.loss - self.loss_floor


def measure(world: World, row: Array, p: int) -> Measured:
    drawn = stack(world, p)
    _, A = attention_of_stack(world, row, p)
    hopeless = np.einsum("sqf,sf->s", drawn.seen, drawn.own) == 0
    residual = drawn.z * (A - drawn.own)
    # F_p - X_p has one coordinate per feature, the latent of the own area being missed by 1 - A_own
    hopeful = np.where(hopeless, 0.0, drawn.probability)
    conditional = hopeful / hopeful.sum() if hopeful.any() else np.full(len(hopeful), np.nan)
    return Measured(
        loss=float(0.5 * drawn.probability @ (residual**2).sum(axis=1)),
        loss_floor=float(0.5 * drawn.probability @ (hopeless * (drawn.own * drawn.z**2).sum(axis=1))),
        attention_own=float(conditional @ (A * drawn.own).sum(axis=1)),
        attention_global=float(conditional @ (A * drawn.first).sum(axis=1)),
    )


# --- a row read in the package's words --------------------------------------------------------------------


def phi_own(world: World, row: Array, p: int) -> float:
    """Φ of p's own area, mean over clusters."""
    return float(np.mean([row[world.feature(k, world.area_of(k, p))] for k in range(len(world.partitions))]))


def phi_global(world: World, row: Array) -> float:
    """Φ of the global area, mean over clusters."""
    return float(np.mean([row[world.feature(k, 0)] for k in range(len(world.partitions))]))


def correlations(world: World, row: Array) -> dict[tuple[str, int | None, int], float]:
    """Every entry of a row under the key (kind, cluster, target)."""
    entries: dict[tuple[str, int | None, int], float] = {}
    for k, areas in enumerate(world.partitions):
        for j in range(len(areas)):
            entries["feature", k, j] = float(row[world.feature(k, j)])
    for q in range(world.patches):
        entries["position", None, q] = float(row[world.features + q])
    return entries
