"""The in-context copy task carried out literally, in plain NumPy: slow, unlumped, independent of the package.

Areas lie one after another; the first patch of each is its context and is never masked; of the others `masked` are,
uniformly. Area j shows token own(j) = j mod V with probability w, else one of V drawn uniformly. An image is its
tokens, latents and mask. Everything is in coordinates: a row of Q is its V entries Phi and its P entries Upsilon.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Image:
    chance: float
    token: tuple[int, ...]  # of each area
    latent: tuple[float, ...]  # of each area
    mask: tuple[bool, ...]  # of each patch


@dataclass(frozen=True)
class Task:
    sizes: tuple[int, ...]
    vocabulary: int
    masked: int
    in_weights: float = 0.0
    values: tuple[float, ...] = (1.0,)

    @property
    def area_of(self) -> list[int]:
        return [j for j, size in enumerate(self.sizes) for _ in range(size)]

    @property
    def copies(self) -> list[int]:
        area = self.area_of
        return [q for q in range(len(area)) if q > 0 and area[q] == area[q - 1]]

    def images(self) -> Iterator[Image]:
        """Every image with its probability."""
        areas, copies, V, w = len(self.sizes), self.copies, self.vocabulary, self.in_weights
        masks = list(itertools.combinations(copies, self.masked))
        for token in itertools.product(range(V), repeat=areas):
            chance = math.prod((1 - w) / V + w * (t == j % V) for j, t in enumerate(token))
            for latent in itertools.product(self.values, repeat=areas):
                for hidden in masks:
                    mask = tuple(q in hidden for q in range(len(self.area_of)))
                    yield Image(chance / len(self.values) ** areas / len(masks), token, latent, mask)


def patches(task: Task, image: Image) -> Array:
    """M(X): (P, V), zero where masked; and X beside it."""
    X = np.zeros((len(task.area_of), task.vocabulary))
    for q, j in enumerate(task.area_of):
        X[q, image.token[j]] = image.latent[j]
    return X


def attention(task: Task, image: Image, phi: Array, upsilon: Array) -> Array:
    """attn_{p→·} of one row, shape (P,)."""
    seen = np.where(np.array(image.mask)[:, None], 0.0, patches(task, image))
    weights = np.exp(seen @ phi + upsilon)
    return weights / weights.sum()


def loss(task: Task, image: Image, p: int, phi: Array, upsilon: Array) -> float:
    """½ 1{p∈M} ‖F_p - X_p‖², by definition."""
    X = patches(task, image)
    seen = np.where(np.array(image.mask)[:, None], 0.0, X)
    F = attention(task, image, phi, upsilon) @ seen
    return 0.5 * image.mask[p] * float(np.sum((F - X[p]) ** 2))


def velocity(task: Task, image: Image, p: int, phi: Array, upsilon: Array) -> tuple[Array, Array]:
    """-∂L_p/∂Φ, -∂L_p/∂Υ by the closed form. With a the area of p and B_v = Σ_{j shows v} z_j A_j,

    g_j = z_j (B_{t_j} - 1[t_j = t_a] z_a),  G = Σ_j A_j g_j
    -∂L_p/∂Υ_q = 1{p∈M} attn_q (G - g_q), g_q = 0 where q is masked
    -∂L_p/∂Φ_v = 1{p∈M} Σ_{j shows v} z_j A_j (G - g_j)
    """
    area, attn = task.area_of, attention(task, image, phi, upsilon)
    t, z, a = image.token, image.latent, task.area_of[p]
    areas = range(len(task.sizes))
    A = [sum(attn[q] for q in range(len(area)) if area[q] == j and not image.mask[q]) for j in areas]
    B = [sum(z[j] * A[j] for j in areas if t[j] == v) for v in range(task.vocabulary)]
    g = [z[j] * (B[t[j]] - (z[a] if t[j] == t[a] else 0.0)) for j in areas]
    G = sum(A[j] * g[j] for j in areas)
    inside = float(image.mask[p])
    along_upsilon = [
        inside * attn[q] * (G - (0.0 if image.mask[q] else g[area[q]])) for q in range(len(area))
    ]
    along_phi = [
        inside * sum(z[j] * A[j] * (G - g[j]) for j in areas if t[j] == v) for v in range(task.vocabulary)
    ]
    return np.array(along_phi), np.array(along_upsilon)


def mean_velocity(task: Task, p: int, phi: Array, upsilon: Array) -> tuple[Array, Array]:
    """The same in expectation over every image."""
    along_phi, along_upsilon = np.zeros_like(phi), np.zeros_like(upsilon)
    for image in task.images():
        one = velocity(task, image, p, phi, upsilon)
        along_phi += image.chance * one[0]
        along_upsilon += image.chance * one[1]
    return along_phi, along_upsilon


def descend(task: Task, p: int, rate: float, steps: int) -> tuple[Array, Array]:
    """Exact gradient descent of one row from 0."""
    phi, upsilon = np.zeros(task.vocabulary), np.zeros(len(task.area_of))
    for _ in range(steps):
        along = mean_velocity(task, p, phi, upsilon)
        phi, upsilon = phi + rate * along[0], upsilon + rate * along[1]
    return phi, upsilon


def shares(task: Task, images: Sequence[Image], rows: Sequence[tuple[Array, Array]]) -> tuple[float, float]:
    """FP and PP of the logits of rows: mean over rows (and images) of the variance over q of their content and position
    parts."""
    fp = [
        np.var(np.where(np.array(image.mask)[:, None], 0.0, patches(task, image)) @ phi)
        for phi, _ in rows
        for image in images
    ]
    pp = [np.var(upsilon) for _, upsilon in rows]
    return float(np.mean(fp)), float(np.mean(pp))


def half_time_of_pairs(tokens: int, ratio: float, steps_a_unit: int = 50) -> float:
    """Time to half attention on the source, by Euler's method on the reduced dynamics of pairs (C = 2) for a vocabulary
    so large that no two areas show one token, z = 1, other copies visible or masked at their mean number.

    Tied: Υ of the source, of the other contexts, of the other copies, of the query itself; Φ does not move.
    """
    P, others = 2 * tokens, tokens - 1
    visible = (tokens - round(ratio * tokens)) / others  # of the other copies, given that the query is masked
    chance = round(ratio * tokens) / tokens
    source, context, copy, own = np.zeros(4)
    dt, time = P / ratio / (100 * steps_a_unit), 0.0
    while True:
        weights = np.exp([source, context, copy, own])
        Z = weights @ [1, others, others, 1]
        s, c, o, me = weights / Z
        if s >= 0.5:
            return time
        seen, hidden = c + o, c  # attention on another area, its copy visible or masked
        G = -s * (1 - s) + others * (visible * seen**2 + (1 - visible) * hidden**2)
        source += dt * chance * s * (G + 1 - s)
        context += dt * chance * c * (G - (visible * seen + (1 - visible) * hidden))
        copy += dt * chance * o * (visible * (G - seen) + (1 - visible) * G)
        own += dt * chance * me * G
        time += dt
