"""Benchmarks of pretraining: `python benchmarks/pretrain.py [ROW ...] [--quick] [--seed N] [--table]`.

The rows pretrain-mae and pretrain-gpu train MAE by mimlab's loop and by a plain loop over the same network of
transformers, in turns; pretrain-watching times what is looked at beside what is trained. Raw numbers, with machine,
load, commit and command, are kept in benchmarks/results/ROW.json; `--table` writes what those files say into
docs/benchmarks.md. Nothing else may use the machine meanwhile. The row pretrain-gpu needs CUDA.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import main
from pretrain_page import AT_LEAST, AT_MOST, GPU_ROW, block
from record import NotHere, Outcome, Row, Setting, Target
from turns import median_interval

from mimlab.runs import build, merge
from mimlab.studies.pretrain_looks import Looks
from mimlab.training import views
from mimlab.training.config import PretrainConfig
from mimlab.training.draws import generator
from mimlab.training.loop import pretrain
from mimlab.training.networks import build_encoder, build_mae
from mimlab.training.objectives import build_objective
from mimlab.training.presets import with_preset
from mimlab.training.schedule import learning_rate, parameter_groups
from mimlab.training.sources import training_source

TURNS, STEPS, FIRST = 14, 24, 6
"""Turns; steps of each way in a turn, of which the first are not counted."""
TINY = {"network": {"width": 24, "heads": 2, "depth": 2}, "data": {"batch_size": 8}, "watching": {"crops": 8}}


def config_of(objective: str, setting: Setting, preset: str = "laptop", **training: Any) -> PretrainConfig:
    """A preset's configuration, tiny where it is to be quick."""
    given = {"objective": {"name": objective}, "seed": setting.seed, "training": training}
    return build(PretrainConfig, with_preset(preset, merge(given, TINY if setting.quick else {})))


def mimlab_loop(config: PretrainConfig) -> float:
    """Images per second of a run by mimlab, nothing watched, the log written at every step as by default."""
    first = FIRST if config.training.steps > FIRST + 1 else 1
    with tempfile.TemporaryDirectory() as home:
        pretrain(build_objective(config), training_source(config), config, Path(home))
        seconds = [json.loads(line)["seconds"] for line in (Path(home) / "log.jsonl").open()]
    return (len(seconds) - first) * config.images_per_step / (seconds[-1] - seconds[first - 1])


def plain_loop(config: PretrainConfig, device: str = "cpu") -> float:
    """Images per second of a loop as one would write it: the same network, crops, schedule, groups of parameters and
    clipping, masks drawn by the network itself, PyTorch's fused AdamW, the loss read at every step."""
    first = FIRST if config.training.steps > FIRST + 1 else 1
    network, training = config.network, config.training
    encoder = build_encoder(network, config.seed)
    model = build_mae(network, encoder, config.objective.mask_ratio, False, config.seed).to(device)
    source = training_source(config)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, training.weight_decay), lr=training.blr, betas=training.betas, fused=True
    )
    torch.manual_seed(config.seed)
    losses = []
    began = time.perf_counter()
    for step, batch in enumerate(source.batches(range(training.steps))):
        if step == first:
            began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step + 1, source.images)
        draws = generator(config.seed, step, "loss")
        pixels = views.standardise(views.plain(batch.pixels.to(device), network.image_size, draws))
        optimizer.zero_grad()
        loss = model(pixels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        losses.append(loss.item())
    return (training.steps - first) * config.images_per_step / (time.perf_counter() - began)


def compared(
    ours: PretrainConfig, plain: PretrainConfig, setting: Setting, device: str, least: float
) -> Outcome:
    """Both loops in turns; the ratio of their speeds, turn by turn. On a GPU its median must reach `least`, else its
    interval."""
    ways = {"mimlab": partial(mimlab_loop, ours), "plain": partial(plain_loop, plain, device)}
    order = np.random.default_rng(setting.seed)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3 if setting.quick else TURNS + 1):
        for name in order.permutation(list(ways)).tolist():
            speed = ways[name]()
            if turn:  # the first warms up
                speeds[name].append(speed)
    ratios = np.divide(speeds["mimlab"], speeds["plain"])
    low, high, confidence = median_interval(ratios.tolist())
    ratio = {"median": float(np.median(ratios)), "low": low, "high": high, "confidence": confidence}
    found = "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
    middle = {name: float(np.median(values)) for name, values in speeds.items()}
    note = (
        f"{ours.images_per_step} images a step; {middle['mimlab']:.0f} images per second by mimlab, "
        f"{middle['plain']:.0f} plain, medians of {len(ratios)} turns of {ours.training.steps} steps, the first "
        f"{FIRST} not counted; {torch.get_num_threads()} threads."
    )
    what, reached = ("median", ratio["median"]) if device == "cuda" else ("interval", high)
    goal = f"MAE, images per second over a plain loop: {what} reaches {least:g}"
    raw = {"speeds": speeds, "ratio": ratio}
    return Outcome((Target(goal, found, reached >= least),), (note,), raw)


def on_processor(setting: Setting) -> Outcome:
    """The laptop preset."""
    config = config_of("mae", setting, steps=4 if setting.quick else STEPS)
    return compared(config, config, setting, "cpu", AT_LEAST["cpu"])


def on_gpu(setting: Setting) -> Outcome:
    """The workstation preset, bfloat16 and compiled, over a plain loop in float32."""
    if not torch.cuda.is_available():
        raise NotHere("it needs a CUDA GPU")
    config = config_of("mae", setting, "workstation", steps=4 if setting.quick else 60)
    return compared(config, config, setting, "cuda", AT_LEAST["gpu"])


def watching(setting: Setting) -> Outcome:
    """What looks cost over a whole run of the laptop preset, beside its training: kinds of look timed one by one."""
    targets, raw, notes = [], {}, []
    for objective in ("simmim", "mae"):
        whole = config_of(objective, setting)
        steps = whole.training.steps
        evaluated = set(whole.watching.evaluated_steps(steps))
        kept = set(whole.watching.checkpoint_steps(steps))
        due = {step for step in range(steps + 1) if whole.watching.due(step, steps)} | kept
        short = config_of(objective, setting, steps=4 if setting.quick else STEPS)
        speed = float(np.median([mimlab_loop(short) for _ in range(2 if setting.quick else 5)]))
        training = steps * whole.images_per_step / speed
        plain, evaluation = _looks(
            whole, sorted(due - evaluated), sorted(evaluated), 2 if setting.quick else 7
        )
        looks = plain * len(due - evaluated) + evaluation * len(evaluated)
        share = looks / training
        raw[objective] = {
            "training_seconds": training,
            "look_seconds": plain,
            "evaluation_seconds": evaluation,
            "looks": len(due - evaluated),
            "evaluations": len(evaluated),
            "share": share,
        }
        goal = f"watching a laptop run of {objective}, share of its training time: under {AT_MOST:.0%}"
        targets.append(Target(goal, f"{share:.1%}", share < AT_MOST))
        alone = plain * len(due) / training
        targets.append(Target(f"{objective}: the looks alone, without what is evaluated", f"{alone:.1%}"))
        notes.append(
            f"{objective}: {len(due - evaluated)} looks of {1e3 * plain:.0f} ms and {len(evaluated)} with evaluation "
            f"of {1e3 * evaluation:.0f} ms beside {training:.0f} s of training."
        )
    return Outcome(tuple(targets), tuple(notes), raw)


def _looks(config: PretrainConfig, plain: list[int], evaluated: list[int], times: int) -> tuple[float, float]:
    """Median seconds of a look, and of one with evaluation; the first of each is not counted."""
    objective = build_objective(config)
    with tempfile.TemporaryDirectory() as home:
        looks = Looks(config, Path(home), config.training.steps)
        taken: list[list[float]] = []
        for steps in (plain, evaluated):
            seconds = []
            for step in (steps * (times + 1))[: times + 1]:
                began = time.perf_counter()
                looks(step, objective)
                seconds.append(time.perf_counter() - began)
            taken.append(seconds[1:])
    return float(np.median(taken[0])), float(np.median(taken[1]))


ROWS: dict[str, Row] = {"pretrain-mae": on_processor, "pretrain-watching": watching, GPU_ROW: on_gpu}

if __name__ == "__main__":
    sys.exit(main("benchmarks/pretrain.py", __doc__ or "", ROWS, block))
