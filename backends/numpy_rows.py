"""Softmax and its relatives on NumPy, each row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.types import Array, Shape

FEW, MANY = 24, 1024  # classes and numbers for which turning a matrix of them takes less time than it saves


class NumpyRows(Backend):
    """Base of `NumpyBackend`, which has the memory."""

    _pool: Any

    def softmax(self, Z: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        self._shifted(Z, column, out)
        np.exp(out, out)
        np.add.reduce(out, axis=-1, out=column, keepdims=True)
        return np.divide(out, column, out)

    def softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        self.sum_product(dA, A, -1, out=column)
        self.elementwise(formulas.softmax_gradient, (dA, A, column), (out,))
        return out

    def log_softmax(self, Z: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        work = self._pool.array("rows", out.shape, out.dtype)
        self._shifted(Z, column, out)
        np.exp(out, work)
        np.add.reduce(work, axis=-1, out=column, keepdims=True)
        np.log(column, column)
        return np.subtract(out, column, out)

    def log_softmax_gradient(self, dA: Array, A: Array, out: Array) -> Array:
        column = self._pool.array("column", (*out.shape[:-1], 1), out.dtype)
        np.add.reduce(dA, axis=-1, out=column, keepdims=True)
        self.elementwise(formulas.log_softmax_gradient, (dA, A, column), (out,))
        return out

    def softmax_cross_entropy(
        self, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array, dZ: Array
    ) -> Array:
        if not dZ.flags.c_contiguous:
            return super().softmax_cross_entropy(Z, target, smoothing, weight, scale, loss, dZ)
        if smoothing or target.dtype.kind == "f":
            return self._soft_cross_entropy(Z, target, smoothing, weight, scale, loss, dZ)
        if Z.shape[-1] <= FEW and Z.size >= MANY and Z.flags.c_contiguous and Z.shape == dZ.shape:
            self._cross_entropy_of_few(Z.reshape(-1, Z.shape[-1]), target, scale, loss, dZ)
            return self._weighted(weight, loss, dZ)
        column, logarithm = self._pool.array("columns", (2, *loss.shape), loss.dtype)
        flat, places = dZ.reshape(-1), self._places(target, dZ.shape)
        self._shifted(Z, column, dZ)
        flat.take(places, None, loss[..., 0], "clip")
        np.exp(dZ, dZ)
        np.add.reduce(dZ, axis=-1, out=column, keepdims=True)
        np.log(column, logarithm)
        np.divide(scale, column, column)  # the gradient comes out scaled at no cost
        np.multiply(dZ, column, dZ)
        flat[places] -= scale
        np.subtract(logarithm, loss, loss)
        return self._weighted(weight, loss, dZ)

    def _cross_entropy_of_few(self, Z: Array, target: Array, scale: float, loss: Array, dZ: Array) -> None:
        """The same on columns turned into rows: NumPy takes several times longer for many short rows than for a few
        long ones, in all that goes along or across them."""
        n, classes = Z.shape
        E = self._pool.array("rows", (classes, n), Z.dtype)
        row, logarithm = self._pool.array("columns", (2, n), Z.dtype)
        ends = loss.reshape(-1)
        flat, places = E.reshape(-1), self._pool.starts((n, 1))
        np.multiply(target, np.int64(n), places[1].reshape(loss.shape[:-1]))
        chosen = np.add(places[0], places[1], places[1])
        np.copyto(E, Z.T)
        np.maximum.reduce(E, axis=0, out=row)
        np.subtract(E, row, E)
        flat.take(chosen, None, ends, "clip")
        np.exp(E, E)
        np.add.reduce(E, axis=0, out=row)
        np.log(row, logarithm)
        np.divide(scale, row, row)  # the gradient comes out scaled at no cost
        np.multiply(E, row, E)
        flat[chosen] -= scale
        np.subtract(logarithm, ends, ends)
        np.copyto(dZ.reshape(-1, classes), E.T)

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
            np.multiply(loss, weight, loss)
            np.multiply(dZ, weight, dZ)
        return dZ

    def _shifted(self, Z: Array, column: Array, out: Array) -> None:
        """out = Z - max Z in each row."""
        if Z.shape == out.shape:
            np.maximum.reduce(Z, axis=-1, out=column, keepdims=True)
        else:  # inputs that all models share
            column[...] = Z.max(-1, keepdims=True)
        np.subtract(Z, column, out)

    def _places(self, classes: Array, shape: Shape) -> Array:
        """Where each row's class stands in the flattened matrix."""
        starts, places = self._pool.starts(shape)
        return np.add(starts, classes, places)
