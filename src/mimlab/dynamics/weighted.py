"""A weighted sum of the masked and the contrastive objective followed as a flow or by descent, from Q = 0.

Masked rows decouple, contrastive ones meet in the pooled output, and rows of unlike areas part: the rows of every type
(`objectives.typed`) are followed together. Masks and latents of the masked part are those of a masked run of the same
row, engine and seed; pairs, and the replicates whose spread is the standard error, those of a contrastive run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from mimlab.dynamics.config import SimulationConfig
from mimlab.dynamics.contrastive import cells_of, check_taken, drawn_sets, joined
from mimlab.dynamics.integrators import Path, Progress
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.dynamics.rows import (
    REACH,
    RowRun,
    class_representatives,
    first_half,
    follow,
    half_timed,
    measured,
    with_errors,
)
from mimlab.dynamics.sampled import REPLICATES, join, merged_phis, sampled_replicates
from mimlab.objectives.draws import Draws
from mimlab.objectives.kernel import Evaluation, RowObjective
from mimlab.objectives.pairs import Pairs
from mimlab.objectives.typed import TypedRows
from mimlab.objectives.weighted import WeightedSum
from mimlab.runs.errors import InputError
from mimlab.world.partition import Layout
from mimlab.world.row import Row, row_of

Array = np.ndarray

HORIZON = 1e2
"""Longest flow, in units of P / (γ(1-γ) E[z⁴]), the time that an own area of one patch takes: a row that shares its
attention between two areas comes to rest there, and never stops."""
LARGEST = 4_000_000
"""Types x draws x areas."""


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """The sum as the integrators take it: of the types' states one after the other. masked: a row of each type;
    contrastive: all of them; weight: w. A run waits for the row of type `watched`, on its own area or on the global
    one, whichever has more of its attention."""

    masked: tuple[RowObjective, ...]
    contrastive: TypedRows
    weight: float
    watched: int = 0

    @cached_property
    def places(self) -> list[slice]:
        """Where each type's unknowns stand in the state."""
        ends = np.cumsum([0, *(part.row.size for part in self.masked)])
        return [slice(first, end) for first, end in pairwise(ends)]

    def evaluate(self, state: Array) -> Evaluation:
        """Loss of all rows, velocity and the attention waited for; there is no floor to take an excess over."""
        states = [state[place] for place in self.places]
        parts = [row.evaluate(one) for row, one in zip(self.masked, states, strict=True)]
        both = self.contrastive.evaluate(states)
        velocity = [
            part.velocity + self.weight * other for part, other in zip(parts, both.velocity, strict=True)
        ]
        there = waited_for(parts[self.watched])
        loss = self._total([part.loss for part in parts], both.loss)
        return Evaluation(loss, np.nan, np.concatenate(velocity), there, there)

    def losses(self, states: Array, parts: Sequence[Evaluation]) -> Array:
        """Loss of all rows at several states, (states, unknowns), from the masked rows' evaluations there."""
        contrastive = [self.contrastive.loss([state[place] for place in self.places]) for state in states]
        losses: Array = self._total([part.loss for part in parts], np.array(contrastive))
        return losses

    def _total(self, masked: Sequence[Any], contrastive: Any) -> Any:
        rows = [kind.rows for kind in self.contrastive.types]
        return (
            sum(number * loss for number, loss in zip(rows, masked, strict=True)) + self.weight * contrastive
        )


def waited_for(evaluated: Evaluation) -> Array:
    """Attention on the own or on the global area, whichever is larger; nan where every image is hopeless."""
    larger: Array = np.maximum(evaluated.attention_own, evaluated.attention_global)
    return larger


def run_weighted(
    config: SimulationConfig, layout: Layout, queries: Sequence[int], progress: Progress | None = None
) -> list[RowRun]:
    """Follow all rows until that of the first query attends to its own area or to the global one; a course for each
    query, with loss the whole loss and attention as a masked run has it.

    Raises InputError for an engine that does not take the objective, and for worlds that do not fit.
    """
    objective = config.objective
    assert isinstance(objective, WeightedSum)
    rows = _rows(config, objective, layout, queries)
    types = [next(i for i, row in enumerate(rows) if row.query == query) for query in queries]
    cells = cells_of(layout, config.world.max_cells, apart=False)
    _, *seeds = np.random.SeedSequence(config.seed).spawn(REPLICATES + 1)
    sets = drawn_sets(config, cells, objective.contrastive, seeds)
    chance = objective.masked_part.query_masked(layout.patches)

    def together(draws: Sequence[tuple[Draws, ...]], pairs: Pairs) -> WeightedRows:
        masked = tuple(RowObjective(row, of_row, chance) for row, of_row in zip(rows, draws, strict=True))
        contrastive = TypedRows(layout.partitions[0], rows, pairs, objective.contrastive)
        return WeightedRows(masked, contrastive, objective.contrastive_weight, types[0])

    horizon = HORIZON * layout.patches / (chance * (1 - chance) * config.world.latent.moment(4))
    reach = [REACH] * len(rows)
    while True:
        draws = [_masked_draws(config, objective, row, far) for row, far in zip(rows, reach, strict=True)]
        whole = together([join(replicates) for replicates in draws], joined(sets))
        start = np.zeros(sum(row.size for row in rows))
        path = follow(config, whole, start, horizon, None, progress)
        furthest = [
            float(np.abs(path.states[:, place][:, merged_phis(part.draws)]).max(initial=0.0))
            for place, part in zip(whole.places, whole.masked, strict=True)
        ]
        if config.world.latent.atoms is not None or all(np.less_equal(furthest, reach)):
            break
        reach = [far if most <= far else 2 * most for most, far in zip(furthest, reach, strict=True)]

    def courses(followed: WeightedRows, path: Path) -> list[RowRun]:
        parts = [
            row.evaluate(path.states[:, place])
            for row, place in zip(followed.masked, followed.places, strict=True)
        ]
        loss = followed.losses(path.states, parts)
        return [_course(followed, path, loss, parts, place, config.world.latent.mean) for place in types]

    replicates = []
    for number, pairs in enumerate(sets):
        part = together([of_row[number % len(of_row)] for of_row in draws], pairs)
        replicates.append(
            courses(part, half_timed(config, part, follow(config, part, start, np.inf, path), path))
        )
    return [with_errors(run, others) for run, *others in zip(courses(whole, path), *replicates, strict=True)]


def _rows(
    config: SimulationConfig, objective: WeightedSum, layout: Layout, queries: Sequence[int]
) -> list[Row]:
    """A row of each type, those asked for as they are asked for. Raises InputError for worlds that do not fit."""
    check_taken(config, objective.contrastive)
    if not layout.shared:
        raise InputError(
            "world: a weighted sum is followed where clusters share their areas; use partitions = shared, or one of "
            "the two objectives alone."
        )
    base, patches = layout.partitions[0], layout.patches
    masked = objective.masked(patches)
    seen = np.array([size * (patches - masked) / patches for size, _ in base.runs])
    sizes = np.array([size for size, _ in base.runs])
    if config.dynamics.engine == "mean-field" and not np.all((seen >= 1) & (sizes - seen >= 1)):
        raise InputError(
            f"dynamics: engine = mean-field with a weighted sum needs a patch seen and one masked in every area, in "
            f"the mean; with mask_ratio = {objective.mask_ratio} areas of {sizes.min()} have less: use sampled."
        )
    found = [row_of(layout, query, config.world.max_cells) for query in queries]
    known = {row.kind for row in found}
    others = (
        row_of(layout, query, config.world.max_cells)
        for query in class_representatives(layout, config.world.max_cells)
    )
    rows = found + [row for row in others if row.kind not in known]
    if len(rows) * config.dynamics.draws * base.areas > LARGEST:
        raise InputError(
            f"dynamics: a weighted sum would follow {len(rows)} types of rows over {config.dynamics.draws} draws x "
            f"{base.areas} areas, more than {LARGEST:.0e} numbers; give fewer patches or draws."
        )
    return rows


def _masked_draws(
    config: SimulationConfig, objective: WeightedSum, row: Row, reach: float
) -> list[tuple[Draws, ...]]:
    """The masked part's draws of a row: a set for each replicate, or the one that all share."""
    masked, latent = objective.masked(row.patches), config.world.latent
    if config.dynamics.engine == "mean-field":
        return [mean_field_draws(row, latent, masked)]
    return sampled_replicates(row, latent, masked, config.dynamics.draws, config.seed, reach)


def _course(
    followed: WeightedRows,
    path: Path,
    loss: Array,
    parts: Sequence[Evaluation],
    place: int,
    mean_latent: float,
) -> RowRun:
    """The course of the row of one type: the whole loss, and attention as the masked objective measures it."""
    row, found = followed.masked[place].row, parts[place]
    half_time = path.half_time if place == followed.watched else first_half(path.times, waited_for(found))
    own = replace(path, states=path.states[:, followed.places[place]], half_time=half_time)
    known = replace(found, loss=loss, excess=np.full(len(loss), np.nan))
    return measured(row, own, known, mean_latent)
