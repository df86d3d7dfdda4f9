"""Every self-attention of a PyTorch model, caught while it runs, with no adapter for the model.

A mode of PyTorch's (mimlab.probing.mode) sees the functions that the model calls, hooks on the modules say who
called, and the convolution that the image went through gives the grid of patches (mimlab.probing.grid).

Nothing is left out quietly: an attention module that ran without being seen, a table whose side is not the number
of tokens, tokens that were shuffled, a module run in another thread are errors that name the module. What other
models do in the meantime is none of its business, nor is a forward pass repeated in backward (checkpointing).

Seen is the softmax, not what the model makes of it: weights that are scaled, gated, mixed between heads or subtracted
from each other afterwards are measured as the softmax gave them, each row of sum 1, and nothing says so.
Cross-attention between as many queries as keys cannot be told from self-attention, and counts as a layer.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.grid import GridFinder
from mimlab.probing.layout import Layout
from mimlab.probing.mode import Mode
from mimlab.probing.unseen import unseen
from mimlab.runs.errors import InputError

OnAttention = Callable[[Attention], Tensor | None]
"""Called at every self-attention; what it returns takes the place of the layer's output, None leaves it."""

_COMPILED = re.compile(r"(^|\.)_orig_mod(?=\.|$)")
"""What torch.compile puts into the names of modules."""


@contextmanager
def watch(
    model: nn.Module,
    on_attention: OnAttention,
    layout: Layout | None = None,
    layers: Sequence[int | str] | None = None,
) -> Iterator["Watch"]:
    """Call `on_attention` at every self-attention while the model runs inside the context.

    layout: where the tokens stand; by default read off the model. layers: their places in the forward pass from 0,
    or names of modules; by default all. Raises InputError for what is missed, when it happens or at the end.
    """
    seen = Watch(model, on_attention, layout, layers)
    with ExitStack() as stack:
        stack.callback(seen.remove_hooks)
        seen.add_hooks()
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(Mode(seen))
        yield seen
    seen.check()


class _Call(NamedTuple):
    """A module at work: its name, the shape of what it was given, and where the integers among that are stored."""

    name: str
    shape: tuple[int, ...]
    integers: frozenset[int]


class Watch:
    """What is known of the running model: who is calling, which layers were seen, the grid of patches.

    modules: names of the layers that were seen, in forward order.
    """

    def __init__(
        self,
        model: nn.Module,
        on_attention: OnAttention,
        layout: Layout | None,
        layers: Sequence[int | str] | None,
    ) -> None:
        self.modules: list[str] = []
        self._model = model
        self._names = {_COMPILED.sub("", name).lstrip("."): m for name, m in model.named_modules()}
        self._on_attention = on_attention
        self._layers = None if layers is None else list(layers)
        self._finder = GridFinder(layout)
        self._thread = threading.get_ident()
        self._running: list[_Call] = []
        self._outermost: list[str] = []  # modules of this pass that no other one called
        self._ran: set[str] = set()
        self._closed: set[str] = set()  # modules of which it cannot be known whether they ran
        self._called: set[str] = set()
        self._place = 0
        self._handles: list[Any] = []
        self._failure: InputError | None = None

    # Modules

    def add_hooks(self) -> None:
        """Follow every module as it starts and ends."""
        for name, module in self._names.items():

            def start(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], name: str = name) -> None:
                if self._handles and not _in_backward():
                    self._start(name, [*given, *named.values()])

            def end(_: nn.Module, __: object, ___: object, name: str = name) -> None:
                mine = threading.get_ident() == self._thread and self._running
                if mine and self._running[-1].name == name and not _in_backward():
                    self._running.pop()

            try:
                self._handles.append(module.register_forward_pre_hook(start, with_kwargs=True))
                self._handles.append(module.register_forward_hook(end, always_call=True))
            except RuntimeError:  # a scripted module takes no hooks
                self._closed.add(name)

    def remove_hooks(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()  # a copy of the model that was made meanwhile has the hooks still

    def _start(self, name: str, given: Sequence[Any]) -> None:
        if threading.get_ident() != self._thread:
            self._failure = InputError(
                f'module "{name}" ran in another thread than the capture, where its attention cannot be seen; '
                "call the model in the thread that opened the capture"
            )
            raise self._failure
        if not self._running:
            if self._begins(name):
                self._place = 0
                self._outermost.clear()
                self._finder.restart()
            self._outermost.append(name)
        shape = next((tuple(x.shape) for x in given if hasattr(x, "shape")), ())
        integers = (
            x.data_ptr() for x in given if torch.is_tensor(x) and x.dtype in (torch.int64, torch.int32)
        )
        self._running.append(_Call(name, shape, frozenset(integers)))
        self._ran.add(name)

    def _begins(self, name: str) -> bool:
        """Whether an outermost module begins a pass: a method as forward_features calls several in one pass."""
        done = self._outermost
        return not done or name in ("", done[0]) or any(not x or name.startswith(x + ".") for x in done)

    @property
    def running(self) -> bool:
        """Whether what happens now happens in the model, for the first time."""
        mine = threading.get_ident() == self._thread and bool(self._running)
        return mine and not _in_backward()

    @property
    def _caller(self) -> _Call:
        """The module that is calling; for a softmax that is a module of its own, the module it is part of."""
        own = (call for call in reversed(self._running) if not isinstance(self._names[call.name], nn.Softmax))
        return next(own, self._running[-1])

    # Calls

    def on_convolution(self, image: Tensor, output: Tensor) -> None:
        """An image, or features of one, went through a convolution."""
        self._finder.convolved(image, output, self._caller.name)

    def on_look_up(self, ids: Tensor) -> None:
        """Vectors were looked up by ids. Those that a module was given are words; those it made itself, positions."""
        within = [call for call in self._running if not isinstance(self._names[call.name], nn.Embedding)]
        if ids.dim() != 2:
            return
        if within:
            words = any(ids.data_ptr() in call.integers for call in within)
        else:  # by a method as encode_text, of which nothing is known
            words = ids.shape[0] != ids.shape[1] and not bool((ids.diff(dim=1) > 0).all())
        if words:
            self._finder.looked_up(ids.shape[1], self._caller.name)

    def on_pick(self, source: Tensor, pick: Callable[[Tensor], Tensor]) -> None:
        """Tokens were picked by an index: their order must have stayed."""
        self._finder.picked(source, pick, self._caller.name)

    def on_join(self, shapes: Sequence[Sequence[int]], dim: int) -> None:
        """Tokens were put together, along some axis."""
        self._finder.joined(shapes, dim, self._caller.name)

    def on_self_attention(
        self,
        q: Tensor | None = None,
        k: Tensor | None = None,
        v: Tensor | None = None,
        given: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        scale: float | None = None,
        heads: int | None = None,
    ) -> Tensor | None:
        """A self-attention was called; returns the output that takes the place of its own, if any."""
        caller, entered, _ = self._caller
        self._called.add(caller)
        self._finder.settle()
        source = q if given is None else given
        assert source is not None
        place, self._place = self._place, self._place + 1
        if place < len(self.modules):
            if self.modules[place] != caller:
                raise InputError(
                    f'attention {place} of this forward pass is in "{caller}", of an earlier one in '
                    f'"{self.modules[place]}"; capture one kind of pass at a time'
                )
        else:
            self.modules.append(caller)
        if self._layers is not None and place not in self._layers and caller not in self._layers:
            return None
        layout = self._finder.layout_of(caller, source.shape, self._window_of(caller), entered)
        shape = self._finder.maps_of(source.shape, layout, heads, entered)
        if bias is not None and _closes_a_query(bias):
            raise InputError(
                f'"{caller}" has a query with every key masked, which attends to nothing and has no statistics; '
                "leave such queries out of the input, or the layer out with layers="
            )
        # No other mode sees this: neither another watch, nor one of the user's.
        with (
            torch.no_grad(),
            torch.autocast(source.device.type, enabled=False),
            torch._C.DisableTorchFunction(),
        ):
            attention = Attention(
                module=caller,
                layer=place,
                layout=layout,
                scale=scale if scale is not None else 1.0 if q is None else q.shape[-1] ** -0.5,
                given=None if given is None else given.detach().reshape(*shape, *given.shape[-2:]),
                causal=causal,
                **_operands(q, k, v, bias, shape),
            )
            output = self._on_attention(attention)
        if output is None or v is None:
            return None
        return output.to(v.dtype).reshape(*source.shape[:-1], v.shape[-1])

    def on_other_attention(self) -> None:
        """Attention of other queries than keys: seen, and no self-attention."""
        self._called.add(self._caller.name)

    def _window_of(self, caller: str) -> int | None:
        """Tokens in a window of the calling module, where it or what it is part of names a window."""
        parts = caller.split(".")
        for length in range(len(parts), 0, -1):
            size = getattr(self._names.get(".".join(parts[:length])), "window_size", None)
            if isinstance(size, int) and size > 0:
                return size * size
            if isinstance(size, tuple | list) and len(size) == 2:
                return int(size[0]) * int(size[1])
        return None

    # At the end

    def check(self) -> None:
        """Raise InputError if a layer was missed, or none was seen at all."""
        if self._failure is not None:
            raise self._failure
        if not self._ran and "" not in self._closed:
            raise InputError("the model was not called; call it inside the capture")
        missed = unseen(self._names, self._ran | self._closed, self._called, self.modules)
        if self._layers is not None and all(isinstance(layer, str) for layer in self._layers):
            # Numbers would shift by what was missed, names do not.
            missed = [name for name in missed if name in self._layers]
        if missed:
            raise InputError(
                f"attention was not seen in: {', '.join(missed)}. It is computed by something else than "
                "F.scaled_dot_product_attention, softmax or nn.MultiheadAttention (a custom kernel, or a traced "
                "or scripted module): switch that off, or name the layers to measure with layers="
                if self.modules
                else f"no self-attention was seen in {type(self._model).__name__}, although these ran: "
                f"{', '.join(missed)}; a custom kernel or a traced module hides it: switch that off"
            )
        if not self.modules:
            raise InputError(
                f"{type(self._model).__name__} has no self-attention between tokens: there is nothing to measure"
            )
        for layer in self._layers or ():
            known = range(len(self.modules)) if isinstance(layer, int) else self.modules
            if layer not in known:
                raise InputError(
                    f"layer {layer!r} was not seen; the layers are 0 to {len(self.modules) - 1}: "
                    + ", ".join(self.modules)
                )


def _in_backward() -> bool:
    """Whether autograd is at work: modules that run then repeat a forward pass (checkpointing)."""
    return bool(torch._C._current_graph_task_id() != -1)


def _closes_a_query(bias: Tensor) -> bool:
    """Whether a bias or mask leaves a query no key at all."""
    closed = ~bias.any(-1) if bias.dtype == torch.bool else bias.amax(-1) == -torch.inf
    return bool(closed.any())


def _operands(
    q: Tensor | None, k: Tensor | None, v: Tensor | None, bias: Tensor | None, shape: tuple[int, int]
) -> dict[str, Tensor | None]:
    """Queries, keys and values as (B, H, n, D); the bias expanded over them."""
    if q is None or k is None or v is None:
        return {}
    n = q.shape[-2]

    def wide(x: Tensor) -> Tensor:
        if x.dim() >= 3 and q.dim() >= 3 and x.shape[-3] != q.shape[-3]:  # grouped queries share keys
            x = x.repeat_interleave(q.shape[-3] // x.shape[-3], -3)
        return x.detach().reshape(*shape, n, x.shape[-1])

    if bias is not None:  # widened before it is expanded, which then takes no memory
        bias = bias.detach()
        bias = bias if bias.dtype in (torch.bool, torch.float64) else bias.float()
        bias = bias.expand(*q.shape[:-2], n, n)
        bias = bias if bias.dim() == 4 else bias.reshape(*shape, n, n)
    return {"q": wide(q), "k": wide(k), "v": wide(v), "bias": bias}
