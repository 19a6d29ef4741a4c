"""Matrix products through cuBLASLt: any strided layout without a copy, a whole population in one launch.

CuPy's own ``matmul`` copies transposed 3-D operands, makes temporaries, and refuses to be captured in a CUDA
graph. cuBLASLt takes leading dimensions, batch strides, stream and workspace at every call, so a product costs
one launch and no allocation, captured or not; and it may end in a bias, an activation or a gradient.
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

from gpunn.backends.cuda.gemm_plan import PLAIN, Product, plan_product
from gpunn.errors import DeviceError

# CUDA's own numbers (cudaDataType_t, cublasComputeType_t, cublasOperation_t). nvmath.bindings.cublasLt does not carry
# them, and importing its sister module for seven integers would load all of cuBLAS.
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
OPERATION_T = 1

WORKSPACE_BYTES = 32 * 2**20


# dtype: its data type, the type its sums are kept in, the type of alpha and beta for CUDA and for NumPy.
ARITHMETIC = {
    "float64": (CUDA_R_64F, COMPUTE_64F, CUDA_R_64F, "float64"),
    "float32": (CUDA_R_32F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "float16": (CUDA_R_16F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "bfloat16": (CUDA_R_16BF, COMPUTE_32F, CUDA_R_32F, "float32"),
}


def load_cublaslt() -> Any | None:
    """The module ``nvmath.bindings.cublasLt``, or None without nvmath-python; a broken installation is an error."""
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
    """cuBLASLt has no way to do a product."""


@dataclass(slots=True)
class Prepared:
    """What one kind of product needs at every call: descriptors, and the buffer its algorithm lies in."""

    swapped: bool
    operation: int
    first: int
    second: int
    out: int
    buffer: Any  # owns the memory at ``algorithm``
    one: int
    zero: int
    vector: ctypes.c_int64  # the addresses that the operation's descriptor holds
    aux: ctypes.c_int64
    algorithm: int = field(init=False)

    def __post_init__(self) -> None:
        self.algorithm = self.buffer["algo"].ctypes.data


class Gemm:
    """``out = A @ B`` on the current stream, and products with endings.

    Handle and workspace are this object's own, on the device current at construction. The workspace serves one
    stream at a time, and its address is frozen into captured graphs: keep the object as long as they live. An
    algorithm is chosen at the first call with a layout; this host work is not allowed during a capture, so a
    product must have run once before. ``tf32`` lets float32 products round their inputs to 10 bits.
    """

    def __init__(self, cupy: Any, cublaslt: Any, workspace_bytes: int = WORKSPACE_BYTES, *, tf32: bool = False) -> None:
        self._cupy, self._lt, self._tf32 = cupy, cublaslt, tf32
        self._workspace = cupy.empty(workspace_bytes, dtype="uint8")
        self._workspace_span = (self._workspace.data.ptr, workspace_bytes)
        # alpha and beta are read on the host when the product is launched or captured, so they must outlive the call.
        self._scalars = {name: numpy.array([1, 0], dtype=name) for name in ("float32", "float64")}
        self._prepared: dict[tuple[Any, ...], Prepared | None] = {}  # None: there is no such ending
        self._resources = ExitStack()
        self._handle: int = cublaslt.create()
        self._resources.callback(cublaslt.destroy, self._handle)
        # Unlike __del__, a finalizer also runs before the interpreter takes the modules apart, and only once.
        self._finalizer = weakref.finalize(self, self._resources.close)

    def close(self) -> None:
        """Give descriptors and handle back. Graphs captured earlier still need the workspace, hence the object."""
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
        """Do a product with its ending (see `plan_product`), or nothing where cuBLASLt has none; says which."""
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
        """What was prepared for arrays that lie like these, now or at an earlier call."""
        seen = (None if X is None else (X.shape, X.strides, X.dtype, _alignment(X.data.ptr)) for X in arrays)
        key = (ending, *seen)
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
        """Describe the product to cuBLASLt and let its heuristics choose the algorithm."""
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
        """The heuristics' best algorithm, in the buffer they wrote it to."""
        lt = self._lt
        results = numpy.zeros(1, dtype=lt.matmul_heuristic_result_dtype)
        count = numpy.zeros(1, dtype="int32")
        with ExitStack() as stack:
            preference = lt.matmul_preference_create()
            stack.callback(lt.matmul_preference_destroy, preference)
            names, set_attribute = lt.MatmulPreferenceAttribute, lt.matmul_preference_set_attribute
            _set(set_attribute, preference, names.MAX_WORKSPACE_BYTES, ctypes.c_uint64(self._workspace_span[1]))
            if ARITHMETIC[product.result][3] != product.result:
                # Left alone, parts of one sum that several blocks have made may meet in half precision.
                scheme = ctypes.c_uint32(lt.ReductionScheme.COMPUTE_TYPE)
                _set(set_attribute, preference, names.REDUCTION_SCHEME_MASK, scheme)
            # Left alone, the heuristics count on 256 bytes, which a slice of an array does not have.
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
    """What makes a plain descriptor this product's; the heuristics look at how far the two addresses are aligned."""
    for name, transposed in ((names.TRANSA, product.transa), (names.TRANSB, product.transb)):
        if transposed:
            yield name, ctypes.c_int32(OPERATION_T)
    epilogue = product.epilogue
    if epilogue != PLAIN:
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
    """How far an address is aligned, in three classes only: each class of an operand is a further heuristic search."""
    return next((bytes_ for bytes_ in (256, 16) if address % bytes_ == 0), address & -address)
