"""Engine "dense" as rows: the explicit network of ``dynamics.dense``, recorded like any other engine's.

It trains all P rows at once, on mini-batches of ``draws`` fresh images, and ties nothing; it is the baseline that the
other engines are checked against and timed against. Its columns come from a fixed set of evaluation images. Standard
errors are over these, of the one network that was trained (Φ and Υ, read off Q, have none); what training draws change
shows over several seeds only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import HALF, RECORDS, Path, Progress
from mimlab.dynamics.rows import MEASURES_WITH_ERROR, RowRun, first_half, measured
from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.kernel import Evaluation
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout
from mimlab.world.row import unlumped_row

if TYPE_CHECKING:
    from mimlab.dynamics.dense import DenseAttention, DenseRecord, DenseRun, Seed
    from mimlab.dynamics.dense_images import DenseWorld

Array = np.ndarray

MOST_NOISE = 2**28  # numbers of one draw of images: 2 GB
LARGEST = 4096  # patches: P x P attention in float64 takes 128 MB an image beyond


def run_dense(
    config: SimulationConfig, layout: Layout, queries: list[int], progress: Progress | None
) -> list[RowRun]:
    """Train the network and read off the rows of ``queries``; with the contrastive objective and a random start, where
    "all" are asked for, those that the lumped engines read. Raises InputError where P is too large, torch is missing,
    or a batch leaves too few negatives."""
    check_dense(layout)
    from mimlab.dynamics.dense import EVALUATION, train_dense
    from mimlab.dynamics.dense_images import DenseWorld

    dynamics, objective = config.dynamics, config.objective
    assert dynamics.learning_rate is not None and dynamics.steps is not None
    assert isinstance(objective, MaskedReconstruction | ContrastiveLearning)
    labels = np.stack([layout.partition_of(k).all_labels() for k in range(layout.clusters)])
    world = DenseWorld(labels, config.world.latent, objective.masked(layout.patches))
    batch, evaluation = config.relax.batch or dynamics.draws, EVALUATION
    if isinstance(objective, ContrastiveLearning):
        from mimlab.dynamics.contrastive import one_of_each_class
        from mimlab.dynamics.dense_contrastive import SETS

        if batch <= objective.negatives:
            name = "dynamics: draws" if config.relax.batch is None else "relax: batch"
            raise InputError(
                f"{name} = {batch} images a step leave no {objective.negatives} other images to be negatives; give "
                "more, or fewer negatives."
            )
        if dynamics.start and dynamics.query == "all":
            queries = one_of_each_class(layout.patches)
        evaluation = SETS * max(EVALUATION // SETS, objective.negatives + 1)
    run = train_dense(
        world,
        learning_rate=dynamics.learning_rate,
        steps=dynamics.steps,
        batch=batch,
        seed=config.seed,
        observe=queries,
        record=recorded(dynamics.steps),
        stop=stopping(config, progress),
        evaluation=evaluation,
        network=_network(config, world, max(batch, evaluation)),
    )
    rows = rows_of(config, layout, run, lambda phi: phi[~np.isnan(phi)])
    shares = shares_of(run.model, evaluation, config.seed)
    return [replace(row, shares=shares) for row in rows]


def _network(
    config: SimulationConfig, world: DenseWorld, images: int
) -> Callable[[Seed], DenseAttention] | None:
    """What makes a relaxed or contrastive layer for this world; None where the plain one will do. images: the most
    drawn at once.

    Raises InputError where their noise would be too much.
    """
    from mimlab.dynamics.relaxed import RelaxedAttention, RelaxedWorld

    relax, start, objective = config.relax, config.dynamics.start, config.objective
    if not (relax.relaxed or start or isinstance(objective, ContrastiveLearning)):
        return None
    relaxed = RelaxedWorld(world.area_of, config.world.latent, world.masked, relax)
    if relax.noise and images * relaxed.patches * relaxed.space > MOST_NOISE:
        raise InputError(
            f"relax: noise = {relax.noise} draws {images} images x {relaxed.patches} patches x {relaxed.space} numbers "
            f"at once, more than {MOST_NOISE:.1e}; give fewer patches or draws."
        )
    if isinstance(objective, ContrastiveLearning):
        from mimlab.dynamics.dense_contrastive import ContrastiveAttention

        return lambda seed: ContrastiveAttention(relaxed, objective, seed=seed, start=start)
    return lambda seed: RelaxedAttention(relaxed, seed=seed, start=start)


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
    waited_for = waiting(config)

    def done(record: DenseRecord) -> bool:
        if progress is not None:
            progress(record.step / (config.dynamics.steps or 1), f"step {record.step}")
        return all(getattr(m, waited_for) >= config.dynamics.stop_attention for m in record.measures)

    return done


def waiting(config: SimulationConfig) -> str:
    """The attention that a row is done by, and whose half is told: on what the objective teaches it."""
    return "attention_global" if isinstance(config.objective, ContrastiveLearning) else "attention_own"


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
        contrastive = isinstance(config.objective, ContrastiveLearning)
        one = measured(row, path, evaluated, config.world.latent.mean, learns_global=contrastive)
        errors = dict.fromkeys(MEASURES_WITH_ERROR, np.zeros(len(index)))
        errors |= {
            "loss": np.array([m.loss_se for m in measures]),
            "excess_loss": np.array([m.excess_se for m in measures]),
            "attention_own": np.array([m.attention_own_se for m in measures]),
            "attention_global": np.array([m.attention_global_se for m in measures]),
        }
        attention, attention_se = one.measures[waiting(config)], errors[waiting(config)]
        half_time = first_half(path.times, attention)
        half_time_se = None if half_time is None else _half_time_error(path.times, attention, attention_se)
        path = replace(path, half_time=half_time)
        result.append(replace(one, path=path, errors=errors, half_time_se=half_time_se))
    return result


def shares_of(model: DenseAttention, images: int, seed: int) -> dict[str, float]:
    """Shares of FP and of PP in the logits' variance over images of their own, and the standard error of both over
    these; empty where both are 0."""
    fp, pp = model.logit_variances(model.draw(np.random.default_rng([seed, 0x6670]), images))
    total = float(fp.mean()) + pp
    if not total > 0:
        return {}
    error = pp * float(fp.std(ddof=1)) / len(fp) ** 0.5 / total**2
    return {"fp_share": 1 - pp / total, "pp_share": pp / total, "pp_share_se": error}


def _half_time_error(times: Array, attention: Array, error: Array) -> float:
    """Standard error of when attention passes one half: its own over its slope there."""
    after = int(np.flatnonzero(attention >= HALF)[0])
    if after == 0:
        return 0.0
    slope = (attention[after] - attention[after - 1]) / (times[after] - times[after - 1])
    return float(error[after] / slope)
