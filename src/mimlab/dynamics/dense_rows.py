"""Engine "dense" as rows: the explicit network of ``dynamics.dense``, recorded like any other engine's.

It trains all P rows at once, on mini-batches of ``draws`` fresh images, and ties nothing; it is the baseline that the
other engines are checked against and timed against. Its columns come from a fixed set of evaluation images. Standard
errors are over these, of the one network that was trained (Φ and Υ, read off Q, have none); what training draws change
shows over several seeds only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.integrators import HALF, RECORDS, Path, Progress
from mimlab.dynamics.rows import MEASURES_WITH_ERROR, RowRun, first_half, measured
from mimlab.objectives.kernel import Evaluation
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout
from mimlab.world.row import unlumped_row

if TYPE_CHECKING:
    from mimlab.dynamics.dense import DenseAttention

Array = np.ndarray

MOST_NOISE = 2**28  # numbers of one draw of images: 2 GB
LARGEST = 4096  # patches: P x P attention in float64 takes 128 MB an image beyond


def run_dense(
    config: SimulationConfig, layout: Layout, queries: list[int], progress: Progress | None
) -> list[RowRun]:
    """Train the network and read off the rows of ``queries``. Raises InputError where P is too large or torch is
    missing."""
    if layout.patches > LARGEST:
        raise InputError(
            f"dynamics: engine = dense builds all of {layout.patches}² attentions, at most {LARGEST}²; "
            "use engine = sampled."
        )
    try:
        from mimlab.dynamics.dense import EVALUATION, DenseAttention, DenseRecord, Seed, train_dense
        from mimlab.dynamics.dense_images import DenseWorld
        from mimlab.dynamics.relaxed import RelaxedAttention, RelaxedWorld
    except ModuleNotFoundError as error:
        raise InputError(
            f"dynamics: engine = dense needs PyTorch ({error}); install the extra 'dense', or use engine = sampled."
        ) from error
    dynamics = config.dynamics
    assert dynamics.learning_rate is not None and dynamics.steps is not None
    learning_rate, steps = dynamics.learning_rate, dynamics.steps
    labels = np.stack([layout.partition_of(k).all_labels() for k in range(layout.clusters)])
    world = DenseWorld(labels, config.world.latent, config.objective.masked(layout.patches))
    relaxed = None
    if config.relax.relaxed or dynamics.start:
        relaxed = RelaxedWorld(labels, config.world.latent, world.masked, config.relax)
        images = max(EVALUATION, config.relax.batch or dynamics.draws)
        if config.relax.noise and images * relaxed.patches * relaxed.space > MOST_NOISE:
            raise InputError(
                f"relax: noise = {config.relax.noise} draws {images} images x {relaxed.patches} patches x "
                f"{relaxed.space} numbers at once, more than {MOST_NOISE:.1e}; give fewer patches or draws."
            )

    def network(seed: Seed) -> DenseAttention:
        return (
            RelaxedAttention(relaxed, seed=seed, start=dynamics.start)
            if relaxed
            else DenseAttention(world, seed=seed)
        )

    def done(record: DenseRecord) -> bool:
        if progress is not None:
            progress(record.step / steps, f"step {record.step}")
        return all(m.attention_own >= dynamics.stop_attention for m in record.measures)

    run = train_dense(
        world,
        learning_rate=learning_rate,
        steps=steps,
        batch=config.relax.batch or dynamics.draws,
        seed=config.seed,
        observe=queries,
        record=np.unique(np.geomspace(1, steps, RECORDS).astype(int)).tolist(),
        stop=done,
        network=network,
    )
    fp_share = fp_share_of(run.model, EVALUATION, config.seed)
    index = np.array([record.step for record in run.records])
    result = []
    for position, query in enumerate(queries):
        row = unlumped_row(layout, query)
        states = np.stack(
            [_state(record.phi[position], record.upsilon[position], query) for record in run.records]
        )
        measures = [record.measures[position] for record in run.records]
        evaluated = Evaluation(
            loss=np.array([m.loss for m in measures]),
            excess=np.array([m.loss - m.floor for m in measures]),
            velocity=np.zeros((len(measures), 0)),
            attention_own=np.array([m.attention_own for m in measures]),
            attention_global=np.array([m.attention_global for m in measures]),
        )
        path = Path(learning_rate * index, states, index, run.status, None)
        one = measured(row, path, evaluated, config.world.latent.mean)
        errors = dict.fromkeys(MEASURES_WITH_ERROR, np.zeros(len(index)))
        errors |= {
            "loss": np.array([m.loss_se for m in measures]),
            "excess_loss": np.array([m.excess_se for m in measures]),
            "attention_own": np.array([m.attention_own_se for m in measures]),
            "attention_global": np.array([m.attention_global_se for m in measures]),
        }
        attention, attention_se = one.measures["attention_own"], errors["attention_own"]
        half_time = first_half(path.times, attention)
        half_time_se = None if half_time is None else _half_time_error(path.times, attention, attention_se)
        path = replace(path, half_time=half_time)
        result.append(replace(one, path=path, errors=errors, half_time_se=half_time_se, fp_share=fp_share))
    return result


def fp_share_of(model: DenseAttention, images: int, seed: int) -> tuple[float, float] | None:
    """FP / (FP + PP) of the logits over images of its own, and its standard error over them; None where both are 0."""
    fp, pp = model.logit_variances(model.draw(np.random.default_rng([seed, 0x6670]), images))
    total = fp.mean() + pp
    if not total > 0:
        return None
    return float(fp.mean() / total), float(pp * fp.std(ddof=1) / len(fp) ** 0.5 / total**2)


def _state(Phi: Array, Upsilon: Array, query: int) -> Array:
    """(clusters, areas) and (P,) as the state of an unlumped row: Phi of each area, then Upsilon of the query's own
    position and of every position."""
    return np.concatenate([Phi[~np.isnan(Phi)], Upsilon[[query]], Upsilon])


def _half_time_error(times: Array, attention: Array, error: Array) -> float:
    """Standard error of when attention passes one half: its own over its slope there."""
    after = int(np.flatnonzero(attention >= HALF)[0])
    if after == 0:
        return 0.0
    slope = (attention[after] - attention[after - 1]) / (times[after] - times[after - 1])
    return float(error[after] / slope)
