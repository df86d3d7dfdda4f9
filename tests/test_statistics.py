"""Statistics of explicit maps, against loops over the formulas, known values and 60-digit sums."""

import math
from decimal import Decimal, localcontext
from itertools import product
from operator import mul

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mimlab import statistics
from mimlab.runs.errors import InputError
from mimlab.statistics.blocks import Floats

SCALARS = ("entropy", "information", "nmi", "diversity", "spread", "effective_rank")


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def random_map(seed: int, N: int, zeros: bool = False) -> Floats:
    """Weights of varied sharpness; with `zeros`, about half of them 0."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, N)) * rng.uniform(0.1, 5, size=(N, 1))
    if zeros:
        logits[(rng.random((N, N)) < 0.5) & ~np.eye(N, dtype=bool)] = -np.inf
    return softmax(logits)


def entropy_of(weights: list[float]) -> float:
    return -sum(w * math.log(w) for w in weights if w > 0)


def by_loops(A: Floats, positions: Floats, radius: float) -> dict[str, float]:
    """The formulas of theory section 7 as they are written there, one element at a time."""
    rows = A.tolist()
    N = len(rows)
    pairs = [(i, j) for i, j in product(range(N), repeat=2) if i != j]
    mean_row = [sum(row[j] for row in rows) / N for j in range(N)]
    entropy = sum(entropy_of(row) for row in rows) / N
    information = entropy_of(mean_row) - entropy
    norms = [math.hypot(*row) for row in rows]
    cosines = [sum(map(mul, rows[i], rows[j])) / (norms[i] * norms[j]) for i, j in pairs]
    squares = [math.dist(rows[i], rows[j]) ** 2 for i, j in pairs]
    apart = [[math.dist(p, q) for q in positions.tolist()] for p in positions.tolist()]
    every = list(product(range(N), repeat=2))
    eigenvalues = np.linalg.eigvalsh(A @ A.T).clip(min=0)
    values = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    return {
        "entropy": entropy,
        "information": information,
        "nmi": information / math.sqrt(math.log(N) * entropy_of(mean_row)),
        "diversity": 1 - sum(cosines) / len(pairs),
        "spread": sum(squares) / len(pairs),
        "effective_rank": math.exp(entropy_of(values.tolist())),
        "distance": sum(rows[i][j] * apart[i][j] for i, j in every) / N,
        "locality": sum(rows[i][j] for i, j in every if apart[i][j] <= radius) / N,
    }


def measured(A: Floats, positions: Floats, radius: float) -> dict[str, float]:
    numbers = {name: float(getattr(statistics, name)(A)) for name in SCALARS}
    numbers["distance"] = float(statistics.distance(A, positions))
    numbers["locality"] = float(statistics.locality(A, positions, radius))
    return numbers


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("seed", "N"), [(0, 2), (1, 3), (2, 7), (3, 16)])
def test_explicit_map_agrees_with_loops_over_the_formulas(seed: int, N: int, zeros: bool) -> None:
    A = random_map(seed, N, zeros)
    positions = np.random.default_rng(seed).integers(0, 5, size=(N, 2)).astype(float)
    expected = by_loops(A, positions, radius=2.0)
    # Singular values as roots of eigenvalues carry half the digits.
    assert_allclose(statistics.effective_rank(A), expected.pop("effective_rank"), rtol=1e-6)
    found = measured(A, positions, radius=2.0)
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=1e-12, atol=1e-13, err_msg=name)
    assert_allclose(statistics.row_entropy(A), [entropy_of(row) for row in A.tolist()], atol=1e-13)


@pytest.mark.parametrize("N", [2, 5, 64])
def test_uniform_identity_and_collapse(N: int) -> None:
    log = math.log(N)
    expected = {
        "entropy": (log, 0.0, 0.0),
        "information": (0.0, log, 0.0),
        "nmi": (0.0, 1.0, 0.0),
        "diversity": (0.0, 1.0, 0.0),
        "spread": (0.0, 2.0, 0.0),
        "effective_rank": (1.0, N, 1.0),
    }
    maps = np.full((N, N), 1 / N), np.eye(N), np.eye(N)[[0] * N]
    for name, values in expected.items():
        assert_allclose([getattr(statistics, name)(A) for A in maps], values, atol=1e-12, err_msg=name)
    line = np.arange(N)[:, None]
    apart = np.abs(line - line.T)
    assert_allclose([statistics.distance(A, line) for A in maps], [apart.mean(), 0, (N - 1) / 2])
    assert_allclose([statistics.locality(A, line, 0) for A in maps], [1 / N, 1, 1 / N])
    near = [statistics.locality(A, line, 1) for A in maps]
    assert_allclose(near, [(3 * N - 2) / N**2, 1, 2 / N])


def test_random_weights_approach_the_stated_limits() -> None:
    N = 800
    A = softmax(np.random.default_rng(0).normal(size=(N, N)))
    log, e = math.log(N), math.e
    # The share that the singular value 1 of the mean row takes from the quarter circle's, which mean 8/(3π).
    one = 1 / (1 + math.sqrt(N * (e - 1)) * 8 / (3 * math.pi))
    stated = {
        "entropy": log - 1 / 2,
        "information": 1 / 2,
        "nmi": 1 / (2 * log),
        "diversity": 1 - 1 / e,
        "spread": 2 * (e - 1) / N,
        "effective_rank": math.exp(entropy_of([one, 1 - one]) + (1 - one) * math.log(0.805 * N)),
    }
    for name, value in stated.items():
        assert_allclose(getattr(statistics, name)(A), value, rtol=0.02, err_msg=name)


def test_renaming_the_patches_changes_nothing() -> None:
    A, positions = random_map(4, 12), np.random.default_rng(4).normal(size=(12, 2))
    order = np.random.default_rng(5).permutation(12)
    before, after = measured(A, positions, 1.0), measured(A[np.ix_(order, order)], positions[order], 1.0)
    assert after == pytest.approx(before, abs=1e-13)


def test_renaming_the_keys_alone_changes_only_what_takes_positions() -> None:
    A, positions = random_map(6, 9), np.random.default_rng(6).normal(size=(9, 2))
    before, after = measured(A, positions, 1.0), measured(np.roll(A, 1, axis=1), positions, 1.0)
    assert {name: after[name] for name in SCALARS} == pytest.approx({name: before[name] for name in SCALARS})
    assert all(abs(after[name] - before[name]) > 1e-3 for name in ("distance", "locality"))


def test_leading_axes_are_kept() -> None:
    heads = np.stack([[random_map(10 * i + j, 5) for j in range(3)] for i in range(2)])
    positions = np.arange(10.0).reshape(5, 2)
    for name in SCALARS:
        statistic = getattr(statistics, name)
        assert_allclose(statistic(heads), [[statistic(A) for A in layer] for layer in heads], atol=1e-14)
    assert statistics.row_entropy(heads).shape == (2, 3, 5)
    assert (
        statistics.distance(heads, positions).shape
        == statistics.locality(heads, positions, 1).shape
        == (2, 3)
    )


def test_nearly_equal_rows_do_not_cancel() -> None:
    """Rows that differ by 2^-30: diversity is near 10^-15, and 1 - mean cosine would be noise."""
    N, step = 8, 2.0**-30
    A = np.full((N, N), 1 / N)
    for i in range(N):
        A[i, i] += step * (i + 1)
        A[i, i - 1] -= step * (i + 1)
    rows = [[Decimal(w) for w in row] for row in A.tolist()]
    pairs = [(u, v) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]
    with localcontext(prec=60):
        spread = sum(sum((x - y) ** 2 for x, y in zip(u, v, strict=True)) for u, v in pairs) / len(pairs)
        cosine = sum(
            sum(x * y for x, y in zip(u, v, strict=True))
            / (sum(x * x for x in u) * sum(y * y for y in v)).sqrt()
            for u, v in pairs
        ) / len(pairs)
    assert_allclose(statistics.spread(A), float(spread), rtol=1e-6)
    assert_allclose(statistics.diversity(A), float(1 - cosine), rtol=1e-6)
    assert_allclose(statistics.information(A), 0, atol=1e-15)


def test_tensors_stay_tensors_and_are_summed_in_float64() -> None:
    torch = pytest.importorskip("torch")
    A = np.stack([np.eye(6), random_map(7, 6), random_map(8, 6, zeros=True)])
    positions = np.arange(12.0).reshape(6, 2)
    for name in SCALARS:
        statistic = getattr(statistics, name)
        found = statistic(torch.tensor(A, dtype=torch.float64))
        assert isinstance(found, torch.Tensor)
        assert_allclose(found.numpy(), statistic(A), atol=1e-12, err_msg=name)
        assert statistic(torch.tensor(A, dtype=torch.bfloat16)).dtype == torch.float64
    tensor = torch.tensor(A)
    assert_allclose(statistics.distance(tensor, positions).numpy(), statistics.distance(A, positions))
    assert_allclose(statistics.locality(tensor, positions, 3).numpy(), statistics.locality(A, positions, 3))


def test_single_precision_maps_are_summed_in_float64() -> None:
    A = random_map(9, 40).astype(np.float32)
    for name in SCALARS:
        assert getattr(statistics, name)(A) == getattr(statistics, name)(A.astype(np.float64))


def test_what_is_not_a_map_is_refused() -> None:
    square = np.eye(3)
    for name in SCALARS:
        with pytest.raises(InputError, match=r"\(2, 3\)"):
            getattr(statistics, name)(square[:2])
    for name in ("diversity", "spread"):
        with pytest.raises(InputError, match="2 x 2"):
            getattr(statistics, name)(np.ones((1, 1)))
    with pytest.raises(InputError, match=r"\(3, d\)"):
        statistics.distance(square, np.zeros((4, 2)))
    for radius in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="radius"):
            statistics.locality(square, np.zeros((3, 2)), radius)
