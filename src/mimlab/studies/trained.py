"""Pretraining over seeds: the runs of `studies.training_runs` made, and read into tables.

Four tables hold all that the claims read (`looks`, `evaluations`, `shares`, `photographs`; docs/file-contract.md), so
that they can be kept when the runs, with their weights, cannot: what `mimlab reproduce` shows without training comes
from such tables. A run that has ended is not made again, one that was interrupted goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mimlab.dynamics.integrators import Progress
from mimlab.runs import read_toml, to_mapping
from mimlab.runs.flags import write_flags
from mimlab.runs.tables import read_json, read_table
from mimlab.studies.pretrain_looks import labelled_crops
from mimlab.studies.training_runs import PHOTOGRAPHS, RUNS, SEEDS, TrainingRun, run_folder
from mimlab.training.config import PretrainConfig
from mimlab.world.world import World

STATISTICS = ("nmi", "diversity", "distance_ratio", "positional_nmi")
CROPS = 32
"""Of each photograph, to measure how far attention reaches on it."""
PROBED = 200
"""Crops of each half of each held-out photograph, for features: more than there is time for during training."""

_RUN = [("run", pa.string()), ("seed", pa.int64())]
_AT = [*_RUN, ("step", pa.int64()), ("layer", pa.int64())]
SCHEMAS = {
    "looks": pa.schema([*_AT, ("statistic", pa.string()), ("value", pa.float64())]),
    "evaluations": pa.schema(
        [
            *_AT[:3],
            *(
                (name, pa.float64())
                for name in ("knn", "linear", "chance", "model", "image_mean", "nearest_patch")
            ),
        ]
    ),
    "shares": pa.schema([*_AT, ("component", pa.string()), ("share", pa.float64())]),
    "photographs": pa.schema(
        [("photograph", pa.string()), ("gap", pa.float64()), *_RUN, ("distance_ratio", pa.float64())]
    ),
}
Tables = dict[str, pa.Table]


def chosen(full: bool) -> list[TrainingRun]:
    """The runs of a reproduction."""
    return [run for run in RUNS if full or not run.full]


def train(
    runs: Sequence[TrainingRun], folder: Path, seeds: Sequence[int] = SEEDS, progress: Progress | None = None
) -> None:
    """Make those of the runs that have not ended, each in a folder of its own."""
    from mimlab.studies.pretrain import run_pretrain

    work = [(run, seed) for seed in seeds for run in runs]
    for place, (run, seed) in enumerate(work):
        home = folder / run_folder(run.name, seed)
        config = run.config(seed, folder)
        if (home / "summary.json").is_file():
            _refuse_other(home, config)
            continue

        def told(fraction: float, text: str, place: int = place, name: str = home.name) -> None:
            if progress is not None:
                progress((place + fraction) / len(work), f"training {name}, {text}")

        run_pretrain(config, home, resume=True, command=command_of(run, seed), progress=told)


def _refuse_other(home: Path, config: PretrainConfig) -> None:
    """Raises InputError, key by key, where a run that ended is of another configuration."""
    from mimlab.training.checkpoints import refuse_differences

    there, here = read_toml(home / "config.toml"), to_mapping(config)
    for mapping in (there, here):  # the folder was called otherwise while it was made
        mapping.get("objective", {}).pop("start", None)
    refuse_differences(
        there, here, f"{home} holds a run of another configuration; begin anew with --overwrite"
    )


def statuses(runs: Sequence[TrainingRun], folder: Path, seeds: Sequence[int] = SEEDS) -> list[str]:
    """How finished runs ended; what failed is named."""
    found = []
    for home in (folder / run_folder(run.name, seed) for run in runs for seed in seeds):
        kind, *why = str(read_json(home / "summary.json")["status"]).partition(": ")
        found.append(kind if kind == "finished" else f"{kind}: {home.name}{''.join(why)}")
    return found


def command_of(run: TrainingRun, seed: int) -> str:
    """The command line that makes a run."""
    words = write_flags(run.config(seed, Path("runs")))
    return shlex.join(["mimlab", "pretrain", *words, "--out", f"runs/{run_folder(run.name, seed)}"])


def collect(runs: Sequence[TrainingRun], folder: Path, seeds: Sequence[int] = SEEDS) -> Tables:
    """The tables of finished runs, by name, with the columns of `SCHEMAS`; failed ones are left out."""
    found: dict[str, list[pa.Table]] = {name: [] for name in SCHEMAS}
    for run in runs:
        ended = [seed for seed in seeds if _finished(folder / run_folder(run.name, seed))]
        for seed in ended:
            home = folder / run_folder(run.name, seed)
            statistics = read_table(home / "statistics.parquet")
            statistics = statistics.filter(pc.is_in(statistics["statistic"], pa.array(STATISTICS)))
            means = _means(statistics, ["step", "layer", "statistic"], "value")
            found["looks"].append(_named(means, "looks", run.name, seed))
            shares = _means(read_table(home / "shares.parquet"), ["step", "layer", "component"], "share")
            found["shares"].append(_named(shares, "shares", run.name, seed))
            evaluations = pa.Table.from_pylist(
                _evaluated(home, run.config(seed, folder)), schema=SCHEMAS["evaluations"].remove(0).remove(0)
            )
            found["evaluations"].append(_named(evaluations, "evaluations", run.name, seed))
        if run.name == PHOTOGRAPHS[0].name:
            found["photographs"].append(_photographs(run, folder, ended))
    return {name: pa.concat_tables([SCHEMAS[name].empty_table(), *tables]) for name, tables in found.items()}


def _finished(home: Path) -> bool:
    return str(read_json(home / "summary.json")["status"]) == "finished"


def _evaluated(home: Path, config: PretrainConfig) -> list[dict[str, Any]]:
    """The evaluations of a run, its features asked again, of the checkpoints, on more crops."""
    records = [dict(record) for record in read_json(home / "summary.json")["evaluation"]]
    if config.data.images is None and config.data.world is None:
        from mimlab.probing.hugging import load_directory
        from mimlab.training.checkpoints import checkpoint_folder
        from mimlab.training.evaluation import which_photograph

        crops = labelled_crops(config.network.image_size, config.data.crop, PROBED)
        for record in records:
            encoder, _ = load_directory(checkpoint_folder(home, record["step"]))
            record.update(which_photograph(encoder, *crops))
    return records


def _means(table: pa.Table, keys: list[str], value: str) -> pa.Table:
    """Means over heads."""
    grouped = table.group_by(keys, use_threads=False).aggregate([(value, "mean")])
    return grouped.rename_columns([*keys, value])


def _named(table: pa.Table, name: str, run: str, seed: int) -> pa.Table:
    columns = {key: table[key] for key in table.column_names}
    count = len(table)
    return (
        pa.table({"run": [run] * count, "seed": [seed] * count, **columns})
        .select(SCHEMAS[name].names)
        .cast(SCHEMAS[name])
    )


def _photographs(run: TrainingRun, folder: Path, seeds: Sequence[int]) -> pa.Table:
    """How far a run's attention reaches on each photograph of the dependencies, beside its gap."""
    from mimlab.training.photographs import HELD_OUT, TRAINING

    rows = []
    for seed in seeds:
        reached = _reached(folder / run_folder(run.name, seed), run.config(seed, folder).data.crop)
        for photograph in (*TRAINING, *HELD_OUT):
            rows.append(
                {
                    "photograph": photograph.name,
                    "gap": median_gap(str(photograph.path)),
                    "run": run.name,
                    "seed": seed,
                    "distance_ratio": reached[photograph.name],
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMAS["photographs"])


@cache
def median_gap(path: str) -> float | None:
    """Median Δ_p over the local patches of a photograph; None where it is one area."""
    gaps = World(image=path).statistics().patch_gaps
    if not gaps:
        return None
    return float(np.median(np.repeat([one.gap for one in gaps], [one.patches for one in gaps])))


def _reached(home: Path, windows: tuple[int, int]) -> dict[str, float]:
    """Distance ratio of a run's last encoder on crops of each photograph, mean over layers, heads and crops."""
    import torch

    from mimlab.probing.capture import capture
    from mimlab.probing.hugging import load_directory
    from mimlab.training.checkpoints import latest_checkpoint
    from mimlab.training.crops import Crops
    from mimlab.training.photographs import HELD_OUT, TRAINING
    from mimlab.training.views import standardise

    encoder, _ = load_directory(latest_checkpoint(home))
    side = encoder.config.image_size
    found = {}
    for photograph in (*TRAINING, *HELD_OUT):
        crops = Crops([photograph.path], side, windows, CROPS, 0, "locality").batch(0).pixels
        with torch.inference_mode(), capture(encoder, ("distance_ratio",)) as seen:
            encoder(standardise(crops))
        found[photograph.name] = float(np.nanmean(seen["distance_ratio"]))
    return found
