"""CuPy on a CUDA device: fused elementwise formulas, cuBLASLt products, and the kernels in `kernels/`."""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends.base import Backend
from gpunn.backends.cuda_elementwise import CudaFormulas
from gpunn.backends.cuda_graphs import CudaGraphs
from gpunn.backends.cuda_indexing import CudaIndexing, CudaRandom
from gpunn.backends.cuda_interchange import CudaInterchange
from gpunn.backends.cuda_products import CudaProducts
from gpunn.backends.cuda_reductions import CudaReductions
from gpunn.backends.cuda_turns import Turns
from gpunn.backends.detection import diagnose_import, raise_if_lost, require_device
from gpunn.backends.elementwise import Formula
from gpunn.backends.gemm import WORKSPACE_BYTES, load_cublaslt
from gpunn.backends.kernels import Kernels
from gpunn.errors import ConfigurationError, DeviceError, DeviceMemoryError, readable
from gpunn.types import Array, Shape


def import_cupy() -> Any:
    """CuPy, or the DeviceError that says why there is none; nothing is asked of the driver."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise diagnose_import(error) from error


class CupyBackend(CudaProducts, CudaReductions, CudaIndexing, CudaRandom, CudaInterchange, CudaGraphs):
    """See `Backend` for what every operation means.

    No operation of a training step waits, transfers, or allocates once it has run with the same shapes, and all can be
    captured in a CUDA graph, which `program` does. Exceptions: `permutation` and `all_finite`, products without
    cuBLASLt (CuPy refuses to capture cuBLAS), and operands that have no kernel (see `plain_where_irregular`). Each
    operation makes its backend's device the current one and leaves it so. Threads may use one backend at the same time.
    Arithmetic on float32 takes subnormal numbers for 0, as CuPy compiles everything.
    """

    name = "cuda"
    precisions = ("float32", "float64", "tf32", "float16", "bfloat16")

    def __init__(self, index: int = 0, cupy: Any = None, cublaslt: Any = None, *, tf32: bool = False) -> None:
        """`cupy` and `cublaslt` are the modules to use; without, the installed ones, after a look at the device.
        `tf32` lets float32 products round their inputs to 10 bits."""
        if cupy is None:
            cupy = import_cupy()
            require_device(cupy, index)
        self.xp = cupy
        self.device = f"cuda:{index}"
        self.index = index
        self.tf32 = tf32
        self.turns = Turns(cupy, self.activate)
        self._twin: CupyBackend | None = None
        super().__init__(load_cublaslt() if cublaslt is None else cublaslt)
        if self._cublaslt is None:
            self.uncaptured = "CuPy's own matrix products cannot be captured; pip install nvmath-python"
        self.kernels = Kernels(cupy)
        self._device = cupy.cuda.Device(index)
        self._formulas = CudaFormulas(cupy)

    def activate(self) -> None:
        if self.xp.cuda.runtime.getDevice() != self.index:
            self._device.use()

    def of_precision(self, name: str) -> CupyBackend:
        if name not in ("float32", "float64"):
            self._require_libraries(name)
        if self.tf32 == (name == "tf32"):
            return self
        if self._twin is None:
            self._twin = CupyBackend(self.index, self.xp, self._cublaslt, tf32=not self.tf32)
            self._twin._twin = self
        return self._twin

    def _require_libraries(self, name: str) -> None:
        missing = ["nvmath-python"] if self._cublaslt is None else []
        if name == "bfloat16":
            try:
                importlib.import_module("ml_dtypes")  # which gives NumPy and CuPy the type
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
        if self._cublaslt is None and os.environ.get("CUPY_TF32", "0") != "0":  # CuPy's own products heed it
            raise ConfigurationError(
                "fit deterministic",
                expected="products of full precision",
                got=f"CUPY_TF32={os.environ['CUPY_TF32']}",
                fix="unset it, or pip install nvmath-python, whose products do not heed it",
            )

    # Memory and transfers

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """CuPy's pool gives blocks at 512-byte boundaries."""
        return self._taken(self.xp.empty, shape, dtype)

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

    def from_host(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        """Converted on the side of the smaller type, so that no more bytes travel than needed."""
        wanted = np.dtype(dtype or array.dtype)
        travels = wanted if wanted.itemsize < array.dtype.itemsize else array.dtype
        out = self.empty(array.shape, travels)
        out.set(np.ascontiguousarray(array, travels).reshape(array.shape))
        return out if travels == wanted else out.astype(wanted)

    def free_memory(self) -> float:
        """What the driver and CuPy's pool have free, less the workspace that products take at their first use."""
        self.activate()
        pool = self.xp.get_default_memory_pool()
        free = self.xp.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
        if pool.get_limit():
            free = min(free, pool.get_limit() - pool.used_bytes())
        still = WORKSPACE_BYTES if self._gemm is None and self._cublaslt is not None else 0
        return float(max(0, free - still))

    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        """Pinned, so that the device fetches it itself."""
        memory = self.xp.cuda.alloc_pinned_memory(out.nbytes)
        return np.frombuffer(memory, out.dtype, out.size).reshape(out.shape)

    def mark(self) -> Any:
        self.activate()
        return self.xp.cuda.get_current_stream().record()

    def upload(self, source: np.ndarray[Any, Any], out: Array, after: Any) -> None:
        self.activate()
        stream = self.xp.cuda.Stream(non_blocking=True)
        stream.wait_event(after)
        out.set(source, stream=stream)
        stream.synchronize()

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = array.get()
        return host

    def synchronize(self) -> None:
        self._device.synchronize()

    def copy(self, source: Array, out: Array) -> None:
        self.activate()
        self.xp.copyto(out, source, casting="unsafe")

    # Elementwise formulas

    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        self.activate()
        self._formulas.run(formula, inputs, outputs)


FROM_HOST = ("empty", "zeros", "from_host", "owns", "require", "upload")  # what may be handed NumPy arrays
WAITING = ("to_host", "synchronize", "upload")  # for the device: other threads give it work meanwhile


def _on_the_device(operation: Any) -> Any:
    """Refuse NumPy arrays before anything is computed: a kernel would take one element for a number or an address.
    Wait for the operation's turn among threads. And say so where CUDA's error means that the device is lost."""
    checks = operation.__name__ not in FROM_HOST
    in_turn = operation.__name__ not in WAITING

    @functools.wraps(operation)
    def call(self: CupyBackend, *arguments: Any, **options: Any) -> Any:
        if checks:
            for argument in (*arguments, *options.values()):
                for part in argument if type(argument) is tuple else (argument,):
                    if isinstance(part, np.ndarray):
                        self.require(operation.__name__, part)
        try:
            if not in_turn:
                return operation(self, *arguments, **options)
            with self.turns:
                return operation(self, *arguments, **options)
        except RuntimeError as error:
            raise_if_lost(error, self.device)
            raise

    return call


for _name in dir(Backend):
    if not _name.startswith("_") and callable(getattr(Backend, _name)):
        setattr(CupyBackend, _name, _on_the_device(getattr(CupyBackend, _name)))
