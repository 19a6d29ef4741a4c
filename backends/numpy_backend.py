"""NumPy on the CPU: tiled formulas, reductions and row operations with `out=`, nothing allocated that is held."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.backends.elementwise import Formula
from gpunn.backends.numpy_tiles import TiledFormulas
from gpunn.backends.philox import philox_stream
from gpunn.types import COLUMNS, Array, Shape

BLOCK = 128  # rows that a float32 column sum runs over before it starts afresh
FEW, MANY = 24, 1024  # classes and numbers for which turning a matrix of them takes less time than it saves
CHUNK = 4096  # random words taken from the generator at once


class NumpyBackend(Backend):
    """See `Backend` for what every operation means."""

    name = "cpu"
    precisions = ("float32", "float64")

    def __init__(self, formulas: TiledFormulas | None = None) -> None:
        super().__init__()
        self._formulas = formulas or TiledFormulas()
        self._pool = _Pool()

    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        self._formulas.run(formula, inputs, outputs)

    def matmul(self, A: Array, B: Array, out: Array) -> Array:
        if A.ndim == 2 and B.ndim == 2 and out.flags.c_contiguous:
            return np.dot(A, B, out)  # the same BLAS call as matmul's, with less around it
        return np.matmul(A, B, out)

    # Reductions

    def sum(self, X: Array, axis: int, out: Array) -> Array:
        if axis == COLUMNS and X.flags.c_contiguous and X.dtype == out.dtype and X.size:
            return self._column_sums(X, out)
        np.add.reduce(X, axis=axis, out=out, keepdims=True)
        return out

    def _column_sums(self, X: Array, out: Array) -> Array:
        """As a product with a row of ones, which BLAS reads X much faster for than NumPy does."""
        n, d = X.shape[-2:]
        if n < 2 * BLOCK or X.dtype != np.float32:
            return np.matmul(self._pool.ones(n, X.dtype), X, out)
        whole, rest = divmod(n, BLOCK)
        sums = self._pool.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
        even = _blocks(X[..., : whole * BLOCK, :])
        np.matmul(self._pool.ones(BLOCK, X.dtype), even, sums[..., :whole, None, :])
        if rest:
            np.matmul(self._pool.ones(rest, X.dtype), X[..., whole * BLOCK :, :], sums[..., whole:, :])
        return np.matmul(self._pool.ones(sums.shape[-2], X.dtype), sums, out)

    def sum_product(self, X: Array, Y: Array, axis: int, out: Array) -> Array:
        if axis != COLUMNS:
            np.einsum("...nd,...nd->...n", X, Y, out=out[..., 0])
        elif X.shape[-2] >= 2 * BLOCK and X.dtype == np.float32:
            self._blockwise_products(X, Y, out)
        else:
            np.einsum("...nd,...nd->...d", X, Y, out=out[..., 0, :])
        return out

    def _blockwise_products(self, X: Array, Y: Array, out: Array) -> None:
        """Column sums of X Y over blocks of rows, then over the blocks: one long float32 sum loses much."""
        n, d = X.shape[-2:]
        whole, rest = divmod(n, BLOCK)
        sums = self._pool.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
        even = slice(0, whole * BLOCK)
        products = "...nd,...nd->...d"
        np.einsum(products, _blocks(X[..., even, :]), _blocks(Y[..., even, :]), out=sums[..., :whole, :])
        if rest:
            odd = slice(whole * BLOCK, n)
            np.einsum(products, X[..., odd, :], Y[..., odd, :], out=sums[..., whole, :])
        np.add.reduce(sums, axis=-2, out=out, keepdims=True)

    def total(self, X: Array, scale: float, out: Array) -> Array:
        np.add.reduce(X, axis=(-2, -1), out=out)
        np.multiply(out, scale, out)
        return out

    # Rows

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

    def _row_means(self, dZ: Array, Xhat: Array, G: Array | None, first: Array, second: Array) -> None:
        g = dZ if G is None else np.multiply(dZ, G, self._pool.array("rows", dZ.shape, dZ.dtype))
        n = Xhat.shape[-1]
        np.divide(self.sum(g, -1, out=first), n, first)
        np.divide(self.sum_product(g, Xhat, -1, out=second), n, second)

    # Gather and scatter

    def gather(self, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
        if indices.ndim + source.ndim - 1 < out.ndim:  # all models take the same rows
            rows = self.gather(source, indices, self._pool.array("shared", out.shape[1:], out.dtype), scale)
            np.copyto(out, rows)
            return out
        if source.dtype == out.dtype:
            source.take(indices, 0, out, "clip")  # "clip" writes straight into out; "raise" would buffer
        else:
            rows = self._pool.array("gathered", out.shape, source.dtype)
            source.take(indices, 0, rows, "clip")
            np.copyto(out, rows, "unsafe")
        return out if scale == 1.0 else np.multiply(out, scale, out)

    def lookup(self, table: Array, indices: Array, out: Array) -> Array:
        if table.ndim == 2:
            table.take(indices, 0, out, "clip")
            return out
        return super().lookup(table, indices, out)

    def lookup_gradient(self, d: Array, indices: Array, out: Array) -> Array:
        """`np.add.at` is quick on flat arrays only, so every table is scattered to element by element."""
        width = out.shape[-1]
        out[...] = 0
        for k in np.ndindex(out.shape[:-2]):
            rows = indices[k] if indices.ndim == d.ndim - 1 else indices
            places = self._pool.array("places", (*rows.shape, width), np.int64)
            np.multiply(rows[..., None], width, out=places)
            np.add(places, self._pool.starts((width, 1))[0], out=places)  # 0, 1, ..., width - 1
            np.add.at(out[k].reshape(-1), places.reshape(-1), d[k].reshape(-1))
        return out

    # Random numbers

    def random_words(self, key: Array, step: Array, out: Array) -> Array:
        """In chunks, because NumPy's generator only returns new arrays."""
        for k in np.ndindex(key.shape[:-1]):
            stream, row = philox_stream(key[k], int(step[0])), out[k]
            for start in range(0, row.size, CHUNK):
                part = row[start : start + CHUNK]
                part[...] = stream.random_raw(part.size)
        return out

    def random_bits(self, key: Array, step: Array, out: Array) -> Array:
        words = self._words(key, step, out, 4)
        np.copyto(out.reshape(*key.shape[:-1], -1), words.view(np.uint16)[..., : _size(key, out)])
        return out

    def random_uniform(self, key: Array, step: Array, out: Array) -> Array:
        flat = out.reshape(*key.shape[:-1], -1)
        if out.dtype == np.float32:
            integers = self._words(key, step, out, 2).view(np.uint32)[..., : _size(key, out)]
            bits = 24
        else:
            integers = self._words(key, step, out, 1)
            bits = 53
        np.right_shift(integers, integers.dtype.type(8 * integers.itemsize - bits), out=integers)
        np.copyto(flat, integers, casting="unsafe")
        np.multiply(flat, out.dtype.type(2.0**-bits), out=flat)
        return out

    def random_normal(self, key: Array, step: Array, out: Array) -> Array:
        pairs = (*key.shape[:-1], -(-_size(key, out) // 2), 2)
        uniform, normal = self._pool.array("uniform", pairs, np.float64), self._pool.array("normal", pairs, np.float64)
        self.random_uniform(key, step, out=uniform)
        u, v = uniform[..., 0], uniform[..., 1]
        self.elementwise(formulas.normal_pair, (u, v), (normal[..., 0], normal[..., 1]))
        flat = normal.reshape(*key.shape[:-1], -1)[..., : _size(key, out)]
        np.copyto(out.reshape(*key.shape[:-1], -1), flat, casting="same_kind")
        return out

    def _words(self, key: Array, step: Array, out: Array, numbers_each: int) -> Array:
        words = self._pool.array("words", (*key.shape[:-1], -(-_size(key, out) // numbers_each)), np.uint64)
        return self.random_words(key, step, out=words)


def _blocks(X: Array) -> Array:
    return X.reshape(*X.shape[:-2], -1, BLOCK, X.shape[-1])


def _size(key: Array, out: Array) -> int:
    """Numbers for each model."""
    return int(out.size // math.prod(key.shape[:-1]))


class _Pool(threading.local):
    """Scratch by name and dtype: grown when needed, otherwise the same memory at every call; one for each thread."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, Any], Array] = {}
        self._ones: dict[Any, Array] = {}
        self._starts: dict[Shape, tuple[Array, Array]] = {}

    def array(self, name: str, shape: Shape, dtype: Any) -> Array:
        size = math.prod(shape)
        flat = self._flat.get((name, dtype))
        if flat is None or flat.size < size:
            flat = self._flat[name, dtype] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def ones(self, count: int, dtype: Any) -> Array:
        """A row of them."""
        row = self._ones.get(dtype)
        if row is None or row.shape[1] < count:
            row = self._ones[dtype] = np.ones((1, count), dtype)
        return row[:, :count]

    def starts(self, shape: Shape) -> tuple[Array, Array]:
        """The flat index of each row's first element, in the shape of the rows; and room for as many others."""
        starts = self._starts.get(shape)
        if starts is None:
            if len(self._starts) > 64:
                self._starts.clear()
            rows = math.prod(shape[:-1])
            first = (np.arange(rows, dtype=np.int64) * shape[-1]).reshape(shape[:-1])
            starts = self._starts[shape] = first, np.empty_like(first)
        return starts
