"""Rows picked by index. Indices are not checked: out of range they read or write memory of other arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.launch import reference_where_irregular
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


@reference_where_irregular
def gather(ops: CupyBackend, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
    index_shape = tuple(out.shape[: out.ndim - source.ndim + 1])
    models, index, single = _indices(indices, index_shape, populated=len(index_shape) > 1)
    return _gather(ops, source, (*index, None), single, models, out, scale)


def batch(ops: CupyBackend, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
    models = int(order.shape[0]) if order.ndim == 2 else 1
    rows, stretch = out.shape[order.ndim - 1], launch.vectors(order, (order.shape[-1],), models)
    return _gather(ops, source, (*stretch, cursor), (rows,), models, out, scale)


def _gather(
    ops: CupyBackend,
    source: Array,
    index: tuple[Any, ...],
    single: tuple[int, ...],
    models: int,
    out: Array,
    scale: float,
) -> Array:
    """`index` is (indices, their distance from one model to the next, cursor or None); `single` is the shape of the
    indices of one model."""
    rows, columns = math.prod(single), math.prod(source.shape[1:])
    launch.vectors(source, tuple(source.shape), 1)
    target = launch.vectors(out, (*single, *source.shape[1:]), models)
    product = "float32" if launch.SUMS.get(source.dtype.name) == "float32" else "float64"
    types = (
        ("S", launch.c_name(source.dtype)), ("T", launch.c_name(out.dtype)), ("I", launch.c_name(index[0].dtype)),
        ("ACC", product),
    )  # fmt: skip
    grid = min(launch.blocks(rows * columns), launch.MOST_BLOCKS), models
    ops.launch("gather", "gather", types, grid, source, index, target, rows, columns, float(scale))
    return out


@reference_where_irregular
def lookup(ops: CupyBackend, table: Array, indices: Array, out: Array) -> Array:
    (entries, columns), dtype = table.shape[-2:], out.dtype
    models, index, single = _indices(indices, tuple(out.shape[:-1]), populated=table.ndim == 3)
    rows = math.prod(single)
    types = (*launch.float_types(dtype, S=dtype), ("I", launch.c_name(indices.dtype)))
    grid = min(launch.blocks(rows * columns), launch.MOST_BLOCKS), models
    source = launch.operand(table, models, entries, columns, dtype)
    target = launch.vectors(out, (*single, columns), models)
    ops.launch("lookup", "lookup", types, grid, source, index, target, rows, columns)
    return out


def lookup_gradient(ops: CupyBackend, d: Array, indices: Array, out: Array) -> Array:
    """Raises an error if there is no kernel: CuPy's `add.at` is atomic, so its sums differ from run to run."""
    (entries, columns), dtype = out.shape[-2:], out.dtype
    models, index, single = _indices(indices, tuple(d.shape[:-1]), populated=out.ndim == 3)
    rows = math.prod(single)
    types = (*launch.mixed_types(dtype, S=d.dtype), ("I", launch.c_name(indices.dtype)))
    source = launch.vectors(d, (*single, columns), models)
    target = launch.result(out, models, entries, columns, dtype)
    grid = launch.blocks(entries * columns), models
    ops.launch("lookup", "lookup_gradient", types, grid, source, index, target, rows, columns, entries)
    return out


def _indices(
    indices: Array, index_shape: tuple[int, ...], populated: bool
) -> tuple[int, tuple[Array, int], tuple[int, ...]]:
    """Number of models, the indices as kernels take them, and their shape for one model; `index_shape`: for all."""
    models, single = (index_shape[0], index_shape[1:]) if populated else (1, index_shape)
    if 0 in index_shape or indices.dtype.kind not in "iu":
        raise launch.IrregularOperandError(f"no kernel for indices {indices.shape} of {indices.dtype}")
    return models, launch.vectors(indices, single, models), single
