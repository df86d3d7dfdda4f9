"""Shares of logit variance: exactly unbiased by enumeration, and known components found again."""

from functools import cache
from itertools import permutations, product

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from mimlab.dynamics.dense import DenseWorld, train_dense  # noqa: E402
from mimlab.probing.shares import COMPONENTS, intervals, shares_of  # noqa: E402
from mimlab.runs.errors import InputError  # noqa: E402
from mimlab.world.latent import Latent  # noqa: E402

PARTS = COMPONENTS[:-1]


def draw_orders(rng, samples, patches):
    return np.array([rng.permutation(patches) for _ in range(samples)])


def centred(s, drop_self):
    """Rows minus their mean; nan where the query meets itself, if that is left out."""
    s = np.where(np.eye(s.shape[-1], dtype=bool) & drop_self, np.nan, s)
    return s - np.nanmean(s, axis=-1, keepdims=True)


def parts_of_expectation(table, drop_self):
    """Each component's mean square for logits given for every permutation, {π: (N, N)}: by loops, no estimate."""
    N = len(next(iter(table)))
    entries = list(product(range(N), repeat=2))

    def mean_square(value):
        seen = [[value(s, order, *entry) for order, s in table.items()] for entry in entries]
        means = [np.nanmean(values) for values in seen if not np.isnan(values).all()]
        return np.mean(np.square(means))

    def column(s, q):
        return np.nanmean(s[:, q])

    pq = mean_square(lambda s, order, p, q: s[p, q])
    pc = mean_square(lambda s, order, p, i: s[p, order[i]])
    hq = mean_square(lambda s, order, h, q: s[order[h], q])
    hc = mean_square(lambda s, order, h, i: s[order[h], order[i]])
    q = mean_square(lambda s, order, _, q: column(s, q))
    c = mean_square(lambda s, order, _, i: column(s, order[i]))
    return dict(zip(PARTS, (q, c, pq - q, pc - c, hq - q, hc - c), strict=True))


@pytest.mark.parametrize("drop_self", [False, True])
def test_estimates_average_to_the_truth_over_all_permutations(drop_self):
    N = 4
    rng = np.random.default_rng(0)
    table = {order: centred(rng.normal(size=(N, N)) + 1, drop_self) for order in permutations(range(N))}
    truth = parts_of_expectation(table, drop_self)
    total = dict.fromkeys(PARTS, 0.0)
    for pair in product(table, repeat=2):  # independent draws, so that both may be the same permutation
        s = np.array([table[order] for order in pair])
        shares = shares_of(np.where(np.isnan(s), 99.0, s), pair, drop_self)
        for name in PARTS:
            total[name] += shares[name] * np.nanmean(s**2)
    for name in PARTS:
        assert total[name] / len(table) ** 2 == pytest.approx(truth[name], abs=1e-13), name


def zero_margins(matrix):
    """The nearest matrix with zero rows sums, column sums and diagonal."""
    for _ in range(200):
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
        matrix = matrix - matrix.mean(axis=0)
        matrix = matrix * (1 - np.eye(len(matrix)))
    return matrix


WEIGHTS = dict(zip(COMPONENTS, (0.6, 0.9, 1.2, 1.0, 0.5, 0.8, 0.7), strict=True))


def synthetic(rng, samples, patches, weights):
    """Logits that are a sum of components, each of mean square weight²; the permutations; and "rest" is noise."""
    orders = draw_orders(rng, samples, patches)
    part = {name: zero_margins(rng.normal(size=(patches, patches))) for name in PARTS[2:]}
    part |= {name: np.tile(rng.normal(size=patches), (patches, 1)) for name in PARTS[:2]}
    for name, matrix in part.items():
        matrix -= matrix.mean(axis=1, keepdims=True)
        matrix *= weights[name] / np.sqrt(np.mean(matrix**2))
    item = np.argsort(orders, axis=1)
    logits = weights["rest"] * rng.normal(size=(samples, patches, patches))
    logits += part["key position"] + part["PP"] + part["key content"][0][item][:, None, :]
    for b, at in enumerate(item):
        logits[b] += part["FP"][:, at] + part["query content x key position"][at] + part["FF"][at][:, at]
    return logits, orders


def table_of(per_image):
    """What logit_shares gives, for one head."""
    rows = [(n, name, share) for n, shares in enumerate(per_image) for name, share in shares.items()]
    image, component, share = zip(*rows, strict=True)
    count = len(rows)
    columns = {"image": image, "layer": [0] * count, "module": ["attention"] * count, "head": [0] * count}
    return pa.table(columns | {"component": component, "share": share})


def interval_of(per_image):
    rows = intervals(table_of(per_image), "model").to_pylist()
    return {row["component"]: (row["low"], row["share"], row["high"]) for row in rows}


def agrees(interval, truth):
    """Within twice the interval's half width, four standard errors: of many 95% intervals some miss."""
    low, share, high = interval
    return abs(share - truth) <= high - low


@pytest.mark.parametrize("drop_self", [False, True])
def test_known_components_lie_in_their_intervals(drop_self):
    rng = np.random.default_rng(3)
    images = [synthetic(rng, 16, 40, WEIGHTS) for _ in range(20)]
    found = interval_of([shares_of(*image, drop_self) for image in images])
    square = {name: weight**2 for name, weight in WEIGHTS.items()}
    for name in ("PP", "FF"):  # zero where a token meets itself
        square[name] *= 40 / 39 if drop_self else 1
    for name in COMPONENTS:
        low, share, high = found[name]
        assert low <= square[name] / sum(square.values()) <= high, name
        assert high - low < 0.04 and share > 0.03


def test_noise_has_no_share_and_small_estimates_may_be_negative():
    rng = np.random.default_rng(1)
    every = [shares_of(rng.normal(size=(8, 30, 30)), draw_orders(rng, 8, 30)) for _ in range(20)]
    found = interval_of(every)
    for name in PARTS:
        assert agrees(found[name], 0) and abs(found[name][1]) < 5e-3, name
        assert min(shares[name] for shares in every) < 0 < max(shares[name] for shares in every)
    assert found["rest"][1] == pytest.approx(1, abs=5e-3)


def test_shares_add_up_to_one():
    shares = shares_of(*synthetic(np.random.default_rng(2), 4, 9, WEIGHTS))
    assert list(shares) == list(COMPONENTS)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)


def test_rows_may_carry_any_constant_and_the_scale_does_not_matter():
    logits, orders = synthetic(np.random.default_rng(4), 4, 9, WEIGHTS)
    shifted = 3 * logits + np.random.default_rng(5).normal(size=(4, 9, 1))
    assert shares_of(shifted, orders) == pytest.approx(shares_of(logits, orders), abs=1e-12)


def test_a_token_that_meets_itself_can_be_left_out():
    logits, orders = synthetic(np.random.default_rng(6), 4, 12, WEIGHTS)
    loud = logits + 50 * np.eye(12)
    assert shares_of(loud, orders, True) == pytest.approx(shares_of(logits, orders, True), abs=1e-12)
    assert shares_of(loud, orders)["PP"] > 0.9


AREA = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3])


@cache
def simulated():
    """Phi (P, areas) and Upsilon (P, P) of a small world in the middle of its training."""
    world = DenseWorld(AREA[None], Latent(low=0.5, high=1.5), masked=8)
    run = train_dense(world, learning_rate=4.0, steps=50, batch=24, seed=0, evaluation=2)
    return run.records[-1].phi[:, 0], run.records[-1].upsilon


def simulated_truth(z, visible):
    """Shares of the row-centred Upsilon and u z Phi, each split into what all queries have in common and the rest.

    Two products are not quite orthogonal to them at N patches (docs/shares.md): the item at the query is never the
    one at another key, and a query's own key never another's.
    """
    phi, upsilon = simulated()
    content = visible * z[AREA] * phi[:, AREA]
    parts = {}
    for matrix, names in ((upsilon, ("key position", "PP")), (content, ("key content", "FP"))):
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
        parts |= dict(
            zip(names, (np.tile(matrix.mean(axis=0), (16, 1)), matrix - matrix.mean(axis=0)), strict=True)
        )
    square = {name: np.mean(matrix**2) for name, matrix in parts.items()}
    square["query content x key position"] = square["FP"] / 15**2
    square["FF"] = np.diag(parts["PP"]).mean() ** 2 / 15
    whole = sum(np.mean(matrix**2) for matrix in parts.values())
    shares = {name: square[name] / whole for name in PARTS}
    return shares | {"rest": 1 - sum(shares.values())}


@pytest.mark.parametrize("masked", [0, 6])
def test_the_simulators_layer_gives_back_its_own_upsilon_and_phi(masked):
    phi, upsilon = simulated()
    rng = np.random.default_rng(7)
    differences = []
    for _ in range(40):
        z, visible = rng.uniform(0.5, 1.5, size=4), rng.permutation(16) >= masked
        orders = draw_orders(rng, 16, 16)
        item = np.argsort(orders, axis=1)
        logits = np.array([upsilon + (visible * z[AREA])[at] * phi[:, AREA[at]] for at in item])
        truth, shares = simulated_truth(z, visible), shares_of(logits, orders)
        assert truth["FP"] > 0.5 and truth["PP"] > 0.04
        differences.append({name: shares[name] - truth[name] for name in COMPONENTS})
    for name, interval in interval_of(differences).items():
        assert agrees(interval, 0) and interval[2] - interval[0] < 0.03, name


def test_interval_is_students_over_images():
    share = {"a": [0.1, 0.4, 0.2], "b": [0.5, 0.5, -0.2]}
    table = table_of([{name: values[n] for name, values in share.items()} for n in range(3)])
    found = intervals(table, "vit").to_pylist()
    assert [(row["model"], row["component"]) for row in found] == [("vit", "a"), ("vit", "b")]
    for row, values in zip(found, share.values(), strict=True):
        low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
        assert (row["low"], row["share"], row["high"]) == pytest.approx((low, np.mean(values), high))


def test_one_image_has_no_interval_and_what_is_not_finite_is_nan():
    (row,) = intervals(table_of([{"FP": 0.5}]), "vit").to_pylist()
    assert (row["share"], row["low"], row["high"]) == (0.5, None, None)
    orders = draw_orders(np.random.default_rng(0), 3, 5)
    logits = np.random.default_rng(0).normal(size=(3, 5, 5))
    for missing in (np.nan, -np.inf):
        logits[1, 2, 3] = missing
        assert np.isnan(list(shares_of(logits, orders).values())).all()
    assert np.isnan(list(shares_of(np.ones((3, 5, 5)), orders).values())).all()


@pytest.mark.parametrize(
    ("logits", "orders", "drop_self", "words"),
    [
        (np.zeros((2, 3, 4)), [[0, 1, 2], [2, 1, 0]], False, "need \\(2, 3, 3\\)"),
        (np.zeros((1, 3, 3)), [[0, 1, 2]], False, "at least 2 permutations"),
        (np.zeros((2, 2, 2)), [[0, 1], [1, 0]], True, "of 3 patches"),
        (np.zeros((2, 3, 3)), [[0, 1, 2], [2, 1, 1]], False, "each of 0 to 2 once"),
    ],
)
def test_what_is_no_sample_of_permutations_is_refused(logits, orders, drop_self, words):
    with pytest.raises(InputError, match=words):
        shares_of(logits, orders, drop_self)
