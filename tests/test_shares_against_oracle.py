"""Shares of logit variance (theory, section 8) against loops, against every permutation there is, and by design.

Every array of logits here is s^b[p, q] = terms of position p and item h = the one at p, and of position q and
item i = the one at q. What the estimator must give on average is the same expression with the sample replaced
by the mean over all N! permutations; of terms that are pure by design it is their variance.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mimlab.probing.shares import shares_of
from mimlab.runs import InputError

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Entries = dict[tuple[int, ...], float]
COMPONENTS = ("key position", "key content", "PP", "FP", "query content x key position", "FF")


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def centred(logits: Floats, drop_self: bool) -> Entries:
    """One sample's logits less their row's mean; with `drop_self` the diagonal is nowhere, nor in that mean."""
    N, s = len(logits), {}
    for p in range(N):
        kept = [q for q in range(N) if not (drop_self and p == q)]
        level = mean([logits[p, q] for q in kept])
        s.update({(p, q): logits[p, q] - level for q in kept})
    return s


def column_means(s: Entries) -> Entries:
    columns: dict[int, list[float]] = {}
    for (_, q), value in s.items():
        columns.setdefault(q, []).append(value)
    return {(q,): mean(values) for q, values in columns.items()}


def reindexed(s: Entries, place: Whole) -> dict[str, Entries]:
    """The six re-indexings R s of one sample; an entry whose logit is dropped is missing from this sample."""
    item = {int(q): i for i, q in enumerate(place)}
    columns = column_means(s)
    return {
        "pq": s,
        "pc": {(p, item[q]): value for (p, q), value in s.items()},
        "hq": {(item[p], q): value for (p, q), value in s.items()},
        "hc": {(item[p], item[q]): value for (p, q), value in s.items()},
        "q": columns,
        "c": {(item[q],): value for (q,), value in columns.items()},
    }


def components_of(T: dict[str, float], V: float) -> dict[str, float]:
    """The variance of each component, `rest` being what is left of V."""
    values = (T["q"], T["c"], T["pq"] - T["q"], T["pc"] - T["c"], T["hq"] - T["q"], T["hc"] - T["c"])
    found = dict(zip(COMPONENTS, values, strict=True))
    return {**found, "rest": V - sum(values)}


def gathered(samples: Sequence[dict[str, Entries]], name: str) -> Iterator[list[float]]:
    """For each entry of a re-indexing its values in the samples that have it."""
    for entry in sorted({entry for sample in samples for entry in sample[name]}):
        yield [sample[name][entry] for sample in samples if entry in sample[name]]


def variance(logits: Floats, drop_self: bool) -> float:
    return mean([value**2 for sample in logits for value in centred(sample, drop_self).values()])


def by_loops(logits: Floats, places: Whole, drop_self: bool) -> dict[str, float]:
    """The estimator: products of two different samples that both have an entry, over how many are expected.

    Dropped logits are the same N entries in every sample of pq and hc. In pc and hq a sample misses an entry
    with probability 1/N, two samples independently, so that of N² entries a pair has (N-1)² on average; the
    permutations decide which, never the logits, and so the ratio is unbiased.
    """
    samples = [reindexed(centred(s, drop_self), place) for s, place in zip(logits, places, strict=True)]
    B, N = places.shape
    always, paired = (N * (N - 1), (N - 1) ** 2) if drop_self else (N**2, N**2)
    entries = {"pq": always, "pc": paired, "hq": paired, "hc": always, "q": N, "c": N}
    T = {}
    for name, number in entries.items():
        products = [x * y for own in gathered(samples, name) for x, y in itertools.permutations(own, 2)]
        T[name] = math.fsum(products) / (number * B * (B - 1))
    V = variance(logits, drop_self)
    return {name: value / V for name, value in components_of(T, V).items()}


Terms = dict[str, Floats]


def terms_of(rng: np.random.Generator, N: int, **sizes: float) -> Terms:
    """Random terms of these standard deviations: without margins, so that none passes for another."""
    terms = {}
    for name, size in sizes.items():
        axes = 1 if name in ("q", "i") else len(name)
        term = rng.normal(size=(N,) * axes)
        for axis in range(axes):
            term -= term.mean(axis=axis, keepdims=True)
        if name in ("pq", "hi"):  # no trace either: on the diagonal a position meets itself, an item itself
            projector = np.eye(N) - 1 / N
            term -= np.trace(term) / np.trace(projector) * projector
        terms[name] = term * size / term.std()
    return terms


def logits_of(terms: Terms, place: Whole) -> Floats:
    """s[p, q]: the sum of the terms, each read at p, q and the items h and i that lie there."""
    N = len(place)
    at = dict(zip("pq", np.indices((N, N)), strict=True))
    item = np.argsort(place)
    at["h"], at["i"] = item[at["p"]], item[at["q"]]
    return sum((term[tuple(at[axis] for axis in name)] for name, term in terms.items()), np.zeros((N, N)))


def permuted(rng: np.random.Generator, B: int, N: int) -> Whole:
    return np.array([rng.permutation(N) for _ in range(B)])


def drawn(seed: int, terms: Terms, B: int, N: int, noise: float = 1.0) -> tuple[Floats, Whole]:
    rng = np.random.default_rng(seed)
    places = permuted(rng, B, N)
    return np.array([logits_of(terms, place) for place in places]) + noise * rng.normal(
        size=(B, N, N)
    ), places


MIXED = {"q": 0.5, "i": 0.7, "pq": 1.0, "pi": 0.8, "hq": 0.6, "hi": 0.9}
NAMES = dict(zip(("q", "i", "pq", "pi", "hq", "hi"), COMPONENTS, strict=True))


@pytest.mark.parametrize("drop_self", [False, True])
@pytest.mark.parametrize(("B", "N"), [(2, 6), (3, 4), (5, 7)])
def test_loops(B, N, drop_self):
    for seed in range(5):
        logits, places = drawn(seed, terms_of(np.random.default_rng(seed), N, **MIXED), B, N)
        found = shares_of(logits, places, drop_self)
        assert list(found) == list(by_loops(logits, places, drop_self))
        assert found == pytest.approx(by_loops(logits, places, drop_self), abs=1e-12)
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)


def truth_of(logits_at: Callable[[Whole], Floats], N: int, noise: float, drop_self: bool) -> dict[str, float]:
    """Every component without sampling: the mean over all permutations in place of two samples' product."""
    places = [np.array(place) for place in itertools.permutations(range(N))]
    plain = [centred(logits_at(place), drop_self) for place in places]
    samples = [reindexed(s, place) for s, place in zip(plain, places, strict=True)]
    T = {name: mean([mean(values) ** 2 for values in gathered(samples, name)]) for name in samples[0]}
    row = N - drop_self  # a row's mean takes its share of the noise along
    V = mean([value**2 for s in plain for value in s.values()]) + noise**2 * (1 - 1 / row)
    return components_of(T, V)


def assert_on_average(values: Sequence[float], truth: float, slack: float = 0.0) -> None:
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - truth) < 4 * error + slack + 1e-12


@pytest.mark.parametrize("drop_self", [False, True])
@pytest.mark.parametrize("B", [2, 6])
def test_unbiased_whatever_the_logits_are(B, drop_self):
    """Terms with margins and traces, a three-way term among them: nothing is designed in the estimator's favour."""
    rng, N, noise, repeats = np.random.default_rng(20), 4, 0.5, 800
    shapes = {"q": 1, "i": 1, "pq": 2, "pi": 2, "hq": 2, "hi": 2, "phi": 3}
    terms = {name: rng.normal(size=(N,) * axes) for name, axes in shapes.items()}
    truth = truth_of(lambda place: logits_of(terms, place), N, noise, drop_self)
    estimates: dict[str, list[float]] = {name: [] for name in truth}
    for seed in range(repeats):
        logits, places = drawn(seed, terms, B, N, noise)
        for name, share in shares_of(logits, places, drop_self).items():
            estimates[name].append(share * variance(logits, drop_self))  # a ratio has a bias of its own
    for name, values in estimates.items():
        assert_on_average(values, truth[name])


@pytest.mark.parametrize("name", NAMES)
def test_one_component_alone(name):
    """In its own coordinates it is the same in every sample: a share of exactly 1, whatever was drawn."""
    N = 12
    for seed in range(3):
        terms = terms_of(np.random.default_rng(seed), N, **{name: 2.0})
        assert shares_of(*drawn(seed, terms, 4, N, noise=0))[NAMES[name]] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("drop_self", [False, True])
def test_known_components(drop_self):
    """Six pure terms and noise; what one leaves in another's coordinates is of the order 1/N²."""
    N, B, noise, repeats = 16, 16, 1.2, 30
    total = sum(size**2 for size in MIXED.values()) + noise**2
    found = []
    for seed in range(repeats):
        logits, places = drawn(seed, terms_of(np.random.default_rng(seed + 100), N, **MIXED), B, N, noise)
        found.append(shares_of(logits, places, drop_self))
    for name, size in MIXED.items():
        assert_on_average([shares[NAMES[name]] for shares in found], size**2 / total, slack=0.01)
    assert_on_average([shares["rest"] for shares in found], noise**2 / total, slack=0.02)


@pytest.mark.parametrize("drop_self", [False, True])
def test_noise_has_no_shares_and_its_estimates_are_not_clipped(drop_self):
    found = [shares_of(*drawn(seed, {}, 4, 8), drop_self) for seed in range(200)]
    for name in COMPONENTS:
        values = [shares[name] for shares in found]
        assert_on_average(values, 0.0)
        assert min(values) < 0 < max(values)
    assert_on_average([shares["rest"] for shares in found], 1.0)


def mixed(seed: int = 1, B: int = 4, N: int = 7) -> tuple[Floats, Whole]:
    return drawn(seed, terms_of(np.random.default_rng(seed), N, **MIXED), B, N)


@pytest.mark.parametrize("drop_self", [False, True])
def test_what_a_softmax_does_not_see_does_not_count(drop_self):
    """A constant added to the logits of a row, another in every sample."""
    logits, places = mixed()
    level = 10 * np.random.default_rng(2).normal(size=(*logits.shape[:2], 1))
    expected = shares_of(logits, places, drop_self)
    assert shares_of(logits + level, places, drop_self) == pytest.approx(expected, abs=1e-10)


def test_dropped_logits_do_not_count():
    logits, places = mixed()
    spoilt = logits + 1e3 * np.random.default_rng(3).normal(size=(4, 7, 1)) * np.eye(7)
    assert shares_of(spoilt, places, True) == pytest.approx(shares_of(logits, places, True), abs=1e-12)
    assert shares_of(spoilt, places, False) != pytest.approx(shares_of(logits, places, False), abs=1e-2)


@pytest.mark.parametrize("drop_self", [False, True])
def test_names_of_items_and_positions_do_not_matter(drop_self):
    (logits, places), rng = mixed(), np.random.default_rng(4)
    items, moved = rng.permutation(7), rng.permutation(7)
    expected = pytest.approx(shares_of(logits, places, drop_self), abs=1e-12)
    assert shares_of(logits, places[:, items], drop_self) == expected
    renamed = np.empty_like(logits)
    renamed[:, moved[:, None], moved] = logits
    assert shares_of(renamed, moved[places], drop_self) == expected


@pytest.mark.parametrize("drop_self", [False, True])
def test_content_and_position_are_each_others_mirror(drop_self):
    """Call items positions and positions items: PP is FF, FP is query content x key position."""
    logits, places = mixed()
    by_item = np.array([s[np.ix_(place, place)] for s, place in zip(logits, places, strict=True)])
    found = shares_of(by_item, np.argsort(places, axis=1), drop_self)
    expected = shares_of(logits, places, drop_self)
    mirror = {"key position": "key content", "PP": "FF", "FP": "query content x key position"}
    for one, other in mirror.items():
        assert_allclose([found[one], found[other]], [expected[other], expected[one]], rtol=0, atol=1e-12)
    assert found["rest"] == pytest.approx(expected["rest"], abs=1e-12)


def test_one_sample_has_no_estimate():
    logits, places = mixed()
    with pytest.raises(InputError):
        shares_of(logits[:1], places[:1])
