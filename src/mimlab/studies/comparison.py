"""Runs beside each other: their tables joined, one set of figures, one page. Nothing is measured again.

Runs of the probe give what they measured. A pretraining run gives the whole course of its training where all runs are
such, and beside runs of the probe its end, with its start in the place of random weights. A model that several runs
measured is named with its run, a pretraining run by its folder. What differs between the runs (numbers of patches,
images) is said among the warnings: entropies, information and NMI of different numbers of patches must not be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mimlab.report.pretrain_page import (
    comparison_warnings,
    draw_pretrain_comparison,
    write_pretrain_comparison,
)
from mimlab.report.pretrain_tables import MAPS, PICTURE, SHARES, PretrainRun, PretrainSummary, as_probed
from mimlab.report.probe_page import (
    ProbeRun,
    draw_comparison_figures,
    joined,
    write_comparison_page,
)
from mimlab.report.probe_tables import LAYERS_SCHEMA, warnings_of
from mimlab.runs import InputError, RunDirectory, write_toml
from mimlab.runs.directory import distinct_names
from mimlab.runs.tables import read_json, read_table, write_json, write_table
from mimlab.studies.single import versions

NEEDED = ("models", "images", "source", "skipped", "warnings", "command", "versions")
"""Keys of a probe run's summary.json that a comparison reads."""
TRAINED = tuple(PretrainSummary.__annotations__)
"""The same of a pretraining run."""


def run_comparison(
    runs: Sequence[str | Path], out: str | Path, *, overwrite: bool = False, command: str = ""
) -> tuple[dict[str, Any], pa.Table]:
    """Join runs of the probe or of pretraining into the run directory `out`; return its summary and table of layers.

    Raises InputError, before anything is written, for fewer than two runs, the same run twice, and a folder that is
    no finished run of either.
    """
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise InputError(f"compare: {len(folders)} run given; give at least two")
    twice = [str(path) for path, count in Counter(f.resolve() for f in folders).items() if count > 1]
    if twice:
        raise InputError(f"compare: {twice[0]} is given more than once; give each run once")
    RunDirectory(out, overwrite=overwrite).check()
    found = [_read(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]
    trained = [run for run in found if isinstance(run, PretrainRun)]
    whole = len(trained) == len(found)
    probed = [run if isinstance(run, ProbeRun) else _as_probe_run(run) for run in found]
    models, layers = joined(probed)
    images = [(run.summary["images"], run.summary["source"]) for run in probed]
    summary = {
        "status": "finished",
        "models": models,
        "runs": [
            {"name": run.name, "folder": str(folder), "images": count, "source": source}
            for run, folder, (count, source) in zip(found, folders, images, strict=True)
        ],
        "warnings": comparison_warnings(trained) if whole else _warnings(probed),
        "command": command,
        "versions": versions(),
    }
    with RunDirectory(out, overwrite=overwrite) as folder:
        (folder / "figures").mkdir(exist_ok=True)
        if whole:
            write_pretrain_comparison(folder, trained, draw_pretrain_comparison(folder, trained), command)
            write_table(folder / "statistics.parquet", _named({run.name: run.statistics for run in trained}))
            shares = {run.name: run.shares for run in trained if run.shares is not None}
            if shares:
                write_table(folder / SHARES, _named(shares))
        else:
            write_comparison_page(folder, probed, draw_comparison_figures(folder, probed), command)
        write_toml(folder / "config.toml", {"runs": [str(one) for one in folders]})
        write_table(folder / "layers.parquet", layers)
        write_json(folder / "summary.json", summary)
    return summary, layers


def _warnings(runs: Sequence[ProbeRun]) -> list[str]:
    """Those of each run, and what must not be compared."""
    found = [f"{run.name}: {one}" for run in runs for one in run.summary["warnings"]]
    known = {one for run in runs for one in run.summary["warnings"]}
    found += [one for one in warnings_of(*joined(runs)) if one not in known]
    if len({(run.summary["images"], run.summary["source"]) for run in runs}) > 1:
        told = "; ".join(f"{run.name}: {run.summary['images']} from {run.summary['source']}" for run in runs)
        found.append(f"the runs measured different images ({told}): differences may be those of the images")
    return found


def _read(folder: Path, name: str) -> ProbeRun | PretrainRun:
    """One run. Raises InputError where it is neither of the probe nor of pretraining."""
    if not (folder / "summary.json").is_file():
        raise InputError(
            f"{folder} is no finished run: it holds no summary.json; give folders that mimlab probe or mimlab pretrain "
            "wrote"
        )
    summary = read_json(folder / "summary.json")
    keys = set(summary) if isinstance(summary, dict) else set()
    if keys.issuperset(TRAINED) and (folder / "statistics.parquet").is_file():
        return _read_trained(folder, name, summary)
    if not keys.issuperset(NEEDED) or not (folder / "layers.parquet").is_file():
        raise InputError(
            f"{folder} is no run of mimlab probe or mimlab pretrain; give folders that one of these wrote"
        )
    layers = read_table(folder / "layers.parquet")
    if layers.schema != LAYERS_SCHEMA:
        raise InputError(
            f"{folder}/layers.parquet has other columns than this version writes ({', '.join(LAYERS_SCHEMA.names)}); "
            "run mimlab probe again"
        )
    return ProbeRun(name, summary, layers)


def _read_trained(folder: Path, name: str, summary: PretrainSummary) -> PretrainRun:
    """A pretraining run, with the query that it followed and the shares that it measured, where these were kept."""
    from PIL import Image

    statistics = read_table(folder / "statistics.parquet")
    if not len(statistics) or not summary["layers"]:
        raise InputError(
            f"{folder}/statistics.parquet is empty: nothing was watched, so there is nothing to compare"
        )
    shares = read_table(folder / SHARES) if (folder / SHARES).is_file() else None
    if not (folder / MAPS).is_file() or not (folder / PICTURE).is_file():
        return PretrainRun(name, summary, statistics, shares=shares)
    with Image.open(folder / PICTURE) as picture:
        pixels = np.array(picture.convert("RGB"))
    return PretrainRun(name, summary, statistics, read_table(folder / MAPS), pixels, shares)


def _as_probe_run(run: PretrainRun) -> ProbeRun:
    """The end of a pretraining run as the probe would have measured it."""
    told = run.summary
    summary: Any = {
        "models": [run.model],
        "images": told["crops"],
        "source": told["held_out"],
        "skipped": [],
        "warnings": [*told["alarms"], *told["warnings"]],
        "command": told["command"],
        "versions": told["versions"],
    }
    return ProbeRun(run.name, summary, as_probed(run))


def _named(tables: Mapping[str, pa.Table]) -> pa.Table:
    """Tables of several runs as one, each row with its run's name."""
    return pa.concat_tables(
        table.add_column(0, "run", pa.array([name] * len(table), pa.string()))
        for name, table in tables.items()
    )
