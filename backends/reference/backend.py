"""The plain backend: memory, transfers, programs, and every operation that a network needs.

Shapes: a matrix of n examples is (n, d), of K models (K, n, d); operations read the last two axes and broadcast
the rest. `out` and its like are written whole. Reductions keep their axis, so that results broadcast back.
Where an argument may be updated in place, pass the same array object as input and as output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import PlainMath
from gpunn.backends.program import Program
from gpunn.backends.reference import elements, indexing, normalization, products, random, reductions, rows, scores
from gpunn.errors import ArrayTypeError, DeviceMemoryError, to_host_call
from gpunn.types import Array, Shape


class Backend:
    """The plain backend on NumPy, any float or complex dtype; `reference` in the tests.

    The other backends have the same operations, fused and recorded, and never change what they mean.
    """

    name = "reference"
    device = "cpu"
    precisions: tuple[str, ...] = ("float32", "float64", "complex128")  # that networks may compute in
    xp: Any = np

    def __init__(self) -> None:
        self.plain = PlainMath(self.xp)

    def __repr__(self) -> str:
        return f"<{self.name} backend on {self.device}>"

    def of_precision(self, name: str) -> Backend:
        """The backend of this device for networks that compute so, one of `precisions`; raises if a library lacks."""
        return self

    # Memory and transfers

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Uninitialised memory whose first byte stands at a 256-byte boundary."""
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
        """Whether this is an array of the backend's own kind, on its own device."""
        return isinstance(array, np.ndarray)

    def require(self, where: str, *arrays: Array) -> None:
        """Refuse arrays of another library or device: nothing is converted behind the caller's back."""
        for array in arrays:
            if not self.owns(array):
                raise ArrayTypeError(
                    where,
                    expected=f"arrays on {self.device}",
                    got=f"{type(array).__module__}.{type(array).__name__}",
                    fix="move it with backend.from_host(array)",
                )

    def adopt(self, where: str, value: Any) -> Array:
        """An array that another library has on a GPU, as one of this backend's own, without a copy."""
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
        """Bytes that data may still take on the device; the CPU's data lies where the caller has it."""
        return math.inf

    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        """Host memory from which `out` is quickly filled: on the CPU, `out` itself."""
        host: np.ndarray[Any, Any] = out
        return host

    def mark(self) -> Any:
        """A place in what the device has been asked to do, for `upload` to come after."""

    def upload(self, source: np.ndarray[Any, Any], out: Array, after: Any) -> None:
        """Fill `out`, or a part of it, from its `staging` once the device has come to the mark `after`, beside whatever
        it does meanwhile; for a thread of its own, since it returns when all is there."""

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def all_finite(self, array: Array) -> bool:
        """Whether there is no NaN or infinity; waits for the device."""
        return bool(self.xp.isfinite(array).all())

    def program(self, step: Callable[[], None], *, recorded: bool = True, models: int | None = None) -> Program:
        """The step as a program, to be run once or several times on end.

        `recorded`: it may be, since all that it does to numbers is done by these operations, and the same at every
        run. `models`: K of a population.
        """
        return Program(step)

    def require_deterministic(self) -> None:
        """Raise unless the same program on the same machine gives the same bits every time; here it always does."""

    def quiet(self) -> AbstractContextManager[None]:
        """Within it, arithmetic that leaves the finite numbers gives no warning: training watches the loss itself."""
        return np.errstate(all="ignore")

    def threads_by_model(self, models: int, threads: int) -> AbstractContextManager[Callable[[int], None]]:
        """Within it, so many threads of the host, or as many as it is told later, run the steps of a population."""
        return nullcontext(lambda threads: None)

    # The operations, each from the file of its family

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
