"""The row pass in C++ (rows.cpp): compiled once with the compiler found, kept in the user's cache, loaded by ctypes.

It pays because a row of weights then stays in the processor's first cache from the first exponential to the last
sum. Where there is no compiler, or it fails, `available` is False and the tiles do the same in PyTorch.

The library takes PyTorch's own OpenMP threads (their runtime is in the process first), so that two pools of
threads do not fight for the cores.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from mimlab.probing.attention import Tensor
from mimlab.probing.sums import Work

_SOURCE = Path(__file__).with_name("rows.cpp")
_FLAGS = ("-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_TUNED = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ())
"""Flags for this very processor, the best first: a compiler or processor may not know them."""


def available() -> bool:
    """Whether the compiled pass can be used here. The first call compiles it, a second or two."""
    return _library() is not None


def rows(block: Tensor, work: Work, masked: bool) -> None:
    """What `mimlab.probing.tiles.rows` does, in float32 on the CPU; a mask needs no care here."""
    library = _library()
    assert library is not None and block.dtype == torch.float32 and block.is_contiguous()
    written = (work.total, work.top, work.entropy, work.square, work.distance, work.row, work.unit_row)
    library.mimlab_rows(
        _pointer(block),
        *(ctypes.c_int64(n) for n in block.shape),
        *(_pointer(tensor) for tensor in (work.distances, *written)),
        ctypes.c_int(torch.get_num_threads()),
    )


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@cache
def _library() -> ctypes.CDLL | None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    for flags in _TUNED:
        try:
            return ctypes.CDLL(str(_compiled(compiler, (*_FLAGS, *flags))))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compiled(compiler: str, flags: tuple[str, ...]) -> Path:
    """The library for this source, compiler and processor; made where the cache has none."""
    told = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    key = hashlib.sha256(_SOURCE.read_bytes() + told + " ".join(flags).encode() + _processor())
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mimlab"
    try:
        cached.mkdir(parents=True, exist_ok=True)
    except OSError:
        cached = Path(tempfile.mkdtemp(prefix="mimlab-"))
    library = cached / f"rows-{key.hexdigest()[:16]}.so"
    if not library.exists():
        descriptor, temporary = tempfile.mkstemp(dir=cached, suffix=".so")
        os.close(descriptor)
        try:
            command = [compiler, *flags, str(_SOURCE), "-o", temporary]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            os.replace(temporary, library)  # whole or not at all, whoever else compiles it now
        finally:
            Path(temporary).unlink(missing_ok=True)
    return library


def _processor() -> bytes:
    """What tells processors apart: a library tuned for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    return "".join(
        sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
    ).encode()
