"""Describes a matrix product and its ending in cuBLASLt's terms, from shapes, strides and dtypes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# For each dtype of operands, the possible dtypes of results. Half precision is summed in float32, and may stay in it.
RESULTS = {
    "float64": ("float64",),
    "float32": ("float32",),
    "float16": ("float16", "float32"),
    "bfloat16": ("bfloat16", "float32"),
}
# The bits of cublasLtEpilogue_t.
DEFAULT, RELU, BIAS, DRELU, BGRAD, GELU, DGELU, AUX, BGRADA = 1, 2, 4, 8, 16, 32, 64, 128, 256
# For each ending (see `plan_product`), its bits, and the bits that are added with a vector.
ENDINGS = {
    "bias": (0, BIAS),
    "relu": (RELU, BIAS),
    "gelu": (GELU, BIAS),
    "relu_gradient": (DRELU, BGRAD),
    "gelu_gradient": (DGELU, BGRAD),
    "column_sums": (0, BGRADA),
}
NEEDED = {"bias": BIAS, "relu_gradient": AUX, "gelu_gradient": AUX, "column_sums": BGRADA}  # bits that must be set


@dataclass(frozen=True, slots=True)
class Epilogue:
    """An ending in cuBLASLt's terms. A stride is the distance from one model to the next."""

    number: int = DEFAULT  # of cublasLtEpilogue_t
    vector_stride: int = 0  # in elements
    aux_ld: int = 0  # leading dimension; this and the next in elements, for the bits of a ReLU in bits
    aux_stride: int = 0


NO_EPILOGUE = Epilogue()


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
    result: str
    epilogue: Epilogue = NO_EPILOGUE

    def __str__(self) -> str:
        rows, columns = (self.n, self.m) if self.swapped else (self.m, self.n)
        dtypes = self.dtype if self.dtype == self.result else f"{self.dtype} to {self.result}"
        return f"{self.batch} x ({rows}, {self.k}) @ ({self.k}, {columns}) in {dtypes}"


@dataclass(frozen=True, slots=True)
class _Matrix:
    """An array of two or three dimensions in BLAS's terms; ``by_rows``: rows are contiguous, else columns."""

    rows: int
    columns: int
    by_rows: bool
    ld: int
    batch: int | None
    batch_stride: int


def plan_product(A: Any, B: Any, out: Any, ending: str | None = None, vector: Any = None, aux: Any = None) -> Product:
    """Describe ``out = A @ B`` with an ending; raise a ValueError if BLAS would need a copy or has no such ending.

    The last two axes are the matrix, and axis 0 of three is the population. All models share an operand that is 2-D or
    has population stride 0. Endings, with Z = A @ B, plus ``vector`` if it is given:

    - "bias": out = Z
    - "relu", "gelu" (with tanh): out = f(Z), and in ``aux``, if given, the bits of Z > 0 for relu, Z for gelu
    - "relu_gradient", "gelu_gradient": out = (A @ B) f'(aux), and in ``vector``, if given, the column sums of out
    - "column_sums": out = A @ B, and in ``vector`` the column sums of B
    """
    dtypes = [X.dtype.name for X in (A, B, out)]
    if dtypes[0] != dtypes[1] or dtypes[2] not in RESULTS.get(dtypes[0], ()):
        wanted = f"one dtype of {', '.join(RESULTS)}; out may be float32 where A and B are half as wide"
        raise _refusal("dtypes", wanted, "A {}, B {}, out {}".format(*dtypes))
    left, right = _matrix("A", A), _matrix("B", B)
    result = _matrix("out", out, rows_first=ending is not None)
    if (left.rows, left.columns, right.columns) != (result.rows, right.rows, result.columns):
        raise _refusal("shapes", "A (m, k), B (k, n), out (m, n)", f"A {A.shape}, B {B.shape}, out {out.shape}")
    for name, X in (("A", left), ("B", right)):
        _check_population(name, X, result)
    if 0 not in out.shape:
        _check_elements_distinct("out", out)
    epilogue = NO_EPILOGUE if ending is None else _epilogue(ending, left.columns, result, out.dtype, vector, aux)

    # The memory of an X by rows is that of Xᵀ by columns. So for an out by rows, cuBLASLt computes outᵀ = Bᵀ Aᵀ, and
    # operands by rows need no transposition; for an out by columns it computes A B, and they need one.
    swapped = result.by_rows
    first, second = (right, left) if swapped else (left, right)
    return Product(
        m=result.columns if swapped else result.rows,
        n=result.rows if swapped else result.columns,
        k=left.columns,
        transa=first.by_rows != swapped,
        transb=second.by_rows != swapped,
        lda=first.ld,
        ldb=second.ld,
        ldc=result.ld,
        batch=1 if result.batch is None else result.batch,
        stride_a=first.batch_stride,
        stride_b=second.batch_stride,
        stride_c=result.batch_stride,
        swapped=swapped,
        dtype=dtypes[0],
        result=dtypes[2],
        epilogue=epilogue,
    )


def _epilogue(ending: str, inner: int, out: _Matrix, dtype: Any, vector: Any, aux: Any) -> Epilogue:
    """The ending in cuBLASLt's terms. Its vector runs along the columns of D, so ``out`` must be by rows."""
    bits, bits_of_vector = ENDINGS[ending]
    number = bits | (bits_of_vector if vector is not None else 0) | (AUX if aux is not None else 0)
    if NEEDED.get(ending, 0) & ~number or (aux is not None and not bits):
        given = " and ".join(name for name, X in (("vector", vector), ("aux", aux)) if X is not None) or "neither"
        raise _refusal(ending, "the arrays that this ending has", given)
    if not out.by_rows:
        raise _refusal("out", f"contiguous rows, for {ending}", "contiguous columns")
    if number & (DRELU | DGELU) and inner == 1:
        raise _refusal("shapes", f"a sum of two terms or more, for {ending}", "one")
    vector_stride = 0
    if vector is not None:
        if vector.dtype != dtype:
            raise _refusal("vector", f"{dtype}, as out", f"{vector.dtype}")
        v = _beside("vector", vector, out, 1, out.columns)
        if number & (BGRAD | BGRADA):
            _check_written("vector", vector, v, out)
        vector_stride = v.batch_stride
    if aux is None:
        return Epilogue(number, vector_stride)
    bitwise = bool(number & (RELU | DRELU))
    if aux.dtype != ("uint8" if bitwise else dtype):
        raise _refusal("aux", "uint8" if bitwise else f"{dtype}, as out", f"{aux.dtype}")
    a = _beside("aux", aux, out, out.rows, mask_bytes(out.columns) if bitwise else out.columns)
    _check_written("aux", aux, a, out)
    each, multiple = (8, 128) if bitwise else (1, 8)
    if a.ld * each % multiple or a.batch_stride * each % multiple:
        got = f"{a.ld * each} from row to row, {a.batch_stride * each} from model to model"
        raise _refusal("aux", f"rows at multiples of {multiple} {'bits' if bitwise else 'elements'}", got)
    return Epilogue(number, vector_stride, a.ld * each, a.batch_stride * each)


def mask_bytes(columns: int) -> int:
    """Bytes in a row of the bits of a ReLU: whole groups of 128 bits."""
    return -(-columns // 128) * 16


def _beside(name: str, array: Any, out: _Matrix, rows: int, columns: int) -> _Matrix:
    """The matrix of a vector or aux, whose rows must be contiguous."""
    X = _matrix(name, array, rows_first=True)
    if (X.rows, X.columns) != (rows, columns) or not X.by_rows:
        raise _refusal(name, f"contiguous rows of shape {(rows, columns)}", f"{array.shape}, strides {array.strides}")
    _check_population(name, X, out)
    return X


def _refusal(where: str, expected: str, got: str) -> ValueError:
    return ValueError(f"gemm {where}: expected {expected}, got {got}")


def _check_population(name: str, X: _Matrix, out: _Matrix) -> None:
    if X.batch is not None and X.batch != out.batch:
        raise _refusal(name, f"a population of {out.batch}, as out has, or two dimensions", str(X.batch))


def _check_written(name: str, array: Any, X: _Matrix, out: _Matrix) -> None:
    if X.batch != out.batch:
        raise _refusal(name, f"a population of {out.batch}, since each writes its own", str(X.batch))
    _check_elements_distinct(name, array)


def _matrix(name: str, array: Any, rows_first: bool = False) -> _Matrix:
    shape, strides, itemsize = tuple(array.shape), tuple(array.strides), array.dtype.itemsize
    if len(shape) not in (2, 3):
        raise _refusal(name, "two or three dimensions", f"shape {shape}")
    rows, columns = shape[-2:]
    batch = shape[0] if len(shape) == 3 else None
    if 0 in shape:
        return _Matrix(rows, columns, True, columns, batch, 0)
    # The stride of an axis of length 1 is not used, and may be any number in NumPy and CuPy.
    used = [stride if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)]
    if any(stride < 0 or stride % itemsize for stride in used):
        raise _refusal(name, f"strides that are multiples of {itemsize} bytes, none negative", f"{strides}")
    row_step, column_step = (stride // itemsize for stride in used[-2:])
    by_rows = (columns == 1 or column_step == 1) and (rows == 1 or row_step >= columns)
    by_columns = (rows == 1 or row_step == 1) and (columns == 1 or column_step >= rows)
    if not (by_rows or by_columns):
        raise _refusal(name, "contiguous rows or contiguous columns that do not overlap", f"{shape}, strides {strides}")
    # A contiguous column vector is both; by columns, its leading dimension allows wide loads.
    by_rows = by_rows and (rows_first or not (columns == 1 and by_columns))
    length, step = (columns, row_step) if by_rows else (rows, column_step)
    return _Matrix(rows, columns, by_rows, step or length, batch, used[0] // itemsize if batch else 0)


def _check_elements_distinct(name: str, array: Any) -> None:
    """Raise an error if elements of a result share memory: several blocks would write to it at once."""
    reach, itemsize = 0, array.dtype.itemsize
    for stride, length in sorted(zip(array.strides, array.shape, strict=True)):
        if length > 1 and stride < reach + itemsize:
            got = f"{tuple(array.shape)}, strides {tuple(array.strides)}"
            raise _refusal(name, "elements that do not share memory", got)
        reach += stride * (length - 1) if length > 1 else 0
