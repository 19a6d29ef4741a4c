"""Reductions, softmax and normalisation on CUDA: which kernel, over which grid."""

from __future__ import annotations

from typing import Any

from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.backends.cuda_launch import (
    IrregularOperandError,
    Launcher,
    blocks,
    c_name,
    float_types,
    is_half,
    mixed_types,
    models_of,
    operand,
    plain_where_irregular,
    result,
    row_blocks,
    sums_of,
    vectors,
)
from gpunn.types import COLUMNS, Array

TILE = 16  # columns of a block in the column kernels, as in common.cu
TALL = 512  # rows above which a column sum takes two launches
CHUNK_ROWS = 256
CHUNK_ELEMENTS = 8192
# Above this many rows one block for TILE columns keeps too few threads busy, and the composition of a two-stage sum
# and elementwise formulas is faster in spite of its launches.
FUSED_ROWS = 2048


class CudaReductions(Launcher):
    """Everything that adds along an axis; no atomics, so the same shape always gives the same bits."""

    @plain_where_irregular
    def sum(self, X: Array, axis: int, out: Array) -> Array:
        return self._sum("sum", (X,), axis, out)

    @plain_where_irregular
    def sum_product(self, X: Array, Y: Array, axis: int, out: Array) -> Array:
        return self._sum("sum_product", (X, Y), axis, out)

    def _sum(self, name: str, operands: tuple[Array, ...], axis: int, out: Array) -> Array:
        models = models_of(out)
        rows, columns = operands[0].shape[-2:]
        source = operands[0].dtype
        X = tuple(operand(A, models, rows, columns, source) for A in operands)
        if axis == COLUMNS:
            return self._column_sums(f"{name}_columns", source, X, models, rows, columns, out)
        target = result(out, models, rows, 1, out.dtype)
        self.launch(
            "sums", f"{name}_rows", _sum_types(source, out.dtype), (row_blocks(rows), models), *X, target, rows, columns
        )
        return out

    def _column_sums(
        self, kernel: str, source: Any, X: tuple[Any, ...], models: int, rows: int, columns: int, out: Array
    ) -> Array:
        target = result(out, models, 1, columns, out.dtype)
        types, tiles = _sum_types(source, out.dtype), blocks(columns, TILE)
        if rows <= TALL:
            self.launch("sums", kernel, types, (tiles, 1, models), *X, target, rows, columns, rows)
            return out
        kept, chunks = sums_of(out.dtype), blocks(rows, CHUNK_ROWS)
        sums = result(self.scratch(models, chunks, columns, kept.name), models, chunks, columns, kept)
        types = _sum_types(source, kept)
        self.launch("sums", kernel, types, (tiles, chunks, models), *X, sums, rows, columns, CHUNK_ROWS)
        types = _sum_types(kept, out.dtype)
        self.launch("sums", "sum_columns", types, (tiles, 1, models), sums, target, chunks, columns, chunks)
        return out

    @plain_where_irregular
    def total(self, X: Array, scale: float, out: Array) -> Array:
        rows, columns = X.shape[-2:]
        models = int(X.shape[0]) if X.ndim == 3 else 1
        source = operand(X, models, rows, columns, X.dtype)
        if rows * columns == 0 or out.shape != X.shape[:-2]:
            raise IrregularOperandError(f"no kernel for the total of {X.shape} in {out.shape}")
        if rows == 1 or source[2] == columns:
            rows, columns = 1, rows * columns
        target = vectors(out, (), models)
        chunks = blocks(rows * columns, CHUNK_ELEMENTS)
        if chunks == 1:
            types = _sum_types(X.dtype, out.dtype)
            self._total(types, (1, models), source, target, rows, columns, CHUNK_ELEMENTS, scale)
            return out
        kept = sums_of(out.dtype)
        partial = operand(self.scratch(models, 1, chunks, kept.name), models, 1, chunks, kept)
        types = _sum_types(X.dtype, kept)
        self._total(types, (chunks, models), source, partial[:2], rows, columns, CHUNK_ELEMENTS, 1.0)
        self._total(_sum_types(kept, out.dtype), (1, models), partial, target, 1, chunks, chunks, scale)
        return out

    def _total(self, types: Any, grid: tuple[int, int], *args: Any) -> None:
        *others, scale = args
        self.launch("sums", "total", types, grid, *others, float(scale))

    # Rows

    def _rows(self, file: str, name: str, inputs: tuple[Array, ...], out: Array) -> Array:
        target = out
        if out.ndim > 3 and all(X.shape == out.shape and X.flags.c_contiguous for X in (*inputs, out)):
            inputs = tuple(X.reshape(-1, X.shape[-1]) for X in inputs)  # no row looks at another
            out = out.reshape(-1, out.shape[-1])
        models, (rows, columns) = models_of(out), out.shape[-2:]
        arrays = [operand(X, models, rows, columns, X.dtype) for X in inputs]
        arrays.append(result(out, models, rows, columns, out.dtype))
        types = mixed_types(out.dtype, S=inputs[0].dtype, R=inputs[-1].dtype)
        self.launch(file, name, types, (row_blocks(rows), models), *arrays, rows, columns)
        return target

    @plain_where_irregular
    def softmax(self, Z: Array, out: Array) -> Array:
        return self._rows("softmax", "softmax", (Z,), out)

    @plain_where_irregular
    def softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        return self._rows("softmax", "softmax_gradient", (dA, A), out)

    @plain_where_irregular
    def log_softmax(self, Z: Array, out: Array) -> Array:
        return self._rows("softmax", "log_softmax", (Z,), out)

    @plain_where_irregular
    def log_softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        return self._rows("softmax", "log_softmax_gradient", (dA, A), out)

    @plain_where_irregular
    def softmax_cross_entropy(
        self, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
    ) -> Array:
        models, (rows, columns), dtype = models_of(dZ), dZ.shape[-2:], sums_of(dZ.dtype)
        # Without weights any pointer of their type does: the kernel does not follow it.
        row_weight = (loss, 0, 0) if weight is None else operand(weight, models, rows, 1, dtype)
        logits = operand(Z, models, rows, columns, Z.dtype)
        written = result(loss, models, rows, 1, dtype), result(dZ, models, rows, columns, dZ.dtype)
        types = mixed_types(dZ.dtype, R=Z.dtype)
        if target.dtype.kind in "iu":
            types, name = (*types, ("I", target.dtype.name)), "cross_entropy_classes"
            wanted = operand(target[..., None], models, rows, 1, target.dtype)
        else:
            types, name = (*types, ("I", "int64")), "cross_entropy_weights"
            wanted = operand(target, models, rows, columns, dtype)
        self.launch(
            "cross_entropy", name, types, (row_blocks(rows), models), logits, wanted, row_weight, *written,
            rows, columns, int(weight is not None), float(smoothing), float(scale),
        )  # fmt: skip
        return dZ

    # Scores

    @plain_where_irregular
    def correct(self, A: Array, y: Array, decision: float, out: Array) -> Array:
        if A.shape[-1] == 1:
            return self._score("correct_side", A, y, out, float(decision))
        if y.dtype.kind in "iu":
            return self._score("correct_class", A, y[..., None], out)
        return self._score("correct_weights", A, y, out)

    @plain_where_irregular
    def row_error(self, A: Array, y: Array, power: int, out: Array) -> Array:
        return self._score("row_error", A, y, out, int(power))

    def _score(self, name: str, A: Array, y: Array, out: Array, *options: Any) -> Array:
        models, (rows, columns) = models_of(out), A.shape[-2:]
        types = (*mixed_types(out.dtype, S=A.dtype), ("I", c_name(y.dtype)))
        X = operand(A, models, rows, columns, A.dtype)
        target = operand(y, models, rows, 1 if name == "correct_class" else columns, y.dtype)
        written = result(out, models, rows, 1, out.dtype)
        self.launch("scores", name, types, (row_blocks(rows), models), X, target, written, rows, columns, *options)
        return out

    # Normalisation

    @plain_where_irregular
    def normalize(
        self, X: Array, axis: int, center: bool, eps: float, outside: bool, mean: Array,
        var: Array, scale: Array, out: Array,
    ) -> Array:  # fmt: skip
        models, (rows, columns), dtype = models_of(out), out.shape[-2:], out.dtype
        if axis == COLUMNS and rows > FUSED_ROWS:
            if is_half(out):
                return self._normalize_tall(X, center, eps, outside, mean, var, scale, out)
            return Backend.normalize(self, X, axis, center, eps, outside, mean, var, scale, out)
        height, width = (1, columns) if axis == COLUMNS else (rows, 1)
        kept = sums_of(dtype)
        statistics = [result(S, models, height, width, kept) for S in (mean if center else var, var, scale)]
        self.launch(
            "normalize", "normalize_columns" if axis == COLUMNS else "normalize_rows", float_types(dtype),
            (blocks(columns, TILE) if axis == COLUMNS else row_blocks(rows), models),
            operand(X, models, rows, columns, dtype), *statistics, result(out, models, rows, columns, dtype),
            rows, columns, int(center), float(eps), int(outside),
        )  # fmt: skip
        return out

    def _normalize_tall(
        self, X: Array, center: bool, eps: float, outside: bool, mean: Array, var: Array, scale: Array, out: Array
    ) -> Array:
        """As the plain form, which keeps the differences X - μ in `out`, but half precision would round them there."""
        models, (rows, columns), kept = models_of(out), X.shape[-2:], sums_of(X.dtype)
        if center:
            self.sum(X, COLUMNS, out=mean)
            self.elementwise(formulas.multiply, (mean, 1.0 / rows), (mean,))
            operands = operand(X, models, rows, columns, X.dtype), operand(mean, models, 1, columns, kept)
            self._column_sums("sum_spread_columns", X.dtype, operands, models, rows, columns, var)
        else:
            self.sum_product(X, X, COLUMNS, out=var)
        self.elementwise(formulas.multiply, (var, 1.0 / rows), (var,))
        self.elementwise(formulas.inverse_deviation, (var, eps, outside), (scale,))
        if center:
            self.elementwise(formulas.scaled_difference, (X, mean, scale), (out,))
        else:
            self.elementwise(formulas.multiply, (X, scale), (out,))
        return out

    @plain_where_irregular
    def normalize_gradient(
        self, dZ: Array, Xhat: Array, G: Array | None, axis: int, center: bool, eps: float, outside: bool,
        var: Array, scale: Array, dG: Array, dB: Array, first: Array, second: Array, out: Array | None,
    ) -> Array | None:  # fmt: skip
        rows, columns = dZ.shape[-2:]
        if out is None or (axis == COLUMNS and rows > FUSED_ROWS):
            return Backend.normalize_gradient(
                self, dZ, Xhat, G, axis, center, eps, outside, var, scale, dG, dB, first, second, out
            )
        models, dtype, kept = models_of(out), out.dtype, sums_of(out.dtype)
        height, width = (1, columns) if axis == COLUMNS else (rows, 1)
        read = [operand(X, models, rows, columns, dtype) for X in (dZ, Xhat)]
        read.append((var, 0, 0) if G is None else operand(G, models, 1, columns, kept))
        read += [operand(S, models, height, width, kept) for S in (var, scale)]
        sums = [result(S, models, 1, columns, kept) for S in (dG, dB)]
        written = [result(S, models, height, width, kept) for S in (first, second)]
        written.append(result(out, models, rows, columns, dtype))
        types, options = float_types(dtype), (rows, columns, int(G is not None), int(center), int(outside))
        if axis == COLUMNS:
            grid = blocks(columns, TILE), models
            self.launch("normalize", "normalize_gradient_columns", types, grid, *read, *sums, *written, *options)
        else:
            self.sum_product(dZ, Xhat, COLUMNS, out=dG)
            self.sum(dZ, COLUMNS, out=dB)
            grid = row_blocks(rows), models
            self.launch("normalize", "normalize_gradient_rows", types, grid, *read, *written, *options)
        return out


def _sum_types(source: Any, target: Any) -> tuple[tuple[str, str], ...]:
    return (("S", c_name(source)), *float_types(target))
