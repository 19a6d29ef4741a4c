"""A model of ``nvmath.bindings.cublasLt`` that computes on host memory, for machines without a GPU.

It takes the binding's arguments: handles and addresses as integers, attributes as address and size. Products are
computed from raw addresses by cuBLASLt's column-major rules, after the checks that cuBLASLt makes; and it is strict
where the library is merely undefined: an algorithm must be one that it handed out, for these layouts and alignments.
"""

import ctypes
import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

HOST_TYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}  # cudaDataType_t
COMPUTE_TYPES = {68: "float32", 70: "float64", 77: "float32"}  # cublasComputeType_t: 32F, 64F, 32F_FAST_TF32
STATUS_INVALID_VALUE, STATUS_NOT_SUPPORTED = 7, 15
STATUS_NAMES = {7: "CUBLAS_STATUS_INVALID_VALUE", 15: "CUBLAS_STATUS_NOT_SUPPORTED"}


class MatmulDescAttribute(enum.IntEnum):
    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7


class MatrixLayoutAttribute(enum.IntEnum):
    TYPE = 0
    ORDER = 1
    ROWS = 2
    COLS = 3
    LD = 4
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


DESC_TYPES = dict.fromkeys(MatmulDescAttribute, numpy.int32) | {MatmulDescAttribute.EPILOGUE: numpy.uint32}
LAYOUT_TYPES = {
    MatrixLayoutAttribute.TYPE: numpy.uint32,
    MatrixLayoutAttribute.ORDER: numpy.int32,
    MatrixLayoutAttribute.ROWS: numpy.uint64,
    MatrixLayoutAttribute.COLS: numpy.uint64,
    MatrixLayoutAttribute.LD: numpy.int64,
    MatrixLayoutAttribute.BATCH_COUNT: numpy.int32,
    MatrixLayoutAttribute.STRIDED_BATCH_OFFSET: numpy.int64,
}
PREFERENCE_TYPES = dict.fromkeys(MatmulPreferenceAttribute, numpy.uint32) | {
    MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES: numpy.uint64
}


class cuBLASLtError(Exception):
    """The binding's exception, with the reason that the library keeps to itself."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(f"{STATUS_NAMES[status]} ({status}): {reason}")
        self.status = status


@dataclass
class Descriptor:
    """What lies behind a handle: its kind and its attributes by number."""

    kind: str
    types: dict[Any, Any]
    values: dict[int, int] = field(default_factory=dict)

    def set(self, attribute: int, address: int, size: int) -> None:
        if attribute not in self.types or not address:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"{self.kind} attribute {attribute} at address {address}")
        dtype = numpy.dtype(self.types[attribute])
        if size != dtype.itemsize:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"{self.kind} attribute {attribute} is {dtype}, got {size} bytes")
        self.values[attribute] = int(numpy.frombuffer(ctypes.string_at(address, size), dtype)[0])


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


def make_cublaslt(
    submit: Callable[[Callable[[], None]], None] = lambda work: work(), capturing: Callable[[], bool] = lambda: False
) -> Any:
    """A fresh model. ``submit`` runs or records the numerical work; ``capturing`` says whether it is recorded."""
    return CublasLt(submit, capturing)


class CublasLt:
    """Stands where the module stands. ``live`` counts what was created and not yet destroyed."""

    MatmulDescAttribute = MatmulDescAttribute
    MatrixLayoutAttribute = MatrixLayoutAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    cuBLASLtError = cuBLASLtError
    matmul_algo_dtype = numpy.dtype([("data_", "<u8", (8,))])
    matmul_heuristic_result_dtype = numpy.dtype(
        [
            ("algo", matmul_algo_dtype),
            ("workspace_size", "<u8"),
            ("state", "<i4"),
            ("waves_count", "<f4"),
            ("reserved", "<i4", (4,)),
        ]
    )

    def __init__(self, submit: Callable[[Callable[[], None]], None], capturing: Callable[[], bool]) -> None:
        self.submit, self.capturing = submit, capturing
        self.heuristic_calls = self.matmul_calls = 0
        self.has_algorithms = True
        self.last_compute_type = self.last_stream = 0
        self._numbers = itertools.count(0x1000, 16)
        self._objects: dict[int, Descriptor] = {}
        self._algorithms: dict[int, tuple[Any, ...]] = {}

    @property
    def live(self) -> int:
        return len(self._objects)

    def _create(self, kind: str, types: dict[Any, Any], values: dict[int, int]) -> int:
        number = next(self._numbers)
        self._objects[number] = Descriptor(kind, types, values)
        return number

    def _get(self, kind: str, number: int) -> Descriptor:
        found = self._objects.get(number)
        if found is None or found.kind != kind:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"{number} is no living {kind}")
        return found

    def _destroy(self, kind: str, number: int) -> None:
        self._get(kind, number)
        del self._objects[number]

    def create(self) -> int:
        return self._create("handle", {}, {})

    def destroy(self, light_handle: int) -> None:
        self._destroy("handle", light_handle)

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        names = MatmulDescAttribute
        values: dict[int, int] = dict.fromkeys(names, 0)
        values |= {names.COMPUTE_TYPE: compute_type, names.SCALE_TYPE: scale_type, names.EPILOGUE: 1}
        return self._create("matmul_desc", DESC_TYPES, values)

    def matmul_desc_destroy(self, matmul_desc: int) -> None:
        self._destroy("matmul_desc", matmul_desc)

    def matmul_desc_set_attribute(self, matmul_desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
        self._get("matmul_desc", matmul_desc).set(attr, buf, size_in_bytes)

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        # Like the library, which looks at the leading dimension only when the layout is used.
        values = dict(enumerate((type, 0, rows, cols, ld, 1, 0)))
        return self._create("matrix_layout", LAYOUT_TYPES, values)

    def matrix_layout_destroy(self, mat_layout: int) -> None:
        self._destroy("matrix_layout", mat_layout)

    def matrix_layout_set_attribute(self, mat_layout: int, attr: int, buf: int, size_in_bytes: int) -> None:
        self._get("matrix_layout", mat_layout).set(attr, buf, size_in_bytes)

    def matmul_preference_create(self) -> int:
        values: dict[int, int] = dict.fromkeys(MatmulPreferenceAttribute, 256)
        return self._create(
            "matmul_preference", PREFERENCE_TYPES, values | {MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES: 0}
        )

    def matmul_preference_destroy(self, pref: int) -> None:
        self._destroy("matmul_preference", pref)

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
        self._get("matmul_preference", pref).set(attr, buf, size_in_bytes)

    def matmul_algo_get_heuristic(
        self,
        light_handle: int,
        operation_desc: int,
        adesc: int,
        bdesc: int,
        cdesc: int,
        ddesc: int,
        preference: int,
        requested_algo_count: int,
        heuristic_results_array: int,
        return_algo_count: int,
    ) -> None:
        if self.capturing():
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, "heuristics were asked while the stream is capturing")
        self._get("handle", light_handle)
        problem = self._problem(operation_desc, adesc, bdesc, cdesc, ddesc)
        limits = self._get("matmul_preference", preference).values
        if requested_algo_count < 1 or not heuristic_results_array or not return_algo_count:
            raise cuBLASLtError(STATUS_INVALID_VALUE, "no room for a result")
        self.heuristic_calls += 1
        results = numpy.zeros(requested_algo_count, self.matmul_heuristic_result_dtype)
        if self.has_algorithms:
            number = next(self._numbers)
            alignments = tuple(limits[attribute] for attribute in list(MatmulPreferenceAttribute)[1:])
            needed = min(limits[MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES], 64)
            self._algorithms[number] = (problem, alignments, needed)
            results[0]["algo"]["data_"] = number
            results[0]["workspace_size"] = needed
        ctypes.memmove(heuristic_results_array, results.ctypes.data, results.nbytes)
        ctypes.c_int32.from_address(return_algo_count).value = int(self.has_algorithms)

    def matmul(
        self,
        light_handle: int,
        compute_desc: int,
        alpha: int,
        a: int,
        adesc: int,
        b: int,
        bdesc: int,
        beta: int,
        c: int,
        cdesc: int,
        d: int,
        ddesc: int,
        algo: int,
        workspace: int,
        workspace_size_in_bytes: int,
        stream: int,
    ) -> None:
        self._get("handle", light_handle)
        problem = self._problem(compute_desc, adesc, bdesc, cdesc, ddesc)
        compute_type, scale_type, transposed, (A, B, C, D) = problem
        if not all((alpha, a, b, beta, d, algo)):
            raise cuBLASLtError(STATUS_INVALID_VALUE, "a null pointer")
        words = numpy.frombuffer(ctypes.string_at(algo, self.matmul_algo_dtype.itemsize), "<u8")
        chosen_for, alignments, needed = self._algorithms.get(int(words[0]), (None, (), 0))
        if chosen_for != problem or len(set(words.tolist())) != 1:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"the algorithm was chosen for {chosen_for}, not for {problem}")
        if any(address % alignment for address, alignment in zip((a, b, c, d), alignments, strict=True)):
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"the algorithm needs alignments {alignments}")
        if needed and (workspace_size_in_bytes < needed or not workspace or workspace % 16):
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"workspace of {workspace_size_in_bytes} bytes at {workspace}")

        # Scalars are read now, as with the library's host pointer mode, and so are frozen into a capture.
        compute, scalar = COMPUTE_TYPES[compute_type], HOST_TYPES[scale_type]
        factor, kept = (
            numpy.frombuffer(ctypes.string_at(p, numpy.dtype(scalar).itemsize), scalar)[0] for p in (alpha, beta)
        )
        self.matmul_calls += 1
        self.last_compute_type, self.last_stream = compute_type, stream

        def work() -> None:
            ctypes.memset(workspace, 0xFF, needed)  # the library scribbles here too
            left, right = A.read(a, compute), B.read(b, compute)
            left = left.swapaxes(-1, -2) if transposed[0] else left
            right = right.swapaxes(-1, -2) if transposed[1] else right
            result = factor * (left @ right)
            # BLAS does not read C where beta is 0: what lies there may be NaN.
            D.write(d, result + kept * C.read(c, compute) if kept else result)

        self.submit(work)

    def _layout(self, name: str, number: int) -> Layout:
        type_, order, rows, columns, ld, batch, stride = self._get("matrix_layout", number).values.values()
        if type_ not in HOST_TYPES or order or rows < 1 or columns < 1 or ld < rows or batch < 1 or stride < 0:
            got = f"{rows} x {columns}, ld {ld}, order {order}, type {type_}, batch {batch}, stride {stride}"
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"layout of {name}: {got}")
        return Layout(name, HOST_TYPES[type_], rows, columns, ld, batch, stride)

    def _problem(self, operation: int, *layouts: int) -> tuple[int, int, tuple[bool, bool], tuple[Layout, ...]]:
        """The descriptors' meaning, after the checks that the library makes."""
        values = self._get("matmul_desc", operation).values
        compute, scale = values[MatmulDescAttribute.COMPUTE_TYPE], values[MatmulDescAttribute.SCALE_TYPE]
        transposed = (values[MatmulDescAttribute.TRANSA] == 1, values[MatmulDescAttribute.TRANSB] == 1)
        if values[MatmulDescAttribute.POINTER_MODE] or values[MatmulDescAttribute.EPILOGUE] != 1:
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, "the model knows host scalars and no epilogue")
        A, B, C, D = (self._layout(name, number) for name, number in zip("ABCD", layouts, strict=True))
        m, k = (A.columns, A.rows) if transposed[0] else (A.rows, A.columns)
        k_too, n = (B.columns, B.rows) if transposed[1] else (B.rows, B.columns)
        shapes_agree = k == k_too and (m, n) == (C.rows, C.columns) == (D.rows, D.columns)
        if not shapes_agree or len({X.batch for X in (A, B, C, D)}) != 1:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"layouts do not agree: {A}, {B}, {C}, {D}")
        if D.batch > 1 and not D.stride:
            raise cuBLASLtError(STATUS_INVALID_VALUE, "the members of D share memory")
        wide = A.dtype == "float64"
        types_agree = len({X.dtype for X in (A, B, C, D)}) == 1 and scale == int(wide)
        if not types_agree or COMPUTE_TYPES.get(compute) != ("float64" if wide else "float32"):
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"compute type {compute}, scale type {scale}, {A.dtype}")
        if compute == 77 and A.dtype != "float32":
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"TF32 with {A.dtype}")
        return compute, scale, transposed, (A, B, C, D)
