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

MOST_LOOPS = 512  # known at once
NUMBERS = ("float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")


def _line(typing_context: Any, array: Any) -> Any:
    """The memory of an array as one contiguous line; the caller has made sure that it is.

    To Numba a view of a strided array is strided, though its rows be contiguous, and its loops are not vectorised.
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
    """The function `loop` of this text, its machine code for such arrays being ready."""
    loop = _dispatcher(source)
    loop.compile(tuple(numba.typeof(array) for array in arrays))
    compiled: Callable[..., bool] = loop
    return compiled


def _compiled(function: Callable[..., None]) -> Any:
    """By Numba when it is first called, or from where Numba stores code, if it may write anywhere that is safe."""
    options = {"error_model": "numpy", "nogil": True}
    try:
        return numba.njit(cache=loop_store.is_safe(), **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@_compiled
def _shift_rows(Z: Array, classes: Array, S: Array, chosen: Array) -> None:
    """S = Z - max Z in each row, and what S holds for the row's class."""
    rows, columns = Z.shape
    for i in range(rows):
        largest = Z[i, 0]
        for j in range(1, columns):
            if Z[i, j] > largest or Z[i, j] != Z[i, j]:  # a NaN comes through, as in NumPy
                largest = Z[i, j]
        for j in range(columns):
            S[i, j] = Z[i, j] - largest
        chosen[i] = S[i, max(0, min(classes[i], columns - 1))]  # no other memory, whatever the class


@_compiled
def _divide_rows(E: Array, classes: Array, scale: Any, sums: Array) -> None:
    """scale (E / Σ E - 1 at the row's class) in each row of E; its sum goes to `sums`."""
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
    """What softmax and cross-entropy do beside exp and log, for such arrays; `numbers` are one for each row."""
    _shift_rows.compile(tuple(map(numba.typeof, (Z, classes, Z, numbers))))
    _divide_rows.compile(tuple(map(numba.typeof, (Z, classes, scale, numbers))))
    return _shift_rows, _divide_rows


@functools.lru_cache(MOST_LOOPS)
def _dispatcher(source: str) -> Any:
    path = loop_store.store(source)
    names: dict[str, Any] = {"__name__": __name__, **NAMES}  # Numba imports it again for stored code
    exec(compile(source, str(path or "<loop>"), "exec"), names)  # a text that `loop_source` has made
    # As in NumPy, x / 0 is an infinity; besides, a loop that may raise is not vectorised.
    return numba.njit(error_model="numpy", nogil=True, cache=path is not None)(names["loop"])
