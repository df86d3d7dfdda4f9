"""Many worlds at once: every point of a design simulated and judged, on all cores or a cluster, in one table.

Every point that is done is on disk, so that a sweep whose command, worker or machine dies goes on with `resume` from
there. A point that fails is a row that says so.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mimlab.claims.catalogue import CLAIMS
from mimlab.claims.survival import SURVIVAL_SCHEMA, survival
from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import Progress
from mimlab.runs import InputError, RunDirectory, check, to_mapping, write_toml
from mimlab.runs.axes import Axis, label, read_axis
from mimlab.runs.tables import read_json, to_json, write_json, write_table
from mimlab.studies.single import versions
from mimlab.studies.sweep_plan import SEED, Plan, Point, plain
from mimlab.studies.sweep_points import RAN, failed, table_of, value_column, verdict_column
from mimlab.studies.sweep_shards import Shards
from mimlab.studies.sweep_workers import carry_out, check_workers, connected, processes

if TYPE_CHECKING:
    from distributed import Client

PLAN = "plan.json"  # in DIR.partial: what it was begun with
LISTED = 20  # failures that the summary names
VERDICTS = ("holds", "fails", "inconclusive")


def sweep(
    config: SimulationConfig | Mapping[str, Any],
    over: Sequence[str | Axis],
    out: str | Path,
    *,
    design: str = "grid",
    points: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """Simulate a configuration at every point of a design, and write the run directory `out`.

    config: a `SimulationConfig`, or a mapping as TOML has it, which may lack what an axis gives. over: axes, as
    `mimlab sweep --over` takes them ("world.local_exponent=0.1:0.5:9") or `mimlab.runs.axes.Axis`. design: "grid",
    "random" (with `points`) or "one-at-a-time". workers: processes on this machine, one per core unless given;
    scheduler: the address of a dask scheduler instead. Returns the summary and the table of rows
    (docs/file-contract.md). Raises InputError for what cannot be done as asked, before anything is written, and OSError
    where a scheduler is lost; what was done is then kept for `resume`. Where processes are started by spawning, as
    here, a script calls this below ``if __name__ == "__main__":``.
    """
    mapping = to_mapping(config) if isinstance(config, SimulationConfig) else config
    axes = tuple(axis if isinstance(axis, Axis) else read_axis(axis, SimulationConfig) for axis in over)
    plan = Plan(check(SimulationConfig, mapping), axes, design, points)
    return run_sweep(
        plan,
        out,
        number=workers,
        scheduler=scheduler,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
    )


def run_sweep(
    plan: Plan,
    out: str | Path,
    *,
    number: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """Run a plan and write the run directory; return its summary and rows. number: of processes on this machine.

    Raises InputError for bad input before anything is written, also where `resume` finds a sweep of another plan, and
    OSError where the scheduler is lost.
    """
    check_workers(number, scheduler)
    directory = RunDirectory(out, overwrite=overwrite, resume=resume, keep=True)
    _check(directory, overwrite, resume)
    points = plan.points
    began = time.perf_counter()
    with ExitStack() as opened:
        remote = None if scheduler is None else opened.enter_context(connected(scheduler))
        folder = opened.enter_context(directory)
        _claim(folder, plan)
        shards = Shards(folder / "shards")
        _run(
            points,
            shards,
            lambda: nullcontext(remote) if remote else processes(number, folder / "scratch"),
            progress,
        )
        if progress is not None:
            progress(1.0, "figures and page")
        rows = rows_of(plan, shards.joined())
        summary = _summary(plan, rows)
        summary |= {"command": command, "versions": versions(), "seconds": time.perf_counter() - began}
        _write(folder, plan, rows, summary)
    return summary, rows


def is_interrupted(out: str | Path) -> bool:
    """Whether a sweep was begun for this folder and has not ended."""
    return (RunDirectory(out).partial / PLAN).is_file()


def _check(directory: RunDirectory, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that cannot be had, a sweep that has ended, and to lose one without a word."""
    if resume and not overwrite and (directory.target / "summary.json").is_file():
        raise InputError(f"{directory.target} has ended: there is nothing to resume; --overwrite begins anew")
    directory.check()
    if is_interrupted(directory.target) and not (resume or overwrite):
        raise InputError(
            f"{directory.partial} holds an interrupted sweep; go on with --resume, or begin anew with --overwrite"
        )


def _claim(folder: Path, plan: Plan) -> None:
    """Say in the folder what it is begun with. Raises InputError where that was something else."""
    mine = {"config": plan.config_toml, **plan.facts, **versions()}
    if (folder / PLAN).is_file():
        found = read_json(folder / PLAN)
        plain = json.loads(to_json(mine))
        other = [name for name in {**plain, **found} if found.get(name) != plain.get(name)]
        if other:
            raise InputError(
                f"{folder} was begun with other {', '.join(other)}; --resume needs the same, --overwrite begins anew"
            )
    write_json(folder / PLAN, mine)


def _run(
    points: Sequence[Point],
    shards: Shards,
    workers: Callable[[], AbstractContextManager[Client]],
    progress: Progress | None,
) -> None:
    """Run what no shard has."""
    known = shards.hashes
    refused = {point.hash: point.error for point in points if point.error is not None}
    rows = [failed(name, "refused", error) for name, error in refused.items() if name not in known]
    if rows:
        shards.add(rows)
    work = {p.hash: p.config for p in points if p.error is None and p.hash not in known}
    total = len({point.hash for point in points})
    done = total - len(work)
    began, fresh = time.perf_counter(), 0

    def take(rows: list[dict[str, Any]]) -> None:
        nonlocal done, fresh
        shards.add(rows)
        done, fresh = done + len(rows), fresh + len(rows)
        if progress is not None:
            rate = fresh / (time.perf_counter() - began)
            progress(done / total, f"{done} of {total} points, {rate:.3g} a second")

    if work:
        if progress is not None:
            progress(-1.0, "starting workers")
        with workers() as client:
            carry_out(client, list(work.items()), take)


def rows_of(plan: Plan, results: pa.Table) -> pa.Table:
    """The table of a sweep: a row per point of the plan, its place on the axes before what was found there."""
    place = {name: i for i, name in enumerate(results["hash"].to_pylist())}
    chosen = results.take([place[point.hash] for point in plan.points])
    columns: dict[str, pa.Array] = {"point": pa.array([p.number for p in plan.points], pa.int64())}
    if plan.design == "one-at-a-time":
        columns["axis"] = pa.array([point.axis for point in plan.points], pa.string())
    for axis in plan.axes:
        base = plan.base[axis.key] if plan.design == "one-at-a-time" else None
        values = [point.values.get(axis.key, base) for point in plan.points]
        columns[axis.key] = _column(axis, values)
    order = [*table_of([]).column_names]
    order += [
        column for claim in claims_in(chosen) for column in (verdict_column(claim), value_column(claim))
    ]
    return pa.table(columns | {name: chosen[name] for name in order})


def _column(axis: Axis, values: Sequence[Any]) -> pa.Array:
    """An axis as a column: numbers as such, anything else as it is typed."""
    known = [value for value in values if value is not None]
    if axis.ordered and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        whole = all(isinstance(value, int) for value in known)
        return pa.array(values, pa.int64() if whole else pa.float64())
    return pa.array([None if value is None else label(value) for value in values], pa.string())


def _summary(plan: Plan, rows: pa.Table) -> dict[str, Any]:
    """summary.json but for the command, the versions and the time."""
    statuses = Counter(rows["status"].to_pylist())
    ran = sum(statuses[status] for status in RAN)
    bad = [i for i, status in enumerate(rows["status"].to_pylist()) if status not in RAN]
    failures = [
        {
            "point": i,
            "values": {key: plain(value) for key, value in plan.points[i].values.items()},
            "status": rows["status"][i].as_py(),
            "error": rows["error"][i].as_py(),
        }
        for i in bad[:LISTED]
    ]
    first = failures[0]["error"] or failures[0]["status"] if failures else ""
    outside = len(rows) - rows["warnings"].null_count
    warnings = [f"{len(bad)} of {len(rows)} points did not run; the first: {first}"] if bad else []
    if outside:
        warnings.append(
            f"{outside} of {len(rows)} points lie outside the paper's assumptions (column warnings)"
        )
    return {
        "status": "finished" if ran else f"failed: not one of {len(rows)} points ran; the first: {first}",
        **plan.facts,
        "base": {key: plain(value) for key, value in plan.base.items()},
        "statuses": dict(statuses),
        "failures": failures,
        "verdicts": verdict_counts(rows),
        "survival": survival_of(plan, rows) if plan.design == "one-at-a-time" else [],
        "warnings": warnings,
        "seed": plan.mapping.get(SEED, 0),
    }


def claims_in(rows: pa.Table) -> list[str]:
    """The claims that any point was judged by, in their own order."""
    known = {claim.name: place for place, claim in enumerate(CLAIMS)}
    found = [
        name.split(":")[1]
        for name in rows.column_names
        if name.startswith("claim:") and name.endswith(":verdict")
    ]
    return sorted(found, key=lambda claim: known.get(claim, len(known)))


def verdict_counts(rows: pa.Table) -> list[dict[str, Any]]:
    """Of each claim, at how many points it has which verdict; at the others it does not speak."""
    counts = []
    for claim in claims_in(rows):
        found = Counter(rows[verdict_column(claim)].to_pylist())
        counts.append({"claim": claim, **{verdict: found[verdict] for verdict in VERDICTS}})
    return counts


def survival_of(plan: Plan, rows: pa.Table) -> list[dict[str, Any]]:
    """The survival table of a one-at-a-time design."""
    claims = claims_in(rows)
    columns = {claim: rows[verdict_column(claim)].to_pylist() for claim in claims}
    verdicts = [{claim: columns[claim][i] for claim in claims} for i in range(len(rows))]
    axes = {axis.key: axis.values for axis in plan.axes if axis.key != SEED}
    at_base = [verdicts[p.number] for p in plan.points if p.axis is None]
    moved = {key: [(p.values[key], verdicts[p.number]) for p in plan.points if p.axis == key] for key in axes}
    return survival(claims, axes, plan.base, at_base, moved)


def _write(folder: Path, plan: Plan, rows: pa.Table, summary: dict[str, Any]) -> None:
    """All files of the sweep; then its shards are removed."""
    from mimlab.report.sweep_page import write_sweep_page

    write_toml(folder / "config.toml", plan.config_toml)
    write_table(folder / "rows.parquet", rows)
    if plan.design == "one-at-a-time":
        table = pa.Table.from_pylist(summary["survival"], schema=SURVIVAL_SCHEMA)
        write_table(folder / "survival.parquet", table)
    write_sweep_page(folder, rows, summary)
    write_json(folder / "summary.json", summary)
    shutil.rmtree(folder / "shards")
    (folder / PLAN).unlink()
