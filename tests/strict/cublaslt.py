"""A model of ``nvmath.bindings.cublasLt`` that computes on host memory, for machines without a GPU.

It takes the binding's arguments: handles and addresses as integers, attributes as address and size. Products are
computed from raw addresses by cuBLASLt's column-major rules, after the checks that cuBLASLt makes; and it is strict
where the library is merely undefined: an algorithm must be one that it handed out, for these layouts and alignments.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy

from tests.strict.epilogues import (
    STATUS_INVALID_VALUE,
    STATUS_NOT_SUPPORTED,
    Ending,
    Epilogue,
    Layout,
    cuBLASLtError,
    described,
)

HOST_TYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}  # cudaDataType_t
COMPUTE_TYPES = {68: "float32", 70: "float64", 77: "float32"}  # cublasComputeType_t: 32F, 64F, 32F_FAST_TF32


class MatmulDescAttribute(enum.IntEnum):
    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    BIAS_BATCH_STRIDE = 10
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12
    EPILOGUE_AUX_BATCH_STRIDE = 13
    BIAS_DATA_TYPE = 26


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
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class ReductionScheme(enum.IntEnum):
    NONE = 0
    INPLACE = 1
    COMPUTE_TYPE = 2
    OUTPUT_TYPE = 4
    MASK = 7


DESC_TYPES: dict[Any, Any] = dict.fromkeys(MatmulDescAttribute, numpy.int32)
DESC_TYPES |= dict.fromkeys(list(MatmulDescAttribute)[6:11], numpy.int64) | {MatmulDescAttribute.EPILOGUE: numpy.uint32}
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
    ReductionScheme = ReductionScheme
    Epilogue = Epilogue
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
        self.refused: set[Epilogue] = set()  # those that the heuristics know no algorithm for
        self.launched: list[Epilogue] = []
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
        values[names.BIAS_DATA_TYPE] = -1
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
        names = MatmulPreferenceAttribute
        values: dict[int, int] = dict.fromkeys(names, 256)
        values |= {names.MAX_WORKSPACE_BYTES: 0, names.REDUCTION_SCHEME_MASK: ReductionScheme.MASK}
        return self._create("matmul_preference", PREFERENCE_TYPES, values)

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
        problem, pointers = self._problem(operation_desc, adesc, bdesc, cdesc, ddesc)
        limits = self._get("matmul_preference", preference).values
        if requested_algo_count < 1 or not heuristic_results_array or not return_algo_count:
            raise cuBLASLtError(STATUS_INVALID_VALUE, "no room for a result")
        self.heuristic_calls += 1
        results = numpy.zeros(requested_algo_count, self.matmul_heuristic_result_dtype)
        found = self.has_algorithms and problem.ending.epilogue not in self.refused
        if found:
            number = next(self._numbers)
            alignments = tuple(limits[attribute] for attribute in list(MatmulPreferenceAttribute)[2:])
            alignments += tuple(min(pointer & -pointer, 16) for pointer in pointers)
            needed = min(limits[MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES], 64)
            schemes = limits[MatmulPreferenceAttribute.REDUCTION_SCHEME_MASK]
            rounds = problem.layouts[3].dtype.endswith("16") and schemes & ~ReductionScheme.COMPUTE_TYPE
            self._algorithms[number] = (problem, alignments, needed, rounds)
            results[0]["algo"]["data_"] = number
            results[0]["workspace_size"] = needed
        ctypes.memmove(heuristic_results_array, results.ctypes.data, results.nbytes)
        ctypes.c_int32.from_address(return_algo_count).value = int(found)

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
        problem, (vector, aux) = self._problem(compute_desc, adesc, bdesc, cdesc, ddesc)
        A, B, C, D = problem.layouts
        if not all((alpha, a, b, beta, d, algo)):
            raise cuBLASLtError(STATUS_INVALID_VALUE, "a null pointer")
        words = numpy.frombuffer(ctypes.string_at(algo, self.matmul_algo_dtype.itemsize), "<u8")
        chosen_for, alignments, needed, rounds = self._algorithms.get(int(words[0]), (None, (), 0, False))
        if chosen_for != problem or len(set(words.tolist())) != 1:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"the algorithm was chosen for {chosen_for}, not for {problem}")
        addresses = (a, b, c, d, vector, aux)
        if any(address % alignment for address, alignment in zip(addresses, alignments, strict=True) if alignment):
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"the algorithm needs alignments {alignments}")
        if needed and (workspace_size_in_bytes < needed or not workspace or workspace % 16):
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"workspace of {workspace_size_in_bytes} bytes at {workspace}")

        # Scalars and pointers are read now, as with the library's host pointer mode, and so are frozen into a capture.
        compute, scalar = COMPUTE_TYPES[problem.compute], HOST_TYPES[problem.scale]
        factor, kept = (
            numpy.frombuffer(ctypes.string_at(p, numpy.dtype(scalar).itemsize), scalar)[0] for p in (alpha, beta)
        )
        self.matmul_calls += 1
        self.last_compute_type, self.last_stream = problem.compute, stream
        self.launched.append(problem.ending.epilogue)

        def work() -> None:
            ctypes.memset(workspace, 0xFF, needed)  # the library scribbles here too
            left, right = A.read(a, compute), B.read(b, compute)
            left = left.swapaxes(-1, -2) if problem.transposed[0] else left
            right = right.swapaxes(-1, -2) if problem.transposed[1] else right
            with numpy.errstate(all="ignore"):  # a device gives no warnings
                if rounds:  # two blocks share a sum, and their parts meet in the type of D
                    half = left.shape[-1] // 2
                    parts = left[..., :half] @ right[..., :half, :], left[..., half:] @ right[..., half:, :]
                    result = factor * sum(part.astype(D.dtype).astype(compute) for part in parts)
                else:
                    result = factor * (left @ right)
            # BLAS does not read C where beta is 0: what lies there may be NaN.
            result = result + kept * C.read(c, compute) if kept else result
            D.write(d, problem.ending.values(result, left, right, vector, aux))

        self.submit(work)

    def _layout(self, name: str, number: int) -> Layout:
        type_, order, rows, columns, ld, batch, stride = self._get("matrix_layout", number).values.values()
        if type_ not in HOST_TYPES or order or rows < 1 or columns < 1 or ld < rows or batch < 1 or stride < 0:
            got = f"{rows} x {columns}, ld {ld}, order {order}, type {type_}, batch {batch}, stride {stride}"
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"layout of {name}: {got}")
        return Layout(name, HOST_TYPES[type_], rows, columns, ld, batch, stride)

    def _problem(self, operation: int, *numbers: int) -> tuple[Problem, tuple[int, int]]:
        """The descriptors' meaning, after the checks that the library makes, and where vector and aux are."""
        names, values = MatmulDescAttribute, self._get("matmul_desc", operation).values
        compute, scale = values[names.COMPUTE_TYPE], values[names.SCALE_TYPE]
        transposed = (values[names.TRANSA] == 1, values[names.TRANSB] == 1)
        if values[names.POINTER_MODE]:
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, "the model knows host scalars")
        by_rows = self._get("matrix_layout", numbers[3]).values[MatrixLayoutAttribute.ORDER] == 1
        if by_rows and values[names.EPILOGUE] not in (Epilogue.DEFAULT, Epilogue.RELU, Epilogue.GELU):
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"epilogue {values[names.EPILOGUE]} of a D by rows")
        layouts = A, B, C, D = tuple(self._layout(name, number) for name, number in zip("ABCD", numbers, strict=True))
        m, k = (A.columns, A.rows) if transposed[0] else (A.rows, A.columns)
        k_too, n = (B.columns, B.rows) if transposed[1] else (B.rows, B.columns)
        shapes_agree = k == k_too and (m, n) == (C.rows, C.columns) == (D.rows, D.columns)
        if not shapes_agree or len({X.batch for X in layouts}) != 1:
            raise cuBLASLtError(STATUS_INVALID_VALUE, f"layouts do not agree: {A}, {B}, {C}, {D}")
        if D.batch > 1 and not D.stride:
            raise cuBLASLtError(STATUS_INVALID_VALUE, "the members of D share memory")
        wide = A.dtype == "float64"
        results = {A.dtype, "float32"} if A.dtype in ("float16", "bfloat16") else {A.dtype}
        types_agree = A.dtype == B.dtype and C.dtype == D.dtype and D.dtype in results and scale == int(wide)
        if not types_agree or COMPUTE_TYPES.get(compute) != ("float64" if wide else "float32"):
            kinds = ", ".join(X.dtype for X in layouts)
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"compute type {compute}, scale type {scale}, {kinds}")
        if compute == 77 and A.dtype != "float32":
            raise cuBLASLtError(STATUS_NOT_SUPPORTED, f"TF32 with {A.dtype}")
        kind = values[names.BIAS_DATA_TYPE]
        beside = SimpleNamespace(
            vector=values[names.BIAS_POINTER], vector_stride=values[names.BIAS_BATCH_STRIDE],
            vector_type=HOST_TYPES.get(kind, kind), aux=values[names.EPILOGUE_AUX_POINTER],
            aux_ld=values[names.EPILOGUE_AUX_LD], aux_stride=values[names.EPILOGUE_AUX_BATCH_STRIDE],
        )  # fmt: skip
        ending = described(values[names.EPILOGUE], beside, D, k)
        pointers = (beside.vector if ending.vector else 0, beside.aux if ending.aux else 0)
        return Problem(compute, scale, transposed, layouts, ending), pointers


@dataclass(frozen=True)
class Problem:
    """What an algorithm is chosen for."""

    compute: int
    scale: int
    transposed: tuple[bool, bool]
    layouts: tuple[Layout, ...]
    ending: Ending
