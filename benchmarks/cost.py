"""Cost of the sampled engine against draws x areas: one evaluation of the gradient, and the set-up, apart.

A step of the solver makes the same few evaluations whatever the size, so one evaluation is timed. Two kinds of world:
local areas that are alike, which the engine sums once at set-up, and areas all of different sizes, where nothing can be
summed and every area has its own Phi: the worst case with one cluster.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engines import LATENTS, world_of
from record import Outcome, Setting, Target, power

from mimlab import MaskedReconstruction, World
from mimlab.dynamics.rows import REACH
from mimlab.dynamics.sampled import join, sampled_replicates
from mimlab.objectives.kernel import RowObjective
from mimlab.world.row import row_of

ALIKE, UNLIKE = "areas alike", "areas all of different sizes"
BYTES = 80  # that a draw of an area takes while it is set up, generously
LARGE = 10**5  # draws x areas from which the fixed cost of a call no longer hides the slope
LATENT = LATENTS["latents in [0.5, 1.5]"]  # the dearer of the two: continuous latents merge by interpolation
SLACK = 0.05  # of the exponent, for the noise of timing


@dataclass(frozen=True)
class Cost:
    """Seconds that a world takes; ``areas`` of the row's world, ``columns`` that were left after merging."""

    kind: str
    patches: int
    areas: int
    columns: int
    draws: int
    setup: float
    evaluation: float

    @property
    def size(self) -> int:
        """Draws x areas."""
        return self.draws * self.areas


def unlike_world(patches: int) -> World:
    """About as many patches: a global area of P^0.9, local ones of 2, 3, 4, ... patches."""
    largest = round(patches**0.9)
    sizes = np.arange(2, int((2 * (patches - largest)) ** 0.5))
    return World(area_sizes=(largest, *sizes.tolist()), latent=LATENT)


def cost_of(kind: str, world: World, draws: int, seed: int, repeats: int) -> Cost | None:
    """Time one world; None where it would not fit in half the memory."""
    layout = world.layout(seed)
    areas = layout.partitions[0].areas
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if draws * areas * BYTES > memory / 2:
        return None
    row = row_of(layout, layout.partitions[0].first_patch(1), world.max_cells)
    objective = MaskedReconstruction()
    began = time.perf_counter()
    joined = join(sampled_replicates(row, LATENT, objective.masked(row.patches), draws, seed, REACH))
    setup = time.perf_counter() - began
    evaluated = RowObjective(row, joined, objective.query_masked(row.patches))
    state = np.random.default_rng(seed).normal(size=row.size) / 10  # the cost does not depend on it
    evaluated.evaluate(state)
    taken = []
    for _ in range(repeats):
        calls, began = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - began < 0.02:
            evaluated.evaluate(state)
            calls += 1
        taken.append((time.perf_counter() - began) / calls)
    columns = sum(d.z.shape[1] + (0 if d.merged is None else len(d.merged.z)) for d in joined)
    return Cost(kind, row.patches, areas, columns, draws, setup, float(np.median(taken)))


def sampled_cost(setting: Setting) -> Outcome:
    """Both kinds of world, P = 10^3 .. 10^6, 256 .. 4096 draws."""
    patches = (500, 1000) if setting.quick else (10**3, 10**4, 10**5, 10**6)
    draws = (64, 128) if setting.quick else (256, 1024, 4096)
    costs, skipped = [], []
    cost_of(
        ALIKE, world_of(patches[0], LATENT), draws[0], setting.seed, repeats=1
    )  # loads what a first run loads
    for kind in (ALIKE, UNLIKE):
        for p in patches:
            world = world_of(p, LATENT) if kind == ALIKE else unlike_world(p)
            for d in draws:
                cost = cost_of(kind, world, d, setting.seed, repeats=3 if setting.quick else 9)
                if cost is None:
                    skipped.append({"kind": kind, "patches": p, "draws": d})
                else:
                    costs.append(cost)
    draw_costs(costs, setting.folder / "sampled_cost.png")
    targets, notes = [], []
    for kind in (ALIKE, UNLIKE):
        chosen = [c for c in costs if c.kind == kind]
        slope, worst = slope_of(chosen, "evaluation"), worst_of(chosen, "evaluation")
        goal = f"sampled, cost of a solver step in draws × areas, {kind}: at most linear"
        targets.append(Target(goal, f"exponent {slope:.2f}", slope <= 1 + SLACK))
        notes.append(
            f"{kind.capitalize()}: exponent of the set-up {slope_of(chosen, 'setup'):.2f}; between two sizes, the cost "
            f"of a step grew at most {worst:.2f} times as much as draws × areas."
        )
    return Outcome(
        tuple(targets),
        (
            f"Least-squares slope of log cost from {power(LARGE)} draws × areas; all points in "
            "[the figure](../benchmarks/results/sampled_cost.png).",
            *notes,
        ),
        {"costs": [{**vars(c), "size": c.size} for c in costs], "skipped": skipped},
    )


def slope_of(costs: list[Cost], of: str) -> float:
    """Exponent of a cost in draws x areas, over the larger sizes."""
    large = [c for c in costs if c.size >= LARGE]
    chosen = large if len(large) > 1 else costs
    return float(np.polyfit(np.log([c.size for c in chosen]), np.log([getattr(c, of) for c in chosen]), 1)[0])


def worst_of(costs: list[Cost], of: str) -> float:
    """Largest growth of a cost over that of draws x areas, between sizes at least fourfold apart."""
    pairs = [(a, b) for a in costs for b in costs if b.size >= 4 * a.size]
    return max((getattr(b, of) / getattr(a, of) / (b.size / a.size) for a, b in pairs), default=float("nan"))


def draw_costs(costs: list[Cost], path: Path) -> None:
    """Evaluation and set-up against draws x areas, both kinds, with the line of linear growth."""
    from mimlab.report.style import COLOURS, new_figure, save, styled

    shapes: dict[str, dict[str, Any]] = {
        ALIKE: {"marker": "o", "color": COLOURS["own"]},
        UNLIKE: {"marker": "s", "color": COLOURS["global"]},
    }
    with styled():
        figure = new_figure(height=3.9, width=9.0)
        panels = figure.subplots(1, 2)
        for axes, of, title in zip(
            panels, ("evaluation", "setup"), ("one evaluation", "set-up, once a run"), strict=True
        ):
            for kind, shape in shapes.items():
                chosen = [c for c in costs if c.kind == kind]
                axes.loglog(
                    [c.size for c in chosen], [getattr(c, of) for c in chosen], ls="", label=kind, **shape
                )
            last = max((c for c in costs if c.kind == UNLIKE), key=lambda c: c.size)
            sizes = np.array(sorted(c.size for c in costs))
            axes.loglog(
                sizes, getattr(last, of) * sizes / last.size, color=COLOURS["guide"], ls="--", label="linear"
            )
            axes.set(xlabel="draws × areas", ylabel="seconds", title=title)
        panels[0].legend()
        save(figure, path, "Sampled engine: seconds per evaluation and for the set-up against draws x areas")
