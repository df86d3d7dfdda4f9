"""A ladder of weights of the contrastive objective against the masked one, as ``reproduce`` judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims.catalogue import judge_ladder
from mimlab.claims.weighted import LadderEvidence, balance
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.dynamics.integrators import HALF
from mimlab.objectives import WeightedSum
from mimlab.runs import write_toml
from mimlab.runs.tables import write_table
from mimlab.studies.commands import command_for
from mimlab.studies.outcomes import Outcome, Setting
from mimlab.studies.single import Simulation, simulate_config
from mimlab.world.latent import Latent
from mimlab.world.world import World

WORLD = World(area_sizes=(168, *[6] * 22), clusters=4, latent=Latent(low=0.5, high=1.5))  # κc = 0.9, κs = 0.3
DYNAMICS = Dynamics(engine="mean-field", draws=256, learning_rate=1.0, steps=2000)
WEIGHTS = (
    80.0,
    120.0,
    200.0,
    320.0,
    480.0,
)  # close where sides are left or won: factors of 2 could not tell the width
EXPECTED = {  # prediction C6: mixtures in between, over a wider range than a factor of 3 can place
    "the weighted sum tips over": "fails",
    "where the weighted sum tips over": "inconclusive",
}

RUNGS_SCHEMA = pa.schema(
    [("contrastive_weight", pa.float64()), ("status", pa.string()), ("time", pa.float64())]
    + [(f"attention_{area}{se}", pa.float64()) for area in ("own", "global") for se in ("", "_se")]
)


def weighted_ladder(folder: Path) -> Outcome:
    """The job: a local row at the end of every weight, the objectives alone, verdicts and a figure."""
    return climbed(SimulationConfig(WORLD, WeightedSum(), DYNAMICS), WEIGHTS, folder)


def climbed(config: SimulationConfig, weights: Sequence[float], folder: Path) -> Outcome:
    """``weighted_ladder`` for a configuration whose objective is a weighted sum, its weight apart, and whose query is
    local; into ``folder``/worlds and ``folder``/figures."""
    from mimlab.report import draw_ladder

    objective = config.objective
    assert isinstance(objective, WeightedSum)
    runs = [simulate_config(_weighing(config, weight)) for weight in weights]
    rungs = [_rung(run, weight) for run, weight in zip(runs, weights, strict=True)]
    half = replace(config.dynamics, stop_attention=HALF)
    if half.integrator == "flow":  # however long either takes
        half = replace(half, learning_rate=None, steps=None)
    alone = [
        simulate_config(replace(config, objective=part, dynamics=half))
        for part in (objective.masked_part, objective.contrastive)
    ]
    masked, contrastive = (run.summary["half_time"] for run in alone)
    world = config.world
    shares = balance(
        world.layout(config.seed).patches,
        world.runs[0][0],
        objective.mask_ratio,
        world.clusters,
        objective.negatives,
    )
    evidence = LadderEvidence(rungs, (masked, contrastive), shares)
    home = folder / "worlds" / "weighted-sum"
    home.mkdir(parents=True, exist_ok=True)
    write_table(home / "rungs.parquet", pa.Table.from_pylist(rungs, schema=RUNGS_SCHEMA))
    write_toml(home / "config.toml", _weighing(config, weights[0]))
    figure = "figures/weighted-sum.png"
    draw_ladder(rungs, folder / figure, shares)
    label = f"local row, masked loss + w × contrastive loss, w = {weights[0]:g} to {weights[-1]:g}: it shares"
    again = command_for(_weighing(config, weights[len(weights) // 2]), "runs/weighted-sum")
    records = Setting("weighted-sum", label, EXPECTED, again).records(judge_ladder(evidence), figure)
    statuses = [run.summary["status"] for run in (*runs, *alone)]
    return Outcome("weighted-sum", records, {"ladder": [figure]}, statuses)


def _weighing(config: SimulationConfig, weight: float) -> SimulationConfig:
    assert isinstance(config.objective, WeightedSum)
    return replace(config, objective=replace(config.objective, contrastive_weight=weight))


def _rung(run: Simulation, weight: float) -> Mapping[str, Any]:
    """A run's end: see RUNGS_SCHEMA."""
    last = run.trajectory.slice(run.trajectory.num_rows - 1).to_pylist()[0]
    known = {"contrastive_weight": weight, "status": run.summary["status"]}
    return known | {name: last[name] for name in RUNGS_SCHEMA.names[2:]}
