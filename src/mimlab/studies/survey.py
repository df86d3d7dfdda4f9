"""Photographs as worlds: a few local queries of each, chosen by a rule fixed before any run (theory, section 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.runs import InputError
from mimlab.studies.single import Simulation, first_rates, simulate_config
from mimlab.world.world import World

SURVEY_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("query", pa.int64()),
        ("patches", pa.int64()),
        ("area_size", pa.int64()),
        ("patch_gap", pa.float64()),
        ("first_rates", pa.float64()),
        ("phi_global_at_half", pa.float64()),
        ("half_time", pa.float64()),
        ("attention_own", pa.float64()),
    ]
)


def survey_queries(world: World) -> list[int]:
    """The first patch of the largest, the median and the smallest local area, among those of at least two patches (a
    lone patch has nothing to attend to when it is masked); fewer where a photograph has fewer."""
    base = world.base
    areas = [a for a in range(1, base.areas) if base.size_of(a) >= 2]
    areas.sort(key=lambda area: (-base.size_of(area), area))
    chosen = {areas[0], areas[len(areas) // 2], areas[-1]} if areas else set()
    return [base.first_patch(area) for area in sorted(chosen)]


def survey_config(path: str | Path, query: int, seed: int = 0) -> SimulationConfig:
    """One query of a photograph, with constant latents."""
    return SimulationConfig(World(image=str(path)), dynamics=Dynamics(query=query), seed=seed)


def survey_photograph(path: str | Path) -> list[dict[str, Any]]:
    """Records of a photograph's queries; see SURVEY_SCHEMA. Raises InputError where it cannot be read."""
    world = World(image=str(path))
    try:
        queries = survey_queries(world)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [survey_record(simulate_config(survey_config(path, query)), Path(path).name) for query in queries]


def survey_record(simulation: Simulation, image: str) -> dict[str, Any]:
    """What the claims about photographs need of one run."""
    facts = simulation.summary["queries"][0]
    return {
        "image": image,
        "query": facts["query"],
        "patches": simulation.summary["patches"],
        "area_size": facts["area_size"],
        "patch_gap": facts["patch_gap"],
        "first_rates": first_rates(simulation.summary),
        "phi_global_at_half": facts["phi_global_at_half"],
        "half_time": facts["half_time"],
        "attention_own": float(simulation.rows[0].measures["attention_own"][-1]),
    }
