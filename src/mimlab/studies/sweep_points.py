"""One point of a sweep as a row: run, judged, and told in one record, whatever happens. What workers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from mimlab.dynamics.config import SimulationConfig
from mimlab.runs import InputError, build

Work = tuple[str, Mapping[str, Any]]
"""A point's hash and its configuration."""

RESULT_SCHEMA = pa.schema(
    [
        ("hash", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("warnings", pa.string()),
        ("patches", pa.int64()),
        ("query", pa.int64()),
        ("area_size", pa.int64()),
        ("information_gap", pa.float64()),
        ("patch_gap", pa.float64()),
        ("loss_floor", pa.float64()),
        ("half_time", pa.float64()),
        ("half_time_se", pa.float64()),
        ("predicted_half_time", pa.float64()),
        ("phi_global_at_half", pa.float64()),
        ("phi_global_at_half_over_log_patches", pa.float64()),
        ("time", pa.float64()),
        ("loss", pa.float64()),
        ("excess_loss", pa.float64()),
        ("attention_own", pa.float64()),
        ("attention_global", pa.float64()),
        ("entropy", pa.float64()),
        ("phi_own", pa.float64()),
        ("phi_global", pa.float64()),
        ("upsilon_max", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""What a row says besides the point's place on the axes and the verdicts."""
FINAL = RESULT_SCHEMA.names[RESULT_SCHEMA.names.index("time") : -1]
"""Columns of the trajectory that a row has at the last recorded time."""
RAN = ("stopped", "finished", "horizon")
"""Statuses of a point that went as far as it was asked to."""


def verdict_column(claim: str) -> str:
    """The column of a claim's verdict."""
    return f"claim:{claim}:verdict"


def value_column(claim: str) -> str:
    """The column of what was measured for a claim."""
    return f"claim:{claim}:value"


def failed(name: str, status: str, error: str) -> dict[str, Any]:
    """The row of a point that did not run."""
    return {"hash": name, "status": status, "error": error}


def run_points(work: Sequence[Work]) -> tuple[list[dict[str, Any]], float]:
    """The rows of some points, and the seconds that they took."""
    began = perf_counter()
    return [run_point(name, config) for name, config in work], perf_counter() - began


def run_point(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate one configuration; its row, also where it is refused or fails."""
    from mimlab.studies.single import simulate_config

    began = perf_counter()
    try:
        simulation = simulate_config(build(SimulationConfig, config))
        row = {"hash": name, **_told(simulation.summary, simulation.trajectory)}
    except InputError as refused:
        row = failed(name, "refused", str(refused))
    except Exception as error:  # a point that fails is a result of the sweep, not its end
        row = failed(name, "failed", f"{type(error).__name__}: {error}")
    return row | {"seconds": perf_counter() - began}


def _told(summary: Mapping[str, Any], trajectory: pa.Table) -> dict[str, Any]:
    """What speaks of the first local query, or of the first one where none is local."""
    queries = summary["queries"]
    facts = next((one for one in queries if one["area"] != 0), queries[0])
    status, _, why = str(summary["status"]).partition(": ")
    known = {**facts, "patches": summary["patches"], "information_gap": summary["information_gap"]}
    row = {name: known[name] for name in RESULT_SCHEMA.names if name in known}
    row |= {"status": status, "error": why or None, "warnings": "; ".join(summary["warnings"]) or None}
    last = int(np.flatnonzero(np.asarray(trajectory["query"]) == facts["query"])[-1])
    row |= {name: trajectory[name][last].as_py() for name in FINAL}
    for verdict in summary["claims"]:
        if verdict["query"] == facts["query"]:
            row[verdict_column(verdict["claim"])] = verdict["verdict"]
            row[value_column(verdict["claim"])] = verdict["value"]
    return row


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table: the columns of RESULT_SCHEMA, then two for each claim that any of the rows was judged by."""
    found = dict.fromkeys(name for row in rows for name in row if name.startswith("claim:"))
    claims = [(name, pa.string() if name.endswith(":verdict") else pa.float64()) for name in found]
    return pa.Table.from_pylist(list(rows), schema=pa.schema([*RESULT_SCHEMA, *claims]))
