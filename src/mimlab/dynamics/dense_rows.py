"""Engine "dense" as rows: the explicit network of ``dynamics.dense``, recorded like any other engine's.

It trains all P rows at once, on mini-batches of ``draws`` fresh images, and ties nothing; it is the baseline that the
other engines are checked against and timed against. Its columns come from a fixed set of evaluation images, so they
carry sampling noise that no standard error is stated for; compare over several seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import RECORDS, Path, Progress
from mimlab.dynamics.rows import RowRun, first_half, measured
from mimlab.objectives.kernel import Evaluation
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout
from mimlab.world.row import unlumped_row

if TYPE_CHECKING:
    from mimlab.dynamics.dense import DenseRecord, DenseRun

Array = np.ndarray

LARGEST = 4096  # patches: P x P attention in float64 takes 128 MB an image beyond


def run_dense(
    config: SimulationConfig, layout: Layout, queries: list[int], progress: Progress | None
) -> list[RowRun]:
    """Train the network and read off the rows of ``queries``. Raises InputError where P is too large or torch is
    missing."""
    check_dense(layout)
    from mimlab.dynamics.dense import DenseWorld, train_dense

    dynamics, objective = config.dynamics, config.objective
    assert dynamics.learning_rate is not None and dynamics.steps is not None
    assert isinstance(objective, MaskedReconstruction)
    labels = np.stack([layout.partition_of(k).all_labels() for k in range(layout.clusters)])
    world = DenseWorld(labels, config.world.latent, objective.masked(layout.patches))
    run = train_dense(
        world,
        learning_rate=dynamics.learning_rate,
        steps=dynamics.steps,
        batch=dynamics.draws,
        seed=config.seed,
        observe=queries,
        record=recorded(dynamics.steps),
        stop=stopping(config, progress),
    )
    return rows_of(config, layout, run, lambda phi: phi[~np.isnan(phi)])


def check_dense(layout: Layout) -> None:
    """Raises InputError where P is too large or torch is missing."""
    if layout.patches > LARGEST:
        raise InputError(
            f"dynamics: engine = dense builds all of {layout.patches}² attentions, at most {LARGEST}²; "
            "use engine = sampled."
        )
    try:
        import mimlab.dynamics.dense  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"dynamics: engine = dense needs PyTorch ({error}); install the extra 'dense', or use engine = sampled."
        ) from error


def recorded(steps: int) -> list[int]:
    """The steps after which a run is looked at."""
    chosen: list[int] = np.unique(np.geomspace(1, steps, RECORDS).astype(int)).tolist()
    return chosen


def stopping(config: SimulationConfig, progress: Progress | None) -> Callable[[DenseRecord], bool]:
    """Whether all observed rows are done; tells ``progress`` of each record."""

    def done(record: DenseRecord) -> bool:
        if progress is not None:
            progress(record.step / (config.dynamics.steps or 1), f"step {record.step}")
        return all(m.attention_own >= config.dynamics.stop_attention for m in record.measures)

    return done


def rows_of(
    config: SimulationConfig, layout: Layout, run: DenseRun, listed: Callable[[Array], Array]
) -> list[RowRun]:
    """The observed rows of a run. listed: from a record's Phi of a row, (clusters, most features), one of each area of
    each cluster in order."""
    index = np.array([record.step for record in run.records])
    result = []
    for position, query in enumerate(run.rows):
        row = unlumped_row(layout, query)
        # The state of an unlumped row: Phi of each area, then Upsilon of the query's own position and of every one.
        states = np.stack(
            [
                np.concatenate([listed(r.phi[position]), r.upsilon[position][[query]], r.upsilon[position]])
                for r in run.records
            ]
        )
        measures = [record.measures[position] for record in run.records]
        evaluated = Evaluation(
            loss=np.array([m.loss for m in measures]),
            excess=np.array([m.loss - m.floor for m in measures]),
            velocity=np.zeros((len(measures), 0)),
            attention_own=np.array([m.attention_own for m in measures]),
            attention_global=np.array([m.attention_global for m in measures]),
        )
        times = np.array([record.time for record in run.records])
        path = Path(times, states, index, run.status, None)
        one = measured(row, path, evaluated, config.world.latent.mean)
        half_time = first_half(path.times, one.measures["attention_own"])
        result.append(replace(one, path=replace(path, half_time=half_time)))
    return result
