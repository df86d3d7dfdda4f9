"""The pass over attention on a GPU, in Triton: output of all tokens and the sums of all maps, never a table of N².

The same numbers as `mimlab.probing.tiles`: softmax over the patch columns, prefix columns merged by log-sum-exp.
Two kernels (`mimlab.probing.triton_kernels`): one makes the output and what belongs to a row, the other goes over
the weights again for the sums over rows. Extra memory is seven float32 for each row and two float64 for each column.

Products are in the inputs' own type with float32 sums, what follows in float32, sums over blocks in float64. Of the
inputs as they are given, all statistics agree with float64 within 2e-6 (in nats, or of the size of a patch for
distances; logits of several hundreds lose a digit). The output of half-precision inputs is rounded as fused
attention's is. A fused call's own scale belongs to its q and k: another gives wrong numbers silently.

With a GPU `python -m pytest tests/test_probe_triton.py` runs the kernels on it. Without one the same cases run in
Triton's interpreter, and the kernels are compiled for GPUs that are not there: shared memory and spilled registers
are checked, speed is not.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch

from mimlab.probing.attention import Tensor
from mimlab.probing.layout import Layout
from mimlab.probing.sums import Sums
from mimlab.runs.errors import InputError

LOG2E = 1.4426950408889634
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PRECISIONS = ("ieee", "tf32", "tf32x3")
WIDEST = 128
"""Dimensions of a head, at most."""


@dataclass(frozen=True)
class Blocks:
    """Queries and keys of a kernel's block, warps of a program, stages of its pipeline, registers of a thread."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 2
    registers: int | None = None


def available(tensor: Tensor) -> bool:
    """Whether `attend` can take queries like this one: on a CUDA GPU that has bfloat16, and Triton is there."""
    fits = tensor.is_cuda and tensor.dtype in DTYPES and tensor.shape[-1] <= WIDEST
    return fits and find_triton() and capability(tensor.device) >= (8, 0)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    layout: Layout,
    bias: Tensor | None = None,
    *,
    precision: str = "ieee",
    blocks: tuple[Blocks, Blocks] | None = None,
) -> tuple[Tensor, Sums]:
    """Attention's output (B, H, n, D), and the sums of its B·H maps over the patch queries. No gradients.

    q, k, v: (B, H, n, D) of one type, any strides; n = layout.tokens, D up to 128. bias: added to the scaled logits,
    a float that broadcasts to (B, H, n, n) and is never expanded; -inf masks. A query that sees no patch makes its
    map's sums nan. precision: of float32 products, one of PRECISIONS; "tf32" keeps three digits of the logits.
    blocks: of the two kernels, by default from a table. The output is in memory (B, n, H, D), as the model will read
    it. Raises InputError where shapes or types do not fit.
    """
    _check(q, k, v, scale, layout, bias, precision)
    from mimlab.probing.triton_kernels import attend_rows, sum_columns  # needs triton

    B, H, n, D = v.shape
    maps, N, prefix, device = B * H, layout.patches, layout.prefix, v.device
    output = torch.empty(B, n, H, D, dtype=v.dtype, device=device).transpose(1, 2)
    values = torch.empty(7, maps, N, dtype=torch.float32, device=device)
    scalars = torch.empty(4, maps, dtype=torch.float64, device=device)
    vectors = torch.empty(2, maps, N, dtype=torch.float64, device=device)
    added, bias_strides = values, (0, 0, 0, 0)  # without a bias its pointer is not read
    if bias is not None:
        added = bias.expand(B, H, n, n)
        bias_strides = added.stride()
    rows, columns = blocks or default_blocks(q.dtype, D, capability(device) if q.is_cuda else (0, 0))
    factor, width = scale * LOG2E, power(D)
    with torch.cuda.device_of(q):
        attend_rows[maps * (-(-N // rows.queries) + (prefix > 0)),](
            q, k, v, added, output, values, factor, H, N, maps * N, *map(float, layout.patch_size),
            *q.stride(), *k.stride(), *v.stride(), *bias_strides, *output.stride()[:3],
            PREFIX=prefix, GRID=layout.grid[1], D=D, WIDTH=width, ROWS=rows.queries, KEYS=rows.keys,
            FEW=power(prefix), BIAS=bias is not None, EVEN=N % rows.keys == 0, PRECISION=precision,
            num_warps=rows.warps, num_stages=rows.stages, maxnreg=rows.registers, enable_fp_fusion=True,
        )  # fmt: skip
        sum_columns[maps * -(-N // columns.keys),](
            q, k, added, values, scalars, vectors, factor, H, N, maps,
            *q.stride(), *k.stride(), *bias_strides,
            PREFIX=prefix, D=D, WIDTH=width, ROWS=columns.queries, KEYS=columns.keys,
            BIAS=bias is not None, EVEN=N % columns.queries == 0, PRECISION=precision,
            num_warps=columns.warps, num_stages=columns.stages, maxnreg=columns.registers, enable_fp_fusion=True,
        )  # fmt: skip
    return output, Sums(*scalars, *vectors)


def default_blocks(dtype: torch.dtype, D: int, architecture: tuple[int, int]) -> tuple[Blocks, Blocks]:
    """Blocks of the two kernels: chosen from compiled code, for few instructions, few spills and many warps at once."""
    if dtype == torch.float32:
        return Blocks(32, 32, warps=8 if D > 64 else 4), Blocks(32, 32)
    if D > 64:
        return Blocks(64, 64), Blocks(64, 64)
    third_program = (
        168 if architecture >= (9, 0) else None
    )  # registers that leave room for three on a processor
    return Blocks(64, 64, stages=3, registers=third_program), Blocks(128, 64, stages=3)


def power(n: int) -> int:
    """The power of two that holds n, at least the 16 that a product needs."""
    return max(16, 1 << (n - 1).bit_length())


def _check(
    q: Tensor, k: Tensor, v: Tensor, scale: float, layout: Layout, bias: Tensor | None, precision: str
) -> None:
    same = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype
    if not same or q.ndim != 4 or q.dtype not in DTYPES or q.shape[-1] > WIDEST:
        given = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in (q, k, v))
        raise InputError(
            f"q, k, v = {given} must have one shape (images, heads, tokens, up to {WIDEST}) and one type, "
            "float32 or half; method='tiles' takes any"
        )
    if q.shape[2] != layout.tokens:
        raise InputError(
            f"{q.shape[2]} tokens are not the {layout.tokens} of {layout}: give the model's layout"
        )
    if bias is not None and not bias.is_floating_point():
        raise InputError(
            f"a bias of {bias.dtype} must be a float: give 0 where a mask allows and -inf where not"
        )
    if not scale > 0 or precision not in PRECISIONS:
        raise InputError(
            f"scale = {scale} must be above 0 and precision = {precision!r} one of {', '.join(PRECISIONS)}; "
            "method='tiles' takes any scale"
        )


@cache
def find_triton() -> bool:
    """Whether triton is installed."""
    return find_spec("triton") is not None


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """A GPU's compute capability; (0, 0) where it is not NVIDIA's, on which nothing here was tried."""
    return torch.cuda.get_device_capability(device) if torch.version.cuda else (0, 0)
