"""What cuBLASLt's epilogues compute, on host memory and by columns as the library has it, with the checks it makes."""

import ctypes
import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy

STATUS_INVALID_VALUE, STATUS_NOT_SUPPORTED = 7, 15
STATUS_NAMES = {7: "CUBLAS_STATUS_INVALID_VALUE", 15: "CUBLAS_STATUS_NOT_SUPPORTED"}


class cuBLASLtError(Exception):
    """The binding's exception, with the reason that the library keeps to itself."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(f"{STATUS_NAMES[status]} ({status}): {reason}")
        self.status = status


class Epilogue(enum.IntEnum):
    """As cublasLtEpilogue_t."""

    DEFAULT = 1
    RELU = 2
    RELU_AUX = 130
    BIAS = 4
    RELU_BIAS = 6
    RELU_AUX_BIAS = 134
    DRELU = 136
    DRELU_BGRAD = 152
    GELU = 32
    GELU_AUX = 160
    GELU_BIAS = 36
    GELU_AUX_BIAS = 164
    DGELU = 192
    DGELU_BGRAD = 208
    BGRADA = 256
    BGRADB = 512


@dataclass(frozen=True)
class Layout:
    """A strided batch of column-major matrices."""

    name: str
    dtype: str
    rows: int
    columns: int
    ld: int
    batch: int
    stride: int

    def view(self, address: int) -> Any:
        """The memory at ``address`` as an array (batch, rows, columns), without a copy."""
        dtype = numpy.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)
        reach = (self.batch - 1) * self.stride + (self.columns - 1) * self.ld + self.rows
        memory = (ctypes.c_char * (reach * dtype.itemsize)).from_address(address)
        steps = tuple(step * dtype.itemsize for step in (self.stride, 1, self.ld))
        shape = (self.batch, self.rows, self.columns)
        return numpy.lib.stride_tricks.as_strided(numpy.frombuffer(memoryview(memory), dtype), shape, steps)

    def read(self, address: int, compute: str) -> Any:
        values = self.view(address)
        if self.dtype == "bfloat16":
            values = (values.astype("uint32") << 16).view("float32")
        return values.astype(compute)

    def write(self, address: int, values: Any) -> None:
        if self.dtype == "bfloat16":
            bits = numpy.ascontiguousarray(values, "float32").view("uint32")
            values = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even
        self.view(address)[...] = values


@dataclass(frozen=True)
class Ending:
    """An epilogue and its arrays' layouts; their addresses come with each product."""

    epilogue: Epilogue
    vector: Layout | None
    aux: Layout | None

    def has(self, *names: str) -> bool:
        return any(name in self.epilogue.name.split("_") for name in names)

    @property
    def written_vector(self) -> bool:
        return self.has("BGRAD", "BGRADA", "BGRADB")

    def values(self, result: Any, A: Any, B: Any, vector: int, aux: int) -> Any:
        """D before it is rounded, from alpha A B + beta C; what the epilogue writes elsewhere is written."""
        if self.has("BIAS"):
            assert self.vector is not None
            result = result + self.vector.read(vector, result.dtype)
        if self.has("RELU"):
            if self.aux:
                self.aux.write(aux, numpy.packbits(result > 0, axis=-2, bitorder="little"))
            result = numpy.maximum(result, 0)
        elif self.has("GELU"):
            if self.aux:
                self.aux.write(aux, result)
            result = gelu(result)
        elif self.has("DRELU"):
            assert self.aux is not None
            result = result * numpy.unpackbits(self.aux.view(aux), axis=-2, count=result.shape[-2], bitorder="little")
        elif self.has("DGELU"):
            assert self.aux is not None
            result = result * gelu_derivative(self.aux.read(aux, result.dtype))
        if self.written_vector:
            assert self.vector is not None
            of_operand = A.sum(axis=-1) if self.has("BGRADA") else B.sum(axis=-2)
            sums = result.sum(axis=-1) if self.has("BGRAD") else of_operand
            shape = (self.vector.batch, self.vector.rows, self.vector.columns)
            self.vector.write(vector, numpy.broadcast_to(sums[..., None], shape))
        return result


def gelu(x: Any) -> Any:
    """The form by tanh, which is the library's."""
    return 0.5 * x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_derivative(x: Any) -> Any:
    tangent = numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + tangent) + 0.5 * x * (1 - tangent**2) * inner


def described(number: int, values: Any, D: Layout, inner: int) -> Ending:
    """The ending that a descriptor asks for. ``values`` has `vector`, `vector_stride`, `vector_type`, `aux`, ..."""
    if number not in list(Epilogue):
        raise cuBLASLtError(STATUS_INVALID_VALUE, f"there is no epilogue {number}")
    ending = Ending(Epilogue(number), None, None)
    name = ending.epilogue.name
    if ending.has("DRELU", "DGELU") and inner == 1:
        raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"{name} of a sum of one term")
    vector = aux = None
    if ending.has("BIAS") or ending.written_vector:
        stride = values.vector_stride
        length = D.columns if ending.has("BGRADB") else D.rows
        if not values.vector or stride < 0:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"{name} needs a vector, got {values.vector}, stride {stride}")
        if values.vector_type not in (-1, D.dtype):
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"a vector of {values.vector_type} beside D of {D.dtype}")
        if ending.written_vector and D.batch > 1 and stride < length:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"members share the vector of {name}: stride {stride}")
        vector = Layout("vector", D.dtype, length, 1, length, D.batch, stride)
    if ending.has("AUX", "DRELU", "DGELU"):
        bits = ending.has("RELU", "DRELU")
        multiple, each = (128, 8) if bits else (8, 1)
        ld, stride = values.aux_ld, values.aux_stride
        if not values.aux or ld < D.rows or ld % multiple or stride % multiple or stride < 0:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"{name}: aux at {values.aux}, ld {ld}, stride {stride}")
        if D.batch > 1 and not stride:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"members share the aux of {name}")
        kind, rows = ("uint8", -(-D.rows // 8)) if bits else (D.dtype, D.rows)
        aux = Layout("aux", kind, rows, D.columns, ld // each, D.batch, stride // each)
    return Ending(ending.epilogue, vector, aux)
