"""One run of the mean-field and of the sampled engine, in a process that has done such a run before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from record import Outcome, Setting, Target, power, seconds_of, shown

from mimlab import Latent, MaskedReconstruction, World, simulate
from mimlab.dynamics.config import Dynamics, SimulationConfig
from mimlab.dynamics.integrators import flow
from mimlab.dynamics.mean_field import mean_field_draws
from mimlab.dynamics.rows import integrate, queries_of
from mimlab.objectives.kernel import Evaluation, RowObjective
from mimlab.world.row import row_of

LATENTS = {"constant latents": Latent(low=1.0, high=1.0), "latents in [0.5, 1.5]": Latent(low=0.5, high=1.5)}
MEAN_FIELD_LIMIT = 0.050  # seconds
SAMPLED_LIMIT = 10.0


def world_of(patches: int, latent: Latent) -> World:
    """The world of every row: κc = 0.9, κs = 0.3."""
    return World(patches=patches, global_exponent=0.9, local_exponent=0.3, latent=latent)


@dataclass
class Counted:
    """An objective that counts how often it is evaluated."""

    objective: RowObjective
    evaluations: int = 0

    def evaluate(self, state: np.ndarray) -> Evaluation:
        """As the objective does."""
        self.evaluations += 1
        return self.objective.evaluate(state)


def mean_field(setting: Setting) -> Outcome:
    """P = 10^12 to half attention: the call that a user makes, and the flow in it alone."""
    patches, repeats = (10**6, 3) if setting.quick else (10**12, 31)
    targets, raw = [], {}
    for name, latent in LATENTS.items():
        world = world_of(patches, latent)
        config = SimulationConfig(
            world, MaskedReconstruction(), Dynamics("mean-field", stop_attention=0.5), setting.seed
        )
        objective = _mean_field_objective(config)
        half_time = simulate(world, engine="mean-field", stop_attention=0.5).summary["half_time"]
        counted = Counted(objective)
        flow(counted, np.zeros(objective.row.size), 2 * half_time, 0.5)
        runs = seconds_of(partial(simulate, world, engine="mean-field", stop_attention=0.5), repeats)
        alone = seconds_of(partial(integrate, config, objective), repeats)
        raw[name] = {
            "patches": patches,
            "half_time": half_time,
            "seconds": runs,
            "flow_seconds": alone,
            "flow_evaluations": counted.evaluations,
        }
        goal = f"mean field, P = {power(patches)} to half attention, {name}: under 50 ms a run"
        targets.append(Target(goal, shown(runs), bool(np.median(runs) < MEAN_FIELD_LIMIT)))
    each = "; ".join(
        f"{name}: {shown(found['flow_seconds'])}, {found['flow_evaluations']} evaluations"
        for name, found in raw.items()
    )
    notes = (
        f"Median and range of {repeats} calls of `mimlab.simulate`, after one.",
        f"The gradient flow alone: {each}.",
    )
    return Outcome(tuple(targets), notes, raw)


def _mean_field_objective(config: SimulationConfig) -> RowObjective:
    layout = config.world.layout(config.seed)
    row = row_of(layout, queries_of(layout, "local", config.world.max_cells)[0], config.world.max_cells)
    draws = mean_field_draws(row, config.world.latent, config.objective.masked(row.patches))
    return RowObjective(row, draws, config.objective.query_masked(row.patches))


def sampled(setting: Setting) -> Outcome:
    """P = 10^5 to attention 0.99, standard errors included."""
    patches, draws, repeats = (100, 64, 1) if setting.quick else (10**5, 1024, 5)
    targets, raw = [], {}
    for name, latent in LATENTS.items():
        run = partial(simulate, world_of(patches, latent), draws=draws, seed=setting.seed)
        summary, seconds = run().summary, seconds_of(run, repeats)
        found = {key: summary[key] for key in ("status", "half_time", "half_time_se")}
        raw[name] = {"patches": patches, "draws": draws, "seconds": seconds, **found}
        goal = f"sampled, P = {power(patches)}, {draws} draws, to attention 0.99, {name}: under {SAMPLED_LIMIT:g} s"
        targets.append(Target(goal, shown(seconds), bool(np.median(seconds) < SAMPLED_LIMIT)))
    note = (
        f"Median and range of {repeats} calls of `mimlab.simulate`, after one; the eight replicates included."
    )
    return Outcome(tuple(targets), (note,), raw)
