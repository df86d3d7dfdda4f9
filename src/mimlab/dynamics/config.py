"""What a simulation is asked for: the one schema behind TOML, flags and Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mimlab.dynamics.relax import Relaxation
from mimlab.objectives.contrastive import ContrastiveLearning
from mimlab.objectives.in_context import InContextLearning
from mimlab.objectives.masked import MaskedReconstruction
from mimlab.objectives.weighted import WeightedSum
from mimlab.runs.checks import finite_number, whole_number
from mimlab.runs.errors import InputError
from mimlab.world.world import World

ENGINES = ("enumerated", "sampled", "mean-field", "dense")
INTEGRATORS = ("flow", "descent")
QUERIES = ("local", "global", "all")
STARTS_ALIKE = ("areas", "nothing")
Objective = MaskedReconstruction | ContrastiveLearning | InContextLearning | WeightedSum
FEWEST_DRAWS = 64
MOST_STEPS, LONGEST_TIME = 10**15, 1e300


@dataclass(frozen=True)
class Dynamics:
    """Which engine takes the expectation, which integrator follows the gradient, and until when.

    Parameters
    ----------
    engine
        "sampled", "enumerated", "mean-field" or "dense".
    integrator
        "flow" (adaptive; time in units of learning rate x steps) or "descent" (the paper's gradient descent).
    learning_rate, steps
        Required by descent. For flow, given together, their product bounds the time.
    draws
        Masks and latents of the sampled engine; images per mini-batch of the dense one.
    query
        "local", "global", "all" (one per class of interchangeable queries) or a patch index.
    stop_attention
        A row is done when its attention on its own area, with the contrastive objective on the global one, with a
        weighted sum on either, reaches this (in (0, 1]; 1 is never reached).
    start
        Standard deviation of the entries of Q at the start; other than 0 for the contrastive objective or the dense
        engine only.
    start_alike
        What a random start draws once for all: "areas" one Υ for the positions of an area (of a cell, where clusters
        differ), which stay tied then, or "nothing"; the dense engine ties nothing.
    """

    engine: str = "sampled"
    integrator: str = "flow"
    learning_rate: float | None = None
    steps: int | None = None
    draws: int = 1024
    query: str | int = "local"
    stop_attention: float = 0.99
    start: float = 0.0
    start_alike: str = "areas"

    def __post_init__(self) -> None:
        _one_of("engine", self.engine, ENGINES)
        _one_of("integrator", self.integrator, INTEGRATORS)
        if self.engine == "dense" and self.integrator != "descent":
            raise InputError("dynamics: engine = dense trains by mini-batches; use integrator = descent.")
        for name in ("learning_rate", "steps"):
            if self.integrator == "descent" and getattr(self, name) is None:
                raise InputError(
                    f"dynamics: integrator = descent needs learning_rate and steps; {name} is missing."
                )
        if (self.learning_rate is None) != (self.steps is None):
            raise InputError("dynamics: learning_rate and steps go together; give both or neither.")
        if self.learning_rate is not None:
            rate, steps = (
                _positive("learning_rate", self.learning_rate),
                whole_number("dynamics.steps", self.steps),
            )
            object.__setattr__(self, "learning_rate", rate)
            object.__setattr__(self, "steps", steps)
            if steps > MOST_STEPS or rate * steps > LONGEST_TIME:
                raise InputError(
                    f"dynamics: learning_rate = {rate} and steps = {str(steps)[:20]} go too far; "
                    f"at most {MOST_STEPS:.0e} steps and {LONGEST_TIME:.0e} for their product."
                )
        object.__setattr__(self, "draws", whole_number("dynamics.draws", self.draws))
        if self.engine == "sampled" and self.draws < FEWEST_DRAWS:
            raise InputError(
                f"dynamics: draws = {self.draws} is too few for a standard error; at least {FEWEST_DRAWS}."
            )
        object.__setattr__(self, "stop_attention", _positive("stop_attention", self.stop_attention))
        if self.stop_attention > 1:
            raise InputError(
                f"dynamics: stop_attention = {self.stop_attention} exceeds 1; give a number in (0, 1]."
            )
        if finite_number("dynamics.start", self.start) < 0:
            raise InputError(f"dynamics: start = {self.start} must be at least 0.")
        _one_of("start_alike", self.start_alike, STARTS_ALIKE)
        if self.start_alike == "nothing" and not self.start:
            raise InputError(
                "dynamics: start_alike = nothing is for a random start; give start above 0, too."
            )
        query = self.query
        if not isinstance(query, str) or query.isdecimal():
            query = int(query) if isinstance(query, str) else query
            object.__setattr__(self, "query", whole_number("dynamics.query", query, least=0))
        else:
            _one_of("query", query, QUERIES, "or a patch index")


@dataclass(frozen=True)
class SimulationConfig:
    """Everything a simulation depends on.

    Parameters
    ----------
    world, objective, dynamics
        What images are, what is learned from them, and how.
    seed
        Drives the sampled and dense engines and random partitions.
    relax
        What departs from the paper's model; for the dense engine only.
    """

    world: World
    objective: Objective = field(default_factory=MaskedReconstruction)
    dynamics: Dynamics = field(default_factory=Dynamics)
    seed: int = 0
    relax: Relaxation = field(default_factory=Relaxation)

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {
            "world": World,
            "objective": Objective,
            "dynamics": Dynamics,
            "relax": Relaxation,
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise InputError(
                    f"{name} = {getattr(self, name)!r} must be a {getattr(kind, '__name__', kind)}."
                )
        contrastive = isinstance(self.objective, ContrastiveLearning)
        alone = contrastive or isinstance(self.objective, MaskedReconstruction)
        dense = self.dynamics.engine == "dense" and alone
        if self.dynamics.start and not (contrastive or dense):
            raise InputError(
                "dynamics: start is for the contrastive objective, or the masked one with engine = dense; others start "
                "from Q = 0."
            )
        if self.relax.relaxed and not dense:
            raise InputError(
                f"relax: {', '.join(self.relax.relaxed)} depart from the model that engine = {self.dynamics.engine} "
                f"solves for objective = {self.objective.name}; use engine = dense with objective = masked or "
                "contrastive, or leave them at their defaults."
            )
        if isinstance(self.objective, InContextLearning):
            if self.dynamics.engine != "dense":
                raise InputError(
                    f"dynamics: engine = {self.dynamics.engine} does not take objective = in-context, whose tokens are "
                    "drawn image by image; use engine = dense, integrator = descent, learning_rate and steps."
                )
            if self.world.clusters > 1:
                raise InputError(
                    f"world: clusters = {self.world.clusters}, but objective = in-context has tokens that all images "
                    "share; give clusters = 1."
                )
        object.__setattr__(self, "seed", whole_number("seed", self.seed, least=0))


def _one_of(name: str, value: Any, known: tuple[str, ...], besides: str = "") -> None:
    if value not in known:
        raise InputError(
            f"dynamics: {name} = {value!r} is not known; give one of {', '.join(known)} {besides}".strip()
        )


def _positive(name: str, value: Any) -> float:
    number = finite_number(f"dynamics.{name}", value)
    if number <= 0:
        raise InputError(f"dynamics.{name} = {value!r} must be a finite positive number.")
    return number
