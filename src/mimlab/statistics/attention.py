"""Attention statistics of an explicit map (theory, section 7).

An attention map A is an array (..., N, N): row i holds the weights a_i of query i over the N keys and sums to
1. Leading axes (layers, heads) are kept: every statistic has one value for each. Below, ā = mean_i a_i, H is
the Shannon entropy in nats, 0 log 0 = 0.

Everything is computed in float64, whatever the map's dtype, and costs O(N²), `effective_rank` O(N³). The
results are exact; `information`, `diversity` and `spread` are summed as divergences or squares from the mean
row: the theory's formulas rearranged (docs/statistics.md) so that little cancels when all rows are nearly
equal.

What would give wrong numbers: rows that do not sum to 1 (drop the columns of CLS and registers and
renormalise first), a map averaged over images or heads (average the statistics instead: entropy is
concave), positions in another order than the keys.

Every docstring gives the value for three maps: *uniform* (all weights 1/N), *identity* (each query attends to
itself alone), and *random*, the softmax of independent standard normal logits, as the limit for large N.
"""

import math
from types import ModuleType

from mimlab.runs.errors import InputError
from mimlab.statistics.terms import Array, divergence, effective_rank_of, namespace, surprise


def row_entropy(A: Array) -> Array:
    """Entropy of each query's weights, H(a_i) = -Σ_j a_ij log a_ij. Shape (..., N).

    Unit nats, range [0, log N]; lower is more focused. Uniform log N, identity 0, random log N - 1/2.

    >>> import numpy as np
    >>> row_entropy(np.array([[0.5, 0.5], [0.0, 1.0]])).round(4).tolist()
    [0.6931, 0.0]
    """
    xp, A = _checked(A)
    return xp.sum(surprise(A), axis=-1)


def entropy(A: Array) -> Array:
    """Mean entropy of the rows, mean_i H(a_i). Shape (...).

    Unit nats, range [0, log N]; lower is more focused. Uniform log N, identity 0, random log N - 1/2.

    >>> import numpy as np
    >>> print(f"{entropy(np.full((4, 4), 1 / 4)):.4f} {entropy(np.eye(4)):.4f}")
    1.3863 0.0000
    """
    return _mean(row_entropy(A))


def information(A: Array) -> Array:
    """Mutual information of query and key, I = H(ā) - mean_i H(a_i) = mean_i KL(a_i ‖ ā). Shape (...).

    Unit nats, range [0, log N]; higher: where a query looks depends more on which query it is. Uniform 0,
    identity log N, random 1/2. A collapse, all rows alike, is 0 whatever they look at.

    >>> import numpy as np
    >>> print(f"{information(np.full((4, 4), 1 / 4)):.4f} {information(np.eye(4)):.4f}")
    0.0000 1.3863
    """
    xp, A = _checked(A)
    return _mean(xp.sum(divergence(A, xp.mean(A, axis=-2, keepdims=True)), axis=-1))


def nmi(A: Array) -> Array:
    """Normalised mutual information, I / sqrt(log N · H(ā)), and 0 where H(ā) = 0. Shape (...).

    No unit, range [0, 1]; higher: attention depends more on the query. Uniform 0, identity 1, random
    1/(2 log N).

    >>> import numpy as np
    >>> print(f"{nmi(np.full((4, 4), 1 / 4)):.4f} {nmi(np.eye(4)):.4f}")
    0.0000 1.0000
    >>> everyone_looks_at_the_first = np.eye(4)[[0, 0, 0, 0]]
    >>> float(nmi(everyone_looks_at_the_first))
    0.0
    """
    xp, A = _checked(A)
    H_mean = xp.sum(surprise(xp.mean(A, axis=-2)), axis=-1)
    scale = xp.sqrt(math.log(A.shape[-1]) * xp.where(H_mean > 0, H_mean, 1.0))
    return xp.where(H_mean > 0, information(A) / xp.where(H_mean > 0, scale, 1.0), 0.0)


def diversity(A: Array) -> Array:
    """One minus the mean cosine of two rows, 1 - mean_{i≠j} cos(a_i, a_j). Shape (...).

    No unit, range [0, 1]; higher: queries look at more different places. Uniform 0, identity 1, random
    1 - 1/e. Raises InputError where N < 2.

    >>> import numpy as np
    >>> print(f"{diversity(np.full((4, 4), 1 / 4)):.4f} {diversity(np.eye(4)):.4f}")
    0.0000 1.0000
    """
    xp, A = _checked(A)
    # For unit vectors 1 - cos(u, v) = |u - v|²/2.
    return spread(A / xp.sqrt(xp.sum(A * A, axis=-1, keepdims=True))) / 2


def spread(A: Array) -> Array:
    """Mean squared distance of two rows, mean_{i≠j} ‖a_i - a_j‖² = 2 Σ_i ‖a_i - ā‖² / (N - 1). Shape (...).

    No unit, range [0, 2]; higher: queries look at more different places, and with more focus. Uniform 0,
    identity 2, random 2(e - 1)/N. Raises InputError where N < 2.

    >>> import numpy as np
    >>> print(f"{spread(np.full((4, 4), 1 / 4)):.4f} {spread(np.eye(4)):.4f}")
    0.0000 2.0000
    """
    xp, A = _checked(A)
    N = A.shape[-1]
    if N < 2:
        raise InputError(
            f"diversity and spread compare two queries; the map has {N}, give one of at least 2 x 2"
        )
    deviation = A - xp.mean(A, axis=-2, keepdims=True)
    return 2 * xp.sum(xp.sum(deviation * deviation, axis=-1), axis=-1) / (N - 1)


def effective_rank(A: Array) -> Array:
    """exp of the entropy of A's singular values normalised to sum 1 (Roy & Vetterli 2007). Shape (...).

    Unit dimensions, range [1, N]; higher: the outputs of the queries span more. Uniform 1, identity N, random
    0.805 N (all singular values but one then follow the quarter-circle law; N = 2000 still gives 0.76 N).

    >>> import numpy as np
    >>> print(f"{effective_rank(np.full((4, 4), 1 / 4)):.4f} {effective_rank(np.eye(4)):.4f}")
    1.0000 4.0000
    """
    xp, A = _checked(A)
    return effective_rank_of(xp.linalg.svdvals(A))


def distance(A: Array, positions: Array) -> Array:
    """Mean distance from a query to the keys it attends to, mean_i Σ_j a_ij ‖pos_i - pos_j‖. Shape (...).

    `positions` is (N, d), row i the position of query i and of key i. Unit that of the positions (where they
    count patches, multiply by the patch size for pixels), range from 0 to the largest distance; lower is more
    local. Uniform and random: the mean distance of two patches, a patch and itself included; identity 0.

    >>> import numpy as np
    >>> line = np.array([[0], [1], [2]])
    >>> print(f"{distance(np.full((3, 3), 1 / 3), line):.4f} {distance(np.eye(3), line):.4f}")
    0.8889 0.0000
    """
    xp, A = _checked(A)
    return _mean(xp.sum(A * _distances(A, positions), axis=-1))


def locality(A: Array, positions: Array, radius: float) -> Array:
    """Mean weight within `radius` of the query, mean_i Σ_{j: ‖pos_i - pos_j‖ <= r} a_ij. Shape (...).

    `positions` is (N, d), row i the position of query i and of key i; `radius` has their unit, and a key at
    exactly that distance counts. No unit, range [0, 1]; higher is more local. Uniform and random: the mean
    share of keys within r; identity 1. Raises InputError where the radius is negative or not finite.

    >>> import numpy as np
    >>> line = np.array([[0], [1], [2]])
    >>> print(f"{locality(np.full((3, 3), 1 / 3), line, 1):.4f} {locality(np.eye(3), line, 0):.4f}")
    0.7778 1.0000
    """
    xp, A = _checked(A)
    if not 0 <= radius < math.inf:
        raise InputError(
            f"radius = {radius} is no distance; give a finite number >= 0, in the positions' unit"
        )
    return _mean(xp.sum(xp.where(_distances(A, positions) <= radius, A, 0.0), axis=-1))


def _checked(A: Array) -> tuple[ModuleType, Array]:
    """The map's namespace and the map in float64; InputError where it is not square."""
    xp = namespace(A)
    A = xp.asarray(A, dtype=xp.float64)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2] or A.shape[-1] == 0:
        raise InputError(
            f"an attention map has shape (..., N, N), a row for each query, and this one {tuple(A.shape)}; "
            "keep the columns of the queries' own patches and renormalise the rows"
        )
    return xp, A


def _mean(rows: Array) -> Array:
    return namespace(rows).mean(rows, axis=-1)


def _distances(A: Array, positions: Array) -> Array:
    """‖pos_i - pos_j‖, shape (N, N), in the library and on the device of the map."""
    xp = namespace(A)
    positions = xp.asarray(positions, dtype=xp.float64, device=A.device)
    if positions.ndim != 2 or positions.shape[0] != A.shape[-1]:
        raise InputError(
            f"positions have shape {tuple(positions.shape)}; a map of {A.shape[-1]} keys needs "
            f"({A.shape[-1]}, d), a row of coordinates for each key"
        )
    difference = positions[:, None, :] - positions[None, :, :]
    return xp.sqrt(xp.sum(difference * difference, axis=-1))
