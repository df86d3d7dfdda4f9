"""How many negatives contrastive learning takes: one world, followed with one negative and with more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims import judge_points
from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import build
from mimlab.runs.tables import write_table
from mimlab.studies.commands import command_for
from mimlab.studies.contrastive_worlds import ALIKE, CLUSTERS, NEGATIVES, POSITIVE
from mimlab.studies.outcomes import Outcome, Setting
from mimlab.studies.scaling import POINTS_SCHEMA, evidence_of, point_of
from mimlab.studies.single import simulate_config

NEGATIVES_SCHEMA = POINTS_SCHEMA.insert(0, pa.field("negatives", pa.int64()))


def negatives_job(temperature: float, folder: Path) -> Outcome:
    """The half-attention time against the number of negatives, at one temperature."""
    from mimlab.report import draw_exponents

    name = f"negatives-temperature-{temperature:g}"
    points: list[dict[str, Any]] = []
    for number in NEGATIVES:
        config = build(
            SimulationConfig,
            {
                "world": {**POSITIVE, **CLUSTERS},
                "objective": {"name": "contrastive", "negatives": number, "temperature": temperature},
                "dynamics": {**ALIKE, "stop_attention": 0.5},
            },
        )
        points.append(
            {"negatives": number, "more_than_all": 1 + 1 / number, **point_of(simulate_config(config))}
        )
    home = folder / "worlds" / name
    home.mkdir()
    write_table(home / "points.parquet", pa.Table.from_pylist(points, schema=NEGATIVES_SCHEMA))
    evidence = evidence_of(config, points, "negatives")
    line = evidence.line("half_time")
    fit = {} if line is None else {"slope": line.slope, "low": line.low, "high": line.high}
    figure, axis = f"figures/{name}.png", "more_than_all"
    draw_exponents(
        [{axis: p[axis], "quantity": "half_time", "value": p["half_time"]} for p in points],
        [{"quantity": "half_time", "predicted": 1.0, **fit}],
        folder / figure,
        x=axis,
        x_label="(n + 1)/n of n negatives",
    )
    numbers = f"{NEGATIVES[0]} to {NEGATIVES[-1]} negatives"
    label = f"P = {POSITIVE['patches']}, K = 4, τ = {temperature:g}, {numbers}: the time goes as (n+1)/n"
    again = command_for(config, f"runs/{name}")
    records = Setting(name, label, {}, again).records(judge_points(evidence), figure)
    return Outcome(name, records, {"exponents": [figure]}, [p["status"] for p in points])
