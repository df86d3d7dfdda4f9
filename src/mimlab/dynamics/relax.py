"""Which of the model's assumptions are relaxed, and by how much (docs/relaxations.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mimlab.runs.checks import finite_number, whole_number
from mimlab.runs.errors import InputError

POSITIONS = ("orthogonal", "sincos", "random", "learned")
MASK_SHAPES = ("random", "block")
OPTIMIZERS = ("sgd", "adam")
# Ends of each range; True where the upper one is left out.
_RANGES: Mapping[str, tuple[float, bool]] = {
    "noise": (float("inf"), True),
    "coherence": (1.0, True),
    "shared_features": (1.0, False),
    "latent_correlation": (1.0, True),
    "signed_latents": (0.5, False),
    "jitter": (0.5, False),
    "content_in_query": (1.0, False),
    "value_matrix": (float("inf"), True),
    "momentum": (1.0, True),
    "weight_decay": (float("inf"), True),
}


@dataclass(frozen=True)
class Relaxation:
    """Departures from the paper's one-layer model, for the dense engine; each at its default is the paper's.

    Parameters
    ----------
    noise
        σ >= 0: each patch of each image gets σ ξ, with E‖ξ‖² = 1.
    coherence
        Inner product of any two features, in [0, 1).
    shared_features
        Share of the pairs of neighbouring local areas that have one feature, in [0, 1].
    latent_correlation
        Correlation of the normal scores of an image's latents, in [0, 1).
    signed_latents
        Chance that a latent is negated, in [0, 0.5].
    jitter
        Areas of an image roll by up to round(jitter * P) patches either way, in [0, 0.5].
    positions
        "orthogonal", "sincos", "random" or "learned".
    content_in_query
        Share of the patch's content in its query, in [0, 1].
    value_matrix
        Learning rate of a value matrix relative to that of Q, >= 0; 0 keeps it at the identity.
    heads
        Heads, whose outputs are averaged; ``dynamics.start`` tells them apart.
    mask_shape
        "random", or "block" of consecutive patches.
    optimizer
        "sgd" or "adam".
    momentum
        Of sgd, in [0, 1).
    batch
        Images a step, in place of ``dynamics.draws``.
    weight_decay
        Decoupled decay of Q, and of the value matrix to the identity, >= 0.

    Raises InputError for numbers out of range and words that are not known.

    >>> Relaxation(noise=0.5).is_paper
    False
    """

    noise: float = 0.0
    coherence: float = 0.0
    shared_features: float = 0.0
    latent_correlation: float = 0.0
    signed_latents: float = 0.0
    jitter: float = 0.0
    positions: str = "orthogonal"
    content_in_query: float = 0.0
    value_matrix: float = 0.0
    heads: int = 1
    mask_shape: str = "random"
    optimizer: str = "sgd"
    momentum: float = 0.0
    batch: int | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, (most, open_end) in _RANGES.items():
            number = finite_number(f"relax.{name}", getattr(self, name))
            if number < 0 or number > most or (open_end and number == most):
                end = f"in [0, {most:g}{')' if open_end else ']'}" if most < float("inf") else "of at least 0"
                raise InputError(f"relax: {name} = {number} is out of range; give a number {end}.")
            object.__setattr__(self, name, number)
        for name, known in (
            ("positions", POSITIONS),
            ("mask_shape", MASK_SHAPES),
            ("optimizer", OPTIMIZERS),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"relax: {name} = {getattr(self, name)!r} is not known; give {' or '.join(known)}."
                )
        object.__setattr__(self, "heads", whole_number("relax.heads", self.heads))
        if self.batch is not None:
            object.__setattr__(self, "batch", whole_number("relax.batch", self.batch))
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f"relax: momentum = {self.momentum} is for optimizer = sgd; {self.optimizer} has its own, leave it out."
            )

    @property
    def is_paper(self) -> bool:
        """Whether nothing is relaxed."""
        return self == Relaxation()

    @property
    def relaxed(self) -> tuple[str, ...]:
        """The keys that are not the paper's."""
        paper = vars(Relaxation())
        return tuple(name for name, value in vars(self).items() if value != paper[name])
