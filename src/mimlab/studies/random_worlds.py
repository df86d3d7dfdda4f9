"""Random worlds for questions about many (docs/rates.md): partitions whose area 0 is any of their areas, and worlds in
which the sign of the gap and its size at finite P say different things."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.dynamics.integrators import HALF
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.studies.scaling import point_of
from mimlab.studies.single import Simulation, simulate_config
from mimlab.world.world import World

MASK_RATIOS = (0.25, 0.5, 0.75, 0.9)
LEAST = 4  # patches of an area: fewer, and a masked query's own patch counts


def partition_config(number: int, engine: str, draws: int = 64) -> SimulationConfig:
    """The ``number``-th random world: 4 to 40 areas whose sizes span up to three decades, in random order, 300 to
    30,000 patches, one of four mask ratios, constant latents, and a query in a random area."""
    generator = np.random.default_rng([20, number])
    areas = int(generator.integers(4, 41))
    weights = np.exp(generator.uniform(0, np.log(1000), areas))
    patches = np.exp(generator.uniform(np.log(300), np.log(30_000)))
    sizes = np.maximum(LEAST, np.round(weights / weights.sum() * patches)).astype(int)
    own = int(generator.integers(areas))
    ratio = float(generator.choice(MASK_RATIOS))
    return SimulationConfig(
        World(area_sizes=tuple(sizes.tolist())),
        MaskedReconstruction(ratio),
        Dynamics(engine, draws=draws, query=int(sizes[:own].sum()), stop_attention=HALF),
    )


def partition_record(number: int, engine: str) -> dict[str, Any]:
    """What the claims about which area decides need of that world."""
    return {"world": number, **area_record(simulate_config(partition_config(number, engine)))}


def area_record(simulation: Simulation) -> dict[str, Any]:
    """What they need of a run to half attention of a world given by the sizes of its areas (`mimlab.claims.grids`)."""
    sizes = np.asarray(simulation.config.world.area_sizes)
    own = simulation.summary["queries"][0]["area"]
    others = np.delete(np.arange(len(sizes)), own)
    Phi = phi_by_area(simulation)
    moved = np.flatnonzero(Phi[:, own] > 0)
    reached = simulation.summary["status"] == "stopped"
    first = Phi[moved[0]] if len(moved) else None
    return {
        "patches": int(sizes.sum()),
        "mask_ratio": simulation.config.objective.mask_ratio,
        "area_size": int(sizes[own]),
        "global_size": int(sizes[0]),
        "largest_size": int(sizes[others].max()),
        "largest_rates": None if first is None else float(-first[others].min() / first[own]),
        "deepest_size": int(sizes[others[np.argmin(Phi[-1, others])]]) if reached else None,
        "status": simulation.summary["status"],
    }


def between_record(number: int, engine: str, largest: float) -> dict[str, Any]:
    """What the claims about the boundary need of the ``number``-th random world with 0 < Δ_p < log(1/(1-γ))/log P: P
    from 10³ to ``largest``, κs from 0.1 to 0.5, one of four mask ratios, constant latents, κc from the gap."""
    generator = np.random.default_rng([21, number])
    patches = round(float(np.exp(generator.uniform(np.log(1e3), np.log(largest)))))
    ratio, kappa_s = float(generator.choice(MASK_RATIOS)), float(generator.uniform(0.1, 0.5))
    gap = float(generator.uniform()) * np.log(1 / (1 - ratio)) / np.log(patches)
    config = SimulationConfig(
        World(patches, 1 - (1 - kappa_s - gap) / 2, kappa_s),
        MaskedReconstruction(ratio),
        Dynamics(engine, draws=64, stop_attention=HALF),
    )
    return {"mask_ratio": ratio, **point_of(simulate_config(config))}


def phi_by_area(simulation: Simulation) -> np.ndarray:
    """Φ of every area of a world of one partition at every recorded time; shape (times, areas)."""
    row, base = simulation.rows[0].row, simulation.layout.partitions[0]
    view = row.views[0]
    index = np.full(base.areas, -1)
    index[view.area_index] = view.area_phi
    size_of = [base.size_of(area) for area in range(base.areas)]
    alike = {
        size_of[area]: index[area] for area in view.area_index if area not in (0, view.area_index[view.own])
    }
    index = np.array([alike[size_of[area]] if index[area] < 0 else index[area] for area in range(base.areas)])
    return np.asarray(simulation.rows[0].path.states[:, index])
