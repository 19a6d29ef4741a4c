"""Loops compiled by Numba. The only module that imports it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from gpunn.backends.cpu.numba import store as loop_store
from gpunn.types import Array

MOST_LOOPS = 512  # kept at once
NUMBERS = ("float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")


def _line(typing_context: Any, array: Any) -> Any:
    """The memory of an array as one contiguous vector; the caller makes sure that it is contiguous.

    For Numba, a view of a strided array is strided even if its rows are contiguous, and its loops are not vectorised.
    """
    line_type = numba.types.Array(array.dtype, 1, "C", readonly=not array.mutable, aligned=array.aligned)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, line = make_array(array)(context, builder, arguments[0]), make_array(line_type)(context, builder)
        shape, size = [source.nitems], source.itemsize
        populate_array(line, source.data, shape, strides=[size], itemsize=size, meminfo=source.meminfo)
        return impl_ret_borrowed(context, builder, line_type, line._getvalue())

    return line_type(array), lower


NAMES = {name: getattr(numba, name) for name in NUMBERS} | {
    "line": intrinsic(_line), "sqrt": math.sqrt, "inf": math.inf, "nan": math.nan,
}  # fmt: skip


def compile_loop(source: str, arrays: tuple[Array, ...]) -> Callable[..., bool]:
    """The function `loop` of this source, compiled to machine code for arrays of these types."""
    loop = _dispatcher(source)
    loop.compile(tuple(numba.typeof(array) for array in arrays))
    compiled: Callable[..., bool] = loop
    return compiled


def _compiled(function: Callable[..., None]) -> Any:
    """The function compiled by Numba at its first call; its machine code is stored if there is a safe folder."""
    options = {"error_model": "numpy", "nogil": True}
    try:
        return numba.njit(cache=loop_store.is_safe(), **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@_compiled
def _shift_rows(Z: Array, classes: Array, S: Array, chosen: Array) -> None:
    """S = Z - max Z in each row, and `chosen` = S at the row's class."""
    rows, columns = Z.shape
    for i in range(rows):
        largest = Z[i, 0]
        for j in range(1, columns):
            if Z[i, j] > largest or Z[i, j] != Z[i, j]:  # a NaN is the maximum, as in NumPy
                largest = Z[i, j]
        for j in range(columns):
            S[i, j] = Z[i, j] - largest
        chosen[i] = S[i, max(0, min(classes[i], columns - 1))]  # a class out of range reads no other memory


@_compiled
def _divide_rows(E: Array, classes: Array, scale: Any, sums: Array) -> None:
    """E = scale (E / Σ E - 1 at the row's class) in each row, and `sums` = Σ E."""
    rows, columns = E.shape
    for i in range(rows):
        total = E[i, 0]
        for j in range(1, columns):
            total += E[i, j]
        sums[i] = total
        factor = scale / total
        for j in range(columns):
            E[i, j] *= factor
        E[i, max(0, min(classes[i], columns - 1))] -= scale


def compile_rows(Z: Array, classes: Array, scale: Any, numbers: Array) -> tuple[Callable[..., None], ...]:
    """Compile for such arrays what softmax and cross-entropy do beside exp and log; `numbers` has one for each row."""
    _shift_rows.compile(tuple(map(numba.typeof, (Z, classes, Z, numbers))))
    _divide_rows.compile(tuple(map(numba.typeof, (Z, classes, scale, numbers))))
    return _shift_rows, _divide_rows


@functools.lru_cache(MOST_LOOPS)
def _dispatcher(source: str) -> Any:
    path = loop_store.store(source)
    names: dict[str, Any] = {"__name__": __name__, **NAMES}  # Numba imports this module to load stored code
    exec(compile(source, str(path or "<loop>"), "exec"), names)  # the source comes from `numba/loops.py`
    # As in NumPy, x / 0 is infinite; and a loop that may raise an error is not vectorised.
    return numba.njit(error_model="numpy", nogil=True, cache=path is not None)(names["loop"])
