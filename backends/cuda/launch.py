"""Checks arrays and turns them into arguments of the kernels in `kernels/`, which check nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpunn.backends.cuda.kernels import BLOCK, HALVES, Types
from gpunn.backends.operation import OPERATIONS
from gpunn.types import Array

WARPS = BLOCK // 32  # row kernels: one warp for each row
MOST_BLOCKS = 4096  # of a grid whose threads loop over the elements; enough to fill any device
MOST_MODELS = 65535  # CUDA's limit for a grid's second and third extent
# For each dtype of results, the dtype of its sums, exponentials and statistics.
SUMS = {"float32": "float32", "float64": "float64", **dict.fromkeys(HALVES, "float32")}
Function = TypeVar("Function", bound=Callable[..., Any])


class IrregularOperandError(ValueError):
    """There is no kernel for an operand."""


def reference_where_irregular(function: Function) -> Function:
    """Wrap an operation: for operands without a kernel, it calls the reference.

    Such operands are transposed, or broadcast along a row. The reference is slower and allocates, or says what is wrong
    with them. In half precision an error is raised instead, since the reference would add in half precision.
    """

    @functools.wraps(function)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(ops, *arguments, **options)
        except IrregularOperandError as error:
            if any(is_half(argument) for argument in (*arguments, *options.values())):
                raise IrregularOperandError(f"{function.__name__} in half precision: {error}") from None
            return OPERATIONS[function.__name__].function(ops, *arguments, **options)

    return call  # type: ignore[return-value]


def is_half(argument: Any) -> bool:
    """Whether this is an array in half precision."""
    return hasattr(argument, "dtype") and argument.dtype.name in HALVES


def sums_of(dtype: Any) -> Any:
    """The dtype in which numbers of a float dtype are added: float32 for half precision."""
    if dtype.name not in SUMS:
        raise IrregularOperandError(f"no kernel for {dtype}")
    return dtype if SUMS[dtype.name] == dtype.name else np.dtype(SUMS[dtype.name])


def float_types(dtype: Any, **others: Any) -> Types:
    """The types T and ACC for results of a float dtype, and `others` by their names in the .cu file."""
    single = (("T", dtype.name), ("ACC", sums_of(dtype).name))
    return (*single, *((symbol, other.name) for symbol, other in others.items()))


def mixed_types(dtype: Any, **others: Any) -> Types:
    """As `float_types`, if the others have the same dtype of sums: half precision may mix with float32."""
    for other in others.values():
        if sums_of(other) != sums_of(dtype):
            raise IrregularOperandError(f"no kernel for {other} with {dtype}")
    return float_types(dtype, **others)


def c_name(dtype: Any) -> str:
    """The name of a dtype in a .cu file."""
    name: str = dtype.name
    if name not in SUMS and dtype.kind not in "biu":
        raise IrregularOperandError(f"no kernel for {name}")
    return name


def models_of(out: Array) -> int:
    """The number of models in a result."""
    if out.ndim not in (2, 3) or out.size == 0:
        raise IrregularOperandError(f"no kernel for shape {out.shape}")
    return int(out.shape[0]) if out.ndim == 3 else 1


def operand(X: Array, models: int, rows: int, columns: int, dtype: Any) -> tuple[Array, int, int]:
    """An operand as kernels take it: array, distance between models (0 if they share it), distance between rows."""
    shape, strides = X.shape, X.strides
    itemsize = dtype.itemsize
    if (
        X.dtype != dtype
        or shape[-2:] != (rows, columns)
        or shape[:-2] not in ((), (1,), (models,))
        or (columns > 1 and strides[-1] != itemsize)
        or (rows > 1 and strides[-2] % itemsize)
    ):
        raise IrregularOperandError(f"no kernel for {X.dtype} {shape} as {dtype} {(models, rows, columns)}")
    model = strides[0] // itemsize if len(shape) == 3 and shape[0] > 1 else 0
    return X, model, strides[-2] // itemsize if rows > 1 else 0


def result(X: Array, models: int, rows: int, columns: int, dtype: Any) -> tuple[Array, int, int]:
    """As `operand`, for an array that is written, which models must not share."""
    if X.size != models * rows * columns:
        raise IrregularOperandError(f"{X.shape} does not hold {(models, rows, columns)}")
    return operand(X, models, rows, columns, dtype)


def vectors(X: Array, shape: tuple[int, ...], models: int) -> tuple[Array, int]:
    """An array that is contiguous, with this shape, for each model, as kernels take it: array, distance between models
    (0 if they share it)."""
    single = X.shape[X.ndim - len(shape) :]
    outer = X.shape[: X.ndim - len(shape)]
    expected = X.itemsize
    for extent, stride in zip(reversed(single), reversed(X.strides), strict=False):
        if extent > 1 and stride != expected:
            raise IrregularOperandError(f"no kernel for strides {X.strides} of shape {X.shape}")
        expected *= extent
    if single != shape or outer not in ((), (1,), (models,)):
        raise IrregularOperandError(f"no kernel for {X.shape} as {(models, *shape)}")
    return X, X.strides[0] // X.itemsize if outer and outer[0] > 1 else 0


def blocks(count: int, each: int = BLOCK) -> int:
    """The number of blocks for `count` items, with `each` items for a block."""
    return -(-count // each)


def row_blocks(rows: int) -> int:
    return blocks(rows, WARPS)
