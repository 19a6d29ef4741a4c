"""A device of host memory for ``Gemm``, and random arrays that BLAS can express."""

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from gpunn.backends.cuda.gemm import Gemm
from tests.strict.cublaslt import make_cublaslt

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# dtypes of operands and of results
PAIRS = (
    ("float32", "float32"), ("float64", "float64"), ("float16", "float16"), ("float16", "float32"),
    (BFLOAT16, BFLOAT16), (BFLOAT16, "float32"),
)  # fmt: skip


class DeviceArray:
    """What ``Gemm`` may see of a CuPy array: no values, only where they are."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.shape, self.strides, self.dtype = host.shape, host.strides, host.dtype
        self.data = SimpleNamespace(ptr=host.ctypes.data)

    def fill(self, value: float) -> None:
        self.host.fill(value)


class Device:
    """A CuPy of one stream, a model of cuBLASLt, and what is recorded while capturing."""

    def __init__(self, **options: Any) -> None:
        self.capturing, self.allocations = False, 0
        self.recorded: list[Any] = []
        self.stream = SimpleNamespace(ptr=1234, is_capturing=lambda: self.capturing)
        self.cuda = SimpleNamespace(get_current_stream=lambda: self.stream)
        self.lt = make_cublaslt(self._submit, lambda: self.capturing)
        self.gemm = Gemm(self, self.lt, 4096, **options)

    def _submit(self, work: Any) -> None:
        self.recorded.append(work) if self.capturing else work()

    def empty(self, count: int, dtype: str) -> DeviceArray:
        self.allocations += 1
        return DeviceArray(np.empty(count, dtype))

    def __call__(self, A: Any, B: Any, out: Any, **options: Any) -> Any:
        return self.gemm(DeviceArray(A), DeviceArray(B), DeviceArray(out), **options).host

    def fused(self, ending: str, *arrays: Any) -> bool:
        return self.gemm.fused(ending, *(None if X is None else DeviceArray(X) for X in arrays))


def aligned(shape: tuple[int, ...], dtype: str = "float32", value: float = 1.0) -> Any:
    """A C-contiguous array at a 256-byte boundary, as CuPy's pool gives them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 256, "uint8")
    start = -memory.ctypes.data % 256
    array = memory[start : start + size].view(dtype).reshape(shape)
    array[...] = value
    return array


def random_view(rng: Any, rows: int, columns: int, population: int | None, dtype: str, fill: Any) -> tuple[Any, Any]:
    """A random layout that BLAS can express: the memory it lies in, and the view."""
    transposed = rng.random() < 0.5
    high, wide = (columns, rows) if transposed else (rows, columns)
    margin = rng.integers(0, 4, 4)
    step = int(rng.integers(1, 4))
    width = 1 if wide == 1 else wide
    column_step = int(rng.integers(1, 4)) if 1 in (high, wide) else 1  # a vector may have any step
    height_in_memory, width_in_memory = margin[0] + high * step + margin[1], margin[2] + width * column_step + margin[3]
    place = (
        slice(margin[0], margin[0] + high * step, step),
        slice(margin[2], margin[2] + width * column_step, column_step),
    )
    if population is None:
        memory = fill((height_in_memory, width_in_memory)).astype(dtype)
        view = memory[place]
    else:
        skip = int(rng.integers(1, 3))
        kind = rng.integers(3)
        if kind == 0:  # one matrix after another
            memory = fill((population * skip, height_in_memory, width_in_memory)).astype(dtype)
            view = memory[::skip][:population, *place]
        elif kind == 1:  # rows of the members interleaved
            memory = fill((height_in_memory, population * skip, width_in_memory)).astype(dtype)
            view = memory.transpose(1, 0, 2)[::skip][:population, *place]
        else:  # a named view into one flat buffer of parameters for each member
            memory = fill((population, margin[0] + high * wide + margin[1])).astype(dtype)
            view = memory[:, margin[0] : margin[0] + high * wide].reshape(population, high, wide)
            assert np.shares_memory(view, memory)
    return memory, view.mT if transposed else view


def random_operand(rng: Any, rows: int, columns: int, population: int | None, dtype: str) -> Any:
    """Integers, so that sums are exact in every dtype and any order; sometimes shared by the population."""

    def fill(shape: tuple[int, ...]) -> Any:
        return rng.integers(-4, 5, shape)

    if population is None or rng.random() < 0.25:
        return random_view(rng, rows, columns, None, dtype, fill)[1]
    if rng.random() < 0.25:
        return np.broadcast_to(random_view(rng, rows, columns, None, dtype, fill)[1], (population, rows, columns))
    return random_view(rng, rows, columns, population, dtype, fill)[1]
