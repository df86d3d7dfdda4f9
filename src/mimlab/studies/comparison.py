"""Probe runs beside each other: their tables joined, one set of figures, one page. Nothing is measured again.

A model that several runs measured is named with its run. What differs between the runs (numbers of patches, images)
is said among the warnings: entropies, information and NMI of different numbers of patches must not be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mimlab.report.probe_page import (
    ProbeRun,
    draw_comparison_figures,
    joined,
    write_comparison_page,
)
from mimlab.report.probe_tables import warnings_of
from mimlab.runs import InputError, RunDirectory, write_toml
from mimlab.runs.tables import read_json, read_table, write_json, write_table
from mimlab.studies.probe_parts import LAYERS_SCHEMA
from mimlab.studies.single import versions

NEEDED = ("models", "images", "source", "skipped", "warnings", "command", "versions")
"""Keys of a probe run's summary.json that a comparison reads."""


def run_comparison(
    runs: Sequence[str | Path], out: str | Path, *, overwrite: bool = False, command: str = ""
) -> tuple[dict[str, Any], pa.Table]:
    """Join probe runs into the run directory `out`; return its summary and its table of layers.

    Raises InputError, before anything is written, for fewer than two runs, the same run twice, and a folder that is
    no finished probe run.
    """
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise InputError(f"compare: {len(folders)} run given; give at least two")
    twice = [str(path) for path, count in Counter(f.resolve() for f in folders).items() if count > 1]
    if twice:
        raise InputError(f"compare: {twice[0]} is given more than once; give each run once")
    RunDirectory(out, overwrite=overwrite).check()
    found = [_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    models, layers = joined(found)
    images = [(run.summary["images"], run.summary["source"]) for run in found]
    warnings = [f"{run.name}: {one}" for run in found for one in run.summary["warnings"]]
    known = {one for run in found for one in run.summary["warnings"]}
    warnings += [one for one in warnings_of(models, layers) if one not in known]
    if len(set(images)) > 1:
        told = "; ".join(
            f"{run.name}: {count} from {source}" for run, (count, source) in zip(found, images, strict=True)
        )
        warnings.append(
            f"the runs measured different images ({told}): differences may be those of the images"
        )
    summary = {
        "status": "finished",
        "models": models,
        "runs": [
            {"name": run.name, "folder": str(folder), "images": count, "source": source}
            for run, folder, (count, source) in zip(found, folders, images, strict=True)
        ],
        "warnings": warnings,
        "command": command,
        "versions": versions(),
    }
    with RunDirectory(out, overwrite=overwrite) as folder:
        (folder / "figures").mkdir(exist_ok=True)
        write_comparison_page(folder, found, draw_comparison_figures(folder, found), command)
        write_toml(folder / "config.toml", {"runs": [str(one) for one in folders]})
        write_table(folder / "layers.parquet", layers)
        write_json(folder / "summary.json", summary)
    return summary, layers


def _names(folders: Sequence[Path]) -> list[str]:
    """A distinct name for each run: its folder's own, with as much of its path as that takes."""
    paths = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def _read(folder: Path, name: str) -> ProbeRun:
    """One run. Raises InputError where it is none of the probe."""
    if not (folder / "summary.json").is_file():
        raise InputError(
            f"{folder} is no finished run: it holds no summary.json; give folders that mimlab probe wrote"
        )
    summary = read_json(folder / "summary.json")
    lacking = [key for key in NEEDED if key not in summary] if isinstance(summary, dict) else list(NEEDED)
    if lacking or not (folder / "layers.parquet").is_file():
        raise InputError(f"{folder} is no run of mimlab probe; give folders that mimlab probe wrote")
    layers = read_table(folder / "layers.parquet")
    if layers.schema != LAYERS_SCHEMA:
        raise InputError(
            f"{folder}/layers.parquet has other columns than this version writes ({', '.join(LAYERS_SCHEMA.names)}); "
            "run mimlab probe again"
        )
    return ProbeRun(name, summary, layers)
