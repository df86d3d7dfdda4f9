"""The Triton kernels against float64 formulas: in Triton's interpreter, and on a GPU where there is one.

The interpreter must be chosen before triton is first imported, so this file is also a script that runs every case
there, in a process of its own, and writes what came out.
"""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from mimlab.probing.layout import Layout
from mimlab.probing.sums import Sums, finish
from mimlab.probing.triton_rows import Blocks, attend, available, default_blocks, power
from mimlab.runs import InputError

Tensor = torch.Tensor


@dataclass(frozen=True)
class Case:
    """By default a 3 x 7 grid in blocks of 16, so that neither queries nor keys come out even."""

    kind: str = "random"
    images: int = 1
    prefix: int = 1
    D: int = 16
    dtype: torch.dtype = torch.float32
    grid: tuple[int, int] = (3, 7)
    bias: str = ""
    strided: bool = False
    queries: int = 16
    keys: int = 16

    @property
    def layout(self) -> Layout:
        return Layout(self.grid, self.prefix, (16.0, 8.0))

    @property
    def blocks(self) -> tuple[Blocks, Blocks]:
        return Blocks(self.queries, self.keys), Blocks(self.keys, self.queries)


CASES = {
    "plain": Case(),
    "no prefix": Case(prefix=0),
    "five prefix tokens, two images": Case(prefix=5, images=2, grid=(5, 7)),
    "twenty prefix tokens": Case(prefix=20),
    "sharp": Case("sharp"),
    "collapsed": Case("collapsed"),
    "one key": Case("one key"),
    "sink": Case("sink"),
    "sink among five": Case("sink", prefix=5),
    "whole rows of the grid in a block": Case(grid=(4, 8)),
    "one row of the grid in a block": Case(grid=(3, 16), queries=32),
    "one block": Case(queries=64, keys=64),
    "one patch": Case(grid=(1, 1)),
    "strided, D = 20": Case(strided=True, D=20, images=2),
    "D = 64": Case(D=64),
    "D = 80": Case(D=80, keys=32),
    "bias": Case(bias="full", images=2),
    "bias of heads": Case(bias="heads", prefix=0, grid=(4, 8), images=2),
    "masked": Case(bias="masked", images=2),
    "bfloat16": Case(dtype=torch.bfloat16),
    "float16, strided, D = 80": Case(dtype=torch.float16, strided=True, D=80, keys=32),
}


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, float, Tensor | None]:
    """q, k, v, scale and bias, the same in every process."""
    generator = torch.Generator().manual_seed(7)
    n, p, D = case.layout.tokens, case.prefix, case.D
    q, k, v = torch.randn(3, case.images, 2, n, D, generator=generator)
    if case.kind == "sharp":
        q *= 30
    if case.kind == "collapsed":
        q[:] = q[:, :, :1] + 1e-3 * q
    if case.kind == "one key":
        q[..., 0], k[..., 0] = 8.0, -8.0
        k[:, :, p + 3, 0] = 8.0
    if case.kind == "sink":
        q[..., 0], k[..., 0] = 1.0, 0.0
        k[:, :, p - 1, 0] = 30 * math.sqrt(D)
    bias = None
    if case.bias:
        bias = torch.randn(case.images, 2, n, n, generator=generator)
    if case.bias == "heads":
        bias = bias[:1]
    if case.bias == "masked":
        bias = bias[:, :1].masked_fill(bias[:, :1] > 0.5, -math.inf)
        bias[..., p:, :].diagonal(p, -2, -1).zero_()  # every query sees a patch, itself
    q, k, v = (part.to(case.dtype) for part in (q, k, v))
    if case.strided:  # as a fused projection leaves them, and one with its dimensions apart
        q, k = torch.stack([q, k], 3).permute(0, 2, 3, 1, 4).contiguous().permute(2, 0, 3, 1, 4)
        v = v.transpose(2, 3).contiguous().transpose(2, 3)
    return q, k, v, 1 / math.sqrt(D), bias


def expected(case: Case) -> tuple[Tensor, Sums]:
    """The formulas of theory, section 7, on the whole map in float64."""
    q, k, v, scale, bias = inputs(case)
    layout, p = case.layout, case.prefix
    logits = q.double() @ k.double().transpose(-1, -2) * scale
    if bias is not None:
        logits = logits + bias.double()
    output = logits.softmax(-1) @ v.double()
    rows = logits[:, :, p:, p:].softmax(-1).flatten(0, 1)
    positions = torch.from_numpy(layout.positions())
    far = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    return output, Sums(
        entropy=torch.special.entr(rows).sum((-1, -2)),
        square=rows.square().sum((-1, -2)),
        distance=(rows * far).sum((-1, -2)),
        prefix_mass=logits.softmax(-1)[:, :, p:, :p].sum((-1, -2)).flatten(),
        row=rows.sum(-2),
        unit_row=(rows / rows.norm(dim=-1, keepdim=True)).sum(-2),
    )


def computed(case: Case, device: str = "cpu") -> tuple[Tensor, Sums]:
    q, k, v, scale, bias = (part.to(device) if isinstance(part, Tensor) else part for part in inputs(case))
    return attend(q, k, v, scale, case.layout, bias, blocks=case.blocks)


def compare(case: Case, output: Tensor, sums: Sums) -> None:
    """Output within its type's rounding; means over the queries within 2e-6, 2e-5 where logits are some hundreds. How
    float32 rounds depends on the processor, which NMI magnifies where it is 0 over 0."""
    truth, truths = expected(case)
    sharp = 10 if case.kind == "sharp" else 1
    epsilon = 3e-6 * sharp if case.dtype == torch.float32 else 2 * torch.finfo(case.dtype).eps
    assert output.dtype == case.dtype and output.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(output.double().cpu(), truth, rtol=10 * epsilon, atol=epsilon)
    near = {"rtol": 2e-6 * sharp, "atol": 2e-6 * sharp}
    for field in fields(Sums):
        found, true = (getattr(each, field.name).cpu() / case.layout.patches for each in (sums, truths))
        assert found.dtype == torch.float64 and found.shape == true.shape
        torch.testing.assert_close(found, true, **near, msg=lambda text, name=field.name: f"{name}: {text}")
    statistics = finish(truths, case.layout)
    # Where all rows share one key NMI, I / sqrt(log N H), is 0 over 0: within sqrt(atol / log N), each within atol.
    shared = (statistics["mean_row_entropy"] < near["atol"]) & (case.layout.patches > 1)
    for name, found in finish(sums, case.layout).items():
        true = statistics[name]
        if name == "nmi" and shared.any():
            worst = math.sqrt(2 * near["atol"] / math.log(case.layout.patches))
            assert found.cpu()[shared].abs().max() < worst
            found, true = found.cpu()[~shared], true[~shared]
        torch.testing.assert_close(found.cpu(), true, **near, equal_nan=True)


def unseeing(device: str = "cpu") -> tuple[Tensor, Sums]:
    """In the first head's map one query sees the prefix alone; in the second's a key is nan."""
    q, k, v, scale, _ = inputs(Case())
    k[0, 1, 4, 0] = math.nan
    bias = torch.zeros(1, 2, 22, 22)
    bias[:, 0, 9, 1:] = -math.inf
    q, k, v, bias = (part.to(device) for part in (q, k, v, bias))
    return attend(q, k, v, scale, Case().layout, bias, blocks=Case().blocks)


def check_unseeing(output: Tensor, sums: Sums) -> None:
    assert output[:, 0].isfinite().all() and output[:, 1].isnan().all()
    torch.testing.assert_close(output[:, 0, 9].cpu(), inputs(Case())[2][:, 0, 0])
    assert sums.prefix_mass[0].isfinite()
    for each in (sums.entropy, sums.square, sums.distance, sums.row, sums.unit_row, sums.prefix_mass[1]):
        assert each.isnan().all()


def interpret_everything(path: Path) -> None:
    """Run every case in the interpreter, and keep what came out."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    product = InterpreterBuilder.create_dot

    def decoded(handle: TensorHandle) -> TensorHandle:
        """It keeps bfloat16 as integers, and would multiply those."""
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype("uint32") << 16).view("float32"), tl.float32)

    def exact(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: object) -> TensorHandle:
        return product(self, decoded(a), decoded(b), *rest)

    InterpreterBuilder.create_dot = exact
    torch.set_num_threads(1)
    results = {name: computed(case) for name, case in CASES.items()}
    results["unseeing"] = unseeing()
    torch.save({name: (output, list(vars(sums).values())) for name, (output, sums) in results.items()}, path)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, Sums]]:
    """What every case gave in the interpreter."""
    path = tmp_path_factory.mktemp("interpreted") / "cases.pt"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: (output, Sums(*sums)) for name, (output, sums) in torch.load(path).items()}


@pytest.mark.parametrize("name", CASES)
def test_interpreter_gives_the_formulas(name, interpreted):
    compare(CASES[name], *interpreted[name])


def test_a_query_that_sees_no_patch_and_a_key_that_is_nan_are_no_statistics(interpreted):
    check_unseeing(*interpreted["unseeing"])


@pytest.mark.parametrize(
    "name, architecture, dtype, D, bias",
    [
        ("attend_rows", 90, "bf16", 64, False),
        ("sum_columns", 90, "bf16", 64, False),
        ("sum_columns", 80, "fp16", 80, True),
    ],
)
def test_compiles_for_a_gpu_that_is_not_here(name, architecture, dtype, D, bias, tmp_path):
    """Shared memory fits, hardly a register is spilled, and Hopper's own products are used on Hopper."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget

    from mimlab.probing import triton_kernels

    assert "TRITON_INTERPRET" not in os.environ
    both = default_blocks(torch.float16, D, divmod(architecture, 10))
    kernel, blocks = getattr(triton_kernels, name), both[name == "sum_columns"]
    constants = {"PREFIX": 1, "GRID": 32, "D": D, "WIDTH": power(D), "ROWS": blocks.queries}
    constants |= {"KEYS": blocks.keys, "FEW": 16, "BIAS": bias, "EVEN": True, "PRECISION": "ieee"}
    constants |= {each: 1 for each in kernel.arg_names if each.endswith(("_dim", "bias_column"))}
    constants = {each: value for each, value in constants.items() if each in kernel.arg_names}
    types = {"bias": "*fp32", "values": "*fp32", "scalars": "*fp64", "vectors": "*fp64"}
    types |= dict.fromkeys(("q", "k", "v", "output"), f"*{dtype}")
    types |= dict.fromkeys(("factor", "step_y", "step_x"), "fp32") | dict.fromkeys(constants, "constexpr")
    signature = {each: types.get(each, "i32") for each in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, each in enumerate(kernel.arg_names)
        if signature[each].startswith("*") or each.endswith(("_image", "_head", "_row"))
    }
    source = triton.compiler.ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, "maxnreg": blocks.registers}
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={**options, "enable_fp_fusion": True})
    assert compiled.metadata.shared <= 99 * 1024
    assert ("wgmma" in compiled.asm["ptx"]) == (architecture == 90)
    (tmp_path / "cubin").write_bytes(compiled.asm["cubin"])
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", tmp_path / "cubin"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(re.search(r"STACK:(\d+)", usage)[1]) <= 64


def test_refusals():
    case = Case()
    q, k, v, scale, _ = inputs(case)
    with pytest.raises(InputError, match=r"one shape .* method='tiles'"):
        attend(q, k[:, :, 1:], v, scale, case.layout)
    with pytest.raises(InputError, match="one type"):
        attend(q.double(), k.double(), v.double(), scale, case.layout)
    with pytest.raises(InputError, match="22 tokens are not the 21"):
        attend(q, k, v, scale, replace(case, prefix=0).layout)
    with pytest.raises(InputError, match=r"bool must be a float"):
        attend(q, k, v, scale, case.layout, torch.ones(22, 22, dtype=torch.bool))
    with pytest.raises(InputError, match="above 0"):
        attend(q, k, v, -1.0, case.layout)
    with pytest.raises(InputError, match="ieee, tf32"):
        attend(q, k, v, scale, case.layout, precision="exact")
    assert not available(q)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_gives_the_formulas(name):
    assert available(torch.empty(1, 16, device="cuda"))
    compare(CASES[name], *computed(CASES[name], "cuda"))


@needs_gpu
def test_gpu_a_query_that_sees_no_patch_and_a_key_that_is_nan_are_no_statistics():
    check_unseeing(*unseeing("cuda"))


LARGE = {
    "ViT-B/16": Case(images=2, D=64, grid=(14, 14), dtype=torch.bfloat16),
    "square of blocks": Case(D=64, grid=(32, 32), dtype=torch.float16),
    "wide heads, a bias": Case(D=80, grid=(37, 37), dtype=torch.bfloat16, bias="full"),
    "float32": Case(D=64, grid=(24, 24), bias="masked"),
    "float32, wide heads": Case(D=128, grid=(16, 16), prefix=5),
    "4096 patches": Case(D=64, grid=(64, 64), dtype=torch.bfloat16),
}


@needs_gpu
@pytest.mark.parametrize("name", LARGE)
def test_gpu_with_its_own_blocks(name):
    case = LARGE[name]
    q, k, v, scale, bias = (part.cuda() if isinstance(part, Tensor) else part for part in inputs(case))
    compare(case, *attend(q, k, v, scale, case.layout, bias))


if __name__ == "__main__":
    interpret_everything(Path(sys.argv[1]))
