"""The reference backend: memory, transfers, programs, and every operation that a network needs.

Shapes: a matrix of n examples is (n, d), of K models (K, n, d); operations work on the last two axes and broadcast the
others. `out` and the other results are overwritten completely. Reductions keep their axis with length 1, so that their
results broadcast. To update an array in place, pass the same array object as input and as output.

To write a backend, for a device with its own memory:

- Subclass `Backend`, set `name`, `device`, `precisions` and `xp`, and decorate the class with `operations_from(...)` of
  modules named as in `reference/`. An operation that they do not define runs as it does here, on `xp`.
- Override empty, zeros, owns, from_host, to_host, free_memory, staging, mark, upload and synchronize. The defaults of
  the last four copy nothing and wait for nothing, which is right for host memory only; another device that inherits
  them raises no error but trains on wrong data. Override adopt to accept arrays of other libraries, and program to
  record steps.
- An array must offer shape, dtype (NumPy's), strides, size, ndim, reshape, view, astype, mT, arithmetic, slices that
  are writable views, and its address as `data.ptr` (`gpunn/opaque.py` reads it).
- Networks compute in `precisions`; float64, int64, uint64 (random numbers), bool and small integers occur beside them.
- Once a step has run with the same shapes, its operations must not wait for the device, transfer or allocate, and must
  read numbers such as `cursor` and `step` from their arrays on the device: a recorded step repeats the launches only.
- Several threads may call one backend at the same time.
- Register it in `get_backend` and `available_devices` (`backends/__init__.py`), BACKENDS (`tests/conftest.py`) and OWN
  (`tests/backends/test_signatures.py`); `tests/backends/` then compares every operation with this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import ArrayMath
from gpunn.backends.program import Program
from gpunn.backends.reference import elements, indexing, normalization, products, random, reductions, rows, scores
from gpunn.errors import ArrayTypeError, DeviceMemoryError, to_host_call
from gpunn.types import Array, Shape


class Backend:
    """The reference backend: NumPy, in any float or complex dtype. The tests compare the others with it.

    The other backends have the same operations with the same results up to rounding, but fused and recorded.
    """

    name = "reference"  # of the class: "cpu" and "cuda" are the others
    device = "cpu"  # where its arrays are, as users name it: "cpu" or "cuda:0"
    precisions: tuple[str, ...] = ("float32", "float64", "complex128")  # that networks may compute in
    xp: Any = np  # the library of its arrays

    def __init__(self) -> None:
        self.math = ArrayMath(self.xp)

    def __repr__(self) -> str:
        return f"<{self.name} backend on {self.device}>"

    def of_precision(self, name: str) -> Backend:
        """The backend of this device for networks of one of `precisions`; an error if a library for it is missing."""
        return self

    # Memory and transfers

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """A new array, not initialised, whose address is a multiple of 256."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            memory = np.empty(size + 256, np.uint8)
        except (MemoryError, ValueError, OverflowError) as error:
            raise DeviceMemoryError(
                "memory",
                expected="room for every array",
                got=f"{size if size < 2**63 else 'more'} bytes asked for",
                fix="use a smaller batch or network",
            ) from error
        start = -memory.ctypes.data % 256
        return memory[start : start + size].view(dtype).reshape(shape)

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def owns(self, array: Any) -> bool:
        """Whether this is an array of this library on this device."""
        return isinstance(array, np.ndarray)

    def require(self, where: str, *arrays: Array) -> None:
        """Raise an error unless the arrays are this backend's: operations convert nothing silently."""
        for array in arrays:
            if not self.owns(array):
                raise ArrayTypeError(
                    where,
                    expected=f"arrays on {self.device}",
                    got=f"{type(array).__module__}.{type(array).__name__}",
                    fix="move it with backend.from_host(array)",
                )

    def adopt(self, where: str, value: Any) -> Array:
        """Return an array of another GPU library as an array of this backend that shares its memory."""
        raise ArrayTypeError(
            where,
            expected=f"an array on {self.device}",
            got=f"a {type(value).__module__}.{type(value).__name__} on a GPU",
            fix=f"move one of the two: net = gn.Network(..., device='cuda'), or {to_host_call(value)}",
        )

    def from_host(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        """Copy a NumPy array to the device."""
        out = self.empty(array.shape, dtype or array.dtype)
        out[...] = array
        return out

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.array(array)

    def free_memory(self) -> float:
        """Bytes that can still be allocated on the device; infinity on the CPU, where nothing is checked beforehand."""
        return math.inf

    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        """Host memory with the shape of `out`, for `upload` to copy from: on the CPU, `out` itself."""
        host: np.ndarray[Any, Any] = out
        return host

    def mark(self) -> Any:
        """An event in the device's queue, behind all work queued so far, for `upload` to wait for; None on the CPU."""

    def upload(self, source: np.ndarray[Any, Any], out: Array, after: Any) -> None:
        """Copy `source`, a part of a `staging`, to `out` on the device, once the work before the mark `after` is done.

        The device may do other work during the copy. This returns when the copy is complete, so a separate thread calls
        it. On the CPU there is nothing to copy: `source` is `out`.
        """

    def synchronize(self) -> None:
        """Wait until the device has done all work queued so far."""

    def all_finite(self, array: Array) -> bool:
        """Whether the array has no NaN and no infinity; waits for the device."""
        return bool(self.xp.isfinite(array).all())

    def program(self, step: Callable[[], None], *, recordable: bool = True, models: int | None = None) -> Program:
        """Make a program of the step; calling it runs the step once, or several times in a row.

        `recordable` says that the step changes numbers only through operations of this backend, and calls the same ones
        on the same arrays every time. `models` is the K of a population.
        """
        return Program(step)

    def require_deterministic(self) -> None:
        """Raise an error unless a program gives the same results bit for bit every time; here it always does."""

    def quiet(self) -> AbstractContextManager[None]:
        """Within this context NumPy does not warn of overflow, NaN or division by 0; training checks the loss."""
        return np.errstate(all="ignore")

    def threads_by_model(self, models: int, threads: int) -> AbstractContextManager[Callable[[int], None]]:
        """Within this context `threads` threads of the CPU share the models of a population.

        It yields a function that changes how many of these threads work. Here there are none.
        """
        return nullcontext(lambda threads: None)

    # The operations, one file for each family

    elementwise = elements.elementwise
    copy = elements.copy
    fill = elements.fill

    matmul = products.matmul
    affine = products.affine
    activation_gradient = products.activation_gradient
    affine_gradients = products.affine_gradients
    input_gradient = products.input_gradient

    sum = reductions.sum
    sum_product = reductions.sum_product
    total = reductions.total

    softmax = rows.softmax
    softmax_gradient = rows.softmax_gradient
    log_softmax = rows.log_softmax
    log_softmax_gradient = rows.log_softmax_gradient
    softmax_cross_entropy = rows.softmax_cross_entropy

    correct = scores.correct
    row_error = scores.row_error

    normalize = normalization.normalize
    scale_shift = normalization.scale_shift
    normalize_gradient = normalization.normalize_gradient
    row_means = normalization.row_means

    gather = indexing.gather
    batch = indexing.batch
    lookup = indexing.lookup
    lookup_gradient = indexing.lookup_gradient

    random_words = random.random_words
    random_bits = random.random_bits
    random_uniform = random.random_uniform
    random_normal = random.random_normal
    permutation = random.permutation
