"""The sampled engine against the explicit network trained by mini-batches (engine "dense"), at equal error in Phi.

The task: Phi of the local query's own area at t* = its half-attention time. There Phi grows explosively, so an error
is stated as that of the time at which Phi reaches its true value Phi*, relative to t*. To first order it is
(Phi - Phi*) / (t* dPhi/dt), so that equal errors in one are equal errors in the other; but it stays linear in the
noise far beyond the range where Phi does.

Measured: wall time of the sampled engine and its actual error over seeds; seconds per image of dense at several batch
sizes, in turns with those runs; the noise of dense at two affordable numbers N of images. Extrapolated: the N at which
dense has the sampled engine's error, by the law noise = k / sqrt(N) of stochastic gradient descent with small steps;
k at both N is the test of that law. Training all rows moves a row exactly as training it alone on the same images
does, so k is measured on one row. The bias of the learning rate is measured and not held against dense.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from engines import LATENTS, world_of
from record import Outcome, Setting, Target, shown, whole_number

from mimlab import MaskedReconstruction, World, simulate

if TYPE_CHECKING:
    from dense_side import Dense

Array = np.ndarray

OBJECTIVE = MaskedReconstruction(mask_ratio=0.75)
WAYS = ("all rows", "one row")
AIM = {(1024, "all rows"): 10_000}  # times as fast as dense
TRUTH_SEEDS = 1_000  # the seeds of the truth start here
STEP_BACK = 1e-4  # of t*, over which dPhi/dt is measured
TURNS = 5  # of timing
RESAMPLES = 4000  # of the spread: variances by their chi-squared law, times by the bootstrap
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Plan:
    """Sizes of the measurement at one P; ``noise``: pairs (images, batch), ``batches``: those that are timed."""

    patches: int
    draws: int
    truth: tuple[int, int]  # draws, seeds
    seeds: int  # of the sampled engine, and of dense at each number of images
    noise: tuple[tuple[int, int], ...]
    batches: Mapping[str, tuple[int, ...]]
    probe: int  # steps of exact gradient descent, whose bias is proportional to 1 / steps


BATCHES = {"all rows": (4, 16, 64), "one row": (16, 64, 256)}
PLANS = (
    Plan(256, 1024, (8192, 8), 24, ((1024, 8), (4096, 16)), BATCHES, 1000),
    Plan(1024, 1024, (8192, 8), 24, ((512, 8), (2048, 16)), BATCHES, 1000),
)
TINY = (Plan(24, 64, (128, 2), 3, ((64, 4), (128, 4)), {"all rows": (2, 4), "one row": (4, 8)}, 50),)


@dataclass(frozen=True)
class Task:
    """t*, Phi* there with its standard error, and the slope t* dPhi/dt."""

    time: float
    phi: float
    phi_se: float
    slope: float


def against_dense(setting: Setting) -> Outcome:
    """Wall time of dense over that of sampled, at P = 256 and 1024: on all rows, and on the same one."""
    import torch

    targets, raw = [], {}
    notes = [f"PyTorch ran {torch.get_num_threads()} threads; brackets are 95% intervals from the spread."]
    for plan in TINY if setting.quick else PLANS:
        found = compare(plan, setting.seed)
        raw[f"P = {plan.patches}"] = found
        for way in WAYS:
            ratio, aim = found["ratios"][way], AIM.get((plan.patches, way))
            goal = f"sampled against dense on {way}, P = {plan.patches}, equal error in Φ"
            times, low, high = (whole_number(ratio[key]) for key in ("ratio", "low", "high"))
            met = None if aim is None else bool(ratio["ratio"] >= aim)
            targets.append(
                Target(goal + (f": aim {aim:,}" if aim else ""), f"{times} times ({low} to {high})", met)
            )
        notes += notes_on(plan, found)
    return Outcome(tuple(targets), tuple(notes), raw)


def compare(plan: Plan, seed: int) -> dict[str, Any]:
    """Everything measured at one P, and the ratios."""
    from dense_side import Dense, threads

    world = world_of(plan.patches, LATENTS["constant latents"])
    dense, task = Dense.on(world, OBJECTIVE), task_of(world, plan, seed)
    seconds, steps = in_turns(world, dense, task, plan, seed)
    phis, stated = zip(
        *(phi_at(world, task.time, plan.draws, seed + i) for i in range(plan.seeds)), strict=True
    )
    errors = (np.array(phis) - task.phi) / task.slope
    with threads(1):
        noise = {way: noise_of(dense, task, plan, seed, way) for way in WAYS}
    return {
        "task": vars(task),
        "sampled": {"seconds": seconds, "phi": phis, "phi_se": stated, "error_of_time": errors},
        "dense_steps": steps,
        "dense_noise": noise,
        "dense_bias_times_steps": bias_of(world, task, plan, seed),
        "ratios": {way: ratio_of(seconds, errors, steps[way], noise[way], seed) for way in WAYS},
    }


def phi_at(world: World, moment: float, draws: int, seed: int) -> tuple[float, float]:
    """Phi of the own area at a time by the sampled engine, as a user would ask for it, and its stated error."""
    run = simulate(
        world, OBJECTIVE, draws=draws, seed=seed, learning_rate=moment, steps=1, stop_attention=1.0
    )
    last = run.trajectory.slice(len(run.trajectory) - 1).to_pylist()[0]
    return last["phi_own"], np.nan if last["phi_own_se"] is None else last["phi_own_se"]


def task_of(world: World, plan: Plan, seed: int) -> Task:
    """The truth, by the sampled engine with many draws, averaged over seeds."""
    draws, number = plan.truth
    seeds = [seed + TRUTH_SEEDS + index for index in range(number)]
    moment = simulate(world, OBJECTIVE, draws=draws, seed=seeds[0], stop_attention=0.5).summary["half_time"]
    phis = [phi_at(world, moment, draws, s)[0] for s in seeds]
    earlier = phi_at(world, moment * (1 - STEP_BACK), draws, seeds[0])[0]
    se = float(np.std(phis, ddof=1) / len(phis) ** 0.5)
    return Task(moment, float(np.mean(phis)), se, (phis[0] - earlier) / STEP_BACK)


def in_turns(
    world: World, dense: Dense, task: Task, plan: Plan, seed: int
) -> tuple[list[float], dict[str, list[dict[str, Any]]]]:
    """Seconds of whole sampled runs and of single steps of dense, one after the other, so that both meet the same
    machine."""
    models = {dtype: dense.model(dtype) for dtype in ("float32", "float64")}
    steps: dict[str, list[dict[str, Any]]] = {
        way: [
            {"batch": batch, "dtype": dtype, "seconds": []} for batch in plan.batches[way] for dtype in models
        ]
        for way in WAYS
    }
    runs = []
    for turn in range(1 + TURNS):
        began = time.perf_counter()
        phi_at(world, task.time, plan.draws, seed + turn)
        runs.append(time.perf_counter() - began)
        for way in WAYS:
            for kind in steps[way]:
                kind["seconds"].append(dense.timed_step(models[kind["dtype"]], kind["batch"], way))
    for times in (runs, *(kind["seconds"] for way in WAYS for kind in steps[way])):
        del times[0]  # it warms up
    return runs, steps


def noise_of(dense: Dense, task: Task, plan: Plan, seed: int, way: str) -> list[dict[str, Any]]:
    """When dense reaches Phi*, over seeds, for each number of images."""
    return [
        {
            "images": images,
            "batch": batch,
            "crossings": [
                dense.crossing(task.phi, task.time, images, batch, seed + index, way)
                for index in range(plan.seeds)
            ],
        }
        for images, batch in plan.noise
    ]


def bias_of(world: World, task: Task, plan: Plan, seed: int) -> float:
    """Relative error of time that the learning rate causes, times the number of steps: exact gradient descent against
    the flow, on the same draws."""
    run = simulate(
        world,
        OBJECTIVE,
        integrator="descent",
        learning_rate=task.time / plan.probe,
        steps=plan.probe,
        draws=plan.draws,
        seed=seed,
        stop_attention=1.0,
    )
    descent, flow = run.trajectory["phi_own"][-1].as_py(), phi_at(world, task.time, plan.draws, seed)[0]
    return float((descent - flow) / task.slope * plan.probe)


def law_of(noise: Sequence[Mapping[str, Any]]) -> Array:
    """k of noise = k / sqrt(N), at each number N of images."""
    return np.array([np.std(entry["crossings"], ddof=1) * entry["images"] ** 0.5 for entry in noise])


def ratio_of(
    seconds: Sequence[float],
    errors: Array,
    steps: Sequence[Mapping[str, Any]],
    noise: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """Wall time of dense over that of sampled, at the batch and number format that favour dense most."""
    best = min(steps, key=lambda kind: float(np.median(kind["seconds"])) / kind["batch"])
    image, run, n = np.array(best["seconds"]) / best["batch"], np.array(seconds), len(errors)
    k, error = law_of(noise), float(np.mean(errors**2) ** 0.5)
    images = float(np.mean(k**2)) / error**2

    generator = np.random.default_rng(seed)
    k_drawn = k * np.sqrt((n - 1) / generator.chisquare(n - 1, size=(RESAMPLES, len(k))))
    error_drawn = error * np.sqrt(n / generator.chisquare(n, size=RESAMPLES))
    image_drawn, run_drawn = (
        np.median(generator.choice(x, size=(RESAMPLES, TURNS)), axis=1) for x in (image, run)
    )
    ratios = np.mean(k_drawn**2, axis=1) / error_drawn**2 * image_drawn / run_drawn
    low, high = np.quantile(ratios, INTERVAL)
    return {
        "ratio": images * float(np.median(image) / np.median(run)),
        "low": low,
        "high": high,
        "images": images,
        "seconds_an_image": float(np.median(image)),
        "batch": best["batch"],
        "dtype": best["dtype"],
        "step_over_run": float(np.median(best["seconds"]) / np.median(run)),
        "k": k,
        "law": [k[-1] / k[0], *np.quantile(k_drawn[:, -1] / k_drawn[:, 0], INTERVAL)],
    }


def notes_on(plan: Plan, found: Mapping[str, Any]) -> list[str]:
    """What was measured at one P and what extrapolated, in sentences."""
    sampled, task = found["sampled"], found["task"]
    error = float(np.mean(np.square(sampled["error_of_time"])) ** 0.5)
    notes = [
        f"*P = {plan.patches}, measured:* sampled with {plan.draws} draws takes {shown(sampled['seconds'])}, standard "
        f"errors included. Over {plan.seeds} seeds Φ = {task['phi']:.3f} at t* = {task['time']:.4g} is off by "
        f"{error * task['slope']:.2g} (root mean square; stated: {np.nanmedian(sampled['phi_se']):.2g}; standard error "
        f"of the truth: {task['phi_se']:.1g}), which is {error:.2g} of t*."
    ]
    for way in WAYS:
        ratio, tried = found["ratios"][way], [f"{entry['images']:,}" for entry in found["dense_noise"][way]]
        law, low, high = ratio["law"]
        bias = abs(found["dense_bias_times_steps"]) * ratio["batch"] / ratio["images"]
        notes.append(
            f"*Dense on {way}, measured:* {1e3 * ratio['seconds_an_image']:.2g} ms an image at its best (batch "
            f"{ratio['batch']}, {ratio['dtype']}); noise of the time {' and '.join(f'{k:.2g}' for k in ratio['k'])} "
            f"over √N at N = {' and '.join(tried)} images, ratio {law:.2f} ({low:.2f} to {high:.2f}) where the law "
            f"says 1; one step takes {ratio['step_over_run']:.2g} times as long as the whole sampled run. "
            f"*Extrapolated:* N = {whole_number(ratio['images'])} images, "
            f"{whole_number(ratio['images'] * ratio['seconds_an_image'])} s; the learning rate's bias would then be "
            f"{bias:.1g} of t*."
        )
    return notes
