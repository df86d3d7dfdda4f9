"""Worlds for the sliders of ``mimlab reproduce``'s page: one query followed in each, by either objective.

The same worlds for both, of PATCHES patches in CLUSTERS clusters (contrastive learning tells images apart by their
cluster), in mean field. Contrastive learning costs seconds a run where masked reconstruction costs milliseconds, and
is there on a smaller grid, with latents and negatives of DRAWS images and the standard errors that this leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs.tables import write_table
from mimlab.studies.commands import command_for
from mimlab.studies.outcomes import Outcome
from mimlab.studies.single import Simulation, first_rates, simulate_config
from mimlab.world.latent import Latent
from mimlab.world.world import World

PATCHES, LOCAL_EXPONENT, CLUSTERS, DRAWS = 1000, 0.3, 4, 128
_TRAJECTORY = ("attention_own", "attention_global", "phi_own", "phi_global")
_COURSE = ("time", *_TRAJECTORY, *(f"{name}_se" for name in _TRAJECTORY))
EXPLORER_SCHEMA = pa.schema(
    [
        ("run", pa.int64()),
        ("objective", pa.string()),
        ("patches", pa.int64()),
        ("clusters", pa.int64()),
        ("global_exponent", pa.float64()),
        ("local_exponent", pa.float64()),
        ("information_gap", pa.float64()),
        ("latent_low", pa.float64()),
        ("latent_high", pa.float64()),
        ("mask_ratio", pa.float64()),
        *((name, pa.float64()) for name in _COURSE),
        ("phase", pa.string()),
    ]
)


@dataclass(frozen=True)
class Grid:
    """Runs of one objective: each global exponent κc with each mask ratio and each [L, U] of the latents."""

    objective: type[MaskedReconstruction] | type[ContrastiveLearning]
    global_exponents: tuple[float, ...]
    mask_ratios: tuple[float, ...]
    latents: tuple[tuple[float, float], ...]

    def configs(self) -> list[SimulationConfig]:
        """A configuration for each, exponents outermost."""
        drawn = self.objective is ContrastiveLearning
        dynamics = Dynamics("mean-field", draws=DRAWS) if drawn else Dynamics("mean-field")
        return [
            SimulationConfig(
                World(
                    patches=PATCHES,
                    global_exponent=exponent,
                    local_exponent=LOCAL_EXPONENT,
                    clusters=CLUSTERS,
                    latent=Latent(*latent),
                ),
                self.objective(mask_ratio=ratio),
                dynamics,
            )
            for exponent, ratio, latent in product(self.global_exponents, self.mask_ratios, self.latents)
        ]


GRIDS: tuple[Grid, ...] = (
    Grid(
        MaskedReconstruction,
        (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        (0.25, 0.5, 0.75, 0.9),
        ((1.0, 1.0), (0.5, 1.5), (0.2, 1.8)),
    ),
    Grid(ContrastiveLearning, (0.55, 0.75, 0.9), (0.5,), ((1.0, 1.0), (0.5, 1.5))),
)


def explore(folder: Path) -> Outcome:
    """Follow every run, write worlds/explorer.parquet, and give the part of the page that shows them."""
    from mimlab.report import explorer_section

    simulations = [simulate_config(config) for grid in GRIDS for config in grid.configs()]
    courses = pa.concat_tables([_course(index, one) for index, one in enumerate(simulations)])
    write_table(folder / "worlds/explorer.parquet", courses)
    section = explorer_section(
        "Explorer: what a query learns, and when",
        f"One local query in worlds of P = {PATCHES} patches and {CLUSTERS} clusters with local areas of 8 or 9 "
        f"patches (κs = {LOCAL_EXPONENT}), in mean field. Above, its attention (by the masked objective, when it is "
        "masked and its own area is not wholly masked); below, its correlations with its own feature and with the "
        f"global one. Bands are the phases. {_grids_in_words()}",
        courses,
        [_facts(one) for one in simulations],
        PATCHES,
    )
    return Outcome("explorer", statuses=[one.summary["status"] for one in simulations], sections=[section])


def _grids_in_words() -> str:
    """Which runs are there, objective by objective, contrastive ones last."""
    said = []
    for grid in GRIDS:
        count = len(grid.configs())
        ratios = ", ".join(f"{ratio:g}" for ratio in grid.mask_ratios)
        said.append(f"{count} runs by the {grid.objective().name} objective, at γ = {ratios}")
    drawn = any(grid.objective is ContrastiveLearning for grid in GRIDS)
    errors = f" These rest on {DRAWS} drawn images; ± is two standard errors." if drawn else ""
    return f"There are {'; '.join(said)}.{errors}"


def _course(index: int, simulation: Simulation) -> pa.Table:
    """The trajectory of a run with its world in front and the phase behind."""
    config, summary = simulation.config, simulation.summary
    world = {
        "run": index,
        "objective": config.objective.name,
        "patches": PATCHES,
        "clusters": CLUSTERS,
        "global_exponent": config.world.global_exponent,
        "local_exponent": config.world.local_exponent,
        "information_gap": summary["information_gap"],
        "latent_low": summary["latent"][0],
        "latent_high": summary["latent"][-1],
        "mask_ratio": config.objective.mask_ratio,
    }
    rows = simulation.trajectory.select(_COURSE).to_pylist()
    phases = summary["phases"]
    return pa.Table.from_pylist(
        [world | row | {"phase": _phase_at(row["time"], phases)} for row in rows], schema=EXPLORER_SCHEMA
    )


def _phase_at(time: float, phases: Sequence[Mapping[str, Any]]) -> str | None:
    return next((phase["name"] for phase in phases if time <= phase["end"]), None)


def _facts(simulation: Simulation) -> dict[str, Any]:
    config, summary = simulation.config, simulation.summary
    (query,) = summary["queries"]
    masked = isinstance(config.objective, MaskedReconstruction)
    return {
        "objective": config.objective.name,
        "information_gap": summary["information_gap"],
        "global_exponent": config.world.global_exponent,
        "mask_ratio": config.objective.mask_ratio,
        "latent": [summary["latent"][0], summary["latent"][-1]],
        "half_time": summary["half_time"],
        "first_rates": first_rates(summary),
        "predicted_rates": (1 - config.objective.mask_ratio) * PATCHES ** query["patch_gap"]
        if masked
        else None,
        "phases": [{key: phase[key] for key in ("name", "start", "end")} for phase in summary["phases"]],
        "command": command_for(config, "runs/one"),
    }
