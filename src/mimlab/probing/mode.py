"""What a model calls while it runs: attention, convolutions, looking words up, the picking and joining of tokens.

A `TorchFunctionMode` sees `F.scaled_dot_product_attention`, any spelling of softmax over a square last table, and
`F.multi_head_attention_forward`, whose body is run with its two leaf calls replaced. It hands what it sees to a
`Watch`, and the output that the watch has made, if any, to the model.
"""

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from mimlab.probing.attention import Tensor

if TYPE_CHECKING:
    from mimlab.probing.watch import Watch

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
_CONVOLUTIONS = (F.conv2d, torch.conv2d)
_JOINS = (torch.cat, torch.concat, torch.concatenate)
_STACKS = (torch.hstack, torch.column_stack)
_PICKS = tuple(
    getattr(where, name)
    for name in ("gather", "index_select", "take_along_dim", "flip", "roll")
    for where in (torch, Tensor)
)


class Mode(TorchFunctionMode):  # type: ignore[misc]
    """Hands the calls that matter to a `Watch`; everything else goes its way."""

    def __init__(self, watch: "Watch") -> None:
        super().__init__()
        self._watch = watch
        self._handlers: dict[Any, Callable[..., Any]] = {
            F.scaled_dot_product_attention: self._fused,
            F.multi_head_attention_forward: self._multi_head,
            **dict.fromkeys(_SOFTMAX, self._softmax),
            **dict.fromkeys(_CONVOLUTIONS, self._convolution),
            **dict.fromkeys(_JOINS, self._join),
            **dict.fromkeys(_STACKS, self._stack),
            F.pad: self._pad,
            F.embedding: self._look_up,
            **dict.fromkeys(_PICKS, self._pick),
            Tensor.__getitem__: self._index,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = self._handlers.get(func)
        if handler is None or not self._watch.running:
            return func(*args, **(kwargs or {}))
        return handler(func, *args, **(kwargs or {}))

    def _fused(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        return self._attend(func, None, query, key, value, *args, **kwargs)

    def _attend(
        self,
        func: Any,
        heads: int | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        operands = (query, key, value)

        def plain() -> Tensor:
            output: Tensor = func(*operands, attn_mask, dropout_p, is_causal, scale=scale, **kwargs)
            return output

        if query.shape[-2] != key.shape[-2] or query.dim() < 3:
            self._watch.on_other_attention()
            return plain()
        seen = operands
        if torch.is_autocast_enabled(query.device.type):  # the call itself would cast them so
            lower = torch.get_autocast_dtype(query.device.type)
            seen = tuple(x.to(lower) if x.dtype == torch.float32 else x for x in operands)
        output = self._watch.on_self_attention(
            *seen, bias=attn_mask, causal=is_causal, scale=scale, heads=heads
        )
        differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
        watched = any(isinstance(mode, Mode) for mode in _get_current_function_mode_stack())  # by another one
        return plain() if output is None or differentiable or dropout_p > 0 or watched else output

    def _softmax(self, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dim = kwargs.get("dim", args[0] if args else None)
        if input.dim() >= 3 and dim in (-1, input.dim() - 1):
            if input.shape[-1] == input.shape[-2]:
                self._watch.on_self_attention(given=input)
            else:
                self._watch.on_other_attention()
        output: Tensor = func(input, *args, **kwargs)
        return output

    def _multi_head(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        width: int,
        heads: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run the function's own body with its two leaf calls seen: the mode is off inside its handler."""

        def softmax(input: Tensor, dim: int, **options: Any) -> Tensor:
            if input.shape[-1] == input.shape[-2]:
                self._watch.on_self_attention(given=input, heads=heads)
            else:
                self._watch.on_other_attention()
            return F.softmax(input, dim, **options)

        def fused(*operands: Any, **options: Any) -> Tensor:
            return self._attend(F.scaled_dot_product_attention, heads, *operands, **options)

        # Under another mode the body would hand itself on, past the leaves.
        leaves = {
            "softmax": softmax,
            "scaled_dot_product_attention": fused,
            "has_torch_function": lambda _: False,
        }
        body = FunctionType(func.__code__, {**func.__globals__, **leaves}, func.__name__, func.__defaults__)
        body.__kwdefaults__ = func.__kwdefaults__
        return body(query, key, value, width, heads, *args, **kwargs)

    def _convolution(self, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = func(input, *args, **kwargs)
        self._watch.on_convolution(input, output)
        return output

    def _look_up(self, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._watch.on_look_up(input)
        output: Tensor = func(input, *args, **kwargs)
        return output

    def _join(self, func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
        dim = args[0] if args else kwargs.get("dim", kwargs.get("axis", 0))
        self._watch.on_join([part.shape for part in tensors], dim)
        output: Tensor = func(tensors, *args, **kwargs)
        return output

    def _stack(self, func: Any, tensors: Any, **kwargs: Any) -> Tensor:
        self._watch.on_join([part.shape for part in tensors], 1)
        output: Tensor = func(tensors, **kwargs)
        return output

    def _pad(self, func: Any, input: Tensor, pad: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Padding the second axis from the last joins tokens to both of its ends."""
        if len(pad) >= 4:
            *lead, tokens, width = input.shape
            self._watch.on_join([(*lead, count, width) for count in (pad[2], tokens, pad[3])], -2)
        output: Tensor = func(input, pad, *args, **kwargs)
        return output

    def _pick(self, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._watch.on_pick(input, lambda places: func(places, *args, **kwargs))
        output: Tensor = func(input, *args, **kwargs)
        return output

    def _index(self, func: Any, input: Tensor, index: Any) -> Tensor:
        """Slices leave tokens in order; tensors, arrays and lists may not."""
        parts = index if isinstance(index, tuple) else (index,)
        if any(hasattr(part, "__len__") for part in parts):
            return self._pick(func, input, index)
        output: Tensor = func(input, index)
        return output
