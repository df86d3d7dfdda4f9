"""The in-context copy task as rows, with standard errors (docs/in-context.md).

The layer is trained on ``draws`` images a step, and again ``REPLICATES`` times on that many in all, each with images of
its own. The noise of stochastic gradient descent goes as one over the images a step, so the spread of the replicates,
divided by the root of their number, is the standard error of the first: of its training and of its measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.dense_rows import check_dense, recorded, rows_of, stopping
from mimlab.dynamics.integrators import Progress
from mimlab.dynamics.rows import RowRun, with_errors
from mimlab.dynamics.sampled import REPLICATES
from mimlab.objectives.in_context import InContextLearning
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout


@np.errstate(over="ignore", invalid="ignore")  # of a run that flew apart
def run_in_context(
    config: SimulationConfig, layout: Layout, queries: Sequence[int], progress: Progress | None = None
) -> list[RowRun]:
    """Train the layer and its replicates, and read off the rows of ``queries``, which are copies.

    Raises InputError for queries that are never masked, too few draws, too many patches, and where torch is missing.
    """
    objective, dynamics = config.objective, config.dynamics
    assert isinstance(objective, InContextLearning)
    assert dynamics.learning_rate is not None and dynamics.steps is not None
    if dynamics.draws < REPLICATES:
        raise InputError(
            f"dynamics: draws = {dynamics.draws} images a step leave none for some of {REPLICATES} replicates; "
            f"give at least {REPLICATES}."
        )
    labels = layout.partition_of(0).all_labels()
    masked = objective.masked(layout.patches, layout.partition_of(0).areas)
    rows = _copies_for(labels, queries, config.dynamics.query)
    check_dense(layout)
    from mimlab.dynamics.dense import EVALUATION, train_dense
    from mimlab.dynamics.dense_images import draw
    from mimlab.dynamics.dense_in_context import InContextWorld, shares

    world = InContextWorld(
        labels[None], config.world.latent, masked, objective.vocabulary, objective.in_weights
    )
    seeds = np.random.SeedSequence(config.seed).generate_state(REPLICATES)

    def trained(seed: int, parts: int, steps: int) -> tuple[list[RowRun], dict[str, float]]:
        assert dynamics.learning_rate is not None and dynamics.steps is not None
        run = train_dense(
            world,
            learning_rate=dynamics.learning_rate,
            steps=steps,
            batch=dynamics.draws // parts,
            seed=seed,
            rows=world.copies,
            observe=rows,
            record=recorded(dynamics.steps),
            stop=stopping(config, progress) if parts == 1 else None,
            evaluation=EVALUATION // parts,
        )
        images = draw(world, np.random.default_rng([seed, parts]), EVALUATION // parts)
        phi, upsilon = (one[world.copies] for one in run.model.correlations())
        fp, pp = shares(world, images, phi, upsilon)
        whole = fp + pp or nan
        return rows_of(config, layout, run, lambda found: world.shown(found[0])), {
            "fp_share": fp / whole,
            "pp_share": pp / whole,
        }

    runs, found = trained(config.seed, 1, dynamics.steps)
    ended = runs[0].path.steps
    assert ended is not None
    others = []
    for part, seed in enumerate(seeds.tolist()):
        if progress is not None:
            progress(part / REPLICATES, f"replicate {part + 1} of {REPLICATES}")
        others.append(trained(seed, REPLICATES, max(int(ended[-1]), 1)))
    spread = np.std([one["pp_share"] for _, one in others], ddof=1) / REPLICATES**0.5
    found["pp_share_se"] = float(spread)
    return [
        replace(with_errors(run, [replicate[place] for replicate, _ in others]), shares=found)
        for place, run in enumerate(runs)
    ]


def _copies_for(labels: np.ndarray, queries: Sequence[int], asked: str | int) -> list[int]:
    """Of each query's area its first copy, or the query itself where it was named."""
    copies = []
    for query in queries:
        members = np.flatnonzero(labels == labels[query])
        if asked == "all" and len(members) == 1:
            continue
        if len(members) == 1 or (asked == query and query == members[0]):
            raise InputError(
                f"dynamics: query = {asked}: patch {query} is the first of its area, the context, which is never "
                "masked; name another patch of an area of two and more."
            )
        copies.append(query if asked == query else int(members[1]))
    return copies
