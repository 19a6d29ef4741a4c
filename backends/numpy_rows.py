"""Softmax and its relatives on NumPy, each row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.backends.numpy_tiles import TiledFormulas
from gpunn.backends.recording import Recorder, recorded, recorded_whole
from gpunn.types import ROWS, Array, Shape

FEW, MANY = 24, 256  # classes and numbers for which turning a matrix of them takes less time than it saves


class NumpyRows(Backend):
    """Base of `NumpyBackend`, which has the memory."""

    _pool: Any
    _formulas: TiledFormulas
    recorder: Recorder

    @recorded_whole
    def softmax(self, Z: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        self._shifted(Z, column, out)
        np.exp(out, out)
        np.add.reduce(out, axis=-1, out=column, keepdims=True)
        return np.divide(out, column, out)

    @recorded
    def softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        self.sum_product(dA, A, -1, out=column)
        self.elementwise(formulas.softmax_gradient, (dA, A, column), (out,))
        return out

    @recorded_whole
    def log_softmax(self, Z: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        work = self._pool.array("rows", out.shape, out.dtype)
        self._shifted(Z, column, out)
        np.exp(out, work)
        np.add.reduce(work, axis=-1, out=column, keepdims=True)
        np.log(column, column)
        return np.subtract(out, column, out)

    @recorded_whole
    def log_softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        np.add.reduce(dA, axis=-1, out=column, keepdims=True)
        self.elementwise(formulas.log_softmax_gradient, (dA, A, column), (out,))
        return out

    @recorded
    def softmax_cross_entropy(
        self, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
    ) -> Array:
        if not dZ.flags.c_contiguous:
            return self._strided_cross_entropy(Z, target, smoothing, weight, scale, loss, dZ)
        if smoothing or target.dtype.kind == "f":
            return self._soft_cross_entropy(Z, target, smoothing, weight, scale, loss, dZ)
        if Z.shape[-1] <= FEW and Z.size >= MANY and Z.flags.c_contiguous and Z.shape == dZ.shape:
            self._cross_entropy_of_few(Z.reshape(-1, Z.shape[-1]), target, scale, loss, dZ)
            return self._weighted(weight, loss, dZ)
        do = self.recorder.do
        column, logarithm = self._pool.array("columns", (2, *loss.shape), loss.dtype)
        flat, (starts, places) = dZ.reshape(-1), self._pool.starts(dZ.shape)
        do(np.add, starts, target, places)
        self._shifted(Z, column, dZ)
        do(flat.take, places, None, loss[..., 0], "clip")
        do(np.exp, dZ, dZ)
        do(np.add.reduce, dZ, ROWS, None, column, True)
        do(np.log, column, logarithm)
        do(np.divide, scale, column, column)  # the gradient comes out scaled at no cost
        do(np.multiply, dZ, column, dZ)
        do(_lower, flat, places, scale)
        do(np.subtract, logarithm, loss, loss)
        return self._weighted(weight, loss, dZ)

    _strided_cross_entropy = recorded_whole(Backend.softmax_cross_entropy)

    def _cross_entropy_of_few(self, Z: Array, target: Array, scale: float, loss: Array, dZ: Array) -> None:
        """The same on columns turned into rows: NumPy takes several times longer for many short rows than for a few
        long ones, in all that goes along or across them."""
        do, (n, classes) = self.recorder.do, Z.shape
        row, logarithm = self._pool.array("columns", (2, n), Z.dtype)
        ends = loss.reshape(-1)
        S, labels, factor = dZ.reshape(Z.shape), target.reshape(-1), Z.dtype.type(scale)
        each = target.size == n and target.flags.c_contiguous  # not labels that all models share
        loops = self._formulas.row_loops(S, labels, factor, row) if each else None
        if loops is not None:
            shift_rows, divide_rows = loops
            do(shift_rows, Z, labels, S, ends)
            do(np.exp, S, S)
            do(divide_rows, S, labels, factor, row)
            do(np.log, row, logarithm)
            do(np.subtract, logarithm, ends, ends)
            return
        E = self._pool.array("rows", (classes, n), Z.dtype)
        flat, (starts, places) = E.reshape(-1), self._pool.starts((n, 1))
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

    @recorded_whole
    def _soft_cross_entropy(
        self, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
    ) -> Array:
        classes = Z.shape[-1]
        T = self._pool.array("rows", dZ.shape, dZ.dtype)
        if target.dtype.kind == "f":
            np.multiply(target, 1.0 - smoothing, T)
            np.add(T, smoothing / classes, T)
            mass = self._pool.array("mass", (*T.shape[:-1], 1), dZ.dtype)
            np.add.reduce(T, axis=-1, out=mass, keepdims=True)
        else:
            T.fill(smoothing / classes)
            T.reshape(-1)[self._places(target, dZ.shape)] += 1.0 - smoothing
            mass = np.ones((1, 1), dZ.dtype)
        column = self._pool.array("column", loss.shape, loss.dtype)
        self._shifted(Z, column, dZ)
        self.sum_product(T, dZ, -1, out=loss)
        np.exp(dZ, dZ)
        np.add.reduce(dZ, axis=-1, out=column, keepdims=True)
        self.elementwise(formulas.soft_cross_entropy_gradient, (dZ, column, mass, T, scale), (dZ,))
        np.log(column, column)
        np.multiply(column, mass, column)
        np.subtract(column, loss, loss)
        return self._weighted(weight, loss, dZ)

    def _weighted(self, weight: Array | None, loss: Array, dZ: Array) -> Array:
        if weight is not None:
            self.recorder.do(np.multiply, loss, weight, loss)
            self.recorder.do(np.multiply, dZ, weight, dZ)
        return dZ

    def _shifted(self, Z: Array, column: Array, out: Array) -> None:
        """out = Z - max Z in each row."""
        do = self.recorder.do
        if Z.shape != out.shape:  # inputs that all models share
            do(np.copyto, out, Z)
            Z = out
        do(np.maximum.reduce, Z, ROWS, None, column, True)
        do(np.subtract, Z, column, out)

    def _places(self, classes: Array, shape: Shape) -> Array:
        """Where each row's class stands in the flattened matrix."""
        starts, places = self._pool.starts(shape)
        return np.add(starts, classes, places)


def _lower(flat: Array, places: Array, amount: float) -> None:
    flat[places] -= amount
