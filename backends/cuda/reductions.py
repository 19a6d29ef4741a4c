"""Sums along an axis, without atomics: the order of the additions depends on the shape only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.launch import reference_where_irregular
from gpunn.types import COLUMNS, Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend

TILE = 16  # columns of a block in the column kernels, as in common.cu
TALL = 512  # with more rows a column sum takes two launches
CHUNK_ROWS = 256
CHUNK_ELEMENTS = 8192


@reference_where_irregular
def sum(ops: CupyBackend, X: Array, axis: int, out: Array) -> Array:
    return _sum(ops, "sum", (X,), axis, out)


@reference_where_irregular
def sum_product(ops: CupyBackend, X: Array, Y: Array, axis: int, out: Array) -> Array:
    return _sum(ops, "sum_product", (X, Y), axis, out)


def _sum(ops: CupyBackend, name: str, operands: tuple[Array, ...], axis: int, out: Array) -> Array:
    models = launch.models_of(out)
    rows, columns = operands[0].shape[-2:]
    source = operands[0].dtype
    X = tuple(launch.operand(A, models, rows, columns, source) for A in operands)
    if axis == COLUMNS:
        return column_sums(ops, f"{name}_columns", source, X, models, rows, columns, out)
    target = launch.result(out, models, rows, 1, out.dtype)
    types, grid = sum_types(source, out.dtype), (launch.row_blocks(rows), models)
    ops.launch("reductions", f"{name}_rows", types, grid, *X, target, rows, columns)
    return out


def column_sums(
    ops: CupyBackend, kernel: str, source: Any, X: tuple[Any, ...], models: int, rows: int, columns: int, out: Array
) -> Array:
    target = launch.result(out, models, 1, columns, out.dtype)
    types, tiles = sum_types(source, out.dtype), launch.blocks(columns, TILE)
    if rows <= TALL:
        ops.launch("reductions", kernel, types, (tiles, 1, models), *X, target, rows, columns, rows)
        return out
    kept, chunks = launch.sums_of(out.dtype), launch.blocks(rows, CHUNK_ROWS)
    sums = launch.result(ops.scratch(models, chunks, columns, kept.name), models, chunks, columns, kept)
    types = sum_types(source, kept)
    ops.launch("reductions", kernel, types, (tiles, chunks, models), *X, sums, rows, columns, CHUNK_ROWS)
    types = sum_types(kept, out.dtype)
    ops.launch("reductions", "sum_columns", types, (tiles, 1, models), sums, target, chunks, columns, chunks)
    return out


@reference_where_irregular
def total(ops: CupyBackend, X: Array, scale: float, out: Array) -> Array:
    rows, columns = X.shape[-2:]
    models = int(X.shape[0]) if X.ndim == 3 else 1
    source = launch.operand(X, models, rows, columns, X.dtype)
    if rows * columns == 0 or out.shape != X.shape[:-2]:
        raise launch.IrregularOperandError(f"no kernel for the total of {X.shape} in {out.shape}")
    if rows == 1 or source[2] == columns:
        rows, columns = 1, rows * columns
    target = launch.vectors(out, (), models)
    chunks = launch.blocks(rows * columns, CHUNK_ELEMENTS)
    if chunks == 1:
        types = sum_types(X.dtype, out.dtype)
        _total(ops, types, (1, models), source, target, rows, columns, CHUNK_ELEMENTS, scale)
        return out
    kept = launch.sums_of(out.dtype)
    partial = launch.operand(ops.scratch(models, 1, chunks, kept.name), models, 1, chunks, kept)
    types = sum_types(X.dtype, kept)
    _total(ops, types, (chunks, models), source, partial[:2], rows, columns, CHUNK_ELEMENTS, 1.0)
    _total(ops, sum_types(kept, out.dtype), (1, models), partial, target, 1, chunks, chunks, scale)
    return out


def _total(ops: CupyBackend, types: Any, grid: tuple[int, int], *args: Any) -> None:
    *others, scale = args
    ops.launch("reductions", "total", types, grid, *others, float(scale))


def sum_types(source: Any, target: Any) -> tuple[tuple[str, str], ...]:
    return (("S", launch.c_name(source)), *launch.float_types(target))
