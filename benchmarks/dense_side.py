"""Engine "dense" as the comparison needs it: one step timed, and when a training run reaches a given Phi."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from mimlab import MaskedReconstruction, World
from mimlab.dynamics.dense import DenseAttention, DenseWorld, draw

TIMED_RATE = 1e-3  # of steps that are only timed
LONGEST = 4  # times the expected steps that a run may take


@dataclass(frozen=True, eq=False)
class Dense:
    """The explicit network on a world, and the query that is looked at: the first patch of the first local area."""

    world: DenseWorld
    query: int

    @classmethod
    def on(cls, world: World, objective: MaskedReconstruction) -> Dense:
        """Areas written out patch by patch; one cluster."""
        layout = world.layout(0)
        base = layout.partitions[0]
        masked = objective.masked(layout.patches)
        return cls(DenseWorld(base.all_labels()[None, :], world.latent, masked), base.first_patch(1))

    def model(self, dtype: str) -> DenseAttention:
        """The network with Q = 0, in a random basis: nothing can be faster for zeros in it."""
        return DenseAttention(self.world, basis="random", dtype=dtype)

    def step(
        self, model: DenseAttention, generator: np.random.Generator, batch: int, rate: float, rows: str
    ) -> None:
        """One step of gradient descent on fresh images: "all rows", or "one row" with masks that hide it."""
        alone = rows == "one row"
        images = draw(self.world, generator, batch, self.query if alone else None)
        model.descend(images, rate, [self.query] if alone else None)

    def timed_step(self, model: DenseAttention, batch: int, rows: str) -> float:
        """Wall seconds of one step, drawing its images included."""
        generator = np.random.default_rng(0)
        began = time.perf_counter()
        self.step(model, generator, batch, TIMED_RATE, rows)
        return time.perf_counter() - began

    def crossing(self, phi: float, end: float, images: int, batch: int, seed: int, rows: str) -> float:
        """Time at which training lets Phi of the own area reach ``phi``, over ``end``, where ``images`` are spent by
        the time ``end``. Only the query's row is trained, which moves as it would among all rows."""
        steps = images // batch
        conditional = self.query if rows == "one row" else None
        # Nothing but time depends on the basis, and the rounding of float32 is far below the noise.
        model = DenseAttention(self.world, basis="canonical", dtype="float32")
        generator = np.random.default_rng([seed, images])
        own = int(self.world.area_of[0, self.query])
        before = 0.0
        for step in range(1, LONGEST * steps + 1):
            model.descend(draw(self.world, generator, batch, conditional), end / steps, [self.query])
            now = float(model.correlations([self.query])[0][0, 0, own])
            if now >= phi:
                return (step - (now - phi) / (now - before)) / steps
            before = now
        raise RuntimeError(f"dense did not reach Phi = {phi:.3g} in {LONGEST} times the time it should take.")


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads for PyTorch: one is best for small products that nobody times."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
