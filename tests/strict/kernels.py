"""`RawModule` and `RawKernel`: CUDA texts compiled for the CPU and launched on the stand-in's arrays.

Stricter than CuPy in one way: what a kernel gets must have the type of its parameter. CUDA would read wrong bytes.
"""

import ctypes
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tests.strict.array import DeviceArray, MemoryPointer
from tests.strict.compiler import kernel_library, kernel_names
from tests.strict.machine import CUDARuntimeError, Machine

FAILURES = {
    1: "deadlock: some threads of a block wait at a barrier or a warp exchange that others never reach",
    2: "threads of one block wait at different __syncthreads()",
}
MAXIMUM_SHARED = 48 * 1024


def by_value(x: Any) -> np.ndarray:
    """What CuPy hands to a kernel: a pointer, or a scalar of 8 bytes if Python's and of its own type if NumPy's."""
    if isinstance(x, DeviceArray):
        return np.array(x.host.ctypes.data, np.uint64)
    if isinstance(x, MemoryPointer):
        return np.array(x.ptr, np.uint64)
    if x is None:
        return np.array(0, np.uint64)
    if isinstance(x, np.ndarray):
        raise TypeError(
            f"You are trying to pass a numpy.ndarray of shape {x.shape} as a kernel parameter. Only numpy.ndarrays of "
            "size one can be passed by value. If you meant to pass a pointer to __global__ memory, you need to pass a "
            "cupy.ndarray instead."
        )
    if isinstance(x, (bool, int, float, np.generic)):
        return np.array(x)
    raise TypeError(f"Unsupported type {type(x)}")


def _matches(x: Any, value: np.ndarray, code: str) -> bool:
    if code.startswith("P"):
        if isinstance(x, DeviceArray):
            return code == "P?" or code[1:] == x.dtype.str[1:]
        return x is None or isinstance(x, MemoryPointer)
    return code == "?" or (not isinstance(x, DeviceArray) and code == value.dtype.str[1:])


def _triple(extent: tuple[int, ...]) -> Any:
    """Three extents; what is missing or 0 counts as 1, as in CuPy."""
    return (ctypes.c_uint * 3)(*(max(1, n) for n in (*extent, 1, 1)[:3]))


class Kernel:
    """One kernel of a compiled text."""

    def __init__(self, machine: Machine, library: ctypes.CDLL, name: str) -> None:
        self.machine, self.name = machine, name
        describe = getattr(library, f"shim_describe_{name}")
        describe.restype = ctypes.c_char_p
        self.codes: list[str] = describe().decode().split()
        self._launch = getattr(library, f"shim_launch_{name}")
        self.max_dynamic_shared_size_bytes = MAXIMUM_SHARED

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        """Launch with CuPy's conventions; scalars are taken now, arrays are read when the work runs."""
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("Argument 'grid' and 'block' must be tuples")
        g, b = _triple(grid), _triple(block)
        if b[0] * b[1] * b[2] > 1024 or b[2] > 64 or g[0] >= 2**31 or max(g[1], g[2]) > 65535:
            raise CUDARuntimeError("cudaErrorInvalidConfiguration", f"grid {tuple(g)}, block {tuple(b)}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDARuntimeError("cudaErrorInvalidValue", f"{shared_mem} bytes of dynamic shared memory")
        values = self._values(args)
        self.machine.issue(partial(self._run, g, b, shared_mem, values, tuple(args)))

    def _values(self, args: Sequence[Any]) -> list[np.ndarray]:
        values = [by_value(x) for x in args]
        if len(values) != len(self.codes):
            raise TypeError(f"{self.name} takes {len(self.codes)} arguments, {len(values)} given")
        for k, (x, value, code) in enumerate(zip(args, values, self.codes, strict=True)):
            if not _matches(x, value, code):
                given = f"{type(x).__name__} ({value.dtype})"
                given = f"an array of {x.dtype}" if isinstance(x, DeviceArray) else given
                wanted = f"a pointer to {code[1:]}" if code.startswith("P") else code
                raise TypeError(f"{self.name}: argument {k} must be {wanted}, got {given}")
        return values

    def _run(self, grid: Any, block: Any, shared: int, values: list[np.ndarray], alive: tuple[Any, ...]) -> None:
        # `alive` keeps the arrays in memory for as long as the work may run.
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        reverse = self.machine.fiber_order == "reverse"
        status = self._launch(pointers, grid, block, ctypes.c_uint(shared), int(reverse))
        if status:
            raise CUDARuntimeError("cudaErrorLaunchFailure", f"{self.name}: {FAILURES[status]}")


class RawModule:
    """As `cupy.RawModule`, from text only."""

    def __init__(self, machine: Machine, *, code: str, options: tuple[str, ...] = (), **others: Any) -> None:
        if others.pop("backend", "nvrtc") != "nvrtc" or any(others.values()):
            raise NotImplementedError(f"the stand-in takes code and options only, not {sorted(others)}")
        self.machine, self.code, self.options = machine, code, options
        self._kernels: dict[str, Kernel] = {}

    def get_function(self, name: str) -> Kernel:
        """The kernel of this name; compiles on first use."""
        if name not in self._kernels:
            if not re.search(rf"\b{re.escape(name)}\b", self.code):
                raise CUDARuntimeError("cudaErrorInvalidValue", f"named symbol not found: {name}")
            library = kernel_library(self.code, self.options)
            if not hasattr(library, f"shim_launch_{name}"):
                library = kernel_library(self.code, self.options, name)
            if kernel_names(self.code) == [name] and library.shim_shared_bytes() > MAXIMUM_SHARED:
                raise CUDARuntimeError("cudaErrorInvalidValue", f"{name} uses too much static shared memory")
            self._kernels[name] = Kernel(self.machine, library, name)
        return self._kernels[name]

    def compile(self, log_stream: Any = None) -> None:
        """Compile now."""
        kernel_library(self.code, self.options)


class RawKernel:
    """As `cupy.RawKernel`: a text with one kernel of interest, compiled at the first launch."""

    def __init__(self, machine: Machine, code: str, name: str, options: tuple[str, ...] = (), **others: Any) -> None:
        self.module = RawModule(machine, code=code, options=options, **others)
        self.name = name

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        """Launch."""
        self.kernel(grid, block, args, shared_mem=shared_mem)

    def compile(self, log_stream: Any = None) -> None:
        """Compile now."""
        self.module.compile()

    @property
    def kernel(self) -> Kernel:
        """The compiled kernel."""
        return self.module.get_function(self.name)
