"""Pretraining: a network trained, watched while it trains, evaluated, and written as a run directory.

Everything that can be refused is refused first. What an interrupted run has done stays in DIR.partial, and
`resume` goes on from its last state, to the same weights and the same log as if nothing had happened; so it does
from a run that ended because its minutes were over.

With several processes this function runs in each. The first holds the folder and writes; the others train.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mimlab.dynamics.integrators import Progress
from mimlab.runs import InputError, RunDirectory, build, merge, write_toml
from mimlab.runs.checks import installed
from mimlab.studies.pretrain_looks import EVALUATION, PARTS, Looks
from mimlab.studies.single import versions
from mimlab.training.config import PretrainConfig
from mimlab.training.presets import with_preset

if TYPE_CHECKING:
    from mimlab.training.objectives import Objective

MODULES = ("torch", "transformers", "lightning_fabric", "kornia", "tensorboardX")
LIBRARIES = ("torch", "transformers", "lightning-fabric", "kornia")


@dataclass(frozen=True, eq=False)
class Pretraining:
    """A run that has ended: where it is, its summary, the records of its log, and the table of what was watched
    (columns in docs/file-contract.md). In processes other than the first the tables are empty."""

    folder: Path
    config: PretrainConfig
    summary: dict[str, Any]
    log: list[dict[str, Any]]
    statistics: pa.Table


def pretrain(
    out: str | Path,
    objective: str = "simmim",
    *,
    images: str | Path | None = None,
    preset: str = "laptop",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Pretraining:
    """Pretrain a vision transformer, and write the run directory `out`.

    objective: a name as `mimlab pretrain --objective` takes it. images: a folder; None: photographs of the
    dependencies. preset: "laptop", "workstation", "imagenet". settings: whatever else `PretrainConfig` has, as TOML
    would, for example {"training": {"steps": 100}}; it goes over the preset. tell: called with a sentence for each
    alarm when it is found; the summary has them all. Raises InputError for whatever cannot be done as asked.
    """
    given: dict[str, Any] = {"objective": {"name": objective}, "seed": seed}
    if images is not None:
        given["data"] = {"images": str(images)}
    whole = with_preset(preset, merge(given, settings or {}))
    config = build(PretrainConfig, whole, "pretrain")
    return run_pretrain(config, out, overwrite=overwrite, resume=resume, progress=progress, tell=tell)


def run_pretrain(
    config: PretrainConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Pretraining:
    """Train as configured and write the run directory. tell: called with each alarm when it is found.

    Raises InputError for bad input before anything is written, also where `resume` finds a run of another
    configuration, and OSError in one line where the disk is full: what was done is then kept for `resume`.
    """
    installed("pretrain", MODULES, "train")
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from mimlab.training.objectives import build_objective

    first = rank_zero_only.rank == 0
    stopped = resume and _is_stopped(Path(out))
    directory = RunDirectory(out, overwrite=overwrite or stopped, resume=resume, keep=True)
    if first:
        ended = (directory.target / "summary.json").is_file() and not (stopped or overwrite)
        _check(config, directory, ended, resume, overwrite)
    source, objective = Stream(config), build_objective(config)
    if not first:
        return _train(config, directory.partial, objective, source, command, None, None)
    with directory as folder:
        try:
            if stopped:
                _take_over(directory.target, folder)
            run = _train(config, folder, objective, source, command, progress, tell)
        except InputError:
            if not resume:
                shutil.rmtree(folder)
            raise
    return replace(run, folder=directory.target)


def _train(
    config: PretrainConfig,
    folder: Path,
    objective: Objective,
    source: Stream,
    command: str,
    progress: Progress | None,
    tell: Callable[[str], None] | None,
) -> Pretraining:
    """Train in a folder, and write there what a reader needs."""
    from mimlab.runs.tables import write_json, write_table
    from mimlab.training import loop
    from mimlab.training.checkpoints import STATE, Journal
    from mimlab.training.log import LOG
    from mimlab.training.schedule import total_steps

    looks = Looks(config, folder, total_steps(config, source.images), tell)
    fabric = loop.launch(config.training)
    if fabric.is_global_zero:
        looks.keep_crops()
    outcome = loop.pretrain(
        objective, source, config, folder, fabric=fabric, on_step=looks, progress=progress
    )
    if not fabric.is_global_zero:
        return Pretraining(folder, config, {"status": outcome.status}, [], looks.empty)
    log = Journal(folder / LOG).records()
    statistics, maps, shares = looks.tables()
    summary = looks.summary(objective, outcome, log) | {
        "skipped": sorted(source.skipped.items()),
        "warnings": [f"{len(source.skipped)} images could not be used: see skipped"]
        if source.skipped
        else [],
        "seed": config.seed,
        "command": command,
        "versions": versions() | {name: version(name) for name in LIBRARIES},
    }
    if progress is not None:
        progress(1.0, "figures and page")
    write_toml(folder / "config.toml", config)
    write_table(folder / "statistics.parquet", statistics)
    write_table(folder / "maps.parquet", maps)
    write_table(folder / "shares.parquet", shares)
    looks.draw(objective, summary, log, statistics, maps, shares)
    if not outcome.status.startswith("stopped"):  # what has ended needs no state to go on from
        (folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        (folder / EVALUATION).unlink(missing_ok=True)
    write_json(folder / "summary.json", summary)
    return Pretraining(folder, config, summary, log, statistics)


class Stream:
    """The training images as the loop asks for them; files that could not be used are kept in `skipped`."""

    def __init__(self, config: PretrainConfig) -> None:
        from mimlab.training.sources import training_source

        self.source = training_source(config)
        self.images: int = self.source.images
        self.skipped: dict[str, str] = {}

    def batches(self, numbers: Iterator[int]) -> Iterator[Any]:
        """The batches of these numbers, in order."""
        for batch in self.source.batches(numbers):
            self.skipped |= dict(batch.skipped)
            yield batch


def _check(
    config: PretrainConfig, directory: RunDirectory, ended: bool, resume: bool, overwrite: bool
) -> None:
    """Refuse a folder that cannot be had, a run that cannot go on as this one, and to lose one without a word."""
    from mimlab.training.checkpoints import STATE, load_state
    from mimlab.training.loop import refuse_other

    if resume and ended:
        raise InputError(f"{directory.target} has ended: there is nothing to resume; --overwrite begins anew")
    directory.check()
    if (directory.partial / STATE).is_file() and not (resume or overwrite):
        raise InputError(
            f"{directory.partial} holds an interrupted run; go on with --resume, or begin anew with --overwrite"
        )
    if resume:
        for folder in (directory.partial, directory.target):
            state = load_state(folder)
            if state is not None:
                refuse_other(state["config"], config, folder)
                return


def _is_stopped(target: Path) -> bool:
    """Whether a run is there that ended before its last step, and can go on."""
    from mimlab.runs.tables import read_json
    from mimlab.training.checkpoints import STATE

    if not (target / STATE).is_file() or not (target / "summary.json").is_file():
        return False
    return str(read_json(target / "summary.json").get("status")).startswith("stopped")


def _take_over(target: Path, folder: Path) -> None:
    """Copy what a stopped run needs to go on; the state comes last, so that half a copy is none."""
    from mimlab.training.checkpoints import CHECKPOINTS, STATE

    if (folder / STATE).exists():
        return
    for name in (CHECKPOINTS, PARTS):
        if (target / name).exists():
            shutil.copytree(target / name, folder / name, dirs_exist_ok=True)
    for path in target.glob("*.jsonl"):
        shutil.copy2(path, folder)
    shutil.copy2(target / STATE, folder / f"{STATE}.new")
    (folder / f"{STATE}.new").rename(folder / STATE)
