"""How long a local patch takes to find its own area, for any latent law (docs/rates.md).

While a row decouples and grows, all that matters of the other areas is their weight, which hardly moves. With N =
P/((1-γ)C_a) the attention on the own area of an image with latent z, and the flow of Φ = Φ_{p→v_a}, are

    A(z) = e^{zΦ} / (N - 1 + e^{zΦ}),        dΦ/dt = γ E[z³ A (1-A)²]

a single equation in a single unknown. For N → ∞ the time it takes is N/γ times ``growth_constant``, whatever the law.
"""

from __future__ import annotations

from math import log

import numpy as np

from mimlab.world.gap import predicted_half_time
from mimlab.world.latent import Latent

Array = np.ndarray

NODES = 200  # in z: attention switches on within z ~ 1/Φ
PANELS, PANEL = 200, 8  # in Φ: composite Gauss-Legendre


def growth_constant(latent: Latent) -> float:
    """I = ∫_0^∞ dΦ / E[z³ e^{zΦ}]: half attention comes at I K P/(γ(1-γ)C_a) as P → ∞ (own derivation).

    For z = c that is c⁻⁴; the integral is over Φ of order 1, where no image attends yet, so the whole law enters it,
    with the third power of its latents.

    >>> growth_constant(Latent(low=0.5, high=0.5))
    16.0
    """
    if latent.atoms is not None and len(latent.atoms) == 1:
        return float(latent.mean**-4)
    z, weight = latent.quadrature(NODES)
    reach = 40 / latent.support[1]  # beyond, e^{-UΦ} is below 1e-17
    phi, step = _composite(reach)
    # E[z³ e^{zΦ}] > 0 for every law that is not 0 throughout
    return float(step @ (1 / (np.exp(np.outer(phi, z)) @ (weight * z**3))))


def reduced_half_time(
    patches: float, own_size: float, mask_ratio: float, latent: Latent, clusters: int = 1
) -> float | None:
    """Time at which mean attention on the own area reaches ½ by the equation above, K times that of one cluster; None
    where it never does.

    In units of learning rate × steps. ``patches`` P, ``own_size`` C_a in patches, ``mask_ratio`` γ in (0, 1). Position
    correlations, hopeless images and what the other areas do are left out. Raises InputError as `predicted_half_time`.
    """
    from scipy.optimize import brentq

    many = predicted_half_time(patches, own_size, mask_ratio) * mask_ratio  # N
    if many <= 2:
        return 0.0  # half the visible patches are its own from the start
    z, weight = latent.quadrature(NODES)
    if weight[z > 0].sum() <= 0.5:
        return None

    def attention(phi: Array) -> Array:  # (phi, z)
        return np.asarray(1 / (1 + (many - 1) * np.exp(-np.multiply.outer(phi, z))))

    least = z[z > 0].min()
    half = brentq(
        lambda phi: float(attention(np.array(phi)) @ weight) - 0.5, 0.0, 2 * log(many) / least + 50 / least
    )
    phi, step = _composite(float(half))
    A = attention(phi)
    return clusters * float(step @ (1 / ((A * (1 - A) ** 2) @ (weight * z**3)))) / mask_ratio


def _composite(reach: float) -> tuple[Array, Array]:
    """Nodes and weights on [0, reach], finer towards 0, where times are spent."""
    x, w = np.polynomial.legendre.leggauss(PANEL)
    edges = reach * np.linspace(0, 1, PANELS + 1)
    width = np.diff(edges)
    return (edges[:-1, None] + width[:, None] * (x + 1) / 2).ravel(), (width[:, None] * w / 2).ravel()
