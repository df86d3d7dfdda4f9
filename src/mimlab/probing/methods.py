"""Ways to carry out one attention with its sums: chosen once by name, and again by what each call allows."""

import torch

from mimlab.probing import compiled, tiles, triton_rows
from mimlab.probing.attention import Attention, Tensor
from mimlab.probing.sums import Sums
from mimlab.runs.errors import InputError

METHODS = ("auto", "tiles", "compiled", "triton")


class Method:
    """Attends, and sums what the statistics need. Keeps its buffers: one for a whole capture.

    name: "tiles" is PyTorch anywhere; "compiled" the row pass in C++, on a CPU in float32; "triton" a kernel for
    CUDA. Where a call is nothing for the method (float64, logits that the model made itself, an observer), tiles
    take it. "auto" takes the fastest there is. Raises InputError where a method cannot be had.
    """

    def __init__(self, name: str) -> None:
        if name not in METHODS:
            raise InputError(f'method = "{name}" must be one of {", ".join(METHODS)}')
        if name == "compiled" and not compiled.available():
            raise InputError(
                'method = "compiled" needs a C++ compiler with OpenMP, and none works here; use "tiles"'
            )
        if name == "triton" and not (torch.cuda.is_available() and triton_rows.find_triton()):
            raise InputError('method = "triton" needs a CUDA GPU and triton installed; use "auto" elsewhere')
        self._triton = name in ("auto", "triton")
        self._tiler = tiles.Tiler(compile=name in ("auto", "compiled"))

    def attend(
        self, attention: Attention, observer: tiles.Observer | None = None
    ) -> tuple[Tensor | None, Sums]:
        """The output (B, H, n, D), None where the model makes it itself, and the sums of all maps."""
        if self._triton and observer is None and _fits_triton(attention):
            q, k, v = attention.q, attention.k, attention.v
            assert q is not None and k is not None and v is not None
            bias = _additive(attention.bias, q.dtype)
            return triton_rows.attend(q, k, v, attention.scale, attention.layout, bias)
        return self._tiler.attend(attention, observer)


def _fits_triton(attention: Attention) -> bool:
    q, k, v = attention.q, attention.k, attention.v
    if q is None or k is None or v is None or attention.causal or attention.scale <= 0:
        return False
    return q.shape == v.shape and q.dtype == k.dtype == v.dtype and triton_rows.available(q)


def _additive(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bias as numbers to add: a boolean mask becomes 0 and -inf, without expanding what only repeats."""
    if bias is None or bias.dtype != torch.bool:
        return bias
    once = bias[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in bias.stride())]
    return torch.zeros(once.shape, dtype=dtype, device=once.device).masked_fill_(~once, -torch.inf)
