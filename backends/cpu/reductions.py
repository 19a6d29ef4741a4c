"""Sums along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.types import COLUMNS, Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend

BLOCK = 128  # rows that a float32 column sum adds up before it starts a new partial sum


@recorded_in_parts
def sum(ops: NumpyBackend, X: Array, axis: int, out: Array) -> Array:
    if axis == COLUMNS and X.flags.c_contiguous and X.dtype == out.dtype and X.size:
        _column_sums(ops, X, out)
    else:
        ops.do(_sum, X, axis, out)
    return out


def _column_sums(ops: NumpyBackend, X: Array, out: Array) -> None:
    """Column sums as a product with a row of ones: BLAS reads X much faster than NumPy's sum."""
    do, ones, (n, d) = ops.do, ops.scratch.ones, X.shape[-2:]
    if n < 2 * BLOCK or X.dtype != np.float32:
        do(np.dot if X.ndim == 2 and out.flags.c_contiguous else np.matmul, ones(n, X.dtype), X, out)
        return
    whole, rest = divmod(n, BLOCK)
    sums = ops.scratch.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
    do(np.matmul, ones(BLOCK, X.dtype), _blocks(X[..., : whole * BLOCK, :]), sums[..., :whole, None, :])
    if rest:
        do(np.matmul, ones(rest, X.dtype), X[..., whole * BLOCK :, :], sums[..., whole:, :])
    do(np.matmul, ones(sums.shape[-2], X.dtype), sums, out)


@recorded_in_parts
def sum_product(ops: NumpyBackend, X: Array, Y: Array, axis: int, out: Array) -> Array:
    if axis != COLUMNS:
        ops.do(_row_products, X, Y, out[..., 0])
    elif X.shape[-2] >= 2 * BLOCK and X.dtype == np.float32:
        _blockwise_products(ops, X, Y, out)
    else:
        ops.do(_column_products, X, Y, out[..., 0, :])
    return out


def _blockwise_products(ops: NumpyBackend, X: Array, Y: Array, out: Array) -> None:
    """Column sums of X Y over blocks of rows, then over the blocks: one long float32 sum would lose digits."""
    n, d = X.shape[-2:]
    whole, rest = divmod(n, BLOCK)
    sums = ops.scratch.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
    even, do = slice(0, whole * BLOCK), ops.do
    do(_column_products, _blocks(X[..., even, :]), _blocks(Y[..., even, :]), sums[..., :whole, :])
    if rest:
        odd = slice(whole * BLOCK, n)
        do(_column_products, X[..., odd, :], Y[..., odd, :], sums[..., whole, :])
    do(_sum, sums, COLUMNS, out)


@recorded_in_parts
def total(ops: NumpyBackend, X: Array, scale: float, out: Array) -> Array:
    if out.ndim == 0 and X.flags.c_contiguous:
        ops.do(_total, X.reshape(-1), scale, out)
    else:
        ops.do(np.add.reduce, X, (-2, -1), None, out)
        ops.do(np.multiply, out, scale, out)
    return out


def _sum(X: Array, axis: int, out: Array) -> None:
    np.add.reduce(X, axis=axis, out=out, keepdims=True)


def _total(numbers: Array, scale: float, out: Array) -> None:
    """The total of one model. Its sum is a Python number in between, which takes a third of the time."""
    out.fill(np.add.reduce(numbers, dtype=out.dtype) * scale)


def _row_products(X: Array, Y: Array, out: Array) -> None:
    np.einsum("...nd,...nd->...n", X, Y, out=out)


def _column_products(X: Array, Y: Array, out: Array) -> None:
    np.einsum("...nd,...nd->...d", X, Y, out=out)


def _blocks(X: Array) -> Array:
    return X.reshape(*X.shape[:-2], -1, BLOCK, X.shape[-1])
