"""`mimlab scale --over ...`: a series over P at every point of crossed axes, and what the exponents say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import exp
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims import judge_grid, judge_points
from mimlab.claims.catalogue import CLAIMS
from mimlab.claims.fits import Line
from mimlab.claims.grids import GridEvidence
from mimlab.claims.points import PointsEvidence
from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import Progress
from mimlab.runs import InputError, RunDirectory, merge, write_toml
from mimlab.runs.axes import Axis, label
from mimlab.studies.scaling import DEFAULTS, POINTS_SCHEMA, configs_over, evidence_of, point_of
from mimlab.studies.single import simulate_config, versions
from mimlab.world.latent import Latent

MOST_SERIES = 10_000

EXPONENTS_SCHEMA = pa.schema(
    [
        ("series", pa.string()),
        ("engine", pa.string()),
        ("global_exponent", pa.float64()),
        ("local_exponent", pa.float64()),
        ("mask_ratio", pa.float64()),
        ("latent", pa.string()),
        ("latent_low", pa.float64()),
        ("latent_high", pa.float64()),
        ("points", pa.int64()),
        ("slope", pa.float64()),
        ("slope_low", pa.float64()),
        ("slope_high", pa.float64()),
        ("area_slope", pa.float64()),
        ("area_slope_low", pa.float64()),
        ("area_slope_high", pa.float64()),
        ("predicted", pa.float64()),
        ("bound", pa.float64()),
        ("reduced_slope", pa.float64()),
        ("constant", pa.float64()),
        ("constant_low", pa.float64()),
        ("constant_high", pa.float64()),
        ("correction", pa.float64()),
    ]
)
RUNS_SCHEMA = pa.schema(
    [EXPONENTS_SCHEMA.field("series"), EXPONENTS_SCHEMA.field("mask_ratio"), *POINTS_SCHEMA]
)
FROM_BASE = {"world.patches": "scale runs over it; give --patches LOW HIGH"}


def run_rates(
    config_mapping: Mapping[str, Any],
    out: str | Path | None,
    axes: Sequence[Axis],
    *,
    low: float,
    high: float,
    points: int = 9,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run `run_scale`'s series at every point of the axes' product; return the summary and, where ``out`` is given,
    write the run directory. Raises InputError, naming the series, before anything is run."""
    series = list(crossed(config_mapping, axes, low, high, points))
    if out is None:
        return run_series(series, axes, progress)
    with RunDirectory(out, overwrite=overwrite) as folder:
        summary = run_series(series, axes, progress)
        _write(folder, config_mapping, axes, summary, command)
    return summary


def crossed(
    mapping: Mapping[str, Any], axes: Sequence[Axis], low: float, high: float, points: int
) -> Iterator[tuple[str, list[SimulationConfig]]]:
    """Every point of the axes' product: what it is called, and its configurations over P."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if key in FROM_BASE:
            raise InputError(f"scale: {key} is no axis here: {FROM_BASE[key]}.")
        if keys.count(key) > 1:
            raise InputError(f"scale: {key} is crossed twice; give all its values in one --over.")
    number = 1
    for axis in axes:
        number *= len(axis.values)
    if number > MOST_SERIES:
        raise InputError(
            f"scale: the axes cross at {number} points, at most {MOST_SERIES}; give fewer values."
        )
    for values in product(*(axis.values for axis in axes)):
        over: dict[str, Any] = dict(mapping)
        for axis, value in zip(axes, values, strict=True):
            over = laid_over(over, axis.key.split("."), value)
        name = ", ".join(
            f"{key.rpartition('.')[2]} = {label(v)}" for key, v in zip(keys, values, strict=True)
        )
        try:
            yield name, configs_over(over, low, high, points)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None


def laid_over(mapping: Mapping[str, Any], path: Sequence[str], value: object) -> dict[str, Any]:
    """The mapping with a value at a path; a whole table replaces the one that is there, and of a latent's two ways to
    be given the new one replaces the old."""
    first, *rest = path
    below = mapping.get(first, {})
    if rest:
        if first == "latent":
            others = ("low", "high") if rest == ["values"] else ("values",)
            below = {key: one for key, one in below.items() if key not in others}
        value = laid_over(below, rest, value)
    return {**mapping, first: value}


def series_record(name: str, config: SimulationConfig, evidence: PointsEvidence) -> dict[str, Any]:
    """What a series says of its exponent: see EXPONENTS_SCHEMA."""
    slope, area, reduced = (
        evidence.line("half_time"),
        evidence.over_area(),
        evidence.line("reduced_half_time"),
    )
    constant = evidence.constant()
    ends = (
        [None] * 3
        if constant is None
        else [exp(constant.at_zero + side * constant.at_zero_width) for side in (0, -1, 1)]
    )
    return {
        "series": name,
        "engine": config.dynamics.engine,
        "global_exponent": config.world.global_exponent,
        "local_exponent": config.world.local_exponent,
        "mask_ratio": config.objective.mask_ratio,
        "latent": latent_words(config.world.latent),
        "latent_low": config.world.latent.support[0],
        "latent_high": config.world.latent.support[1],
        "points": 0 if slope is None else slope.points,
        **{f"slope{end}": value for end, value in _ends(slope)},
        **{f"area_slope{end}": value for end, value in _ends(area)},
        "predicted": evidence.predicted,
        "bound": evidence.bound if evidence.is_local else None,
        "reduced_slope": None if reduced is None else reduced.slope,
        "constant": ends[0],
        "constant_low": ends[1],
        "constant_high": ends[2],
        "correction": None if constant is None else constant.slope,
    }


def _ends(line: Line | None) -> list[tuple[str, float | None]]:
    if line is None:
        return [("", None), ("_low", None), ("_high", None)]
    return [("", line.slope), ("_low", line.low), ("_high", line.high)]


def latent_words(latent: Latent) -> str:
    """A law in a few words: its constant, its ends, or its values with their numbers.

    >>> latent_words(Latent(low=0.5, high=1.5)), latent_words(Latent(values=(0.2, 0.2, 1.8)))
    ('0.5 to 1.5', '2 × 0.2, 1.8')
    """
    low, high = latent.support
    if low == high:
        return f"{low:g}"
    if latent.values is None:
        return f"{low:g} to {high:g}"
    counted = [(latent.values.count(value), value) for value in latent.atoms or ()]
    return ", ".join(f"{number} × {value:g}" if number > 1 else f"{value:g}" for number, value in counted)


def run_series(
    series: Sequence[tuple[str, list[SimulationConfig]]],
    axes: Sequence[Axis],
    progress: Progress | None = None,
) -> dict[str, Any]:
    records, runs, verdicts, statuses = [], [], [], []
    warnings: set[str] = set()
    seconds = 0.0
    for index, (name, configs) in enumerate(series):
        points = []
        for done, config in enumerate(configs):
            if progress is not None:
                progress(
                    (index + done / len(configs)) / len(series), f"{name}, P = {config.world.patches:.3g}"
                )
            simulation = simulate_config(config)
            statuses.append(simulation.summary["status"])
            warnings.update(simulation.summary["warnings"])
            seconds += simulation.summary["seconds"]
            points.append(point_of(simulation))
        evidence = evidence_of(configs[0], points, "patches")
        records.append(series_record(name, configs[0], evidence))
        ratio = configs[0].objective.mask_ratio
        runs += [{"series": name, "mask_ratio": ratio, **point} for point in points]
        verdicts += [verdict.as_dict() | {"world": name} for verdict in judge_points(evidence)]
    verdicts += [verdict.as_dict() | {"world": "all runs"} for verdict in judge_grid(GridEvidence(runs))]
    order = {claim.name: place for place, claim in enumerate(CLAIMS)}
    bad = [status for status in statuses if status not in ("stopped", "finished")]
    return {
        "status": bad[0] if bad else statuses[0],
        "axes": {axis.key: [label(value) for value in axis.values] for axis in axes},
        "series": records,
        "claims": sorted(verdicts, key=lambda verdict: order[verdict["claim"]]),
        "points": runs,
        "warnings": sorted(warnings),
        "seed": series[0][1][0].seed,
        "versions": versions(),
        "seconds": seconds,
    }


def _write(
    folder: Path, mapping: Mapping[str, Any], axes: Sequence[Axis], summary: dict[str, Any], command: str
) -> None:
    from mimlab.report import Section, draw_rates, write_page
    from mimlab.report.pages import claim_sections
    from mimlab.runs.tables import write_json, write_table

    write_toml(folder / "config.toml", merge(DEFAULTS, mapping))
    write_json(folder / "axes.json", summary["axes"])
    records, runs = summary["series"], summary["points"]
    write_table(folder / "exponents.parquet", pa.Table.from_pylist(records, schema=EXPONENTS_SCHEMA))
    write_table(folder / "points.parquet", pa.Table.from_pylist(runs, schema=RUNS_SCHEMA))
    (folder / "figures").mkdir(exist_ok=True)
    draw_rates(records, runs, folder / "figures/rates.png")
    shown = ("series", "slope", "predicted", "reduced_slope", "bound", "constant")
    sections = [
        Section(
            "Exponents",
            "Left, the exponent of the half-attention time in P, with its interval, against 1-κs (1-κc for a global "
            "query); the paper's bound above it. Right, how fast the global feature falls at first over how fast the "
            "own one rises, against (1-γ)P^Δ_p: above 1 a row has two phases.",
            figures=["figures/rates.png"],
            rows=[{name: record[name] for name in shown} for record in records],
        ),
        *claim_sections(summary["claims"]),
    ]
    low, high = (f"{end(run['patches'] for run in runs):.3g}" for end in (min, max))
    lead = f"{len(records)} series from P = {low} to {high}, one at each point of {', '.join(a.key for a in axes)}."
    facts = {"Engine": sorted({record["engine"] for record in records}), "Versions": summary["versions"]}
    write_page(folder / "report.html", "Rates over several worlds", lead, sections, command, facts)
    write_json(folder / "summary.json", summary)
