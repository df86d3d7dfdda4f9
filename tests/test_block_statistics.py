"""Closed forms of the statistics, against explicit maps, each other, known limits and 60-digit sums."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext

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

CLOSED = ("entropy", "information", "nmi", "diversity", "spread", "effective_rank")


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
@given(block_maps(), st.integers(0, 100), st.floats(-5000, 5000))
def test_order_of_classes_and_shift_of_logits_change_nothing(
    block: BlockMap, seed: int, shift: float
) -> None:
    n = block.sizes.size
    order = np.random.default_rng(seed).permutation(n)
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
