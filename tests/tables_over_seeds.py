"""Tables of pretraining over seeds as `mimlab.studies.trained` collects them: every claim comes out as expected."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mimlab.studies.trained import SCHEMAS
from mimlab.studies.training_runs import FP, RUNS, SEEDS, TrainingRun

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
UNIFORM = {"nmi": 0.0, "positional_nmi": 0.0, "diversity": 0.0, "distance_ratio": 1.0}
PHOTOGRAPHS = ("wall", "moon", "coins", "sky")


def away(run: TrainingRun, step: int, layer: int) -> float:
    """How far from uniform: masked runs go far, the deeper a layer the later; others little, or back."""
    start, end = 0.002, 0.3 - 0.02 * layer if run.name in ("simmim", "mae", "simmim+simclr") else 0.05
    if run.start is not None:
        start, end = 0.3, 0.1
    return start + (end - start) * min(1.0, step / (4 * 2**layer))


def tables_of(runs: Sequence[TrainingRun] = RUNS, seeds: Sequence[int] = SEEDS) -> dict[str, pa.Table]:
    """The four tables."""
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in SCHEMAS}
    for place, run in enumerate(runs):
        for seed in seeds:
            draws = np.random.default_rng([place, seed])
            of = {"run": run.name, "seed": seed}
            layers = range(1 if run.name.startswith("world") else 4)
            for step in STEPS:
                rows["looks"] += [
                    of
                    | {"step": step, "layer": layer, "statistic": name}
                    | {"value": abs(uniform - away(run, step, layer)) + draws.normal(0, 5e-4)}
                    for layer in layers
                    for name, uniform in UNIFORM.items()
                ]
            for step in (0, 8, 64):
                larger, smaller = ("FP", "PP") if run.expected == FP else ("PP", "FP")
                rows["shares"] += [
                    of
                    | {"step": step, "layer": layer, "component": component}
                    | {"share": share * step / 64 + draws.normal(0, 0.01)}
                    for layer in layers
                    for component, share in ((larger, 0.6), (smaller, 0.2), ("rest", 0.2))
                ]
                guesses = {"image_mean": 0.36, "nearest_patch": 0.3}
                known = {"knn": 0.25 + step / 640 + draws.normal(0, 0.002), "linear": 0.3, "chance": 0.077}
                known |= {"model": 0.5 * 0.97**step} | guesses if run.name == "simmim" else {}
                rows["evaluations"].append(of | {"step": step} | known)
            if run.name == "simmim":
                rows["photographs"] += [
                    {"photograph": name, "gap": gap / 4, "distance_ratio": 0.9 - gap / 10} | of
                    for gap, name in enumerate(PHOTOGRAPHS)
                ]
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in SCHEMAS.items()}


def mean_at(rows: list[dict[str, object]], value: str, step: int, **where: object) -> float:
    """A plain loop: the mean over rows at a step."""
    chosen = [
        row[value]
        for row in rows
        if row["step"] == step and all(row[key] == wanted for key, wanted in where.items())
    ]
    return sum(chosen) / len(chosen)  # type: ignore[arg-type]
