"""The jobs of ``mimlab reproduce`` that simulate: single runs, series, one thing that differs at one P, photographs.

Each leaves its run directory under worlds/ and its figures there or under figures/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.claims import judge_points, judge_survey
from mimlab.claims.points import exponents
from mimlab.claims.surveys import SurveyEvidence
from mimlab.dynamics.config import SimulationConfig
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs import build, to_mapping, write_toml
from mimlab.runs.tables import write_table
from mimlab.studies import contrastive_worlds, copying, relaxed_worlds, worlds
from mimlab.studies.commands import command_for, scale_command_for
from mimlab.studies.outcomes import AGAIN, Job, Outcome, Setting
from mimlab.studies.scaling import POINTS_SCHEMA, configs_over, curves, evidence_of, point_of
from mimlab.studies.single import PHOTOGRAPH, Simulation, draw_simulation, simulate_config, write_tables
from mimlab.studies.survey import SURVEY_SCHEMA, survey_config, survey_photograph, survey_queries
from mimlab.world.photograph import bundled_photographs
from mimlab.world.world import World

LONG = ("scale-sampled", "scale-contrastive")  # series that are begun first
SHOWN = ("rocket", "coffee")  # photographs over which attention is drawn: gaps above, and on both sides of, 0


def jobs() -> list[Job]:
    """All of them, those that take long first."""
    listed = [*worlds.SERIES, *contrastive_worlds.CONTRASTIVE_SERIES]
    series = [partial(series_job, one) for one in sorted(listed, key=lambda s: s.name not in LONG)]
    differing: list[Job] = [area_sizes, *(partial(negatives, one) for one in contrastive_worlds.TEMPERATURES)]
    photographs = [partial(photograph_job, name, str(path)) for name, path in bundled_photographs().items()]
    runs = (
        *relaxed_worlds.RELAXED_RUNS,
        *contrastive_worlds.CONTRASTIVE_RUNS,
        *worlds.RUNS,
        *copying.RUNS,
    )
    return [*series, *differing, *photographs, *(partial(run_job, one) for one in runs)]


def run_job(run: worlds.Run, folder: Path) -> Outcome:
    """One run and its verdicts."""
    config = build(SimulationConfig, run.config)
    again = command_for(config, f"runs/{run.name}")
    needs_torch = config.dynamics.engine == "dense"
    if needs_torch and (verdicts := copying.without_torch(config.objective.name)) is not None:
        expected = {verdict["claim"]: "inconclusive" for verdict in verdicts}
        return Outcome(run.name, Setting(run.name, run.label, expected, again).records(verdicts, None))
    simulation = simulate_config(config)
    home = folder / "worlds" / run.name
    home.mkdir()
    write_tables(simulation, home)
    figures = _drawn(simulation, home, run.figures)
    shown = {
        "convergence": "excess_loss",
        "final decay": "excess_loss",
        "area-wide attention": "attention",
        "monotone growth": "attention",
    }
    setting = Setting(run.name, run.label, run.expected, again)
    records = []
    for verdict in simulation.summary["claims"]:
        files = figures.get(shown.get(verdict["claim"], "correlations"), next(iter(figures.values()), None))
        records += setting.records([verdict], files[0] if files else None)
    return Outcome(run.name, records, figures, [simulation.summary["status"]])


def _drawn(simulation: Simulation, home: Path, kinds: Sequence[str]) -> dict[str, list[str]]:
    """Figures of a run in worlds/, by kind, relative to the page."""
    drawn = draw_simulation(simulation, home, kinds)
    return {kind: [f"worlds/{home.name}/{file}" for file in files] for kind, files in drawn.items()}


def series_job(series: worlds.Series, folder: Path) -> Outcome:
    """The same world over a range of P."""
    from mimlab.report import draw_exponents

    configs = configs_over(series.config, series.low, series.high, series.points)
    simulations = [simulate_config(config) for config in configs]
    points = [point_of(simulation) for simulation in simulations]
    home = folder / "worlds" / series.name
    home.mkdir()
    write_table(home / "points.parquet", pa.Table.from_pylist(points, schema=POINTS_SCHEMA))
    mapping = to_mapping(configs[0])
    del mapping["world"]["patches"]
    write_toml(home / "config.toml", mapping)
    evidence = evidence_of(configs[0], points, "patches")
    figure = f"figures/{series.name}.png"
    draw_exponents(list(curves(points)), exponents(evidence), folder / figure)
    again = scale_command_for(configs[0], series.low, series.high, series.points, f"runs/{series.name}")
    records = Setting(series.name, series.label, series.expected, again).records(
        judge_points(evidence), figure
    )
    return Outcome(series.name, records, {"exponents": [figure]}, [s.summary["status"] for s in simulations])


@dataclass(frozen=True)
class Differing:
    """Runs at one P that differ in one thing: ``axis`` of ``PointsEvidence``, and the power of ``x``, the column drawn,
    with which ``quantity`` is to go."""

    name: str
    label: str
    axis: str
    quantity: str
    power: float
    x: str
    x_label: str


def area_sizes(folder: Path) -> Outcome:
    """Position correlations against the size of the own area."""
    patches = int(worlds.LOCAL_AND_LARGE["patches"])
    large = round(patches ** worlds.LOCAL_AND_LARGE["global_exponent"])

    runs = []
    for size in worlds.AREA_SIZES:
        count, rest = divmod(patches - large, size)  # the global area takes what does not fill a local one
        world = World(area_sizes=(large + rest, *[size] * count))
        runs.append(({"own_area_rest": size - 1}, SimulationConfig(world)))
    few, many = worlds.AREA_SIZES[0], worlds.AREA_SIZES[-1]
    label = f"P = {patches}, own areas of {few} to {many} patches, constant latents: Υ/Φ ≈ 1/(C_a - 1)"
    x = ("own_area_rest", "other patches of the own area, $C_a - 1$")
    differing = Differing("area-sizes", label, "area_size", "upsilon_over_phi", -1.0, *x)
    return _differing(differing, runs, AGAIN, folder)


def negatives(temperature: float, folder: Path) -> Outcome:
    """The time of contrastive learning against the number of negatives."""
    world = {**contrastive_worlds.POSITIVE, **contrastive_worlds.CLUSTERS}
    dynamics = {**contrastive_worlds.ALIKE, "stop_attention": 0.5}

    def config(number: int) -> SimulationConfig:
        objective = {"name": "contrastive", "negatives": number, "temperature": temperature}
        return build(SimulationConfig, {"world": world, "objective": objective, "dynamics": dynamics})

    numbers = contrastive_worlds.NEGATIVES
    runs = [({"negatives": n, "more_than_all": 1 + 1 / n}, config(n)) for n in numbers]
    name = f"negatives-temperature-{temperature:g}"
    label = f"P = {world['patches']}, K = 4, τ = {temperature:g}, {numbers[0]} to {numbers[-1]} negatives"
    x = ("more_than_all", "(n + 1)/n of n negatives")
    again = command_for(runs[-1][1], f"runs/{name}")
    differing = Differing(name, f"{label}: the time goes as (n+1)/n", "negatives", "half_time", 1.0, *x)
    return _differing(differing, runs, again, folder)


def _differing(
    what: Differing, runs: Sequence[tuple[dict[str, Any], SimulationConfig]], again: str, folder: Path
) -> Outcome:
    from mimlab.report import draw_exponents

    points = [more | point_of(simulate_config(config)) for more, config in runs]
    home = folder / "worlds" / what.name
    home.mkdir()
    columns = POINTS_SCHEMA
    if what.axis not in columns.names:
        columns = columns.insert(0, pa.field(what.axis, pa.int64()))
    write_table(home / "points.parquet", pa.Table.from_pylist(points, schema=columns))
    evidence = evidence_of(runs[-1][1], points, what.axis)
    line = evidence.line(what.quantity)
    fit = {} if line is None else {"slope": line.slope, "low": line.low, "high": line.high}
    figure = f"figures/{what.name}.png"
    draw_exponents(
        [{what.x: p[what.x], "quantity": what.quantity, "value": p[what.quantity]} for p in points],
        [{"quantity": what.quantity, "predicted": what.power, **fit}],
        folder / figure,
        x=what.x,
        x_label=what.x_label,
    )
    records = Setting(what.name, what.label, {}, again).records(judge_points(evidence), figure)
    return Outcome(what.name, records, {"exponents": [figure]}, [point["status"] for point in points])


def photograph_job(name: str, path: str, folder: Path) -> Outcome:
    """What a photograph's queries give to the survey; of some, figures."""
    figures: dict[str, list[str]] = {}
    if name in SHOWN:
        simulation = simulate_config(survey_config(path, survey_queries(World(image=path))[0]))
        home = folder / "worlds" / f"photograph-{name}"
        home.mkdir()
        write_tables(simulation, home)
        figures = _drawn(simulation, home, PHOTOGRAPH)
    records = survey_photograph(path)
    return Outcome(f"photograph {name}", figures=figures, records=records)


def survey(records: Sequence[dict[str, Any]], folder: Path) -> Outcome:
    """All photographs together."""
    from mimlab.report import draw_survey

    ratio = MaskedReconstruction().mask_ratio
    write_table(folder / "photographs.parquet", pa.Table.from_pylist(list(records), schema=SURVEY_SCHEMA))
    figure = "figures/survey.png"
    draw_survey(records, folder / figure, ratio)
    images = len({record["image"] for record in records})
    label = f"{images} photographs, up to three local patches each, constant latents"
    setting = Setting("photographs", label, worlds.PHOTOGRAPHS_EXPECTED)
    verdicts = setting.records(judge_survey(SurveyEvidence(records, ratio)), figure)
    return Outcome("survey", verdicts, {"survey": [figure]})
