"""``mimlab reproduce``: every claim, on the worlds of ``studies.worlds`` and on photographs, as one page.

Jobs are independent and run in worker processes, one per core. Each draws its own figures and leaves its run
directory under worlds/, so that the page can be checked against the tables. The probe has two: one that needs no
weights, and the paper's comparison on those that are given. Networks are trained after them, one at a time with all
cores, or else what an earlier reproduction recorded is judged again.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from mimlab.claims import judge_points, judge_survey
from mimlab.claims.catalogue import CLAIMS
from mimlab.claims.points import exponents
from mimlab.claims.surveys import SurveyEvidence
from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import Progress
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs import InputError, RunDirectory, build, to_mapping, write_toml
from mimlab.runs.checks import installed
from mimlab.runs.tables import write_json, write_table
from mimlab.studies import contrastive_worlds, copying, diversity, worlds
from mimlab.studies.commands import command_for, scale_command_for
from mimlab.studies.every_query import ask_photograph
from mimlab.studies.explored import explore
from mimlab.studies.negatives import negatives_job
from mimlab.studies.outcomes import AGAIN, Job, Outcome, Setting
from mimlab.studies.pretrain import MODULES
from mimlab.studies.probe_at_work import probe_at_work
from mimlab.studies.published import compare_published, find_published, published_command
from mimlab.studies.rate_jobs import between, boundary, partitions
from mimlab.studies.scaling import POINTS_SCHEMA, configs_over, curves, evidence_of, point_of
from mimlab.studies.single import (
    PHOTOGRAPH,
    Simulation,
    draw_simulation,
    simulate_config,
    versions,
    write_tables,
)
from mimlab.studies.survey import SURVEY_SCHEMA, survey_config, survey_photograph, survey_queries
from mimlab.studies.trained import chosen, collect, statuses, train
from mimlab.studies.training_verdicts import NETWORKS, not_recorded, pretraining, recorded
from mimlab.studies.weighted import weighted_ladder
from mimlab.world.photograph import bundled_photographs
from mimlab.world.world import World

LONG = ("scale-sampled", "scale-contrastive")  # series that are begun first
SHOWN = ("rocket", "coffee")  # photographs over which attention is drawn: gaps above, and on both sides of, 0


def run_reproduce(
    out: str | Path,
    *,
    published: Sequence[str] = (),
    images: Sequence[Path] | None = None,
    training: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    command: str = AGAIN,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge every claim and write the run directory; return the summary, whose ``claims`` are the verdicts, each with
    its world and what was expected there.

    published: pretrained models for the paper's comparison, by names as `find_published` takes them. images: on which
    they are measured; None: scikit-image's photographs. training: "default" or "full", which networks are trained;
    None: what was recorded is judged. An interrupted reproduction that trains leaves its runs for ``resume``, which
    makes the rest. Raises InputError for bad input, and where ``out`` cannot be had, before anything is run.
    """
    began = perf_counter()
    if training is not None:
        installed("--with-training", MODULES, "train")
    compared = comparison(published, images)
    directory = RunDirectory(out, overwrite=overwrite, resume=resume, keep=training is not None)
    directory.check()
    if resume and training is None:
        raise InputError("--resume goes on with networks that are trained: give --with-training, too")
    if (directory.partial / NETWORKS).exists() and not (resume or overwrite):
        raise InputError(
            f"{directory.partial} holds networks of an interrupted reproduction; go on with --with-training --resume, "
            "or begin anew with --overwrite"
        )
    with directory as folder:
        for name in ("figures", "worlds", "published"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("figures", "worlds"):
            (folder / name).mkdir()
        outcomes = run_jobs([compared, *jobs()], folder, progress)
        outcomes.append(_pretraining(training, folder, progress))
        outcomes.append(diversity.beside_networks(outcomes, folder))
        photographs = [o for o in outcomes if o.job.startswith("photograph ")]
        outcomes.append(_survey([record for o in photographs for record in o.records], folder))
        order = {claim.name: place for place, claim in enumerate(CLAIMS)}
        verdicts = sorted((v for o in outcomes for v in o.verdicts), key=lambda v: order[v["claim"]])
        bad = [s for o in outcomes for s in o.statuses if s.startswith(("failed", "diverged"))]
        summary = {
            "status": bad[0] if bad else "finished",
            "claims": verdicts,
            "published": list(outcomes[0].records),
            "runs": {o.job: list(o.statuses) for o in outcomes if o.statuses},
            "versions": versions(),
            "seconds": perf_counter() - began,
        }
        _write_page(folder, outcomes, summary, command)
        write_json(folder / "summary.json", summary)
    return summary


def _pretraining(training: str | None, folder: Path, progress: Progress | None) -> Outcome:
    """Networks trained, or what was recorded of such."""
    if training is None:
        kept = recorded()
        return not_recorded() if kept is None else pretraining(kept[0], folder, kept[1])
    runs, networks = chosen(training == "full"), folder / NETWORKS
    train(runs, networks, progress=progress)
    outcome = pretraining(collect(runs, networks), folder)
    return replace(outcome, statuses=statuses(runs, networks))


def comparison(published: Sequence[str], images: Sequence[Path] | None) -> Job:
    """The job that compares pretrained models. Raises InputError for names that mean none."""
    if not published:
        if images:
            raise InputError("images: they are for the models of --published; give those, or no images")
        return partial(compare_published, {}, None, published_command(["weights/"], None))
    installed("published", ("torch", "transformers"), "probe")
    return partial(compare_published, find_published(published), images, published_command(published, images))


def jobs() -> list[Job]:
    """All jobs that need no weights, those that take long first."""
    listed = [*worlds.SERIES, *contrastive_worlds.CONTRASTIVE_SERIES]
    series = [partial(_series, one) for one in sorted(listed, key=lambda s: s.name not in LONG)]
    photographs = [partial(_photograph, name, str(path)) for name, path in bundled_photographs().items()]
    runs = [partial(_run, one) for one in (*contrastive_worlds.CONTRASTIVE_RUNS, *worlds.RUNS, *copying.RUNS)]
    negatives = [partial(negatives_job, temperature) for temperature in contrastive_worlds.TEMPERATURES]
    first = [
        weighted_ladder,
        ask_photograph,
        explore,
        probe_at_work,
        boundary,
        between,
        partitions,
        _area_sizes,
    ]
    return [*diversity.jobs(), *first, *series, *negatives, *photographs, *runs]


def run_jobs(work: Sequence[Job], folder: Path, progress: Progress | None = None) -> list[Outcome]:
    """Run jobs in a process per core (in this process on a single core), in any order; outcomes in the given order."""
    workers = min(len(os.sched_getaffinity(0)), len(work))
    found: dict[int, Outcome] = {}

    def done(index: int, outcome: Outcome) -> None:
        found[index] = outcome
        if progress is not None:
            progress(len(found) / len(work), outcome.job)

    if workers < 2:
        for index, job in enumerate(work):
            done(index, job(folder))
        return [found[index] for index in range(len(work))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _leave_interrupts_to_the_parent) as pool:
        pending = {pool.submit(job, folder): index for index, job in enumerate(work)}
        try:
            for future in as_completed(pending):
                done(pending[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    return [found[index] for index in range(len(work))]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(run: worlds.Run, folder: Path) -> Outcome:
    config = build(SimulationConfig, run.config)
    again = command_for(config, f"runs/{run.name}")
    if run in copying.RUNS and (verdicts := copying.without_torch()) is not None:
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
        files = figures.get(shown.get(verdict["claim"], "correlations"))
        records += setting.records([verdict], files[0] if files else None)
    return Outcome(run.name, records, figures, [simulation.summary["status"]])


def _series(series: worlds.Series, folder: Path) -> Outcome:
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


def _drawn(simulation: Simulation, home: Path, kinds: Sequence[str]) -> dict[str, list[str]]:
    """Figures of a run in worlds/, by kind, relative to the page."""
    drawn = draw_simulation(simulation, home, kinds)
    return {kind: [f"worlds/{home.name}/{file}" for file in files] for kind, files in drawn.items()}


def _area_sizes(folder: Path) -> Outcome:
    """Position correlations against the size of the own area, at one P."""
    from mimlab.report import draw_exponents

    patches = int(worlds.LOCAL_AND_LARGE["patches"])
    large = round(patches ** worlds.LOCAL_AND_LARGE["global_exponent"])
    points, statuses = [], []
    for size in worlds.AREA_SIZES:
        count, rest = divmod(patches - large, size)  # the global area takes what does not fill a local one
        config = SimulationConfig(World(area_sizes=(large + rest, *[size] * count)))
        simulation = simulate_config(config)
        points.append(point_of(simulation) | {"own_area_rest": size - 1})
        statuses.append(simulation.summary["status"])
    evidence = evidence_of(config, points, "area_size")
    home = folder / "worlds" / "area-sizes"
    home.mkdir()
    write_table(home / "points.parquet", pa.Table.from_pylist(points, schema=POINTS_SCHEMA))
    line = evidence.line("upsilon_over_phi")
    fit = {} if line is None else {"slope": line.slope, "low": line.low, "high": line.high}
    figure, quantity, axis = "figures/area-sizes.png", "upsilon_over_phi", "own_area_rest"
    plotted = [{axis: p[axis], "quantity": quantity, "value": p[quantity]} for p in points]
    fits = [{"quantity": quantity, "predicted": -1.0, **fit}]
    draw_exponents(plotted, fits, folder / figure, x=axis, x_label="other patches of the own area, $C_a - 1$")
    sizes = f"{worlds.AREA_SIZES[0]} to {worlds.AREA_SIZES[-1]}"
    label = f"P = {patches}, own areas of {sizes} patches, constant latents: Υ/Φ ≈ 1/(C_a - 1)"
    records = Setting("area-sizes", label, {}).records(judge_points(evidence), figure)
    return Outcome("area-sizes", records, {"exponents": [figure]}, statuses)


def _photograph(name: str, path: str, folder: Path) -> Outcome:
    figures: dict[str, list[str]] = {}
    if name in SHOWN:
        simulation = simulate_config(survey_config(path, survey_queries(World(image=path))[0]))
        home = folder / "worlds" / f"photograph-{name}"
        home.mkdir()
        write_tables(simulation, home)
        figures = _drawn(simulation, home, PHOTOGRAPH)
    records = survey_photograph(path)
    return Outcome(f"photograph {name}", figures=figures, records=records)


def _survey(records: Sequence[dict[str, Any]], folder: Path) -> Outcome:
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


def _write_page(folder: Path, outcomes: Sequence[Outcome], summary: dict[str, Any], command: str) -> None:
    from mimlab.report import Section, reproduce_page

    pictures = {o.job: o.figures for o in outcomes if "photograph" in o.figures}
    sections = [
        Section(
            f"Attention over a photograph: {job.removeprefix('photograph ')}",
            "Where attention from the outlined patch goes at the start, at each phase's end and at the end of "
            "training, on the unmasked photograph with every latent at its mean; each panel has its own scale. Below, "
            "the areas that the photograph was divided into.",
            figures=[*figures["photograph"], *figures["segmentation"]],
            command=AGAIN,
        )
        for job, figures in pictures.items()
    ]
    # what comes last is told first
    sections += [section for o in reversed(outcomes) for section in o.sections]
    facts = {"Seconds": round(summary["seconds"], 1), "Versions": summary["versions"]}
    lead = (
        "Each claim of the theory of masked image modeling, judged on worlds where it should hold and, for some, on "
        "worlds where it should not. Every verdict gives what was measured with its 95% interval, the threshold, and "
        "the command that runs it again."
    )
    reproduce_page(folder / "report.html", summary["claims"], command, facts, lead, sections)
