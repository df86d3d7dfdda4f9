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

from mimlab.claims.catalogue import CLAIMS
from mimlab.dynamics.integrators import Progress
from mimlab.runs import InputError, RunDirectory
from mimlab.runs.checks import installed
from mimlab.runs.tables import write_json
from mimlab.studies import diversity, world_jobs
from mimlab.studies.every_query import ask_photograph
from mimlab.studies.explored import explore
from mimlab.studies.outcomes import AGAIN, Job, Outcome
from mimlab.studies.pretrain import MODULES
from mimlab.studies.probe_at_work import probe_at_work
from mimlab.studies.published import compare_published, find_published, published_command
from mimlab.studies.rate_jobs import between, boundary, partitions
from mimlab.studies.single import versions
from mimlab.studies.survived import survived
from mimlab.studies.trained import chosen, collect, statuses, train
from mimlab.studies.training_verdicts import NETWORKS, not_recorded, pretraining, recorded
from mimlab.studies.weighted import weighted_ladder


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
        outcomes.append(world_jobs.survey([record for o in photographs for record in o.records], folder))
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
    first = [*diversity.jobs(), weighted_ladder, ask_photograph, explore, probe_at_work]
    return [*first, boundary, between, partitions, *world_jobs.jobs(), survived]


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
