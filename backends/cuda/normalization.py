"""Normalisation along an axis: one kernel forward and one backward, unless there are many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.launch import reference_where_irregular
from gpunn.backends.cuda.reductions import TILE, column_sums
from gpunn.backends.formula import formulas
from gpunn.backends.reference import normalization as reference
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.types import COLUMNS, Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend

# With more rows, one block for TILE columns uses too few threads: sums in two launches and elementwise formulas are
# faster, although they are more launches.
FUSED_ROWS = 2048


@reference_where_irregular
def normalize(ops: CupyBackend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    models, (rows, columns), dtype = launch.models_of(out), out.shape[-2:], out.dtype
    by_column = norm.axis == COLUMNS
    if by_column and rows > FUSED_ROWS:
        if launch.is_half(out):
            return _normalize_tall(ops, X, norm, statistics, out)
        return reference.normalize(ops, X, norm, statistics, out)
    height, width = (1, columns) if by_column else (rows, 1)
    kept, (mean, var, inverse) = launch.sums_of(dtype), statistics[:3]
    written = [launch.result(S, models, height, width, kept) for S in (mean if norm.center else var, var, inverse)]
    ops.launch(
        "normalization", "normalize_columns" if by_column else "normalize_rows", launch.float_types(dtype),
        (launch.blocks(columns, TILE) if by_column else launch.row_blocks(rows), models),
        launch.operand(X, models, rows, columns, dtype), *written, launch.result(out, models, rows, columns, dtype),
        rows, columns, int(norm.center), float(norm.eps), int(norm.eps_outside),
    )  # fmt: skip
    return out


def _normalize_tall(ops: CupyBackend, X: Array, norm: Norm, statistics: Statistics, out: Array) -> Array:
    """As the reference, which keeps the differences X - μ in `out`; in half precision they would be rounded there."""
    models, (rows, columns), kept = launch.models_of(out), X.shape[-2:], launch.sums_of(X.dtype)
    mean, var, inverse = statistics[:3]
    if norm.center:
        ops.sum(X, COLUMNS, out=mean)
        ops.elementwise(formulas.multiply, (mean, 1.0 / rows), (mean,))
        operands = launch.operand(X, models, rows, columns, X.dtype), launch.operand(mean, models, 1, columns, kept)
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


@reference_where_irregular
def normalize_gradient(
    ops: CupyBackend, dZ: Array, Xhat: Array, G: Array | None, norm: Norm, statistics: Statistics, dG: Array,
    dB: Array, out: Array | None,
) -> Array | None:  # fmt: skip
    rows, columns = dZ.shape[-2:]
    if out is None or (norm.axis == COLUMNS and rows > FUSED_ROWS):
        return reference.normalize_gradient(ops, dZ, Xhat, G, norm, statistics, dG, dB, out)
    models, dtype, kept = launch.models_of(out), out.dtype, launch.sums_of(out.dtype)
    height, width = (1, columns) if norm.axis == COLUMNS else (rows, 1)
    _, var, inverse, *means = statistics
    read = [launch.operand(X, models, rows, columns, dtype) for X in (dZ, Xhat)]
    read.append((var, 0, 0) if G is None else launch.operand(G, models, 1, columns, kept))
    read += [launch.operand(S, models, height, width, kept) for S in (var, inverse)]
    sums = [launch.result(S, models, 1, columns, kept) for S in (dG, dB)]
    written = [launch.result(S, models, height, width, kept) for S in means]
    written.append(launch.result(out, models, rows, columns, dtype))
    types = launch.float_types(dtype)
    options = rows, columns, int(G is not None), int(norm.center), int(norm.eps_outside)
    if norm.axis == COLUMNS:
        grid = launch.blocks(columns, TILE), models
        ops.launch("normalization", "normalize_gradient_columns", types, grid, *read, *sums, *written, *options)
    else:
        ops.sum_product(dZ, Xhat, COLUMNS, out=dG)
        ops.sum(dZ, COLUMNS, out=dB)
        grid = launch.row_blocks(rows), models
        ops.launch("normalization", "normalize_gradient_rows", types, grid, *read, *written, *options)
    return out
