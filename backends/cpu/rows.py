"""Softmax, log-softmax and cross-entropy on each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.backends.formula import formulas
from gpunn.backends.reference import rows as reference
from gpunn.types import ROWS, Array, Shape

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend

FEW, MANY = 24, 256  # at most so many classes, at least so many numbers: transposing the matrix saves time


def softmax(ops: NumpyBackend, Z: Array, out: Array) -> Array:
    column = ops.scratch.array("column", (*out.shape[:-1], 1), out.dtype)
    _shifted(ops, Z, column, out)
    np.exp(out, out)
    np.add.reduce(out, axis=-1, out=column, keepdims=True)
    return np.divide(out, column, out)


@recorded_in_parts
def softmax_gradient(ops: NumpyBackend, dA: Array, A: Array, out: Array) -> Array:
    column = ops.scratch.array("column", (*out.shape[:-1], 1), out.dtype)
    ops.sum_product(dA, A, -1, out=column)
    ops.elementwise(formulas.softmax_gradient, (dA, A, column), (out,))
    return out


def log_softmax(ops: NumpyBackend, Z: Array, out: Array) -> Array:
    column = ops.scratch.array("column", (*out.shape[:-1], 1), out.dtype)
    work = ops.scratch.array("rows", out.shape, out.dtype)
    _shifted(ops, Z, column, out)
    np.exp(out, work)
    np.add.reduce(work, axis=-1, out=column, keepdims=True)
    np.log(column, column)
    return np.subtract(out, column, out)


def log_softmax_gradient(ops: NumpyBackend, dA: Array, A: Array, out: Array) -> Array:
    column = ops.scratch.array("column", (*out.shape[:-1], 1), out.dtype)
    np.add.reduce(dA, axis=-1, out=column, keepdims=True)
    ops.elementwise(formulas.log_softmax_gradient, (dA, A, column), (out,))
    return out


@recorded_in_parts
def softmax_cross_entropy(
    ops: NumpyBackend, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array,
    dZ: Array,
) -> Array:  # fmt: skip
    if not dZ.flags.c_contiguous:
        ops.recorder.do_as_one_call(reference.softmax_cross_entropy, ops, Z, target, smoothing, weight, scale, loss, dZ)
        return dZ
    if smoothing or target.dtype.kind == "f":
        ops.recorder.do_as_one_call(_soft_cross_entropy, ops, Z, target, smoothing, weight, scale, loss, dZ)
        return dZ
    if Z.shape[-1] <= FEW and Z.size >= MANY and Z.flags.c_contiguous and Z.shape == dZ.shape:
        _cross_entropy_of_few(ops, Z.reshape(-1, Z.shape[-1]), target, scale, loss, dZ)
        return _weighted(ops, weight, loss, dZ)
    do = ops.do
    column, logarithm = ops.scratch.array("columns", (2, *loss.shape), loss.dtype)
    flat, (starts, places) = dZ.reshape(-1), ops.scratch.starts(dZ.shape)
    do(np.add, starts, target, places)
    _shifted(ops, Z, column, dZ)
    do(flat.take, places, None, loss[..., 0], "clip")
    do(np.exp, dZ, dZ)
    do(np.add.reduce, dZ, ROWS, None, column, True)
    do(np.log, column, logarithm)
    do(np.divide, scale, column, column)  # the gradient comes out scaled at no cost
    do(np.multiply, dZ, column, dZ)
    do(_lower, flat, places, scale)
    do(np.subtract, logarithm, loss, loss)
    return _weighted(ops, weight, loss, dZ)


def _cross_entropy_of_few(ops: NumpyBackend, Z: Array, target: Array, scale: float, loss: Array, dZ: Array) -> None:
    """Cross-entropy on the transposed matrix: NumPy takes several times longer for many short rows than for a few long
    ones."""
    do, (n, classes) = ops.do, Z.shape
    row, logarithm = ops.scratch.array("columns", (2, n), Z.dtype)
    ends = loss.reshape(-1)
    S, labels, factor = dZ.reshape(Z.shape), target.reshape(-1), Z.dtype.type(scale)
    each = target.size == n and target.flags.c_contiguous  # one label for each row; not labels that models share
    loops = ops.formulas.row_loops(S, labels, factor, row) if each else None
    if loops is not None:
        shift_rows, divide_rows = loops
        do(shift_rows, Z, labels, S, ends)
        do(np.exp, S, S)
        do(divide_rows, S, labels, factor, row)
        do(np.log, row, logarithm)
        do(np.subtract, logarithm, ends, ends)
        return
    E = ops.scratch.array("rows", (classes, n), Z.dtype)
    flat, (starts, places) = E.reshape(-1), ops.scratch.starts((n, 1))
    do(np.multiply, target, np.int64(n), places.reshape(loss.shape[:-1]))
    do(np.add, starts, places, places)
    do(np.copyto, E, Z.T)
    do(np.maximum.reduce, E, 0, None, row)
    do(np.subtract, E, row, E)
    do(flat.take, places, None, ends, "clip")
    do(np.exp, E, E)
    do(np.add.reduce, E, 0, None, row)
    do(np.log, row, logarithm)
    do(np.divide, scale, row, row)  # the gradient comes out scaled at no cost
    do(np.multiply, E, row, E)
    do(_lower, flat, places, scale)
    do(np.subtract, logarithm, ends, ends)
    do(np.copyto, dZ.reshape(-1, classes), E.T)


def _soft_cross_entropy(
    ops: NumpyBackend, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array,
    dZ: Array,
) -> Array:  # fmt: skip
    classes = Z.shape[-1]
    T = ops.scratch.array("rows", dZ.shape, dZ.dtype)
    if target.dtype.kind == "f":
        np.multiply(target, 1.0 - smoothing, T)
        np.add(T, smoothing / classes, T)
        mass = ops.scratch.array("mass", (*T.shape[:-1], 1), dZ.dtype)
        np.add.reduce(T, axis=-1, out=mass, keepdims=True)
    else:
        T.fill(smoothing / classes)
        T.reshape(-1)[_places(ops, target, dZ.shape)] += 1.0 - smoothing
        mass = np.ones((1, 1), dZ.dtype)
    column = ops.scratch.array("column", loss.shape, loss.dtype)
    _shifted(ops, Z, column, dZ)
    ops.sum_product(T, dZ, -1, out=loss)
    np.exp(dZ, dZ)
    np.add.reduce(dZ, axis=-1, out=column, keepdims=True)
    ops.elementwise(formulas.soft_cross_entropy_gradient, (dZ, column, mass, T, scale), (dZ,))
    np.log(column, column)
    np.multiply(column, mass, column)
    np.subtract(column, loss, loss)
    return _weighted(ops, weight, loss, dZ)


def _weighted(ops: NumpyBackend, weight: Array | None, loss: Array, dZ: Array) -> Array:
    if weight is not None:
        ops.do(np.multiply, loss, weight, loss)
        ops.do(np.multiply, dZ, weight, dZ)
    return dZ


def _shifted(ops: NumpyBackend, Z: Array, column: Array, out: Array) -> None:
    """out = Z - max Z in each row."""
    do = ops.do
    if Z.shape != out.shape:  # inputs that all models share
        do(np.copyto, out, Z)
        Z = out
    do(np.maximum.reduce, Z, ROWS, None, column, True)
    do(np.subtract, Z, column, out)


def _places(ops: NumpyBackend, classes: Array, shape: Shape) -> Array:
    """The index of each row's class in the flattened matrix."""
    starts, places = ops.scratch.starts(shape)
    return np.add(starts, classes, places)


def _lower(flat: Array, places: Array, amount: float) -> None:
    flat[places] -= amount
