"""The training loop: AdamW, warm-up and cosine, accumulation, clipping, on Lightning Fabric.

Batches are numbered through the whole run, and everything drawn for one depends on the seed and its number alone.
So a run that goes on from its state is the run that was never killed, to the last bit on the same machine with the
same number of threads; and k processes see what one sees that accumulates k times as often.

What would break that silently: an objective that draws from a generator of its own, or keeps what it learned outside
its `state_dict`; a source whose batches depend on those before them. The loop seeds PyTorch's global generator for
every batch (dropout draws from it) and knows no other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from mimlab.runs import InputError, to_mapping
from mimlab.training.checkpoints import (
    checkpoint_steps,
    drop_checkpoints,
    load_encoder,
    load_state,
    refuse_differences,
    save_state,
    write_checkpoint,
)
from mimlab.training.config import PretrainConfig, TrainingConfig
from mimlab.training.draws import generator
from mimlab.training.log import RunLog
from mimlab.training.schedule import learning_rate, parameter_groups, total_steps

OnStep = Callable[[int, Any], None]
"""Called with the steps done and the objective where the configuration's `watching` says so and at checkpoints, with
gradients off and in one process of several. What it adds to a `Journal` in the run's folder is cut back with the log
when a run goes on."""
Progress = Callable[[float, str], None]

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
FREE = ("training.max_minutes", "data.workers")
"""Keys that may change when a run goes on: no weight depends on them."""
SAVE_SECONDS = 30.0
"""Between two states, as long as writing one takes less than a second."""


class Objective(Protocol):
    """What the loop asks of an objective, a module; `mimlab.training.objectives` has them.

    encoder: a transformer of transformers, which the checkpoints hold.
    """

    encoder: nn.Module

    def loss(self, batch: Any, draws: torch.Generator) -> Mapping[str, Tensor]:
        """Scalars of a batch: "loss", which is minimised, and what else the log shall have."""

    def after_step(self, progress: float) -> None:
        """Called after each step with the share of the run that is done, for momentum encoders."""


class Source(Protocol):
    """Where batches come from. images: how many there are, one epoch."""

    images: int

    def batches(self, numbers: Iterator[int]) -> Iterator[Any]:
        """The batches of these numbers, in order. A batch depends on the seed and its number alone."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` is "finished", "stopped: ..." or "failed: ...", after `step` of `steps`."""

    status: str
    step: int
    steps: int
    seconds: float


def launch(training: TrainingConfig) -> Fabric:
    """Fabric as configured, its processes started. Raises InputError for devices that are not there."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        fabric = Fabric(
            accelerator=training.accelerator,
            devices=training.devices,
            strategy=training.strategy,
            precision=PRECISIONS[training.precision],
        )
        fabric.launch()
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"training: {str(error).strip().splitlines()[0]}") from None
    return fabric


def pretrain(
    objective: Any,
    source: Source,
    config: PretrainConfig,
    folder: Path,
    *,
    fabric: Fabric | None = None,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    save_seconds: float | None = None,
) -> Outcome:
    """Train, in a folder that holds the log, the checkpoints and the state; go on where there is a state.

    save_seconds: between two states, `SAVE_SECONDS` unless given; 0: after every step.
    Raises InputError where the state belongs to another configuration, key by key, and OSError in one line where the
    disk is full.
    """
    run = _Run(objective, source, config, folder, fabric or launch(config.training), on_step, progress)
    with torch.random.fork_rng(run.gpus):
        return run.train(SAVE_SECONDS if save_seconds is None else save_seconds)


class _Diverged(Exception):
    """Loss or gradient stopped being finite at `step`; the message says so."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class _Loss(nn.Module):  # type: ignore[misc]
    """The loss as a forward pass, where Fabric's precision and gradient exchange take hold."""

    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.objective = objective
        self.draws: torch.Generator | None = None

    def forward(self, batch: Any) -> Mapping[str, Tensor]:
        losses: Mapping[str, Tensor] = self.objective.loss(batch, self.draws)
        return losses


@dataclass
class _Run:
    objective: Any
    source: Source
    config: PretrainConfig
    folder: Path
    fabric: Fabric
    on_step: OnStep | None
    progress: Progress | None
    step: int = 0
    seconds: float = 0.0
    """Of earlier processes."""
    unread: list[tuple[int, float, dict[str, Tensor]]] = field(default_factory=list)
    """Steps whose losses were not looked at yet: on a GPU each look waits for it."""
    recent: list[dict[str, float]] = field(default_factory=list)
    """Steps since the last line of the log."""

    def __post_init__(self) -> None:
        self.steps = total_steps(self.config, self.source.images)
        self.began = self.marked = time.monotonic()
        self.counted = self.step
        self.writes = self.fabric.is_global_zero
        self.gpus = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        self.log = RunLog(self.folder, self.writes)
        training = self.config.training
        loss = _Loss(self.objective)
        groups = parameter_groups(self.objective, training.weight_decay)
        options: dict[str, Any] = {"lr": training.blr, "fused": True}
        optimizer = (
            torch.optim.SGD(groups, momentum=training.betas[0], **options)
            if training.optimizer == "sgd"
            else torch.optim.AdamW(groups, betas=training.betas, **options)
        )
        self.model, self.optimizer = self.fabric.setup(loss, optimizer)
        if training.compile:
            self.objective.compile()

    def train(self, save_seconds: float) -> Outcome:
        """All steps that are left."""
        self._restore()
        self.marked = time.monotonic()
        saved, cost = time.monotonic(), 0.0
        watching, minutes = self.config.watching, self.config.training.max_minutes
        checkpoints = watching.checkpoint_steps(self.steps)
        status = "finished"
        self.objective.train()
        try:
            batches = self.source.batches(self._numbers())
            while self.step < self.steps:
                self._advance(batches)
                last, logged = self.step == self.steps, self.step % watching.log_interval == 0
                kept = last or self.step in checkpoints
                watched = kept or watching.due(self.step, self.steps)
                if watched or logged:
                    self._read()
                if logged or last:
                    self._record()
                if kept and self.writes:
                    write_checkpoint(self.folder, self.step, self.objective.encoder)
                if watched:
                    self._look()
                if minutes and logged and not last and self.fabric.broadcast(self._elapsed() >= 60 * minutes):
                    status = f"stopped: {minutes:g} minutes were over after step {self.step} of {self.steps}"
                    break
                if self.writes and time.monotonic() - saved > save_seconds * max(1.0, cost):
                    began = time.monotonic()
                    self._read()
                    self._save()
                    saved = time.monotonic()
                    cost = saved - began
            if self.writes:
                write_checkpoint(self.folder, self.step, self.objective.encoder)
                self._save()
        except _Diverged as error:
            status = f"failed: {error}"
            self._back_to_good(error.step)
        finally:
            self.log.close()
        return Outcome(status, self.step, self.steps, self.seconds + self._elapsed())

    def _numbers(self) -> Iterator[int]:
        """The numbers of the batches that this process sees."""
        rounds = self.config.training.accum_iter
        for number in range(self.step * rounds, self.steps * rounds):
            yield number * self.fabric.world_size + self.fabric.global_rank

    def _advance(self, batches: Iterator[Any]) -> None:
        """One step of the optimizer."""
        training, rounds = self.config.training, self.config.training.accum_iter
        rate = learning_rate(self.config, self.step + 1, self.source.images)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts: dict[str, Tensor] = {}
        for place in range(rounds):
            number = (self.step * rounds + place) * self.fabric.world_size + self.fabric.global_rank
            batch = self.fabric.to_device(next(batches))
            self._seed(number)
            self.model.module.draws = generator(self.config.seed, number, "loss")
            with self.fabric.no_backward_sync(self.model, enabled=place + 1 < rounds):
                losses = self.model(batch)
                self.fabric.backward(losses["loss"] / rounds)
            for name, value in losses.items():
                parts[name] = parts.get(name, 0) + value.detach().float() / rounds
        clip = training.clip or math.inf
        parts["grad_norm"] = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.objective.after_step(self.step / self.steps)
        self.unread.append((self.step, rate, self._shared(parts)))

    def _seed(self, number: int) -> None:
        """PyTorch's global generators as the batch of this number finds them. `torch.manual_seed` does the same, and
        takes milliseconds to note who called it."""
        seed = generator(self.config.seed, number, "global").initial_seed()
        torch.default_generator.manual_seed(seed)
        if self.gpus:
            torch.cuda.manual_seed(seed)

    def _shared(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the processes."""
        if self.fabric.world_size == 1:
            return parts
        means = self.fabric.all_reduce(torch.stack(list(parts.values())), reduce_op="mean")
        return dict(zip(parts, means, strict=True))

    def _read(self) -> None:
        """Look at the losses of the latest steps. Raises _Diverged at the first that is not finite."""
        unread, self.unread = self.unread, []
        if not unread:
            return
        table = torch.stack([torch.stack(list(parts.values())) for _, _, parts in unread]).tolist()
        for (step, rate, parts), row in zip(unread, table, strict=True):
            values = dict(zip(parts, row, strict=True))
            odd = next((name for name, value in values.items() if not math.isfinite(value)), None)
            if odd is not None:
                before = self.recent[-1] if self.recent else self.log.last
                was = f" after {before['loss']:.4g} at the step before" if before else ""
                self.log.add(
                    {"step": step, "loss": values["loss"], "lr": rate, "grad_norm": values["grad_norm"]}
                )
                raise _Diverged(
                    f"{odd} is {values[odd]} from step {step} on{was}, at learning rate {rate:.3g}; "
                    "try a smaller --blr or a longer --warmup",
                    step,
                )
            self.recent.append({"lr": rate} | values)

    def _record(self) -> None:
        """A line of the log: means over the steps since the last one."""
        now, count = time.monotonic(), len(self.recent)
        means = {name: math.fsum(one[name] for one in self.recent) / count for name in self.recent[0]}
        self.recent = []
        speed = (self.step - self.counted) * self.config.images_per_step / max(now - self.marked, 1e-9)
        self.counted, self.marked = self.step, now
        epoch = self.step * self.config.images_per_step / self.source.images
        record = {"step": self.step, "epoch": epoch, "loss": means.pop("loss"), **means}
        self.log.add(record | {"images_per_second": speed, "seconds": self.seconds + self._elapsed()})
        if self.progress is not None and self.writes:
            left = (self.steps - self.step) * self.config.images_per_step / speed
            self.progress(
                self.step / self.steps,
                f"step {self.step} of {self.steps}, loss {record['loss']:.4g}, {speed:.0f} images/s, "
                f"{int(left) // 60}:{int(left) % 60:02d} left",
            )

    def _look(self) -> None:
        """Let the caller look: gradients off, random state and modes put back, no compiled code."""
        if self.on_step is None or not self.writes:
            return
        with torch.no_grad(), torch.random.fork_rng(self.gpus), _eager(self.objective):
            self.on_step(self.step, self.objective)
        self.objective.train()

    def _save(self) -> None:
        save_state(
            self.folder,
            {
                "config": to_mapping(self.config),
                "step": self.step,
                "seconds": self.seconds + self._elapsed(),
                "recent": self.recent,
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _restore(self) -> None:
        """Go to the state of an earlier process; else begin: look and keep what there is before the first step."""
        state = load_state(self.folder)
        if state is None:
            self.log.go_on(-1)
            self.objective.train()
            self._look()
            if self.writes:
                write_checkpoint(self.folder, 0, self.objective.encoder)
                self._save()
            return
        refuse_other(state["config"], self.config, self.folder)
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.counted = state["step"]
        self.seconds, self.recent = state["seconds"], state["recent"]
        self.log.go_on(self.step)

    def _back_to_good(self, bad: int) -> None:
        """The last weights that gave a finite loss, and a checkpoint of them: those before step `bad` did not, so what
        was kept of them goes. Where the state that was saved last is of them, the last checkpoint that is left."""
        state, good = load_state(self.folder), max(bad - 2, 0)
        if self.writes:
            drop_checkpoints(self.folder, good)
        if state is None:
            return
        self.objective.load_state_dict(state["objective"])
        self.step = state["step"]
        if self.step > good:
            self.step = checkpoint_steps(self.folder)[-1]
            load_encoder(self.objective.encoder, self.folder)
        elif self.writes:
            write_checkpoint(self.folder, self.step, self.objective.encoder)

    def _elapsed(self) -> float:
        return time.monotonic() - self.began


def refuse_other(there: Mapping[str, Any], config: PretrainConfig, folder: Path) -> None:
    """Raise InputError, key by key, where a run of another configuration would go on; `FREE` keys may differ."""
    one, other = (_without_free(mapping) for mapping in (there, to_mapping(config)))
    refuse_differences(
        one, other, f"{folder} holds a run of another configuration, which cannot go on as this one"
    )


def _without_free(mapping: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}
    for table, key in (free.split(".") for free in FREE):
        kept.get(table, {}).pop(key, None)
    return kept


@contextmanager
def _eager(objective: nn.Module) -> Iterator[None]:
    """Without compiled code, in which no call of attention can be seen."""
    compiled = [(part, part._compiled_call_impl) for part in objective.modules()]
    try:
        for part, _ in compiled:
            part._compiled_call_impl = None
        yield
    finally:
        for part, call in compiled:
            part._compiled_call_impl = call
