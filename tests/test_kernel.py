"""The kernel alone: its gradient against differences of its own loss, its invariants, and states far out."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.special import logsumexp

import mimlab
from mimlab.dynamics.enumerated import enumerated_draws
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.dynamics.sampled import join, sampled_replicates
from mimlab.objectives.draws import Draws
from mimlab.objectives.kernel import RowObjective
from mimlab.world.row import Row, row_of

Array = np.ndarray
CONSTANT, TWO = mimlab.Latent(1.0, 1.0), mimlab.Latent(values=(0.4, 0.4, 1.3))
UNIFORM = mimlab.Latent(0.5, 1.5)
RATIO = mimlab.MaskedReconstruction(0.7)
EQUAL, MANY = (6, 3, 3), (20, *[3] * 30, *[2] * 10)
FEW = (8, 3, 3, 3, 2)
CROSSING, NESTING = ((5, 4, 3), (3, 6, 3)), ((6, 4, 4, 4, 1, 1), (6, 2, 2, 2, 2, 2, 2, 1, 1))


def objective_of(engine: str, latent: mimlab.Latent, query: int, **world: object) -> RowObjective:
    built = mimlab.World(latent=latent, **world)  # type: ignore[arg-type]
    row = row_of(built.layout(seed=1), query, 1000)
    masked = RATIO.masked(row.patches)
    if engine == "sampled":
        draws = join(sampled_replicates(row, latent, masked, 128, seed=3, reach=8.0))
    else:
        draws = {"enumerated": enumerated_draws, "mean-field": mean_field_draws}[engine](row, latent, masked)
    return RowObjective(row, draws, RATIO.query_masked(row.patches))


def listed(lists: tuple[tuple[int, ...], ...]) -> dict[str, object]:
    return {"area_sizes": lists[0], "clusters": len(lists), "partitions": lists}


CASES: dict[str, Callable[[], RowObjective]] = {
    "enumerated, local": lambda: objective_of("enumerated", TWO, 7, area_sizes=EQUAL),
    "enumerated, global": lambda: objective_of("enumerated", TWO, 0, area_sizes=EQUAL),
    "enumerated, alone in its area": lambda: objective_of("enumerated", TWO, 5, area_sizes=(5, 1, 2)),
    "enumerated, clusters share": lambda: objective_of("enumerated", TWO, 7, area_sizes=EQUAL, clusters=3),
    "enumerated, crossing": lambda: objective_of("enumerated", CONSTANT, 4, **listed(CROSSING)),
    "sampled, merged": lambda: objective_of("sampled", UNIFORM, 21, area_sizes=MANY),
    "sampled, merged, discrete": lambda: objective_of("sampled", TWO, 0, area_sizes=MANY),
    "sampled, crossing": lambda: objective_of("sampled", UNIFORM, 4, **listed(CROSSING)),
    "sampled, random": lambda: objective_of(
        "sampled", UNIFORM, 9, area_sizes=FEW, clusters=2, partitions="random"
    ),
    "mean-field, merged": lambda: objective_of("mean-field", UNIFORM, 21, area_sizes=MANY),
    "mean-field, alone in its area": lambda: objective_of("mean-field", TWO, 5, area_sizes=(5, 1, 2, 2)),
    "mean-field, crowd": lambda: objective_of("mean-field", UNIFORM, 6, **listed(NESTING)),
    "mean-field, random": lambda: objective_of(
        "mean-field", UNIFORM, 9, area_sizes=FEW, clusters=2, partitions="random"
    ),
}


@cache
def built(name: str) -> RowObjective:
    return CASES[name]()


@pytest.fixture(params=list(CASES))
def objective(request: pytest.FixtureRequest) -> RowObjective:
    return built(request.param)


def state_of(row: Row, seed: int = 0, scale: float = 0.8) -> Array:
    """A random state; the Upsilon of a cell without patches stays 0, as in any run."""
    state = scale * np.random.default_rng(seed).normal(size=row.size)
    state[len(row.phi_tied) :][row.upsilon_tied == 0] = 0.0
    return state


def test_the_cases_reach_every_branch_of_the_kernel() -> None:
    draws = [d for name in CASES for d in built(name).draws]
    assert any(d.merged is not None and len(d.merged.counts) > 1 for d in draws)
    assert any(d.merged is not None and len(d.merged.counts) == 1 for d in draws)
    assert any(d.crowd is not None and d.starts is not None for d in draws)
    assert any(d.crowd is not None and d.merged is not None for d in draws)
    assert any(d.starts is not None and len(d.counts) > 1 for d in draws)
    assert any(not d.solvable.all() for d in draws)


@pytest.mark.parametrize("seed", [0, 1])
def test_velocity_is_minus_the_gradient_of_the_loss(objective: RowObjective, seed: int) -> None:
    """Of one entry: the derivative of the loss in an unknown is that of all entries tied to it."""
    state, width = state_of(objective.row, seed), 1e-4
    found = objective.velocity(state) * objective.tied
    for i in range(len(state)):
        ahead, behind = state.copy(), state.copy()
        ahead[i] += width
        behind[i] -= width
        slope = (objective.evaluate(ahead).loss - objective.evaluate(behind).loss) / (2 * width)
        assert found[i] == pytest.approx(-slope, rel=1e-6, abs=1e-9)


def test_moving_downhill_lowers_the_loss(objective: RowObjective) -> None:
    for seed in range(5):
        state = state_of(objective.row, seed)
        now = objective.evaluate(state)
        assert objective.evaluate(state + 1e-3 * now.velocity).loss < now.loss


def test_position_correlations_keep_their_sum(objective: RowObjective) -> None:
    tied = objective.row.upsilon_tied
    for seed in range(5):
        velocity = objective.velocity(state_of(objective.row, seed))[len(objective.row.phi_tied) :]
        assert abs(velocity @ tied) < 1e-13
        assert np.all(velocity[tied == 0] == 0)


def test_a_constant_on_all_positions_changes_nothing(objective: RowObjective) -> None:
    state = state_of(objective.row)
    moved = state.copy()
    moved[len(objective.row.phi_tied) :] += 3.0
    first, second = objective.evaluate(state), objective.evaluate(moved)
    assert second.loss == pytest.approx(first.loss, rel=1e-12)
    np.testing.assert_allclose(second.velocity, first.velocity, rtol=0, atol=1e-14)


def test_the_own_feature_is_never_pushed_down(objective: RowObjective) -> None:
    """Theory section 3: its derivative is a mean of products that are not negative."""
    for seed in range(5):
        velocity = objective.velocity(state_of(objective.row, seed, scale=2.0))
        assert np.all(velocity[objective.row.phi_own] >= 0)


def test_excess_is_the_loss_over_the_floor_of_the_draws(objective: RowObjective) -> None:
    floor = sum(
        d.share * 0.5 * objective.query_masked * (d.weight * (1 - d.solvable)) @ d.z[:, d.own] ** 2
        for d in objective.draws
    )
    for seed in range(3):
        now = objective.evaluate(state_of(objective.row, seed))
        assert now.loss - now.excess == pytest.approx(floor, abs=1e-14)
        assert now.excess > 0


@pytest.mark.parametrize("name", [name for name in CASES if "enumerated" in name])
def test_the_floor_of_all_masks_is_the_closed_form(name: str) -> None:
    objective = built(name)
    row, latent = objective.row, CONSTANT if "crossing" in name else TWO
    floor = sum(v.share * RATIO.floor(row.patches, v.own_size, latent) for v in row.views)
    now = objective.evaluate(state_of(row))
    assert now.loss - now.excess == pytest.approx(floor, rel=1e-12)
    hopeless = sum(v.share * RATIO.hopeless(row.patches, v.own_size) for v in row.views)
    if hopeless < 1:
        assert objective.solvable == pytest.approx(1 - hopeless, rel=1e-12)
    else:
        assert np.isnan(objective.solvable) and np.isnan(now.attention_own)


def test_attention_at_the_start_is_a_count_of_visible_patches() -> None:
    """Q = 0: every position gets 1/P, so area j of C patches E[u_j]/P, given that the own area is not hidden."""
    objective = built("enumerated, local")
    row, latent = objective.row, TWO
    now = objective.evaluate(np.zeros(row.size))
    visible, patches = row.patches - RATIO.masked(row.patches), row.patches
    solvable = 1 - RATIO.hopeless(patches, 3)
    assert now.attention_own == pytest.approx(visible * 2 / (patches - 1) / patches / solvable, rel=1e-12)
    given_hopeless = visible * 6 / (patches - 3)  # the global area then holds its share of the others
    overall = visible * 6 / (patches - 1)
    conditional = (overall - (1 - solvable) * given_hopeless) / solvable
    assert now.attention_global == pytest.approx(conditional / patches, rel=1e-12)
    assert latent.moment(2) > now.loss > 0


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_latents_have_no_unit(factor: float) -> None:
    """z → cz with Φ → Φ/c: the same attention, c² the loss, c³ the force on Φ, c² that on Υ."""
    low = objective_of("enumerated", TWO, 7, area_sizes=EQUAL)
    scaled = mimlab.Latent(values=tuple(factor * v for v in TWO.values or ()))
    high = objective_of("enumerated", scaled, 7, area_sizes=EQUAL)
    state, n_phi = state_of(low.row), len(low.row.phi_tied)
    unit = np.where(np.arange(len(state)) < n_phi, factor, 1.0)
    first, second = low.evaluate(state), high.evaluate(state / unit)
    assert second.attention_own == pytest.approx(first.attention_own, rel=1e-12)
    assert second.loss == pytest.approx(factor**2 * first.loss, rel=1e-12)
    np.testing.assert_allclose(second.velocity, factor**2 * unit * first.velocity, rtol=1e-10, atol=1e-15)


def test_a_crowd_of_areas_of_several_cells_is_as_many_areas_of_one() -> None:
    """Mean field, Υ = 0: the second cluster's cuts through the first one's areas change nothing for either cluster."""
    coarse, fine = (8, 4, 4, 4, 4), (8, *[2] * 8)
    both = objective_of("mean-field", UNIFORM, 8, **listed((coarse, fine)))
    assert both.draws[0].crowd is not None and both.draws[0].starts is not None
    state = np.zeros(both.row.size)
    state[: len(both.row.phi_tied)] = -0.7
    state[both.row.phi_of(0)], state[both.row.phi_own] = -0.4, 1.1
    alone = []
    for sizes in (coarse, fine):
        one = objective_of("mean-field", UNIFORM, 8, area_sizes=sizes)
        here = np.zeros(one.row.size)
        here[: len(one.row.phi_tied)] = -0.7
        here[one.row.phi_of(0)], here[one.row.phi_own] = -0.4, 1.1
        alone.append(one.evaluate(here))
    found = both.evaluate(state)
    for name in ("loss", "excess", "attention_own", "attention_global"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(e, name) for e in alone]), rel=1e-12)


# --- far out ----------------------------------------------------------------------------------------------


def attention_by_logarithms(draws: Draws, Phi: Array, Upsilon: Array) -> Array:
    """A_j of every draw and column, shape (draws, columns), with no exponential taken before the last step."""
    with np.errstate(divide="ignore"):
        cells = np.log(draws.counts) + Upsilon[draws.cell_upsilon]
        cells = cells + (draws.z * Phi[draws.phi])[:, draws.cell_column]
        hidden = logsumexp(np.log(draws.masked) + Upsilon, axis=1)
    log_Z = np.logaddexp(logsumexp(cells, axis=1), hidden)
    A = np.zeros(draws.z.shape)
    np.add.at(A.T, draws.cell_column, np.exp(cells - log_Z[:, None]).T)
    return A


@pytest.mark.parametrize("size", [30.0, 800.0, 1e5])
@pytest.mark.parametrize("name", ["enumerated, local", "enumerated, global", "enumerated, crossing"])
def test_extreme_features_are_attended_exactly(name: str, size: float) -> None:
    """Any pattern of signs: e^{±800} overflows or vanishes, attention does neither."""
    objective = built(name)
    n_phi = len(objective.row.phi_tied)
    for signs in np.random.default_rng(6).choice([-1.0, 0.0, 1.0], (40, n_phi)):
        state = state_of(objective.row, scale=0.3)
        state[:n_phi] = size * signs
        now = objective.evaluate(state)
        assert np.all(np.isfinite(now.velocity))
        loss = own = 0.0
        for d in objective.draws:
            A = attention_by_logarithms(d, state[:n_phi], state[n_phi:])
            residual = d.z * (A - (np.arange(A.shape[1]) == d.own))
            loss += 0.5 * d.share * objective.query_masked * d.weight @ (residual**2).sum(axis=1)
            own += d.share * (d.weight * d.solvable) @ A[:, d.own]
        assert now.loss == pytest.approx(loss, rel=1e-10, abs=1e-14)
        assert now.attention_own == pytest.approx(own / objective.solvable, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("name", [name for name in CASES if "merged" not in name])
@pytest.mark.parametrize("size", [100.0, 800.0, 1e100])
def test_extreme_states_give_finite_numbers(name: str, size: float) -> None:
    """Merged areas excepted: their nodes are chosen for the |Φ| that a run reaches."""
    objective = built(name)
    for seed in range(4):
        state = state_of(objective.row)
        n_phi = len(objective.row.phi_tied)
        state[:n_phi] = size * np.random.default_rng(seed).choice([-1.0, 0.5, 1.0], n_phi)
        now = objective.evaluate(state)
        assert np.isfinite([now.loss, now.excess]).all()
        assert np.isfinite(now.velocity).all()
        assert now.loss >= now.excess * (1 - 1e-12) >= 0


def test_at_the_end_of_training_only_the_floor_is_left() -> None:
    for name in ("enumerated, local", "sampled, crossing"):
        objective = built(name)
        state = np.zeros(objective.row.size)
        state[: len(objective.row.phi_tied)] = -900.0
        state[objective.row.phi_own] = 900.0
        now = objective.evaluate(state)
        assert now.attention_own == pytest.approx(1.0, abs=1e-14)
        assert now.excess < 1e-300
        assert np.all(np.abs(now.velocity) < 1e-300)


# --- several states at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 10**4, 10**9])
def test_many_states_are_evaluated_as_one_by_one(
    objective: RowObjective, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mimlab.objectives.kernel.LARGEST_BLOCK", block)
    states = np.stack([state_of(objective.row, seed, scale=2.0 * seed) for seed in range(5)])
    together = objective.evaluate(states)
    for index, state in enumerate(states):
        alone = objective.evaluate(state)
        for name in ("loss", "excess", "velocity", "attention_own", "attention_global"):
            found, expected = getattr(together, name)[index], getattr(alone, name)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15, err_msg=name)
