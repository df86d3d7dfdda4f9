"""Running rows: a configuration in, each query's recorded course out, whatever the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.enumerated import enumerated_draws
from mimlab.dynamics.integrators import HALF, Objective, Path, Progress, descend, flow
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.dynamics.phases import Phase, find_phases
from mimlab.dynamics.sampled import join, merged_phis, sampled_replicates
from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.in_context import InContextLearning
from mimlab.objectives.kernel import Evaluation, RowObjective
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.objectives.weighted import WeightedSum
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout
from mimlab.world.row import Row, joint_cells, row_of

Array = np.ndarray

HORIZON = 1e8  # longest flow, in units of P / (γ(1-γ) E[z⁴]): far beyond any half-attention time, yet finite
REACH = 2.0  # first guess of the largest |Phi| of merged areas; raised and rerun where a run exceeds it
MOST_QUERIES = 500  # rows of query = "all"
MEASURES_WITH_ERROR = (
    "loss",
    "excess_loss",
    "attention_own",
    "attention_global",
    "phi_own",
    "phi_global",
    "upsilon_max",
)


@dataclass(frozen=True, eq=False)
class RowRun:
    """One query's course. ``measures``, ``errors`` and ``together`` hold an array (times,) per column of the trajectory
    table; ``together``: of the whole map, where the run knows it. ``replicates``: courses over parts of the draws."""

    row: Row
    path: Path
    measures: dict[str, Array]
    phases: tuple[Phase, ...]
    errors: dict[str, Array] = field(default_factory=dict)
    half_time_se: float | None = None
    shares: dict[str, float] = field(
        default_factory=dict
    )  # of the whole layer's logits, and their standard error
    together: dict[str, Array] = field(default_factory=dict)
    replicates: tuple[RowRun, ...] = ()


def queries_of(layout: Layout, query: str | int, max_cells: int) -> list[int]:
    """Patch indices that a query asks for. Raises InputError where there is no such patch or are too many."""
    base = layout.partitions[0]
    if isinstance(query, int):
        if query >= layout.patches:
            raise InputError(
                f"dynamics: query = {query} lies outside the {layout.patches} patches, 0 to P-1."
            )
        return [query]
    if query == "global":
        return [base.first_patch(0)]
    if query == "local":
        if base.areas < 2:
            raise InputError("dynamics: query = local, but the world has no local area; use query = global.")
        return [base.first_patch(1)]
    found = class_representatives(layout, max_cells)
    if len(found) > MOST_QUERIES:
        raise InputError(
            f"dynamics: query = all would run {len(found)} rows, one per class of interchangeable queries; at most "
            f"{MOST_QUERIES}. Name a patch index, local or global."
        )
    return found


def class_representatives(layout: Layout, max_cells: int) -> list[int]:
    """A patch of each class of interchangeable queries, in order of the first."""
    if layout.shared:
        base = layout.partitions[0]
        first: dict[tuple[bool, int], int] = {}
        area = 0
        for size, count in base.runs:
            first.setdefault((area == 0, size), area)
            area += count
        return [base.first_patch(a) for a in first.values()]
    cells, _ = joint_cells(layout, max_cells)
    return sorted(np.unique(cells, return_index=True)[1].tolist())


def run_rows(config: SimulationConfig, progress: Progress | None = None) -> list[RowRun]:
    """Run every query of a configuration. For query = "all" the rows share their recorded times.

    Raises InputError for what the engine refuses, before anything is run.
    """
    layout = config.world.layout(config.seed)
    queries = queries_of(layout, config.dynamics.query, config.world.max_cells)
    if isinstance(config.objective, InContextLearning):
        from mimlab.dynamics.in_context import run_in_context

        return run_in_context(config, layout, queries, progress)
    if isinstance(config.objective, WeightedSum):
        from mimlab.dynamics.weighted import run_weighted

        return run_weighted(config, layout, queries, progress)
    if config.dynamics.engine == "dense":
        from mimlab.dynamics.dense_rows import run_dense

        return run_dense(config, layout, queries, progress)
    if isinstance(config.objective, ContrastiveLearning):
        from mimlab.dynamics.contrastive import run_contrastive

        return run_contrastive(config, layout, queries, progress)
    rows = [row_of(layout, query, config.world.max_cells) for query in queries]
    runs = []
    for index, row in enumerate(rows):
        runs.append(_run_row(config, row, None, _part(progress, index, len(rows))))
    if config.dynamics.query == "all" and len(rows) > 1:
        longest = max(runs, key=lambda run: run.path.times[-1]).path
        runs = [run if run.path is longest else _extended(config, run, longest, progress) for run in runs]
    return runs


def _extended(config: SimulationConfig, run: RowRun, beside: Path, progress: Progress | None) -> RowRun:
    """The same row recorded at the times of ``beside``, past its own end; it keeps how it ended."""
    again = _run_row(config, run.row, beside, progress)
    sound = again.path.status in ("horizon", "finished")
    return replace(again, path=replace(again.path, status=run.path.status if sound else again.path.status))


def _part(progress: Progress | None, index: int, total: int) -> Progress | None:
    if progress is None or total == 1:
        return progress
    report = progress
    return lambda fraction, text: report(
        (index + max(fraction, 0.0)) / total, f"row {index + 1} of {total}, {text}"
    )


def _run_row(config: SimulationConfig, row: Row, beside: Path | None, progress: Progress | None) -> RowRun:
    """One row; ``beside``: run to that path's end and record at its times."""
    latent, dynamics, reconstruction = config.world.latent, config.dynamics, config.objective
    assert isinstance(reconstruction, MaskedReconstruction)
    masked, chance = reconstruction.masked(row.patches), reconstruction.query_masked(row.patches)
    replicates = []
    if dynamics.engine == "enumerated":
        draws = enumerated_draws(row, latent, masked)
    elif dynamics.engine == "mean-field":
        draws = mean_field_draws(row, latent, masked)

    reach = REACH
    while True:
        if dynamics.engine == "sampled":
            replicates = sampled_replicates(row, latent, masked, dynamics.draws, config.seed, reach)
            draws = join(replicates)
        objective = RowObjective(row, draws, chance)
        path = integrate(config, objective, beside, progress)
        if not replicates or latent.atoms is not None:
            break
        furthest = float(np.abs(path.states[:, merged_phis(draws)]).max(initial=0.0))
        if furthest <= reach:
            break
        reach = 2 * max(furthest, reach)
    run = measured(row, path, objective.evaluate(path.states), latent.mean)
    if not replicates:
        return run
    others = [_replicate(config, RowObjective(row, parts, chance), path) for parts in replicates]
    return with_errors(run, others)


def integrate(
    config: SimulationConfig,
    objective: RowObjective,
    beside: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Follow a row's gradient from Q = 0 as the configuration says; see ``_run_row`` for ``beside``."""
    ratio = objective.query_masked
    horizon = HORIZON * objective.row.patches / (ratio * (1 - ratio) * config.world.latent.moment(4))
    return follow(config, objective, np.zeros(objective.row.size), horizon, beside, progress)


def follow(
    config: SimulationConfig,
    objective: Objective,
    start: Array,
    horizon: float,
    beside: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Follow a gradient from a state as the configuration says, or to the end of another path and at its times.
    horizon: of a flow whose time is not bounded by the configuration."""
    dynamics = config.dynamics
    stop = (
        np.inf if beside is not None else dynamics.stop_attention if dynamics.stop_attention < 1 else np.inf
    )
    if dynamics.integrator == "descent":
        assert dynamics.learning_rate is not None and dynamics.steps is not None
        at = None if beside is None else beside.steps
        return descend(objective, start, dynamics.learning_rate, dynamics.steps, stop, at, progress)
    if beside is not None:
        return flow(objective, start, float(beside.times[-1]), stop, beside.times, progress)
    if dynamics.learning_rate is not None and dynamics.steps is not None:
        horizon = dynamics.learning_rate * dynamics.steps
    return flow(objective, start, horizon, stop, None, progress)


def first_half(times: Array, attention: Array) -> float | None:
    """When attention is first a half, linear between recorded times; None where it never is."""
    reached = np.flatnonzero(attention >= HALF)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return float(times[0])
    share = (HALF - attention[after - 1]) / (attention[after] - attention[after - 1])
    return float(times[after - 1] + share * (times[after] - times[after - 1]))


def _replicate(config: SimulationConfig, objective: RowObjective, path: Path) -> RowRun:
    """A replicate's course at the recorded times of the whole."""
    own = half_timed(config, objective, integrate(config, objective, path), path)
    return measured(objective.row, own, objective.evaluate(own.states), config.world.latent.mean)


def half_timed(config: SimulationConfig, objective: Objective, own: Path, whole: Path) -> Path:
    """A replicate's path, with its own half time also where that comes later than the end of the whole."""
    half_time = own.half_time
    if half_time is None and whole.half_time is not None and config.dynamics.integrator == "flow":
        later = flow(objective, own.states[-1], float(whole.times[-1]), HALF)
        half_time = None if later.status != "stopped" else float(whole.times[-1] + later.times[-1])
    return replace(own, half_time=half_time)


@np.errstate(over="ignore", invalid="ignore")  # of a run that flew apart
def with_errors(run: RowRun, replicates: Sequence[RowRun]) -> RowRun:
    """Standard errors from the spread of the replicates."""
    shortest = min(len(r.path.times) for r in replicates)
    errors = {}
    for name in MEASURES_WITH_ERROR:
        error = standard_error([r.measures[name][:shortest] for r in replicates])
        errors[name] = np.pad(error, (0, len(run.path.times) - shortest), constant_values=np.nan)
    halves = [r.path.half_time for r in replicates if r.path.half_time is not None]
    se = float(standard_error(halves)) if len(halves) == len(replicates) else None
    kept = (
        tuple(replicates) if run.row.grouped else ()
    )  # where the whole map can be had, its errors need them
    return replace(run, errors=errors, half_time_se=se, replicates=kept)


def standard_error(values: Sequence[Array] | Sequence[float]) -> Array:
    """Of the mean over replicates, the first axis."""
    error: Array = np.std(values, axis=0, ddof=1) * len(values) ** -0.5
    return error


def measured(
    row: Row, path: Path, evaluated: Evaluation, mean_latent: float, learns_global: bool = False
) -> RowRun:
    """Every column of the trajectory table for a course, from the evaluation of its states, and its phases.
    learns_global: the objective teaches every row the global feature, whose growth its phases then are."""
    n_phi = len(row.phi_tied)
    Phi, Upsilon = path.states[:, :n_phi], path.states[:, n_phi:]
    own, everywhere = row.phi_own, row.phi_of(0)
    others = [np.setdiff1d(v.area_phi, [o, g]) for v, o, g in zip(row.views, own, everywhere, strict=True)]
    largest = [np.abs(Phi[:, i]).max(axis=1) if len(i) else np.full(len(Phi), np.nan) for i in others]
    measures: dict[str, Array] = {
        "loss": evaluated.loss,
        "excess_loss": evaluated.excess,
        "attention_own": evaluated.attention_own,
        "attention_global": evaluated.attention_global,
        "entropy": row_entropy(row, path.states, mean_latent),
        "phi_own": Phi[:, own].mean(axis=1),
        "phi_global": Phi[:, everywhere].mean(axis=1),
        "phi_other_max": np.mean(largest, axis=0),
        "upsilon_max": np.abs(Upsilon[:, row.upsilon_tied > 0]).max(axis=1),
    }
    is_global = learns_global or any(v.area_index[v.own] == 0 for v in row.views)
    learned = measures["phi_global" if learns_global else "phi_own"]
    phases = find_phases(row.query, path.times, learned, measures["phi_global"], is_global)
    return RowRun(row, path, measures, phases)


def row_entropy(row: Row, states: Array, mean_latent: float) -> Array:
    """Entropy in nats of the row on an unmasked image whose latents all stand at their mean; shape (times,)."""
    n_phi = len(row.phi_tied)
    Phi, Upsilon = states[:, :n_phi], states[:, n_phi:]
    total = np.zeros(len(states))
    for view in row.views:
        own = mean_latent * Phi[:, [view.area_phi[view.own]]] + Upsilon[:, :1]
        cells = mean_latent * Phi[:, view.area_phi[view.cell_area]] + Upsilon[:, row.cell_upsilon]
        logits = np.concatenate([own, cells], axis=1)
        number = np.concatenate([[1.0], (row.cell_size * row.cell_count).astype(float)])
        logits -= logits.max(axis=1, keepdims=True)
        weights = number * np.exp(logits)
        Z = weights.sum(axis=1)
        total += view.share * (np.log(Z) - (weights * logits).sum(axis=1) / Z)
    return total
