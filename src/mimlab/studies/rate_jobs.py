"""What ``mimlab reproduce`` asks of many worlds together: where two phases begin, and which area is pushed down."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims import judge_grid
from mimlab.claims.grids import GridEvidence
from mimlab.runs.axes import Axis
from mimlab.runs.tables import write_table
from mimlab.studies.outcomes import Outcome, Setting
from mimlab.studies.random_worlds import between_record, partition_record
from mimlab.studies.rates import EXPONENTS_SCHEMA, RUNS_SCHEMA, crossed, run_series
from mimlab.studies.scaling import POINTS_SCHEMA
from mimlab.world.gap import patch_gap

LOW, HIGH, POINTS = 1e3, 1e12, 3
AXES = (  # Δ from -0.3 to 0.4
    Axis("world.global_exponent", (0.6, 0.65, 0.7, 0.75)),
    Axis("world.local_exponent", (0.1, 0.3, 0.5)),
    Axis("objective.mask_ratio", (0.25, 0.75)),
)
WORLDS = 80
BETWEEN = "boundary where the two rules differ"  # judged on worlds that are made for it


def boundary(folder: Path) -> Outcome:
    """One phase or two over a grid of worlds whose gap has either sign."""
    from mimlab.report import draw_rates

    summary = run_series(list(crossed({}, AXES, LOW, HIGH, POINTS)), AXES)
    home = folder / "worlds" / "boundary"
    home.mkdir()
    write_table(home / "exponents.parquet", pa.Table.from_pylist(summary["series"], schema=EXPONENTS_SCHEMA))
    write_table(home / "points.parquet", pa.Table.from_pylist(summary["points"], schema=RUNS_SCHEMA))
    figure = "figures/boundary.png"
    draw_rates(summary["series"], summary["points"], folder / figure)
    over = [f"{axis.key}={','.join(map(str, axis.values))}" for axis in AXES]
    words = ["mimlab", "scale", "--patches", f"{LOW:g}", f"{HIGH:g}", "--points", str(POINTS)]
    again = shlex.join(
        [*words, *(word for one in over for word in ("--over", one)), "--out", "runs/boundary"]
    )
    label = f"{len(summary['points'])} worlds, Δ from -0.3 to 0.4, P from 10³ to 10¹² (mean field)"
    expected = {"sign of the gap over worlds": "fails"}
    grid = GridEvidence(summary["points"])
    verdicts = [v for v in judge_grid(grid) if v.claim.name != BETWEEN]
    records = Setting("boundary", label, expected, again).records(verdicts, figure)
    return Outcome("boundary", records, {"exponents": [figure]}, [run["status"] for run in summary["points"]])


def between(folder: Path) -> Outcome:
    """One phase or two where the sign of the gap and its size at finite P differ."""
    from mimlab.report import draw_rates

    records = [between_record(number, "mean-field", HIGH) for number in range(WORLDS)]
    home = folder / "worlds" / "between"
    home.mkdir()
    schema = pa.schema([("mask_ratio", pa.float64()), *POINTS_SCHEMA])
    write_table(home / "points.parquet", pa.Table.from_pylist(records, schema=schema))
    label = f"{WORLDS} random worlds with 0 < Δ_p < log(1/(1-γ))/log P (mean field)"
    verdicts = [v for v in judge_grid(GridEvidence(records)) if v.claim.name == BETWEEN]
    figure = "figures/between.png"
    draw_rates([], records, folder / figure)
    records_of = Setting("between", label, {}).records(verdicts, figure)
    return Outcome("between", records_of, {"exponents": [figure]}, [record["status"] for record in records])


def partitions(folder: Path) -> Outcome:
    """Which area is pushed down, where the one called global is any of them."""
    from mimlab.report import draw_rates

    records: list[dict[str, Any]] = [partition_record(number, "mean-field") for number in range(WORLDS)]
    home = folder / "worlds" / "partitions"
    home.mkdir()
    write_table(home / "partitions.parquet", pa.Table.from_pylist(records))
    label = f"{WORLDS} random partitions, area 0 any of their areas (mean field)"
    setting = Setting("partitions", label, {"area 0 decides the phases": "fails"})
    figure = "figures/partitions.png"
    as_if_global = [
        {
            "patches": r["patches"],
            "mask_ratio": r["mask_ratio"],
            "patch_gap": patch_gap(r["patches"], r["largest_size"], r["area_size"]),
            "first_rates": r["largest_rates"],
        }
        for r in records
    ]
    draw_rates([], as_if_global, folder / figure)
    verdicts = setting.records(judge_grid(GridEvidence(records)), figure)
    return Outcome("partitions", verdicts, {"exponents": [figure]}, [record["status"] for record in records])
