"""The same world over a range of P: exponents of times in P, with intervals, beside theory and the paper's bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mimlab.claims import judge_points
from mimlab.claims.points import PointsEvidence, exponents
from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import HALF, Progress
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs import InputError, RunDirectory, build, merge, to_mapping, write_toml
from mimlab.studies.single import Simulation, simulate_config, versions
from mimlab.world.gap import predicted_half_time
from mimlab.world.rates import growth_constant, reduced_half_time

DEFAULTS = {"dynamics": {"engine": "mean-field", "stop_attention": HALF}}

POINTS_SCHEMA = pa.schema(
    [
        ("patches", pa.int64()),
        ("query", pa.int64()),
        ("area_size", pa.int64()),
        ("patch_gap", pa.float64()),
        ("status", pa.string()),
        ("half_time", pa.float64()),
        ("half_time_se", pa.float64()),
        ("leading_half_time", pa.float64()),
        ("reduced_half_time", pa.float64()),
        ("first_rates", pa.float64()),
        ("final_stage", pa.float64()),
        ("phi_global_at_half", pa.float64()),
        ("phi_own", pa.float64()),
        ("upsilon_max", pa.float64()),
        ("upsilon_over_phi", pa.float64()),
    ]
)


def configs_over(mapping: Mapping[str, Any], low: float, high: float, points: int) -> list[SimulationConfig]:
    """A configuration per log-spaced P. Raises InputError for a range or a world that cannot be scaled."""
    if not (2 <= low < high):
        raise InputError(
            f"scale: --patches {low:g} {high:g} is no range; give the smaller P (at least 2) first."
        )
    if points < 3:
        raise InputError(f"scale: points = {points} is too few for a fit with an interval; at least 3.")
    world = dict(mapping.get("world", {}))
    for key in ("area_sizes", "image"):
        if key in world:
            raise InputError(
                f"scale: a world given by {key} has one size; give global_exponent and local_exponent instead."
            )
    values = [round(p) for p in np.geomspace(low, high, points)]
    if len(set(values)) < points:
        raise InputError(
            f"scale: {points} points do not fit between {low:g} and {high:g}; give fewer points."
        )
    filled = merge(DEFAULTS, mapping)
    configs = [build(SimulationConfig, merge(filled, {"world": {"patches": p}})) for p in values]
    if configs[0].dynamics.query not in ("local", "global"):
        raise InputError(
            f"scale: query = {configs[0].dynamics.query!r} must be local or global, which every P has."
        )
    return configs


def point_of(simulation: Simulation) -> dict[str, Any]:
    """What a series of runs needs of one: see POINTS_SCHEMA. ``final_stage``: from half attention to a later stop."""
    facts, measures = simulation.summary["queries"][0], simulation.rows[0].measures
    half, end = facts["half_time"], float(simulation.rows[0].path.times[-1])
    stopped = facts["status"] == "stopped" and simulation.config.dynamics.stop_attention > HALF
    phi, upsilon = float(measures["phi_own"][-1]), float(measures["upsilon_max"][-1])
    local = facts["area"] != 0
    leading, reduced = _foretold(simulation.config, facts) if local else (None, None)
    moved = np.flatnonzero(measures["phi_own"] > 0)
    return {
        "patches": simulation.summary["patches"],
        "query": facts["query"],
        "area_size": facts["area_size"],
        "patch_gap": facts["patch_gap"],
        "status": facts["status"],
        "half_time": half,
        "half_time_se": facts["half_time_se"],
        "leading_half_time": leading,
        "reduced_half_time": reduced,
        "first_rates": -float(measures["phi_global"][moved[0]] / measures["phi_own"][moved[0]])
        if local and len(moved)
        else None,
        "final_stage": end - half if stopped and half is not None else None,
        "phi_global_at_half": facts["phi_global_at_half"],
        "phi_own": phi,
        "upsilon_max": upsilon,
        "upsilon_over_phi": upsilon / phi if phi > 0 else None,
    }


def _foretold(config: SimulationConfig, facts: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The half-attention time to leading order, and by the equation for one area; None for another objective."""
    if not isinstance(config.objective, MaskedReconstruction):
        return None, None
    world, ratio = config.world, config.objective.mask_ratio
    leading = growth_constant(world.latent) * predicted_half_time(
        world.patches_total, facts["area_size"], ratio, world.clusters
    )
    reduced = reduced_half_time(world.patches_total, facts["area_size"], ratio, world.latent, world.clusters)
    return leading, reduced


def evidence_of(config: SimulationConfig, points: Sequence[Mapping[str, Any]], axis: str) -> PointsEvidence:
    """Points as the claims read them; ``axis`` is what differs, "patches" or "area_size"."""
    world = config.world
    return PointsEvidence(
        points,
        axis,
        config.dynamics.query == "local",
        world.global_exponent,
        world.local_exponent,
        world.latent.support,
        config.objective.name,
    )


def run_scale(
    config_mapping: Mapping[str, Any],
    out: str | Path | None,
    *,
    low: float,
    high: float,
    points: int = 9,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a world over ``points`` log-spaced numbers of patches from ``low`` to ``high``; return the summary and,
    where ``out`` is given, write the run directory. The mapping is a configuration without ``patches``; its engine is
    mean-field and it stops at half attention unless it says otherwise. Raises InputError before anything is run."""
    configs = configs_over(config_mapping, low, high, points)
    if out is None:
        return _run(configs, progress)
    with RunDirectory(out, overwrite=overwrite) as folder:
        summary = _run(configs, progress)
        _write(folder, configs[0], summary, command)
    return summary


def _run(configs: Sequence[SimulationConfig], progress: Progress | None) -> dict[str, Any]:
    simulations = []
    for index, config in enumerate(configs):
        if progress is not None:
            progress(index / len(configs), f"P = {config.world.patches:.3g}")
        simulations.append(simulate_config(config))
    return _summary(configs[0], simulations, [point_of(simulation) for simulation in simulations])


def _summary(
    config: SimulationConfig, simulations: Sequence[Simulation], points: list[dict[str, Any]]
) -> dict[str, Any]:
    evidence = evidence_of(config, points, "patches")
    bad = [s.summary["status"] for s in simulations if s.summary["status"] not in ("stopped", "finished")]
    return {
        "status": bad[0] if bad else simulations[0].summary["status"],
        "exponents": exponents(evidence),
        "claims": [verdict.as_dict() for verdict in judge_points(evidence)],
        "points": points,
        "engine": config.dynamics.engine,
        "global_exponent": config.world.global_exponent,
        "local_exponent": config.world.local_exponent,
        "objective": config.objective.name,
        "mask_ratio": config.objective.mask_ratio,
        "latent": list(config.world.latent.support),
        "warnings": sorted({warning for s in simulations for warning in s.summary["warnings"]}),
        "seed": config.seed,
        "versions": versions(),
        "seconds": sum(s.summary["seconds"] for s in simulations),
    }


def _write(folder: Path, config: SimulationConfig, summary: dict[str, Any], command: str) -> None:
    from mimlab.report import Section, draw_exponents, write_page
    from mimlab.report.pages import claim_sections, summary_facts
    from mimlab.runs.tables import write_json, write_table

    points = summary["points"]
    mapping = to_mapping(config)
    del mapping["world"]["patches"]
    write_toml(folder / "config.toml", mapping)
    write_table(folder / "points.parquet", pa.Table.from_pylist(points, schema=POINTS_SCHEMA))
    (folder / "figures").mkdir(exist_ok=True)
    draw_exponents(list(curves(points)), summary["exponents"], folder / "figures/exponents.png")
    shown = ("patches", "area_size", "half_time", "final_stage", "phi_global_at_half", "upsilon_over_phi")
    rows = [{name: point[name] for name in shown} for point in points]
    sections = [
        Section(
            "Exponents",
            "How times grow with the number of patches P, with the fitted slope and its 95% interval.",
            figures=["figures/exponents.png"],
            rows=rows,
        ),
        *claim_sections(summary["claims"]),
    ]
    first, last = points[0]["patches"], points[-1]["patches"]
    lead = f"The same exponents κc and κs from P = {first:.3g} to {last:.3g}, and how times grow with P."
    write_page(
        folder / "report.html", "One world over a range of P", lead, sections, command, summary_facts(summary)
    )
    write_json(folder / "summary.json", summary)


def curves(points: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Points as ``draw_exponents`` reads them: a record per P and quantity."""
    for point in points:
        for quantity in ("half_time", "final_stage"):
            if point[quantity] is not None:
                yield {"patches": point["patches"], "quantity": quantity, "value": point[quantity]}
