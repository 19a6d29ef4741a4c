"""CuPy on a CUDA device: fused elementwise formulas, cuBLASLt products, and the kernels in `kernels/`."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends.cuda import (
    elements,
    indexing,
    interchange,
    normalization,
    products,
    random,
    reductions,
    rows,
    scores,
)
from gpunn.backends.cuda.detection import diagnose_import, require_device
from gpunn.backends.cuda.formulas import CudaFormulas
from gpunn.backends.cuda.gemm import WORKSPACE_BYTES, load_cublaslt
from gpunn.backends.cuda.graphs import Graphs
from gpunn.backends.cuda.guard import guarded, in_turn, reports_lost_device
from gpunn.backends.cuda.kernels import BLOCK, Kernels, Types
from gpunn.backends.cuda.launch import MOST_MODELS, IrregularOperandError
from gpunn.backends.cuda.turns import Turns
from gpunn.backends.operation import operations_from
from gpunn.backends.program import Program
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError, DeviceError, DeviceMemoryError, readable
from gpunn.types import Array, Shape


def import_cupy() -> Any:
    """Import CuPy, or raise a DeviceError that says why that fails; the driver is not used."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise diagnose_import(error) from error


@operations_from(elements, products, reductions, rows, scores, normalization, indexing, random, wrap=guarded)
class CupyBackend(Backend):
    """CuPy on one CUDA device. The reference defines what the operations compute.

    Once an operation has run with the same shapes, it neither waits nor transfers nor allocates, so that `program` can
    capture steps as CUDA graphs. Exceptions: `permutation` and `all_finite`, products without cuBLASLt (CuPy cannot
    capture cuBLAS), and operands without a kernel (see `reference_where_irregular`). Each operation makes its device
    the current one and leaves it so. Several threads may use one backend at the same time. In float32, subnormal
    numbers count as 0, because CuPy compiles kernels so.
    """

    name = "cuda"
    precisions = ("float32", "float64", "tf32", "float16", "bfloat16")

    def __init__(self, index: int = 0, cupy: Any = None, cublaslt: Any = None, *, tf32: bool = False) -> None:
        """`cupy` and `cublaslt` are the modules to use. Without `cupy`, the installed one, if the device works.
        `tf32` lets float32 products round their inputs to 10 bits."""
        if cupy is None:
            cupy = import_cupy()
            require_device(cupy, index)
        self.xp = cupy
        self.device = f"cuda:{index}"
        self.index = index
        self.tf32 = tf32
        super().__init__()
        self.turns = Turns(cupy, self.activate)
        self.cublaslt = products.Cublaslt(cupy, load_cublaslt() if cublaslt is None else cublaslt, tf32)
        without = "CuPy's own matrix products cannot be captured; pip install nvmath-python"
        self.graphs = Graphs(self, obstacle=without if self.cublaslt.module is None else "")
        self.formulas, self.kernels = CudaFormulas(cupy), Kernels(cupy)
        self._device = cupy.cuda.Device(index)
        self._scratch: dict[tuple[int, Any], Array] = {}
        self._twin: CupyBackend | None = None  # the backend of the same device with the other `tf32`

    def activate(self) -> None:
        """Make this backend's device the current one."""
        if self.xp.cuda.runtime.getDevice() != self.index:
            self._device.use()

    def of_precision(self, name: str) -> CupyBackend:
        if name not in ("float32", "float64"):
            self._require_libraries(name)
        if self.tf32 == (name == "tf32"):
            return self
        if self._twin is None:
            self._twin = CupyBackend(self.index, self.xp, self.cublaslt.module, tf32=not self.tf32)
            self._twin._twin = self
        return self._twin

    def _require_libraries(self, name: str) -> None:
        missing = ["nvmath-python"] if self.cublaslt.module is None else []
        if name == "bfloat16":
            try:
                importlib.import_module("ml_dtypes")  # adds the type to NumPy and CuPy
            except ModuleNotFoundError:
                missing.append("ml_dtypes")
        if missing:
            raise DeviceError(
                f'dtype "{name}"',
                expected="cuBLASLt's products" if "nvmath-python" in missing else "NumPy to know the type",
                got=f"no module of {' and '.join(missing)}",
                fix=f"pip install {' '.join(missing)}",
            )

    def require_deterministic(self) -> None:
        if self.tf32:
            raise ConfigurationError(
                "fit deterministic",
                expected="products of full precision",
                got='dtype="tf32"',
                fix='make the network with dtype="float32"',
            )
        if self.cublaslt.module is None and os.environ.get("CUPY_TF32", "0") != "0":  # read by CuPy's matmul
            raise ConfigurationError(
                "fit deterministic",
                expected="products of full precision",
                got=f"CUPY_TF32={os.environ['CUPY_TF32']}",
                fix="unset it, or pip install nvmath-python, whose products do not heed it",
            )

    # Memory and transfers

    @in_turn
    def empty(self, shape: Shape, dtype: Any) -> Array:
        """The addresses are multiples of 512, from CuPy's pool."""
        return self._taken(self.xp.empty, shape, dtype)

    @in_turn
    def zeros(self, shape: Shape, dtype: Any) -> Array:
        return self._taken(self.xp.zeros, shape, dtype)

    def _taken(self, make: Callable[..., Array], shape: Shape, dtype: Any) -> Array:
        self.activate()
        try:
            return make(shape, dtype)
        except self.xp.cuda.memory.OutOfMemoryError:
            asked = math.prod(shape) * np.dtype(dtype).itemsize
            raise DeviceMemoryError(
                f"memory of {self.device}",
                expected="room for every array",
                got=f"{readable(asked)} asked for, {readable(self.free_memory())} free",
                fix="use a smaller batch or network",
            ) from None

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.xp.ndarray) and array.device.id == self.index

    @in_turn
    def from_host(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        """Converted on the host if that makes the array smaller, else on the device, to transfer fewer bytes."""
        wanted = np.dtype(dtype or array.dtype)
        travels = wanted if wanted.itemsize < array.dtype.itemsize else array.dtype
        out = self.empty(array.shape, travels)
        out.set(np.ascontiguousarray(array, travels).reshape(array.shape))
        return out if travels == wanted else out.astype(wanted)

    @in_turn
    def free_memory(self) -> float:
        """Free bytes of the driver and of CuPy's pool, less the workspace that products take at their first use."""
        self.activate()
        pool = self.xp.get_default_memory_pool()
        free = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        if pool.get_limit():
            free = min(free, pool.get_limit() - pool.used_bytes())
        still = WORKSPACE_BYTES if self.cublaslt.made is None and self.cublaslt.module is not None else 0
        return float(max(0, free - still))

    @in_turn
    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        """Pinned host memory, which the device reads directly."""
        memory = self.xp.cuda.alloc_pinned_memory(out.nbytes)
        return np.frombuffer(memory, out.dtype, out.size).reshape(out.shape)

    @in_turn
    def mark(self) -> Any:
        self.activate()
        return self.xp.cuda.get_current_stream().record()

    @reports_lost_device
    def upload(self, source: np.ndarray[Any, Any], out: Array, after: Any) -> None:
        self.activate()
        stream = self.xp.cuda.Stream(non_blocking=True)
        stream.wait_event(after)
        out.set(source, stream=stream)
        stream.synchronize()

    @reports_lost_device
    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        self.require("to_host", array)
        host: np.ndarray[Any, Any] = array.get()
        return host

    @reports_lost_device
    def synchronize(self) -> None:
        self._device.synchronize()

    @in_turn
    def all_finite(self, array: Array) -> bool:
        self.require("all_finite", array)
        return super().all_finite(array)

    @in_turn
    def adopt(self, where: str, value: Any) -> Array:
        return interchange.adopt(self, where, value)

    # Programs and kernels

    def program(self, step: Callable[[], None], *, recordable: bool = True, models: int | None = None) -> Program:
        return self.graphs.program(step) if recordable else Program(step)

    def launch(self, file: str, name: str, types: Types, grid: tuple[int, ...], *args: Any) -> None:
        """Launch kernel `name` of `<file>.cu` with BLOCK threads for each block.

        A tuple among `args` stands for several arguments. Python ints and floats arrive as long long and double.
        """
        flat: list[Any] = []
        for argument in args:
            flat.extend(argument) if isinstance(argument, tuple) else flat.append(argument)
        if max(grid[1:], default=1) > MOST_MODELS:
            raise IrregularOperandError(f"no kernel for {max(grid[1:])} models or chunks of rows")
        self.activate()
        self.kernels.get(file, name, types)(grid, (BLOCK,), tuple(flat))

    def scratch(self, models: int, rows: int, columns: int, dtype: str) -> Array:
        """Device memory for intermediate results within one operation.

        The content is valid only until the next call: two calls of similar size and the same dtype return the SAME
        memory. It is never freed, because captured graphs hold its address.
        """
        size = models * rows * columns
        key = (1 << max(size - 1, 1).bit_length(), dtype)
        if key not in self._scratch:
            self._scratch[key] = self.empty((key[0],), dtype)
        return self._scratch[key][:size].reshape(models, rows, columns)
