"""What expectations are taken over: masks and latents of each engine, against exact laws and against plain loops."""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, multivariate_hypergeom

import mimlab
from mimlab.dynamics.enumerated import _count_vectors, enumerated_draws
from mimlab.dynamics.mean_field import OWN_NODES, mean_field_draws
from mimlab.dynamics.sampled import (
    REPLICATES,
    _hypergeometric,
    _sobol,
    _stratified_own,
    join,
    sampled_replicates,
)
from mimlab.objectives.draws import Draws
from mimlab.objectives.kernel import RowObjective
from mimlab.world.row import Row, row_of

Array = np.ndarray
CONSTANT, TWO = mimlab.Latent(1.0, 1.0), mimlab.Latent(values=(0.4, 0.4, 1.3))
UNIFORM, MANY_VALUES = mimlab.Latent(0.5, 1.5), mimlab.Latent(values=tuple(np.linspace(0.5, 1.5, 31)))
APART = 1e6  # a reach for which continuous latents are not merged; discrete ones are, where areas outnumber values


def row_in(query: int, **world: object) -> Row:
    return row_of(mimlab.World(**world).layout(seed=1), query, 20_000)  # type: ignore[arg-type]


def listed(*lists: tuple[int, ...]) -> dict[str, object]:
    return {"area_sizes": lists[0], "clusters": len(lists), "partitions": lists}


ROWS: dict[str, Row] = {
    "local": row_in(9, area_sizes=(9, 3, 3, 2, 3)),
    "global": row_in(0, area_sizes=(9, 3, 3, 2, 3)),
    "alone in its area": row_in(9, area_sizes=(9, 1, 3, 2, 3)),
    "one area": row_in(3, area_sizes=(12,)),
    "crossing": row_in(6, **listed((6, 5, 4), (4, 6, 5))),
    "smaller in the second": row_in(8, **listed((6, 5, 4), (7, 3, 5))),
    "random": row_in(9, area_sizes=(9, 3, 3, 2, 3), clusters=3, partitions="random"),
    "many areas": row_in(31, area_sizes=(30, *[4] * 20, *[3] * 10)),
}
RATIOS = (0.3, 0.75)


@pytest.fixture(params=[(name, ratio) for name in ROWS for ratio in RATIOS], ids=str)
def row_and_masked(request: pytest.FixtureRequest) -> tuple[Row, int]:
    name, ratio = request.param
    return ROWS[name], round(ratio * ROWS[name].patches)


def sampled(
    row: Row, latent: mimlab.Latent, masked: int, draws: int = 128, seed: int = 0, reach: float = APART
) -> list[tuple[Draws, ...]]:
    return sampled_replicates(row, latent, masked, draws, seed, reach)


# --- enumerated -------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(lambda s: sum(s) > 0), st.data())
def test_counts_are_counted_as_they_are_listed(sizes: list[int], data: st.DataObject) -> None:
    visible = data.draw(st.integers(0, sum(sizes)))
    ways = [u for u in product(*(range(size + 1) for size in sizes)) if sum(u) == visible]
    assert _count_vectors(np.array(sizes), visible) == len(ways)


@pytest.mark.parametrize("visible", [1, 68])
def test_few_counts_are_few_however_many_the_cells(visible: int) -> None:
    """69 places for the one patch that is visible, or that is not: nowhere are 2^69 counts visited."""
    assert _count_vectors(np.ones(69, dtype=int), visible) == 69
    row = row_in(0, area_sizes=(1,) * 70)
    (draws,) = enumerated_draws(row, CONSTANT, 70 - visible)
    assert draws.counts.shape == (69, 70)
    assert draws.weight == pytest.approx(np.full(69, 1 / 69))


@pytest.mark.parametrize("query", [0, 5, 7])
def test_enumerated_masks_have_the_weights_of_all_masks(query: int) -> None:
    """Binomially many masks, one by one, give every count of visible patches its number."""
    labels = np.repeat([0, 1, 2], [5, 2, 3])
    (draws,) = enumerated_draws(row_in(query, area_sizes=(5, 2, 3)), CONSTANT, 6)
    own, others = labels[query], [q for q in range(10) if q != query]
    order = [own, *(a for a in range(3) if a != own)]
    seen: dict[tuple[int, ...], int] = {}
    for visible in combinations(others, 4):
        key = tuple(int(np.sum(labels[list(visible)] == a)) for a in order)
        seen[key] = seen.get(key, 0) + 1
    found = {
        tuple(int(u) for u in line): weight for line, weight in zip(draws.counts, draws.weight, strict=True)
    }
    assert found == pytest.approx({key: number / comb(9, 4) for key, number in seen.items()}, rel=1e-14)


def test_enumerated_latents_are_every_combination() -> None:
    row = row_in(5, area_sizes=(5, 2, 3))
    (draws,) = enumerated_draws(row, TWO, 6)
    assert draws.weight.sum() == pytest.approx(1.0, abs=1e-14)
    chances: dict[tuple[float, ...], float] = {}
    for z, weight in zip(draws.z, draws.weight, strict=True):
        chances[tuple(z)] = chances.get(tuple(z), 0.0) + weight
    law = dict(zip(TWO.atoms or (), TWO.probabilities(), strict=True))
    expected = {z: float(np.prod([law[v] for v in z])) for z in product(law, repeat=3)}
    assert chances == pytest.approx(expected, rel=1e-12)


# --- sampled: what holds in every set of draws ------------------------------------------------------------


@pytest.mark.parametrize("latent", [MANY_VALUES, UNIFORM], ids=["values", "uniform"])
@pytest.mark.parametrize("draws", [64, 100, 256])
def test_sampled_masks_are_masks(row_and_masked: tuple[Row, int], draws: int, latent: mimlab.Latent) -> None:
    row, masked = row_and_masked
    replicates = sampled(row, latent, masked, draws)
    assert len(replicates) == REPLICATES
    assert sum(len(parts[0].weight) for parts in replicates) == draws
    sizes = np.repeat(row.cell_size, row.cell_count)
    for parts in replicates:
        for d in parts:
            assert d.weight.sum() == pytest.approx(1.0, abs=1e-13)
            assert np.all(d.weight >= 0)
            assert np.all(d.counts >= 0) and np.all(d.counts == np.round(d.counts))
            assert np.all(np.sort(d.counts, axis=1) <= np.sort(sizes)), "no cell shows more than it has"
            assert np.all(d.counts.sum(axis=1) == row.patches - masked)
            assert np.all(d.masked >= 0)
            assert np.all(d.masked[:, 0] == 1), "the query is masked"
            assert np.all(d.masked.sum(axis=1) == masked)
            own = np.add.reduceat(d.counts, d.starts, axis=1) if d.starts is not None else d.counts
            assert np.array_equal(d.solvable, (own[:, d.own] > 0).astype(float))
            low, high = latent.support
            assert np.all((low <= d.z) & (d.z <= high))


def test_hopeless_images_have_their_exact_weight(row_and_masked: tuple[Row, int]) -> None:
    """In every replicate, however few its draws; of several own areas, that of the smallest."""
    row, masked = row_and_masked
    view = int(np.argmin([view.own_size for view in row.views]))
    objective = mimlab.MaskedReconstruction(masked / row.patches)
    expected = objective.hopeless(row.patches, row.views[view].own_size)
    for parts in sampled(row, UNIFORM, masked, 64):
        found = parts[view].weight @ (1 - parts[view].solvable)
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("latent", [CONSTANT, UNIFORM], ids=["constant", "uniform"])
def test_merging_loses_no_patch(latent: mimlab.Latent) -> None:
    row = ROWS["many areas"]
    plain, merging = (sampled(row, latent, 100, 64, 3, reach) for reach in (APART, 0.2))
    for (apart,), (together,) in zip(plain, merging, strict=True):
        assert together.merged is not None
        if latent is UNIFORM:
            assert apart.merged is None
            total = together.counts.sum(axis=1) + together.merged.counts.sum(axis=1)
            np.testing.assert_allclose(total, apart.counts.sum(axis=1), rtol=0, atol=1e-10)
        assert np.array_equal(together.weight, apart.weight)
        assert np.array_equal(together.masked, apart.masked)


@pytest.mark.parametrize("reach", [0.2, 1.0])
def test_merged_draws_have_the_kernel_of_plain_ones(reach: float) -> None:
    row = ROWS["many areas"]
    objectives = [RowObjective(row, join(sampled(row, UNIFORM, 100, 64, 3, r)), 0.7) for r in (APART, reach)]
    state = np.random.default_rng(0).normal(size=row.size)
    state[: len(row.phi_tied)] = np.clip(state[: len(row.phi_tied)], -reach, reach)
    plain, merged = (objective.evaluate(state) for objective in objectives)
    for name in ("loss", "excess", "attention_own", "attention_global"):
        assert getattr(merged, name) == pytest.approx(getattr(plain, name), rel=1e-11)
    np.testing.assert_allclose(merged.velocity, plain.velocity, rtol=0, atol=1e-13)


def test_the_same_seed_draws_the_same_and_nothing_else_does() -> None:
    row, other = ROWS["local"], row_in(10, area_sizes=(9, 3, 3, 2, 3))

    def fingerprints(row: Row, seed: int) -> list[bytes]:
        return [
            parts[0].counts.tobytes() + parts[0].z.tobytes() for parts in sampled(row, UNIFORM, 15, seed=seed)
        ]

    assert fingerprints(row, 0) == fingerprints(row, 0)
    different = fingerprints(row, 0) + fingerprints(row, 1) + fingerprints(other, 0)
    assert len(set(different)) == 3 * REPLICATES, "seeds, queries and replicates draw apart"


def test_a_hundred_thousand_patches_are_no_burden() -> None:
    world = mimlab.World(patches=10**5, global_exponent=0.9, local_exponent=0.3, latent=UNIFORM)
    row = row_of(world.layout(), world.base.first_patch(1), 1)
    for (d,) in sampled_replicates(row, UNIFORM, 75_000, 64, seed=0, reach=8.0):
        assert d.merged is not None
        total = d.counts.sum(axis=1) + d.merged.counts.sum(axis=1)
        np.testing.assert_allclose(total, 25_000, rtol=1e-12)
        assert d.z.shape[1] < 60


# --- sampled: what holds on average -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "good", "sample"),
    [
        (99, 3, 25),
        (99, 40, 25),
        (9, 9, 4),
        (50, 0, 10),
        (10**5, 30_000, 25_000),
        (10**6, 31, 250_000),
        (7, 3, 6),
    ],
)
def test_counts_of_one_area_have_their_distribution(total: int, good: int, sample: int) -> None:
    support, cumulative = _hypergeometric(total, good, sample)
    law = hypergeom(total, good, sample)
    np.testing.assert_allclose(cumulative, law.cdf(support), rtol=0, atol=1e-9)
    assert law.sf(support[-1]) < 1e-12 and law.cdf(support[0] - 1) < 1e-12


@pytest.mark.parametrize("draws", [8, 12, 16, 100])
@pytest.mark.parametrize(
    ("total", "own", "visible"), [(99, 15, 25), (99, 3, 25), (99, 3, 8), (99, 3, 60), (399, 2, 3)]
)
def test_strata_are_unbiased_however_few_the_draws(total: int, own: int, visible: int, draws: int) -> None:
    """Hopeless images rare, frequent and nearly certain; the mean of many replicates within four standard errors."""
    law = hypergeom(total, own, visible)
    first, second = [], []
    for seed in range(200):
        counts, weight = _stratified_own(
            total, own, visible, _sobol(2, draws, np.random.default_rng(seed))[:, 0]
        )
        assert weight.sum() == pytest.approx(1.0, abs=1e-14)
        assert 0 < np.sum(counts == 0) < draws
        assert weight @ (counts == 0) == pytest.approx(law.pmf(0), rel=1e-12)
        first.append(weight @ counts)
        second.append(weight @ counts**2)
    for found, expected in ((first, law.mean()), (second, law.moment(2))):
        error = np.std(found) / len(found) ** 0.5
        assert abs(np.mean(found) - expected) < 4 * error + 1e-9 * expected


@pytest.mark.parametrize("name", ["global", "crossing", "many areas"])
def test_joint_moments_are_those_of_uniform_masks(name: str) -> None:
    """Mean and covariance of visible counts, over 640 replicates: each within five standard errors."""
    row = ROWS[name]
    masked, sizes = round(0.75 * row.patches), np.repeat(row.cell_size, row.cell_count)
    law = multivariate_hypergeom(sizes, row.patches - masked)
    means, squares = [], []
    for seed in range(80):
        for parts in sampled(row, CONSTANT, masked, 64, seed, APART):
            d = parts[0]
            counts = d.counts if d.merged is None else None
            if counts is None:  # a constant merges whatever is alike: only its sums are left
                kept, m = d.counts, d.merged
                assert m is not None
                counts = np.concatenate([kept, m.counts], axis=1)
            means.append(d.weight @ counts)
            squares.append((d.weight[:, None] * counts).T @ counts)
    groups = group_columns(row, name)
    mean = groups @ law.mean()
    second = groups @ (law.cov() + np.outer(law.mean(), law.mean())) @ groups.T
    for found, expected in ((np.array(means), mean), (np.array(squares), second)):
        error = found.std(axis=0) / len(found) ** 0.5
        assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * error + 1e-9)


def group_columns(row: Row, name: str) -> Array:
    """Which cells stand in each column of the draws: all apart, or those of a Phi of two areas or more together."""
    cells = int(row.cell_count.sum())
    owner = np.repeat(np.arange(len(row.cell_size)), row.cell_count)
    if not row.grouped:
        order = np.argsort(row.views[0].cell_area, kind="stable")
        return np.eye(cells)[order]
    alone = [np.flatnonzero(owner == c) for c in range(len(row.cell_size))]
    columns = [c for c in alone if len(c) == 1] + [c for c in alone if len(c) > 1]
    return np.array([np.isin(np.arange(cells), c).astype(float) for c in columns])


def test_latents_are_independent_draws_of_their_law() -> None:
    """First and second moments of every pair of areas, and no correlation with the masks."""
    row = ROWS["local"]
    found = []
    for seed in range(60):
        for (d,) in sampled(row, UNIFORM, 15, 64, seed):
            both = np.concatenate([d.z - 1.0, d.counts - d.weight @ d.counts], axis=1)
            moments = (d.weight[:, None] * both).T @ both
            found.append(np.concatenate([d.weight @ d.z - 1.0, moments[: d.z.shape[1]].ravel()]))
    columns = 5
    expected_pairs = np.concatenate([np.eye(columns) / 12, np.zeros((columns, columns))], axis=1)
    expected = np.concatenate([np.zeros(columns), expected_pairs.ravel()])
    samples = np.array(found)
    error = samples.std(axis=0) / len(samples) ** 0.5
    assert np.all(np.abs(samples.mean(axis=0) - expected) < 5 * error)


def test_replicates_spread_as_seeds_do() -> None:
    """The stated error of a mean over replicates is the spread of that mean over seeds."""
    row, means, stated = ROWS["many areas"], [], []
    for seed in range(80):
        each = [
            RowObjective(row, parts, 0.75).evaluate(np.zeros(row.size)).velocity[1]
            for parts in sampled(row, UNIFORM, 100, 64, seed)
        ]
        means.append(np.mean(each))
        stated.append(np.std(each, ddof=1) / REPLICATES**0.5)
    assert np.std(means) == pytest.approx(np.sqrt(np.mean(np.square(stated))), rel=0.35)


# --- mean field -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [CONSTANT, TWO, UNIFORM], ids=["constant", "two values", "uniform"])
def test_mean_field_counts_are_the_means(row_and_masked: tuple[Row, int], latent: mimlab.Latent) -> None:
    row, masked = row_and_masked
    for d in mean_field_draws(row, latent, masked):
        merged = d.merged.counts.sum() if d.merged is not None else 0.0
        assert d.counts.sum() + merged == pytest.approx(row.patches - masked, rel=1e-12)
        assert np.all(d.masked.sum(axis=1) == pytest.approx(masked, rel=1e-12))
        assert d.weight.sum() == pytest.approx(1.0, abs=1e-13)


def mean_field_loss(sizes: list[int], own: int, latent: mimlab.Latent, masked: int, state: Array) -> float:
    """The engine's definition in plain loops, for the world `sizes` of one cluster and a state (Phi of each area,
    Upsilon of the query, of each area). The latents integrated are those of the own and of the global area."""
    patches, Phi, Upsilon = sum(sizes), state[: len(sizes)], state[len(sizes) + 1 :]
    visible = (patches - masked) / (patches - 1)
    others = [size - (j == own) for j, size in enumerate(sizes)]
    z_own, w_own = latent.quadrature(OWN_NODES)
    z_one, w_one = latent.quadrature(8)
    hidden = np.exp(state[len(sizes)]) + sum(
        (1 - visible) * n * np.exp(U) for n, U in zip(others, Upsilon, strict=True)
    )
    total = 0.0
    for za, wa in zip(z_own, w_own, strict=True):
        for z0, w0 in zip(z_one, w_one, strict=True):
            Z, squares = hidden, 0.0
            for j, n in enumerate(others):
                exact = {own: za, 0: z0}.get(j)
                nodes = [(exact, 1.0)] if exact is not None else list(zip(z_one, w_one, strict=True))
                Z += sum(w * visible * n * np.exp(z * Phi[j] + Upsilon[j]) for z, w in nodes)
                if j != own:
                    squares += sum(
                        w * (z * visible * n * np.exp(z * Phi[j] + Upsilon[j])) ** 2 for z, w in nodes
                    )
            A = visible * others[own] * np.exp(za * Phi[own] + Upsilon[own]) / Z
            total += wa * w0 * (za**2 * (1 - A) ** 2 + squares / Z**2)
    return 0.5 * masked / patches * total


@pytest.mark.parametrize("latent", [CONSTANT, TWO, UNIFORM], ids=["constant", "two values", "uniform"])
def test_mean_field_is_its_definition_in_loops(latent: mimlab.Latent) -> None:
    sizes = [9, 3, 2, 3, 3]
    row = row_in(9, area_sizes=tuple(sizes))
    objective = RowObjective(row, mean_field_draws(row, latent, 15), 0.75)
    state = np.random.default_rng(2).normal(size=row.size)
    n_phi = len(row.phi_tied)
    columns = [1, 0, 2, 3, 3]  # the row's own, global, size 2, size 3
    assert row.cell_size.tolist() == [2, 9, 2, 3]
    spread = np.concatenate([state[:n_phi][columns], state[n_phi : n_phi + 1], state[n_phi + 1 :][columns]])
    expected = mean_field_loss(sizes, 1, latent, 15, spread)
    assert objective.evaluate(state).loss == pytest.approx(expected, rel=1e-12)


def test_mean_field_and_sampled_meet_where_areas_are_large() -> None:
    """P = 10^4, local areas of 100, of which 25 ± 4 are visible: half times within 1%, depths within 0.005 log P."""
    world = mimlab.World(patches=10**4, global_exponent=0.9, local_exponent=0.5, latent=UNIFORM)
    mean, drawn = (
        mimlab.simulate(world, engine=engine, draws=128, stop_attention=0.5).summary
        for engine in ("mean-field", "sampled")
    )
    assert mean["half_time"] == pytest.approx(drawn["half_time"], rel=0.01)
    depth = "phi_global_at_half_over_log_patches"
    assert mean[depth] == pytest.approx(drawn[depth], abs=0.005)


def test_a_run_that_reaches_beyond_its_nodes_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = mimlab.World(area_sizes=(20, *[20] * 30), latent=mimlab.Latent(0.0, 2.0))
    first = mimlab.simulate(world, stop_attention=0.9, draws=64)
    assert first.trajectory["phi_other_max"].to_numpy().max() > 0.3
    monkeypatch.setattr("mimlab.dynamics.rows.REACH", 1e-3)
    second = mimlab.simulate(world, stop_attention=0.9, draws=64)
    for name in ("phi_own", "phi_other_max", "attention_global"):
        assert second.trajectory[name][-1].as_py() == pytest.approx(
            first.trajectory[name][-1].as_py(), rel=1e-7
        )
