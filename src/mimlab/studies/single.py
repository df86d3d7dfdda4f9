"""One world: simulate it, judge it, and write its run directory."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mimlab.dynamics.config import Dynamics, Objective, SimulationConfig
from mimlab.dynamics.integrators import Progress
from mimlab.dynamics.relax import Relaxation
from mimlab.dynamics.rows import RowRun, run_rows
from mimlab.dynamics.tables import attention_map, correlations_table, nearest_record, trajectory_table
from mimlab.objectives.in_context import InContextLearning, copying_half_time
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs import InputError, RunDirectory, to_mapping, write_toml
from mimlab.world.gap import patch_gap, predicted_half_time, predicted_phi_global
from mimlab.world.partition import Layout
from mimlab.world.world import World

MOST_DRAWN = 4  # queries that get figures of their own


@dataclass(frozen=True, eq=False)
class Simulation:
    """A finished run: its configuration and its tables (columns in docs/file-contract.md)."""

    config: SimulationConfig
    trajectory: pa.Table
    correlations: pa.Table
    summary: dict[str, Any]
    layout: Layout = field(repr=False)
    rows: tuple[RowRun, ...] = field(repr=False)

    def attention_map(self, query: int, time: float) -> np.ndarray:
        """Attention of a query over every patch, at the recorded time nearest to ``time``, on an unmasked image whose
        latents all stand at their mean; shape (P,), sums to 1. Raises InputError where the query was not run."""
        for run in self.rows:
            if run.row.query == query:
                record = nearest_record(run.path, time)
                return attention_map(run, self.layout, record, self.config.world.latent.mean)
        known = ", ".join(str(run.row.query) for run in self.rows)
        raise InputError(f"attention_map: query {query} was not run; this run has {known}.")


def simulate(
    world: World,
    objective: Objective | None = None,
    *,
    engine: str = "sampled",
    integrator: str = "flow",
    learning_rate: float | None = None,
    steps: int | None = None,
    draws: int = 1024,
    query: str | int = "local",
    stop_attention: float = 0.99,
    start: float = 0.0,
    start_alike: str = "areas",
    relax: Relaxation | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Simulation:
    """Train one attention layer on a world and return its trajectory, correlations and summary.

    Parameters are those of ``Dynamics``; ``relax`` departs from the paper's model (engine dense); ``objective``
    defaults to masked reconstruction at mask ratio 0.75. Times are in units of learning rate x steps. Raises InputError
    for what cannot be done as asked.

    >>> run = simulate(World(area_sizes=(12, 4, 4, 4)), engine="mean-field")
    >>> run.summary["status"]
    'stopped'
    """
    dynamics = Dynamics(
        engine, integrator, learning_rate, steps, draws, query, stop_attention, start, start_alike
    )
    return simulate_config(
        SimulationConfig(world, objective or MaskedReconstruction(), dynamics, seed, relax or Relaxation()),
        progress,
    )


def simulate_config(config: SimulationConfig, progress: Progress | None = None) -> Simulation:
    """``simulate`` for a configuration."""
    from mimlab.claims import judge

    began = time.perf_counter()
    layout = config.world.layout(config.seed)
    runs = run_rows(config, progress)
    mean = config.world.latent.mean
    trajectory, correlations = trajectory_table(runs, layout, mean), correlations_table(runs, layout)
    summary = _summary(config, layout, runs)
    summary["claims"] = [verdict.as_dict() for verdict in judge(trajectory, summary)]
    if len(runs) > 1:
        summary["claims"] = [
            verdict | {"world": "all queries" if verdict["query"] is None else f"query {verdict['query']}"}
            for verdict in summary["claims"]
        ]
    summary |= {"seed": config.seed, "versions": versions(), "seconds": time.perf_counter() - began}
    return Simulation(config, trajectory, correlations, summary, layout, tuple(runs))


def run_simulation(
    config: SimulationConfig,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    query_at: tuple[float, float] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Simulation:
    """Simulate and, where ``out`` is given, write the run directory with its figures and page.

    ``query_at``: (x, y) in pixels of the photograph; its patch becomes the query. Raises InputError for bad input,
    before anything is written.
    """
    if query_at is not None:
        config = replace(config, dynamics=replace(config.dynamics, query=_patch_at(config.world, query_at)))
    if out is None:
        return simulate_config(config, progress)
    with RunDirectory(out, overwrite=overwrite) as folder:
        simulation = simulate_config(config, progress)
        write_simulation(simulation, folder, command)
    return simulation


def _patch_at(world: World, point: tuple[float, float]) -> int:
    if world.image is None:
        raise InputError(
            "--query-at names a pixel of a photograph, and the world has no image; give --image."
        )
    from mimlab.world.photograph import patch_at

    return patch_at(world.photograph, floor(point[0]), floor(point[1]))


def write_simulation(simulation: Simulation, folder: Path, command: str) -> None:
    """Write a run's files into an existing folder, its figures and page among them."""
    from mimlab.report import simulation_page

    figures = draw_simulation(simulation, folder)
    simulation_page(folder / "report.html", simulation.summary, figures, command)
    write_tables(simulation, folder)


def write_tables(simulation: Simulation, folder: Path) -> None:
    """Write a run's configuration, tables and, last, its summary."""
    from mimlab.runs.tables import write_json, write_table

    write_toml(folder / "config.toml", simulation.config)
    write_table(folder / "trajectory.parquet", simulation.trajectory)
    write_table(folder / "correlations.parquet", simulation.correlations)
    write_json(folder / "summary.json", simulation.summary)


CURVES = ("correlations", "attention", "excess_loss")
PHOTOGRAPH = ("photograph", "segmentation")


def draw_simulation(
    simulation: Simulation, folder: Path, kinds: Sequence[str] = (*CURVES, *PHOTOGRAPH)
) -> dict[str, list[str]]:
    """The figures of a run, into ``folder``/figures: curves of the first MOST_DRAWN queries and, where the world is a
    photograph, its areas and the attention over it. Returns file names by kind, relative to ``folder``."""
    from mimlab import report

    draw: dict[str, Callable[..., object]] = {
        "correlations": report.draw_correlations,
        "attention": report.draw_attention,
        "excess_loss": report.draw_excess_loss,
    }
    (folder / "figures").mkdir(exist_ok=True)
    table, summary = simulation.trajectory, simulation.summary
    figures: dict[str, list[str]] = {}
    for facts in summary["queries"][:MOST_DRAWN]:
        for kind in [kind for kind in kinds if kind in CURVES]:
            if kind == "excess_loss" and table[kind].null_count == len(table):
                continue  # an objective whose infimum is not known
            name = f"figures/{kind}_{facts['query']}.png"
            more = [facts["predicted_phi_global_at_half"]] if kind == "correlations" else []
            draw[kind](table, summary, folder / name, facts["query"], *more)
            figures.setdefault(kind, []).append(name)
    if simulation.config.world.image is not None and "photograph" in kinds:
        figures |= _draw_photograph(simulation, folder)
    return figures


def _draw_photograph(simulation: Simulation, folder: Path) -> dict[str, list[str]]:
    """The photograph's areas, and where the first query's attention goes at the start, at each phase's end and at the
    end."""
    from mimlab.report import draw_attention_on_photograph, draw_segmentation

    areas, run = simulation.config.world.photograph, simulation.rows[0]
    draw_segmentation(
        areas.pixels,
        areas.labels,
        folder / "figures/segmentation.png",
        Path(str(simulation.config.world.image)).name,
    )
    moments = [("start", 0.0), *((f"end of {phase.name}", phase.end) for phase in run.phases)]
    if moments[-1][1] < run.path.times[-1]:
        moments.append(("end", float(run.path.times[-1])))
    draw_attention_on_photograph(
        areas.pixels,
        areas.labels,
        [simulation.attention_map(run.row.query, time) for _, time in moments],
        [title for title, _ in moments],
        run.row.query,
        areas.patch_size,
        folder / "figures/photograph.png",
    )
    return {"photograph": ["figures/photograph.png"], "segmentation": ["figures/segmentation.png"]}


def _summary(config: SimulationConfig, layout: Layout, runs: Sequence[RowRun]) -> dict[str, Any]:
    facts = config.world.statistics()
    queries = [_query_facts(config, run) for run in runs]
    first_local = next((q for q in queries if q["area"] != 0), None)
    named = first_local or {}
    return {
        "status": _worst(queries),
        "information_gap": facts.information_gap,
        "loss_floor": named.get("loss_floor"),
        "half_time": named.get("half_time"),
        "half_time_se": named.get("half_time_se"),
        "phases": [vars(phase) for run in runs for phase in run.phases],
        "phi_global_at_half_over_log_patches": named.get("phi_global_at_half_over_log_patches"),
        "queries": queries,
        "engine": config.dynamics.engine,
        "integrator": config.dynamics.integrator,
        "patches": layout.patches,
        "clusters": layout.clusters,
        "area_sizes": [list(run) for run in config.world.runs],
        "global_exponent": facts.global_exponent,
        "local_exponent": facts.local_exponent,
        "objective": config.objective.name,
        **{key: value for key, value in to_mapping(config.objective).items() if key != "name"},
        "fp_share": runs[0].shares.get("fp_share"),
        "pp_share": runs[0].shares.get("pp_share"),
        "pp_share_se": runs[0].shares.get("pp_share_se"),
        "latent": list(config.world.latent.support),
        "latent_mean": config.world.latent.mean,
        "warnings": list(config.world.warnings),
    }


def first_rates(summary: dict[str, Any]) -> float | None:
    """Initial fall of Φ_global / initial rise of Φ_own of a run of one query; None where it was not judged by them."""
    judged = [c["value"] for c in summary["claims"] if c["claim"] in ("two phases", "one phase")]
    return judged[0] if judged else None


def _query_facts(config: SimulationConfig, run: RowRun) -> dict[str, Any]:
    """What speaks of one row; areas and predictions are those of the first cluster."""
    row, view = run.row, run.row.views[0]
    patches, ratio = row.patches, config.objective.mask_ratio
    global_size, own_size, area = config.world.runs[0][0], view.own_size, int(view.area_index[view.own])
    half, local = run.path.half_time, area != 0
    phi = None if half is None else float(np.interp(half, run.path.times, run.measures["phi_global"]))
    reconstruction = config.objective if isinstance(config.objective, MaskedReconstruction) else None
    facts = {
        "query": row.query,
        "area": area,
        "area_size": own_size,
        "status": run.path.status,
        "patch_gap": patch_gap(patches, global_size, own_size) if local else None,
        "loss_floor": reconstruction
        and sum(v.share * reconstruction.floor(patches, v.own_size, config.world.latent) for v in row.views),
        "hopeless": reconstruction
        and sum(v.share * reconstruction.hopeless(patches, v.own_size) for v in row.views),
        "half_time": half,
        "half_time_se": run.half_time_se,
        "predicted_half_time": reconstruction
        and predicted_half_time(patches, own_size, ratio, config.world.clusters),
        "phi_global_at_half": phi,
        "predicted_phi_global_at_half": predicted_phi_global(patches, global_size, own_size, ratio)
        if local and reconstruction
        else None,
        "phi_global_at_half_over_log_patches": None if phi is None else phi / float(np.log(patches)),
    }
    if isinstance(config.objective, InContextLearning):  # there is always something to copy
        chance = config.objective.query_masked(patches, config.world.base.areas)
        facts |= {
            "loss_floor": 0.0,
            "hopeless": 0.0,
            "predicted_half_time": copying_half_time(patches, chance),
        }
    return facts


def _worst(queries: Sequence[dict[str, Any]]) -> str:
    """The status of the run: that of the row that ended worst."""
    order = ("failed", "diverged", "horizon", "finished", "stopped")
    return str(min((q["status"] for q in queries), key=lambda status: order.index(status.split(":")[0])))


def versions() -> dict[str, str]:
    """What produced a result."""
    import scipy

    from mimlab import __version__

    return {
        "mimlab": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pyarrow": pa.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }
