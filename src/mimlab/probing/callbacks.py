"""Attention statistics in a training log: on one fixed batch, every n steps, while a model trains.

    lightning.pytorch.Trainer(callbacks=[LightningProbe(pixels, every=100)])
    trainer.add_callback(TrainerProbe({"pixel_values": pixels}, trainer, every=100))  # transformers
    attention_log(model, pixels)  # any other loop: {"attention/diversity": ..., "attention/diversity/layer_0": ...}

A value is the mean over images, heads and, in the names without one, layers; layers count from 0 in forward order,
statistics are those of `mimlab.probing.catalogue`. Training goes on as if nothing had been measured: the model is
in eval mode meanwhile and as it was afterwards, no gradient is taken, no random number drawn.

What would mislead: a batch of another kind than the model trains on, and values of different image sizes or batches in
one curve. Autocast is off: a model that trains under it is measured in the precision of its weights. Models whose
weights are sharded over processes (FSDP) cannot be measured by one of them.

`LightningProbe` and `TrainerProbe` are made when they are first asked for, and only then is their library imported.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mimlab.probing.attention import Tensor
from mimlab.probing.capture import capture, names_of
from mimlab.probing.collapse import FALL, Falls
from mimlab.probing.layout import Layout
from mimlab.runs.errors import InputError

Forward = Callable[[nn.Module, Any], object]
"""How to call the model on a batch, where `model(batch)` or, for a mapping, `model(**batch)` is not it."""


def attention_log(
    model: nn.Module,
    batch: Any,
    statistics: str | Sequence[str] = "core",
    forward: Forward | None = None,
    layers: Sequence[int | str] | None = None,
    layout: Layout | None = None,
) -> dict[str, float]:
    """Mean attention statistics of the model on a batch, by name, e.g. "attention/nmi" and "attention/nmi/layer_3".

    batch: a tensor, or a mapping or sequence of them; moved to where the model is, and into its precision. forward:
    called with the model and the batch. statistics, layers, layout: as for `mimlab.capture`, whose errors it raises.

    The model is left as it was: weights, gradients, training flags and random state.
    """
    wrapped = (
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
    )  # the others do not take part in this pass
    module = model.module if isinstance(model, wrapped) else model
    like = next(module.parameters(), torch.empty(0))
    with undisturbed(module, like.device), capture(module, statistics, layers, layout=layout) as found:
        (forward or _call)(module, _moved(batch, like))
    grouped = found.table.group_by(["statistic", "layer"], use_threads=False).aggregate([("value", "mean")])
    log: dict[str, float] = {}
    by_layer: dict[str, list[float]] = {}
    for row in grouped.to_pylist():
        log[f"attention/{row['statistic']}/layer_{row['layer']}"] = row["value_mean"]
        by_layer.setdefault(row["statistic"], []).append(row["value_mean"])
    return {f"attention/{name}": sum(values) / len(values) for name, values in by_layer.items()} | log


@contextmanager
def undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode without gradients, autocast or consequences for random numbers."""
    modes = [(part, part.training) for part in module.modules()]
    devices = [device] if device.type == "cuda" else []
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),  # what it caches here would have no gradient later
        torch.random.fork_rng(devices),
    ):
        try:
            for part, _ in modes:
                part.training = False  # without what a model may do in eval() beside
            yield
        finally:
            for part, training in modes:
                part.training = training


def _call(model: nn.Module, batch: Any) -> object:
    return model(**batch) if isinstance(batch, Mapping) else model(batch)


def _moved(batch: Any, like: Tensor) -> Any:
    """The batch on the device of `like`; floating-point numbers in its type."""
    if isinstance(batch, torch.Tensor):
        floating = batch.is_floating_point() and like.is_floating_point()
        return batch.to(like.device, like.dtype if floating else batch.dtype)
    if isinstance(batch, Mapping):
        return {name: _moved(value, like) for name, value in batch.items()}
    return [_moved(value, like) for value in batch] if isinstance(batch, list | tuple) else batch


@dataclass(eq=False)
class _Probe:
    """Measure at the start and every `every` steps; in the first process alone, where there are several.

    batch, statistics, forward, layers, layout: as for `attention_log`. alarm: warn when a layer's NMI falls below this
    share of the highest that it had, as it does when all queries come to attend alike (`mimlab.probing.collapse`, which
    also says from which NMI on a layer is watched); 0 never warns, nor does a probe without "nmi" among its statistics.
    Raises InputError for a number or a statistic that cannot be.
    """

    batch: Any
    _: KW_ONLY
    every: int = 100
    statistics: str | Sequence[str] = "core"
    forward: Forward | None = None
    layers: Sequence[int | str] | None = None
    layout: Layout | None = None
    alarm: float = FALL
    _last: int = field(init=False, default=0)
    _falls: Falls = field(init=False, default_factory=Falls)

    def __post_init__(self) -> None:
        if not (isinstance(self.every, int) and self.every >= 1):
            raise InputError(f"every = {self.every} must be a whole number of steps >= 1")
        if not 0 <= self.alarm < 1:
            raise InputError(f"alarm = {self.alarm} must be a fraction in [0, 1); 0 never warns")
        names_of(self.statistics)

    def _due(self, step: int) -> bool:
        """Whether a multiple of `every` was reached or passed since the last call: a step may take several batches,
        or count for several optimizers."""
        last, self._last = self._last, step
        return step // self.every > last // self.every

    def _measure(self, model: nn.Module, step: int) -> dict[str, float]:
        self._last = step
        log = attention_log(model, self.batch, self.statistics, self.forward, self.layers, self.layout)
        for name, value in log.items():
            if name.startswith("attention/nmi/"):
                was = self._falls.of(name, value, self.alarm)
                if was is not None:
                    warnings.warn(
                        f"{name} is {value:.2g} at step {step} and was {was:.2g}: queries come to attend "
                        "alike, as in a collapse; alarm=0 switches this warning off",
                        stacklevel=2,
                    )
        return log


class _LightningProbe(_Probe):
    __doc__ = f"""A callback for Lightning's Trainer that writes attention statistics to its loggers.

    {_Probe.__doc__}"""

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """Refuse a Trainer that would keep nothing of what is measured."""
        if stage == "fit" and trainer.is_global_zero and not trainer.loggers:
            raise InputError(
                "this Trainer has no logger to write attention statistics to; give it one with logger="
            )

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """The first values, of the weights that training starts from."""
        if trainer.is_global_zero:
            self._write(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
        """Measure when it is due."""
        if trainer.is_global_zero and self._due(trainer.global_step):
            self._write(trainer, pl_module)

    def _write(self, trainer: Any, model: nn.Module) -> None:
        log = self._measure(model, trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics(log, step=trainer.global_step)


@dataclass(eq=False)
class _TrainerProbe(_Probe):
    __doc__ = f"""A callback for transformers' Trainer that logs attention statistics through its `log`.

    trainer: the Trainer, to which this must be added with `add_callback`.

    {_Probe.__doc__}"""

    trainer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.trainer, "log"):
            raise InputError(
                "trainer must be the Trainer to log through: trainer.add_callback(TrainerProbe(batch, trainer))"
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The first values, of the weights that training starts from."""
        if state.is_world_process_zero:
            self._write(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure when it is due."""
        if state.is_world_process_zero and self._due(state.global_step):
            self._write(state, control)

    def _write(self, state: Any, control: Any) -> None:
        wants_loss = control.should_log  # to log anything takes it back
        self.trainer.log(self._measure(self.trainer.model, state.global_step))
        control.should_log = wants_loss


_BASES = {
    "LightningProbe": (_LightningProbe, "Callback", ("lightning.pytorch", "pytorch_lightning")),
    "TrainerProbe": (_TrainerProbe, "TrainerCallback", ("transformers",)),
}


def __getattr__(name: str) -> Any:
    """Make a callback class on its library's own, and keep it. Raises InputError where the library is missing."""
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    probe, base, libraries = _BASES[name]
    for library in libraries:
        try:
            parent = getattr(import_module(library), base)
        except ModuleNotFoundError as error:
            if error.name not in (library, library.partition(".")[0]):
                raise  # it is there, and lacks something itself
            continue
        globals()[name] = type(name, (probe, parent), {"__module__": __name__, "__doc__": probe.__doc__})
        return globals()[name]
    raise InputError(
        f"{name} needs {' or '.join(x.partition('.')[0] for x in libraries)}; install it with pip"
    )
