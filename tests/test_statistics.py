"""Statistics: explicit maps against loops over the formulas, closed forms against those and 60-digit sums."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import product
from operator import mul

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from numpy.testing import assert_allclose

from mimlab import statistics
from mimlab.runs.errors import InputError
from mimlab.statistics import BlockMap
from mimlab.statistics.blocks import DENSE_LIMIT, Floats

SCALARS = ("entropy", "information", "nmi", "diversity", "spread", "effective_rank")
CLOSED = ("entropy", "information", "nmi", "diversity", "spread", "effective_rank")


# Explicit maps


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
    """Rows that differ by 2^-30: diversity is near 10^-15, and 1 - mean cos in float64 would be noise."""
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
        mean = [sum(column) / N for column in zip(*rows, strict=True)]
        information = sum(w * (w / m).ln() for row in rows for w, m in zip(row, mean, strict=True)) / N
    assert_allclose(statistics.spread(A), float(spread), rtol=1e-6)
    assert_allclose(statistics.diversity(A), float(1 - cosine), rtol=1e-6)
    assert_allclose(statistics.information(A), float(information), rtol=0.05)


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


# Closed forms


@st.composite
def block_maps(draw: DrawFn, max_class: int = 4, max_size: int = 5) -> BlockMap:
    """Small maps of at least two patches; logits that are not used are nan."""
    n = draw(st.integers(1, max_class))
    logit: SearchStrategy[float] = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-8, 8))

    def logits(count: int) -> Floats:
        return np.array(draw(st.lists(logit, min_size=count, max_size=count)))

    sizes = np.array(draw(st.lists(st.integers(1, max_size), min_size=n, max_size=n)))
    counts = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    if (sizes * counts).sum() < 2:
        counts = counts + 1
    own, other = logits(n), logits(n * n).reshape(n, n)
    own[sizes == 1] = np.nan
    other[np.diag(counts == 1)] = np.nan
    return BlockMap(sizes, counts, logits(n), own, other)


def by_definition(block: BlockMap) -> Floats:
    """The map from the definition of its logits, a patch at a time."""
    patches = [
        (i, (i, area))
        for i in range(block.sizes.size)
        for area in range(int(block.counts[i]))
        for _ in range(int(block.sizes[i]))
    ]
    rows = []
    for p, (i, area) in enumerate(patches):
        logits = [
            block.self_logit[i]
            if p == q
            else block.own_logit[i]
            if area == target
            else block.other_logit[i, j]
            for q, (j, target) in enumerate(patches)
        ]
        weights = [math.exp(logit) for logit in logits]
        rows.append([w / sum(weights) for w in weights])
    return np.array(rows)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(block_maps())
def test_closed_forms_agree_with_the_explicit_map(block: BlockMap) -> None:
    A = block.dense()
    assert_allclose(A, by_definition(block), rtol=1e-12)
    assert block.patches == len(A)
    rows = np.repeat(block.row_entropy(), (block.sizes * block.counts).astype(int))
    assert_allclose(rows, statistics.row_entropy(A), rtol=1e-10, atol=1e-10)
    for name in CLOSED:
        found, expected = getattr(block, name)(), getattr(statistics, name)(A)
        assert isinstance(found, float)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=name)


def split(block: BlockMap, i: int, first: float) -> BlockMap:
    """The same map with `first` of the areas of class i made a class of their own, placed last."""
    n = block.sizes.size
    order = [*range(n), i]
    counts = block.counts[order]
    counts[i], counts[n] = counts[i] - first, first
    return BlockMap(
        block.sizes[order],
        counts,
        block.self_logit[order],
        block.own_logit[order],
        block.other_logit[np.ix_(order, order)],
    )


@settings(deadline=None, max_examples=100, derandomize=True)
@given(block_maps(max_class=3), st.data())
def test_splitting_a_class_changes_nothing(block: BlockMap, data: st.DataObject) -> None:
    """At sizes that no explicit map reaches: contrasts between areas move into the matrix of class means."""
    scale = data.draw(st.sampled_from([1.0, 1e3, 1e6]))
    used = np.nan_to_num(block.other_logit), np.nan_to_num(block.own_logit)
    large = replace(
        block,
        sizes=block.sizes * scale,
        counts=4 * scale * block.counts,
        other_logit=used[0],
        own_logit=used[1],
    )
    i = data.draw(st.integers(0, block.sizes.size - 1))
    parts = split(large, i, data.draw(st.sampled_from([1.0, 2.0, 3.0])) * scale)
    assert_allclose(
        parts.row_entropy(), large.row_entropy()[[*range(block.sizes.size), i]], rtol=1e-12, atol=1e-14
    )
    for name in CLOSED:
        assert_allclose(getattr(parts, name)(), getattr(large, name)(), rtol=1e-9, atol=1e-13, err_msg=name)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(block_maps(), st.randoms(use_true_random=False), st.floats(-500, 500))
def test_order_of_classes_and_shift_of_logits_change_nothing(
    block: BlockMap, random: object, shift: float
) -> None:
    n = block.sizes.size
    order = np.random.default_rng(n).permutation(n)
    other = BlockMap(
        block.sizes[order],
        block.counts[order],
        block.self_logit[order] + shift,
        block.own_logit[order] + shift,
        block.other_logit[np.ix_(order, order)] + shift,
    )
    assert_allclose(other.row_entropy(), block.row_entropy()[order], rtol=1e-10, atol=1e-11)
    for name in CLOSED:
        assert_allclose(getattr(other, name)(), getattr(block, name)(), rtol=1e-9, atol=1e-11, err_msg=name)


def two_classes_in_60_digits(block: BlockMap) -> dict[str, float]:
    """Entropies as in theory section 7, and the singular values of the 2 x 2 matrix by a quadratic."""
    with localcontext(prec=60):
        size, count, self_logit, own_logit = (
            [Decimal(x) for x in field.tolist()]
            for field in (block.sizes, block.counts, block.self_logit, block.own_logit)
        )
        other = [[Decimal(x) for x in row] for row in block.other_logit.tolist()]
        N = [size[i] * count[i] for i in (0, 1)]
        P = sum(N)
        entropy, mass, values = [], [], []
        norms, unit_sum = [], [Decimal(0), Decimal(0)]
        for i in (0, 1):
            j = 1 - i
            e_self, e_own = self_logit[i].exp(), own_logit[i].exp()
            e_same, e_other = other[i][i].exp(), other[i][j].exp()
            groups = [(1, e_self), (size[i] - 1, e_own), (N[i] - size[i], e_same), (N[j], e_other)]
            Z = sum(n * e for n, e in groups)
            entropy.append(-sum(n * (e / Z) * (e / Z).ln() for n, e in groups if n > 0))
            here = (e_self + (size[i] - 1) * e_own + (N[i] - size[i]) * e_same) / Z
            mass.append([here, 1 - here] if i == 0 else [1 - here, here])
            norms.append(sum(n * (e / Z) ** 2 for n, e in groups).sqrt())
            values.append((abs(e_self - e_own) / Z, count[i] * (size[i] - 1)))
            values.append((abs(e_self + (size[i] - 1) * e_own - size[i] * e_same) / Z, count[i] - 1))
            for k in (0, 1):
                unit_sum[k] += N[i] * mass[i][k] / norms[i] / N[k]
        mean = [sum(N[i] * mass[i][k] for i in (0, 1)) / P for k in (0, 1)]
        H_mean = -sum(mean[k] * (mean[k] / N[k]).ln() for k in (0, 1))
        information = H_mean - sum(N[i] * entropy[i] for i in (0, 1)) / P
        square = sum(mass[i][k] ** 2 * N[i] / N[k] for i in (0, 1) for k in (0, 1))
        det = abs(mass[0][0] * mass[1][1] - mass[0][1] * mass[1][0])
        largest = ((square + (square**2 - 4 * det**2).sqrt()) / 2).sqrt()
        values += [(largest, Decimal(1)), (det / largest, Decimal(1))]
        S = sum(n * v for v, n in values)
        rank = (-sum(n * (v / S) * (v / S).ln() for v, n in values if n * v > 0)).exp()
        total = sum(N[k] * unit_sum[k] ** 2 for k in (0, 1))
        return {
            "global_entropy": float(entropy[0]),
            "local_entropy": float(entropy[1]),
            "information": float(information),
            "nmi": float(information / (P.ln() * H_mean).sqrt()),
            "diversity": float(1 - (total - P) / (P * (P - 1))),
            "effective_rank": float(rank),
        }


def trillion(own: float, own_self: float, to_global: float, from_global: float = 0.0) -> BlockMap:
    """10^12 patches, information gap positive: a global area of 10^10.8, the rest in local areas of 4000."""
    first = round(1e12**0.9)
    count = (10**12 - first) / 4000
    return BlockMap(
        np.array([first, 4000]),
        np.array([1, count]),
        np.array([from_global, own_self]),
        np.array([from_global, own]),
        np.array([[np.nan, 0.0], [to_global, 0.0]]),
    )


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(trillion(1e-3, 2e-3, -1e-3, 1e-3), id="first steps"),
        pytest.param(trillion(0.5, 0.6, -3.0, 1.0), id="decoupling"),
        pytest.param(trillion(19.0, 19.1, -5.5, 5.0), id="half attention"),
        pytest.param(trillion(26.0, 26.3, -6.4, 30.0), id="converged"),
        pytest.param(trillion(0.0, 60.0, 0.0, 0.0), id="each on itself"),
    ],
)
def test_a_trillion_patches_in_60_digits(block: BlockMap) -> None:
    filled = replace(block, other_logit=np.nan_to_num(block.other_logit))
    expected = two_classes_in_60_digits(filled)
    found = dict(zip(("global_entropy", "local_entropy"), block.row_entropy(), strict=True))
    found |= {name: getattr(block, name)() for name in expected if name not in found}
    for name, value in expected.items():
        # Weights have a relative error near 10^-16: a statistic below that is only known to be small.
        assert_allclose(found[name], value, rtol=1e-9, atol=2e-16, err_msg=name)


def test_limits_at_a_trillion_patches() -> None:
    log = math.log(1e12)
    sizes, counts, zero = np.array([1e9, 1e3]), np.array([1.0, 1e9 - 1e6]), np.zeros((2, 2))

    uniform = BlockMap(sizes, counts, zero[0], zero[0], zero)
    assert_allclose(uniform.row_entropy(), [log, log])
    assert_allclose([uniform.effective_rank(), uniform.nmi()], [1, 0], atol=1e-12)
    assert_allclose([uniform.information(), uniform.diversity(), uniform.spread()], 0, atol=1e-25)

    own_area = BlockMap(sizes, counts, zero[0] + 200, zero[0] + 200, zero)
    assert_allclose(own_area.row_entropy(), np.log(sizes))
    assert_allclose(own_area.information(), log - np.log(sizes) @ (sizes * counts) / 1e12)
    assert_allclose(own_area.effective_rank(), counts.sum())

    itself = BlockMap(sizes, counts, zero[0] + 200, zero[0], zero)
    assert_allclose(
        [itself.nmi(), itself.diversity(), itself.spread(), itself.effective_rank()], [1, 1, 2, 1e12]
    )

    first = BlockMap([1, 1e3], [1, 1e9], [200, 0], [np.nan, 0], [[np.nan, 0], [200, 0]])
    assert_allclose(first.row_entropy(), 0, atol=1e-60)
    assert_allclose([first.nmi(), first.diversity(), first.effective_rank()], [0, 0, 1], atol=1e-12)


def test_leading_axes_of_logits_hold_several_maps() -> None:
    rng = np.random.default_rng(0)
    own, itself, other = rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 2, 2))
    sizes, counts = [3, 1], [1, 4]
    several = BlockMap(sizes, counts, itself, own, other)
    for at in np.ndindex(2, 3):
        one = BlockMap(sizes, counts, itself[at], own[at], other[at])
        assert_allclose(several.dense()[at], one.dense())
        assert_allclose(several.row_entropy()[at], one.row_entropy())
        for name in CLOSED:
            assert_allclose(getattr(several, name)()[at], getattr(one, name)(), err_msg=name)


def test_sizes_and_counts_need_not_be_whole() -> None:
    block = BlockMap([15.85, 3.98], [1.0, 21.15], [0, 0], [0, 0], np.zeros((2, 2)))
    assert_allclose(block.row_entropy(), math.log(15.85 + 3.98 * 21.15))
    assert_allclose([block.effective_rank(), block.nmi()], [1, 0], atol=1e-12)
    with pytest.raises(InputError, match="whole"):
        block.dense()


def test_a_block_map_keeps_its_own_read_only_numbers() -> None:
    sizes = np.array([2.0, 3.0])
    block = BlockMap(sizes, [1, 2], [0, 0], [0, 0], np.zeros((2, 2)))
    sizes[0] = 50
    assert block.patches == 8
    with pytest.raises(ValueError, match="read-only"):
        block.sizes[0] = 50


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sizes", [0.5, 2], "sizes"),
        ("counts", [1, math.inf], "counts"),
        ("counts", [1, math.nan], "counts"),
        ("counts", [1, 2, 3], r"counts has shape \(3,\)"),
        ("self_logit", [0, math.nan], "finite"),
        ("own_logit", [math.inf, 0], "finite"),
        ("other_logit", [0, 0], r"needs? \(2, 2\)"),
        ("other_logit", [[0, math.nan], [0, 0]], "finite"),
        ("sizes", [], r"n >= 1"),
    ],
)
def test_what_is_not_a_block_map_is_refused(field: str, value: list[float], message: str) -> None:
    fields = {"sizes": [4, 2], "counts": [1, 3], "self_logit": [0, 0], "own_logit": [0, 0]}
    with pytest.raises(InputError, match=message):
        BlockMap(**{**fields, "other_logit": np.zeros((2, 2)), field: value})


def test_too_large_or_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=str(DENSE_LIMIT)):
        BlockMap([DENSE_LIMIT + 1], [1], [0], [0], [[0]]).dense()
    one = BlockMap([1], [1], [0], [math.nan], [[math.nan]])
    assert (one.nmi(), one.effective_rank(), one.row_entropy().tolist()) == (0.0, 1.0, [0.0])
    for name in ("diversity", "spread"):
        with pytest.raises(InputError, match="at least 2"):
            getattr(one, name)()
