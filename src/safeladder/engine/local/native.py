"""A decode step's work between the matrix products, in C compiled for this machine.

For small models on a CPU most of a step goes into attention over one token per row and into
element-wise operators that each pass over memory once. ``native.c`` fuses them: one call per
layer normalises, rotates, writes keys and values and attends, over each row's own columns only.

It is compiled by the system's C compiler (``cc``) at first use, in about a second, and kept in
the user's cache folder. Without a compiler, on other devices and in other dtypes the same step is
computed by torch operators; results agree to rounding. ``SAFELADDER_NATIVE=0`` switches it off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from safeladder.errors import SamplingError

_logger = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("native.c")
_FLAGS = ("-O3", "-std=c99", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math",
          "-fassociative-math", "-fno-signed-zeros", "-ffinite-math-only")
# The first set that the compiler accepts. Never -ffast-math: when a library linked with it is
# loaded, it changes how the whole process rounds small numbers.
_MACHINE_FLAGS = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",),
                  ("-mcpu=native",), ())
MAX_HEAD_DIM = 512
NOT_FINITE = "the model's logits are not finite: its weights have diverged"


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in (
            "rows", "heads", "kv_heads", "dim", "end", "columns")),
        ("eps", ctypes.c_float), ("scaling", ctypes.c_float))


@dataclass(frozen=True)
class HeadShape:
    """What attention needs to know of a model."""

    heads: int
    kv_heads: int
    dim: int
    eps: float
    scaling: float


class CacheRows(NamedTuple):
    """One layer's keys and values of some rows."""

    keys: Tensor
    """(N, kv_heads, columns, dim)."""
    values: Tensor
    """The same."""
    starts: Tensor
    """(N,) int64, the first column of each row."""
    end: int
    """One past the open column, which all rows share."""
    offsets: Tensor | None = None
    """(N,) int64, position of the open column less the number of columns before it; None: 0."""


class Kernels:
    """The functions of the compiled library; all tensors are fp32, contiguous, on the CPU."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        self._rms_norm = library.safeladder_rms_norm
        self._rms_norm.argtypes = [pointer] * 3 + [integer] * 2 + [ctypes.c_float]
        self._rms_norm.restype = None
        self._silu_mul = library.safeladder_silu_mul
        self._silu_mul.argtypes = [pointer] * 2 + [integer] * 2
        self._silu_mul.restype = None
        self._attend = library.safeladder_attend
        self._attend.argtypes = [pointer] * 11
        self._attend.restype = None
        self._draw = library.safeladder_draw
        self._draw.argtypes = [pointer] * 3 + [integer] * 2 + [pointer] * 3
        self._draw.restype = integer

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        """``out = x / sqrt(mean(x ** 2) + eps) * weight`` for each row of x (N, hidden)."""
        self._rms_norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps)

    def silu_mul(self, gate_up: Tensor, out: Tensor) -> None:
        """``out = silu(gate) * up`` with ``gate_up`` (N, 2 * width), gate first."""
        self._silu_mul(gate_up.data_ptr(), out.data_ptr(), *out.shape)

    def draw(
        self, logits: Tensor, temperature: Tensor, uniform: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One token per row by the inverse of its cumulative distribution; no truncation.

        Args:
            logits: (R, vocabulary).
            temperature: (R,); 0 takes the most probable token.
            uniform: (R,) fp64 in [0, 1).

        Returns:
            Tokens (R,) int64, and their log-probabilities (R,) under
            softmax(logits / temperature), at temperature 1 for greedy rows.

        Raises:
            SamplingError: the logits of a row are not finite.
        """
        rows, vocabulary = logits.shape
        tokens, logprobs = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
        scratch = torch.empty(vocabulary)
        if self._draw(logits.data_ptr(), temperature.data_ptr(), uniform.data_ptr(), rows,
                      vocabulary, scratch.data_ptr(), tokens.data_ptr(), logprobs.data_ptr()):
            raise SamplingError(NOT_FINITE)
        return tokens, logprobs

    def attend(
        self, shape: HeadShape, qkv: Tensor, qk_norm: Tensor | None,
        rotation: tuple[Tensor, Tensor], rows: CacheRows, out: Tensor,
    ) -> None:
        """One layer's attention over the open column and all before it.

        Args:
            shape: of the model's heads.
            qkv: (N, heads + 2 * kv_heads, dim) as the projections leave it.
            qk_norm: (heads + kv_heads, dim) weights of the head norms, if the model has them.
            rotation: cosines and signed sines, (positions, dim) each.
            rows: the keys and values of the same rows; the open column is written.
            out: (N, heads * dim).
        """
        columns = rows.values.shape[2]
        packed = _Shape(len(qkv), shape.heads, shape.kv_heads, shape.dim, rows.end, columns,
                        shape.eps, shape.scaling)
        groups = shape.heads // shape.kv_heads
        scratch = qkv.new_empty(groups * shape.dim + 2 * (columns + 16))
        self._attend(
            ctypes.addressof(packed), qkv.data_ptr(),
            None if qk_norm is None else qk_norm.data_ptr(),
            rotation[0].data_ptr(), rotation[1].data_ptr(), rows.starts.data_ptr(),
            None if rows.offsets is None else rows.offsets.data_ptr(),
            rows.keys.data_ptr(), rows.values.data_ptr(), scratch.data_ptr(), out.data_ptr())


@functools.cache
def kernels() -> Kernels | None:
    """The compiled functions; None where they are switched off or cannot be compiled."""
    path = compiled(_SOURCE)
    return None if path is None else Kernels(path)


def compiled(source: Path) -> Path | None:
    """The library made of one C file; None where that is switched off or impossible."""
    if os.environ.get("SAFELADDER_NATIVE") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        _logger.info("no C compiler (cc): torch operators do its work, which is slower")
        return None
    try:
        return _library(source, compiler)
    except (OSError, subprocess.CalledProcessError) as error:
        _logger.warning("cannot compile %s (%s): torch operators do its work, which is slower; "
                        "SAFELADDER_NATIVE=0 silences this", source.name, error)
        return None


def _library(source: Path, compiler: str) -> Path:
    """Compile a source unless it was before, for this compiler and this processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0".join((
        source.read_bytes(), version, _processor().encode(), repr(_FLAGS).encode(),
        repr(_MACHINE_FLAGS).encode()))).hexdigest()[:16]
    library = _cache_folder() / f"{source.stem}-{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        for flags in _MACHINE_FLAGS:
            command = [compiler, *_FLAGS, *flags, "-o", str(made), str(source), "-lm"]
            result = subprocess.run(command, capture_output=True, check=False)
            if result.returncode == 0:
                break
        result.check_returncode()
        # Another process may compile at the same time; whoever is last replaces its equal.
        os.replace(made, library)
    return library


def _processor() -> str:
    """What -march=native depends on; a home folder may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU part")
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(names)))
    return f"{platform.machine()} {platform.processor()} {platform.node()}"


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "safeladder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # a read-only home: compile again for each user session
    folder = Path(tempfile.gettempdir()) / f"safeladder-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to someone else")
    return folder
