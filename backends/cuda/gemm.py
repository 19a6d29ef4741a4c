"""Matrix products with cuBLASLt: any strided layout without a copy, a whole population in one launch.

CuPy's ``matmul`` copies transposed 3-D operands, allocates temporaries, and cannot be captured in a CUDA graph.
cuBLASLt takes leading dimensions, batch strides, stream and workspace at every call, so a product costs one launch and
no allocation, captured or not; and the launch may end with a bias, an activation or a gradient.
"""

from __future__ import annotations

import ctypes
import importlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy

from gpunn.backends.cuda.gemm_plan import NO_EPILOGUE, Product, plan_product
from gpunn.errors import DeviceError

# Numbers from CUDA's headers (cudaDataType_t, cublasComputeType_t, cublasOperation_t). nvmath.bindings.cublasLt does
# not define them, and to import nvmath.bindings.cublas for seven integers would load all of cuBLAS.
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
OPERATION_T = 1

WORKSPACE_BYTES = 32 * 2**20


# For each dtype: CUDA's data type, the type of its sums, and the type of alpha and beta, for CUDA and for NumPy.
ARITHMETIC = {
    "float64": (CUDA_R_64F, COMPUTE_64F, CUDA_R_64F, "float64"),
    "float32": (CUDA_R_32F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "float16": (CUDA_R_16F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "bfloat16": (CUDA_R_16BF, COMPUTE_32F, CUDA_R_32F, "float32"),
}


def load_cublaslt() -> Any | None:
    """Import ``nvmath.bindings.cublasLt``; None without nvmath-python, an error if its installation is broken."""
    try:
        return importlib.import_module("nvmath.bindings.cublasLt")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "nvmath":
            return None
        raise DeviceError(
            'device "cuda"',
            expected="an nvmath-python that can be imported",
            got=f"{type(error).__name__}: {error}",
            fix="pip install --force-reinstall nvmath-python, or uninstall it: steps are then not captured",
        ) from error


class NoAlgorithmError(RuntimeError):
    """cuBLASLt has no algorithm for a product."""


@dataclass(slots=True)
class Prepared:
    """Prepared for one kind of product and used at every call: descriptors, and the buffer with its algorithm."""

    swapped: bool
    operation: int
    first: int
    second: int
    out: int
    buffer: Any  # owns the memory at ``algorithm``
    one: int
    zero: int
    vector: ctypes.c_int64  # this and aux: the addresses that the operation's descriptor has now
    aux: ctypes.c_int64
    algorithm: int = field(init=False)

    def __post_init__(self) -> None:
        self.algorithm = self.buffer["algo"].ctypes.data


class Gemm:
    """``out = A @ B`` on the current stream, and products with endings.

    The object has a handle and a workspace on the device that is current when it is made. Only one stream at a time may
    use the workspace, and captured graphs contain its address: keep the object as long as the graphs. The algorithm is
    chosen at the first call with a layout. That is not possible during a capture, so a product must have run once
    before. ``tf32`` lets float32 products round their inputs to 10 bits.
    """

    def __init__(self, cupy: Any, cublaslt: Any, workspace_bytes: int = WORKSPACE_BYTES, *, tf32: bool = False) -> None:
        self._cupy, self._lt, self._tf32 = cupy, cublaslt, tf32
        self._workspace = cupy.empty(workspace_bytes, dtype="uint8")
        self._workspace_span = (self._workspace.data.ptr, workspace_bytes)
        # Alpha and beta are read from host memory when a product is launched or captured, so they are kept here.
        self._scalars = {name: numpy.array([1, 0], dtype=name) for name in ("float32", "float64")}
        self._prepared: dict[tuple[Any, ...], Prepared | None] = {}  # None: cuBLASLt does not have this ending
        self._resources = ExitStack()
        self._handle: int = cublaslt.create()
        self._resources.callback(cublaslt.destroy, self._handle)
        # Unlike __del__, a finalizer runs before the interpreter clears the modules at its exit, and only once.
        self._finalizer = weakref.finalize(self, self._resources.close)

    def close(self) -> None:
        """Destroy descriptors and handle. The workspace stays: graphs captured earlier still use it."""
        self._prepared.clear()
        self._handle = 0
        self._finalizer()

    def __call__(self, A: Any, B: Any, out: Any) -> Any:
        if 0 in A.shape or 0 in B.shape:
            if not plan_product(A, B, out).k:
                out.fill(0)
            return out
        prepared = self._find(None, A, B, out, None, None)
        assert prepared is not None
        self._launch(prepared, A, B, out)
        return out

    def fused(self, ending: str, A: Any, B: Any, out: Any, vector: Any = None, aux: Any = None) -> bool:
        """Launch a product with an ending (see `plan_product`). Returns False and does nothing if cuBLASLt has none."""
        if 0 in A.shape or 0 in B.shape:
            return False
        prepared = self._find(ending, A, B, out, vector, aux)
        if prepared is None:
            return False
        names = self._lt.MatmulDescAttribute
        for array, held, name in (
            (vector, prepared.vector, names.BIAS_POINTER),
            (aux, prepared.aux, names.EPILOGUE_AUX_POINTER),
        ):
            if array is not None and array.data.ptr != held.value:
                held.value = array.data.ptr
                _set(self._lt.matmul_desc_set_attribute, prepared.operation, name, held)
        self._launch(prepared, A, B, out)
        return True

    def _launch(self, prepared: Prepared, A: Any, B: Any, out: Any) -> None:
        first, second = (B, A) if prepared.swapped else (A, B)
        beta, c = prepared.zero, out.data.ptr
        factors = (prepared.one, first.data.ptr, prepared.first, second.data.ptr, prepared.second)
        stream = self._cupy.cuda.get_current_stream().ptr
        self._lt.matmul(
            self._handle, prepared.operation, *factors, beta, c, prepared.out, c, prepared.out,
            prepared.algorithm, *self._workspace_span, stream,
        )  # fmt: skip

    def _find(self, ending: str | None, *arrays: Any) -> Prepared | None:
        """The prepared product for arrays with these shapes, layouts and alignments; prepared now if it is new."""
        layouts = (None if X is None else (X.shape, X.strides, X.dtype, _alignment(X.data.ptr)) for X in arrays)
        key = (ending, *layouts)
        if key not in self._prepared:
            self._prepared[key] = self._seek(ending, *arrays)
        return self._prepared[key]

    def _seek(self, ending: str | None, *arrays: Any) -> Prepared | None:
        A, B, out, vector, aux = arrays
        try:
            return self._prepare(plan_product(A, B, out, ending, vector, aux), *arrays)
        except (ValueError, NoAlgorithmError):
            if ending is None:
                raise
            return None

    def _prepare(self, product: Product, A: Any, B: Any, out: Any, vector: Any, aux: Any) -> Prepared:
        """Make the descriptors of a product, and let cuBLASLt's heuristics choose the algorithm."""
        first, second = (B, A) if product.swapped else (A, B)
        alignments = tuple(_alignment(X.data.ptr) for X in (first, second, out))
        if not self._handle:
            raise RuntimeError("gemm: expected an open Gemm, got one that was closed")
        if self._cupy.cuda.get_current_stream().is_capturing():
            what = f"{product}, aligned to {alignments} bytes, is new while the stream is capturing"
            raise RuntimeError(f"gemm: {what}; run the product once before the capture")
        lt = self._lt
        data_type, compute, scale_type, scalar = ARITHMETIC[product.dtype]
        if self._tf32 and product.dtype == "float32":
            compute = COMPUTE_32F_FAST_TF32
        pointers = [ctypes.c_int64(0 if X is None else X.data.ptr) for X in (vector, aux)]
        with ExitStack() as stack:
            operation: int = lt.matmul_desc_create(compute, scale_type)
            stack.callback(lt.matmul_desc_destroy, operation)
            for attribute, value in _attributes(lt.MatmulDescAttribute, product, *pointers):
                _set(lt.matmul_desc_set_attribute, operation, attribute, value)

            def layout(kind: int, rows: int, columns: int, transposed: bool, ld: int, stride: int) -> int:
                rows, columns = (columns, rows) if transposed else (rows, columns)
                handle: int = lt.matrix_layout_create(kind, rows, columns, ld)
                stack.callback(lt.matrix_layout_destroy, handle)
                if product.batch > 1:
                    names, set_attribute = lt.MatrixLayoutAttribute, lt.matrix_layout_set_attribute
                    _set(set_attribute, handle, names.BATCH_COUNT, ctypes.c_int32(product.batch))
                    _set(set_attribute, handle, names.STRIDED_BATCH_OFFSET, ctypes.c_int64(stride))
                return handle

            result_type = ARITHMETIC[product.result][0]
            layouts = (
                layout(data_type, product.m, product.k, product.transa, product.lda, product.stride_a),
                layout(data_type, product.k, product.n, product.transb, product.ldb, product.stride_b),
                layout(result_type, product.m, product.n, False, product.ldc, product.stride_c),
            )
            buffer = self._choose(product, operation, layouts, alignments)
            self._resources.callback(stack.pop_all().close)
        scalars = self._scalars[scalar]
        one, zero = scalars.ctypes.data, scalars.ctypes.data + scalars.itemsize
        return Prepared(product.swapped, operation, *layouts, buffer, one, zero, *pointers)

    def _choose(self, product: Product, operation: int, layouts: tuple[int, int, int], alignments: Any) -> Any:
        """The best algorithm of cuBLASLt's heuristics, in the buffer to which they wrote it."""
        lt = self._lt
        results = numpy.zeros(1, dtype=lt.matmul_heuristic_result_dtype)
        count = numpy.zeros(1, dtype="int32")
        with ExitStack() as stack:
            preference = lt.matmul_preference_create()
            stack.callback(lt.matmul_preference_destroy, preference)
            names, set_attribute = lt.MatmulPreferenceAttribute, lt.matmul_preference_set_attribute
            _set(set_attribute, preference, names.MAX_WORKSPACE_BYTES, ctypes.c_uint64(self._workspace_span[1]))
            if ARITHMETIC[product.result][3] != product.result:
                # By default, the partial sums of several blocks may be added in half precision.
                scheme = ctypes.c_uint32(lt.ReductionScheme.COMPUTE_TYPE)
                _set(set_attribute, preference, names.REDUCTION_SCHEME_MASK, scheme)
            # By default, the heuristics assume alignment to 256 bytes, which a slice of an array may not have.
            a, b, c = alignments
            for operand, alignment in (("A", a), ("B", b), ("C", c), ("D", c)):
                _set(set_attribute, preference, names[f"MIN_ALIGNMENT_{operand}_BYTES"], ctypes.c_uint32(alignment))
            first, second, out = layouts
            sought = (self._handle, operation, first, second, out, out, preference)
            try:
                lt.matmul_algo_get_heuristic(*sought, 1, results.ctypes.data, count.ctypes.data)
            except lt.cuBLASLtError as error:
                raise NoAlgorithmError(f"gemm: cuBLASLt has no algorithm for {product}: {error}") from error
        if not count[0] or results["state"][0]:
            raise NoAlgorithmError(f"gemm: cuBLASLt has no algorithm for {product}")
        return results


def _attributes(names: Any, product: Product, vector: Any, aux: Any) -> Iterator[tuple[int, Any]]:
    """The attributes of the operation's descriptor; the heuristics use the alignment of the two addresses."""
    for name, transposed in ((names.TRANSA, product.transa), (names.TRANSB, product.transb)):
        if transposed:
            yield name, ctypes.c_int32(OPERATION_T)
    epilogue = product.epilogue
    if epilogue != NO_EPILOGUE:
        yield names.EPILOGUE, ctypes.c_uint32(epilogue.number)
    if vector.value:
        yield names.BIAS_POINTER, vector
        yield names.BIAS_BATCH_STRIDE, ctypes.c_int64(epilogue.vector_stride)
    if aux.value:
        yield names.EPILOGUE_AUX_POINTER, aux
        yield names.EPILOGUE_AUX_LD, ctypes.c_int64(epilogue.aux_ld)
        yield names.EPILOGUE_AUX_BATCH_STRIDE, ctypes.c_int64(epilogue.aux_stride)


def _set(setter: Callable[..., Any], target: int, attribute: int, value: Any) -> None:
    setter(target, attribute, ctypes.addressof(value), ctypes.sizeof(value))


def _alignment(address: int) -> int:
    """The alignment of an address in bytes: 256, 16, or less. Few classes, since each needs a new search."""
    return next((bytes_ for bytes_ in (256, 16) if address % bytes_ == 0), address & -address)
