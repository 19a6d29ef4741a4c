"""Normalisation along an axis: one kernel each way, unless there are many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.cuda.launch import (
    blocks,
    float_types,
    is_half,
    models_of,
    operand,
    plain_where_irregular,
    result,
    row_blocks,
    sums_of,
)
from gpunn.backends.cuda.reductions import TILE, column_sums
from gpunn.backends.formula import formulas
from gpunn.backends.reference import normalization as reference
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.types import COLUMNS, Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend

# Above this many rows one block for TILE columns keeps too few threads busy, and the composition of a two-stage sum
# and elementwise formulas is faster in spite of its launches.
FUSED_ROWS = 2048


@plain_where_irregular
def normalize(ops: CupyBackend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    models, (rows, columns), dtype = models_of(out), out.shape[-2:], out.dtype
    by_column = norm.axis == COLUMNS
    if by_column and rows > FUSED_ROWS:
        if is_half(out):
            return _normalize_tall(ops, X, norm, statistics, out)
        return reference.normalize(ops, X, norm, statistics, out)
    height, width = (1, columns) if by_column else (rows, 1)
    kept, (mean, var, inverse) = sums_of(dtype), statistics[:3]
    written = [result(S, models, height, width, kept) for S in (mean if norm.center else var, var, inverse)]
    ops.launch(
        "normalization", "normalize_columns" if by_column else "normalize_rows", float_types(dtype),
        (blocks(columns, TILE) if by_column else row_blocks(rows), models),
        operand(X, models, rows, columns, dtype), *written, result(out, models, rows, columns, dtype),
        rows, columns, int(norm.center), float(norm.eps), int(norm.eps_outside),
    )  # fmt: skip
    return out


def _normalize_tall(ops: CupyBackend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    """As the plain form, which keeps the differences X - μ in `out`, but half precision would round them there."""
    models, (rows, columns), kept = models_of(out), X.shape[-2:], sums_of(X.dtype)
    mean, var, inverse = statistics[:3]
    if norm.center:
        ops.sum(X, COLUMNS, out=mean)
        ops.elementwise(formulas.multiply, (mean, 1.0 / rows), (mean,))
        operands = operand(X, models, rows, columns, X.dtype), operand(mean, models, 1, columns, kept)
        column_sums(ops, "sum_spread_columns", X.dtype, operands, models, rows, columns, var)
    else:
        ops.sum_product(X, X, COLUMNS, out=var)
    ops.elementwise(formulas.multiply, (var, 1.0 / rows), (var,))
    ops.elementwise(formulas.inverse_deviation, (var, norm.eps, norm.eps_outside), (inverse,))
    if norm.center:
        ops.elementwise(formulas.scaled_difference, (X, mean, inverse), (out,))
    else:
        ops.elementwise(formulas.multiply, (X, inverse), (out,))
    return out


@plain_where_irregular
def normalize_gradient(
    ops: CupyBackend,
    dZ: Array,
    Xhat: Array,
    G: Array | None,
    norm: Norm,
    statistics: Statistics,
    dG: Array,
    dB: Array,
    out: Array | None,
) -> Array | None:
    rows, columns = dZ.shape[-2:]
    if out is None or (norm.axis == COLUMNS and rows > FUSED_ROWS):
        return reference.normalize_gradient(ops, dZ, Xhat, G, norm, statistics, dG, dB, out)
    models, dtype, kept = models_of(out), out.dtype, sums_of(out.dtype)
    height, width = (1, columns) if norm.axis == COLUMNS else (rows, 1)
    _, var, inverse, *means = statistics
    read = [operand(X, models, rows, columns, dtype) for X in (dZ, Xhat)]
    read.append((var, 0, 0) if G is None else operand(G, models, 1, columns, kept))
    read += [operand(S, models, height, width, kept) for S in (var, inverse)]
    sums = [result(S, models, 1, columns, kept) for S in (dG, dB)]
    written = [result(S, models, height, width, kept) for S in means]
    written.append(result(out, models, rows, columns, dtype))
    types = float_types(dtype)
    options = rows, columns, int(G is not None), int(norm.center), int(norm.eps_outside)
    if norm.axis == COLUMNS:
        grid = blocks(columns, TILE), models
        ops.launch("normalization", "normalize_gradient_columns", types, grid, *read, *sums, *written, *options)
    else:
        ops.sum_product(dZ, Xhat, COLUMNS, out=dG)
        ops.sum(dZ, COLUMNS, out=dB)
        grid = row_blocks(rows), models
        ops.launch("normalization", "normalize_gradient_rows", types, grid, *read, *written, *options)
    return out
