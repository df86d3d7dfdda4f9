"""When a run is looked at: steps at which attention is measured, checkpoints written, learning evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from mimlab.runs.checks import whole_number


@dataclass(frozen=True)
class WatchingConfig:
    """What is recorded while it trains.

    Parameters
    ----------
    interval
        Steps between two looks at the attention; at first they come at steps 0, 1, 2, 4, 8, ... below it.
    crops
        Held-out crops that are looked at, always the same.
    checkpoints
        How many checkpoints of the encoder: at the start, at steps spaced evenly in log, at the end.
    evaluations
        At how many of them features, reconstructions and shares of logits are evaluated, which takes longer than a
        look: at the start, and at the last ones. Most of the others are within the warm-up.
    log_interval
        Steps that a line of the log stands for.
    """

    interval: int = 50
    crops: int = 64
    checkpoints: int = 8
    evaluations: int = 4
    log_interval: int = 1

    def __post_init__(self) -> None:
        for name in ("interval", "log_interval"):
            whole_number(f"watching.{name}", getattr(self, name))
        whole_number("watching.crops", self.crops, least=2)
        for name in ("checkpoints", "evaluations"):
            whole_number(f"watching.{name}", getattr(self, name), least=2)

    def due(self, step: int, steps: int) -> bool:
        """Whether attention is looked at after so many of all steps: log-spaced, then regularly, and at the end.

        >>> [step for step in range(13) if WatchingConfig(interval=5).due(step, 12)]
        [0, 1, 2, 4, 5, 10, 12]
        """
        early = step < self.interval and step & (step - 1) == 0
        return early or step % self.interval == 0 or step == steps

    def checkpoint_steps(self, steps: int) -> tuple[int, ...]:
        """After which steps a checkpoint is written: 0, steps spaced evenly in log from 1 on, and the last.

        >>> WatchingConfig(checkpoints=5).checkpoint_steps(1000)
        (0, 1, 10, 100, 1000)
        """
        spaced = self.checkpoints - 2
        return (
            0,
            *sorted({round(steps ** (place / spaced)) for place in range(spaced + 1)} if spaced else {steps}),
        )

    def evaluated_steps(self, steps: int) -> tuple[int, ...]:
        """At which checkpoints of so many steps features, reconstructions and shares are evaluated.

        >>> WatchingConfig(checkpoints=5, evaluations=3).evaluated_steps(1000)
        (0, 100, 1000)
        """
        start, *later = self.checkpoint_steps(steps)
        return (start, *later[1 - self.evaluations :])
