"""Matrix products through cuBLASLt: any strided layout without a copy, a whole population in one launch.

CuPy's own ``matmul`` copies transposed 3-D operands, makes temporaries, and refuses to be captured in a CUDA
graph. cuBLASLt takes leading dimensions, batch strides, stream and workspace at every call, so a product costs
one launch and no allocation, captured or not.
"""

import ctypes
import functools
import importlib
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy

# CUDA's own numbers (cudaDataType_t, cublasComputeType_t, cublasOperation_t). nvmath.bindings.cublasLt does not carry
# them, and importing its sister module for seven integers would load all of cuBLAS.
CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
OPERATION_T = 1


# dtype: its data type, the type its sums are kept in, the type of alpha and beta for CUDA and for NumPy.
ARITHMETIC = {
    "float64": (CUDA_R_64F, COMPUTE_64F, CUDA_R_64F, "float64"),
    "float32": (CUDA_R_32F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "float16": (CUDA_R_16F, COMPUTE_32F, CUDA_R_32F, "float32"),
    "bfloat16": (CUDA_R_16BF, COMPUTE_32F, CUDA_R_32F, "float32"),
}


@dataclass(frozen=True, slots=True)
class Product:
    """One product in cuBLASLt's terms: column-major D (m, n) = op(first) op(second), summed over k.

    Row-major ``out = A @ B`` is column-major ``outᵀ = Bᵀ Aᵀ``, hence ``swapped``: first is B and second is A.
    ``lda`` and ``stride_a`` belong to first, ``ldb`` and ``stride_b`` to second; all count elements.
    """

    m: int
    n: int
    k: int
    transa: bool
    transb: bool
    lda: int
    ldb: int
    ldc: int
    batch: int
    stride_a: int
    stride_b: int
    stride_c: int
    swapped: bool
    dtype: str

    def __str__(self) -> str:
        rows, columns = (self.n, self.m) if self.swapped else (self.m, self.n)
        return f"{self.batch} x ({rows}, {self.k}) @ ({self.k}, {columns}) in {self.dtype}"


@dataclass(frozen=True, slots=True)
class _Matrix:
    """An array of two or three dimensions as BLAS sees it; ``by_rows`` says that rows, not columns, are contiguous."""

    rows: int
    columns: int
    by_rows: bool
    ld: int
    batch: int | None
    batch_stride: int


def plan_product(A: Any, B: Any, out: Any) -> Product:
    """Decide ``out = A @ B`` from shapes, strides and dtypes alone; ValueError where BLAS would need a copy.

    The last two axes are the matrix and axis 0 is the population. An operand that is 2-D, or whose population
    stride is 0, serves every member.
    """
    return _plan(*((tuple(X.shape), tuple(X.strides), X.dtype) for X in (A, B, out)))


@functools.lru_cache(maxsize=4096)
def _plan(*arrays: tuple[tuple[int, ...], tuple[int, ...], Any]) -> Product:
    dtypes = [dtype.name for _, _, dtype in arrays]
    if len(set(dtypes)) != 1 or dtypes[0] not in ARITHMETIC:
        raise _refusal("dtypes", f"one dtype of {', '.join(ARITHMETIC)}", "A {}, B {}, out {}".format(*dtypes))
    A, B, out = (_matrix(name, *array) for name, array in zip(("A", "B", "out"), arrays, strict=True))
    if (A.rows, A.columns, B.columns) != (out.rows, B.rows, out.columns):
        shapes = "A {}, B {}, out {}".format(*(shape for shape, _, _ in arrays))
        raise _refusal("shapes", "A (m, k), B (k, n), out (m, n)", shapes)
    for name, X in (("A", A), ("B", B)):
        if X.batch is not None and X.batch != out.batch:
            raise _refusal(name, f"a population of {out.batch}, as out has, or two dimensions", str(X.batch))
    if 0 not in arrays[2][0]:
        _check_elements_distinct(*arrays[2])

    # Memory that holds X by rows is, read by columns, Xᵀ. So an out by rows asks for outᵀ = Bᵀ Aᵀ, where operands by
    # rows already are what is wanted; an out by columns asks for A B, where they are transposed.
    swapped = out.by_rows
    first, second = (B, A) if swapped else (A, B)
    return Product(
        m=out.columns if swapped else out.rows,
        n=out.rows if swapped else out.columns,
        k=A.columns,
        transa=first.by_rows != swapped,
        transb=second.by_rows != swapped,
        lda=first.ld,
        ldb=second.ld,
        ldc=out.ld,
        batch=1 if out.batch is None else out.batch,
        stride_a=first.batch_stride,
        stride_b=second.batch_stride,
        stride_c=out.batch_stride,
        swapped=swapped,
        dtype=dtypes[0],
    )


def _refusal(where: str, expected: str, got: str) -> ValueError:
    return ValueError(f"gemm {where}: expected {expected}, got {got}")


def _matrix(name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> _Matrix:
    if len(shape) not in (2, 3):
        raise _refusal(name, "two or three dimensions", f"shape {shape}")
    rows, columns = shape[-2:]
    batch = shape[0] if len(shape) == 3 else None
    if 0 in shape:
        return _Matrix(rows, columns, True, columns, batch, 0)
    # The stride of an axis of length 1 is never walked, and NumPy and CuPy leave any number there.
    walked = [stride if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)]
    if any(stride < 0 or stride % dtype.itemsize for stride in walked):
        raise _refusal(name, f"strides that are multiples of {dtype.itemsize} bytes, none negative", f"{strides}")
    row_step, column_step = (stride // dtype.itemsize for stride in walked[-2:])
    by_rows = (columns == 1 or column_step == 1) and (rows == 1 or row_step >= columns)
    by_columns = (rows == 1 or row_step == 1) and (columns == 1 or column_step >= rows)
    if not (by_rows or by_columns):
        raise _refusal(name, "contiguous rows or contiguous columns that do not overlap", f"{shape}, strides {strides}")
    # A contiguous column vector is both; as one column it keeps a leading dimension that allows wide loads.
    by_rows = by_rows and not (columns == 1 and by_columns)
    length, step = (columns, row_step) if by_rows else (rows, column_step)
    return _Matrix(rows, columns, by_rows, step or length, batch, walked[0] // dtype.itemsize if batch else 0)


def _check_elements_distinct(shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> None:
    """Refuse an ``out`` whose members share memory: they would be written by several blocks at once."""
    reach = 0
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length > 1 and stride < reach + dtype.itemsize:
            raise _refusal("out", "elements that do not share memory", f"{shape}, strides {strides}")
        reach += stride * (length - 1) if length > 1 else 0


def load_cublaslt() -> Any | None:
    """The module ``nvmath.bindings.cublasLt``, or None without nvmath-python; a broken installation raises."""
    try:
        return importlib.import_module("nvmath.bindings.cublasLt")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "nvmath":
            return None
        raise


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one kind of product needs at every call: descriptors, and the buffer its algorithm lies in."""

    operation: int
    first: int
    second: int
    out: int
    algorithm: int
    buffer: Any  # owns the memory at ``algorithm``
    one: int
    zero: int


class Gemm:
    """``out = A @ B``, or ``out += A @ B`` with ``accumulate``, on the current stream.

    Handle and workspace are this object's own, on the device current at construction. The workspace serves one
    stream at a time, and its address is frozen into captured graphs: keep the object as long as they live. An
    algorithm is chosen at the first call with a layout; this host work is not allowed during a capture, so a
    product must have run once before. ``tf32`` lets float32 products round their inputs to 10 bits.
    """

    def __init__(self, cupy: Any, cublaslt: Any, workspace_bytes: int = 32 * 2**20, *, tf32: bool = False) -> None:
        self._cupy, self._lt, self._tf32 = cupy, cublaslt, tf32
        self._workspace = cupy.empty(workspace_bytes, dtype="uint8")
        self._workspace_span = (self._workspace.data.ptr, workspace_bytes)
        # alpha and beta are read on the host when the product is launched or captured, so they must outlive the call.
        self._scalars = {name: numpy.array([1, 0], dtype=name) for name in ("float32", "float64")}
        self._prepared: dict[tuple[Product, int, int, int], Prepared] = {}
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

    def __call__(self, A: Any, B: Any, out: Any, accumulate: bool = False) -> Any:
        product = plan_product(A, B, out)
        if not (product.m and product.n and product.batch):
            return out
        if not product.k:
            if not accumulate:
                out.fill(0)
            return out
        first, second = (B, A) if product.swapped else (A, B)
        a, b, c = first.data.ptr, second.data.ptr, out.data.ptr
        key = (product, _alignment(a), _alignment(b), _alignment(c))
        prepared = self._prepared.get(key) or self._prepare(*key)
        beta = prepared.one if accumulate else prepared.zero
        operands = (prepared.one, a, prepared.first, b, prepared.second, beta, c, prepared.out, c, prepared.out)
        stream = self._cupy.cuda.get_current_stream().ptr
        self._lt.matmul(self._handle, prepared.operation, *operands, prepared.algorithm, *self._workspace_span, stream)
        return out

    def _prepare(self, product: Product, *alignments: int) -> Prepared:
        """Describe the product to cuBLASLt and let its heuristics choose the algorithm."""
        if not self._handle:
            raise RuntimeError("gemm: expected an open Gemm, got one that was closed")
        if self._cupy.cuda.get_current_stream().is_capturing():
            what = f"{product}, aligned to {alignments} bytes, is new while the stream is capturing"
            raise RuntimeError(f"gemm: {what}; run the product once before the capture")
        lt = self._lt
        data_type, compute, scale_type, scalar = ARITHMETIC[product.dtype]
        if self._tf32 and product.dtype == "float32":
            compute = COMPUTE_32F_FAST_TF32
        with ExitStack() as stack:
            operation: int = lt.matmul_desc_create(compute, scale_type)
            stack.callback(lt.matmul_desc_destroy, operation)
            attributes = lt.MatmulDescAttribute
            for attribute, transposed in ((attributes.TRANSA, product.transa), (attributes.TRANSB, product.transb)):
                if transposed:
                    _set(lt.matmul_desc_set_attribute, operation, attribute, ctypes.c_int32(OPERATION_T))

            def layout(rows: int, columns: int, transposed: bool, ld: int, stride: int) -> int:
                rows, columns = (columns, rows) if transposed else (rows, columns)
                handle: int = lt.matrix_layout_create(data_type, rows, columns, ld)
                stack.callback(lt.matrix_layout_destroy, handle)
                if product.batch > 1:
                    names, set_attribute = lt.MatrixLayoutAttribute, lt.matrix_layout_set_attribute
                    _set(set_attribute, handle, names.BATCH_COUNT, ctypes.c_int32(product.batch))
                    _set(set_attribute, handle, names.STRIDED_BATCH_OFFSET, ctypes.c_int64(stride))
                return handle

            first = layout(product.m, product.k, product.transa, product.lda, product.stride_a)
            second = layout(product.k, product.n, product.transb, product.ldb, product.stride_b)
            out = layout(product.m, product.n, False, product.ldc, product.stride_c)
            buffer = self._choose(product, operation, (first, second, out), alignments)
            self._resources.callback(stack.pop_all().close)
        scalars = self._scalars[scalar]
        one, zero = scalars.ctypes.data, scalars.ctypes.data + scalars.itemsize
        prepared = Prepared(operation, first, second, out, buffer["algo"].ctypes.data, buffer, one, zero)
        self._prepared[product, alignments[0], alignments[1], alignments[2]] = prepared
        return prepared

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
            # Left alone, the heuristics count on 256 bytes, which a slice of an array does not have.
            a, b, c = alignments
            for operand, alignment in (("A", a), ("B", b), ("C", c), ("D", c)):
                _set(set_attribute, preference, names[f"MIN_ALIGNMENT_{operand}_BYTES"], ctypes.c_uint32(alignment))
            first, second, out = layouts
            sought = (self._handle, operation, first, second, out, out, preference)
            try:
                lt.matmul_algo_get_heuristic(*sought, 1, results.ctypes.data, count.ctypes.data)
            except lt.cuBLASLtError as error:
                raise RuntimeError(f"gemm: cuBLASLt has no algorithm for {product}: {error}") from error
        if not count[0] or results["state"][0]:
            raise RuntimeError(f"gemm: cuBLASLt has no algorithm for {product}")
        return results


def _set(setter: Callable[..., Any], target: int, attribute: int, value: Any) -> None:
    setter(target, attribute, ctypes.addressof(value), ctypes.sizeof(value))


def _alignment(address: int) -> int:
    """How far an address is aligned, in three classes only: each class of an operand is a further heuristic search."""
    return next((bytes_ for bytes_ in (256, 16) if address % bytes_ == 0), address & -address)
