"""NumPy on the CPU: tiled formulas, reductions and row operations with `out=`, nothing allocated that is held."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.backends.elementwise import Formula
from gpunn.backends.numpy_rows import NumpyRows
from gpunn.backends.numpy_tiles import TiledFormulas
from gpunn.backends.philox import philox_stream
from gpunn.backends.program import Program
from gpunn.backends.recording import RecordedStep, Recorder, recorded, recorded_whole
from gpunn.backends.shares import Shares
from gpunn.types import COLUMNS, ROWS, Array, Shape

BLOCK = 128  # rows that a float32 column sum runs over before it starts afresh
CHUNK = 4096  # random words taken from the generator at once


class NumpyBackend(NumpyRows):
    """See `Backend` for what every operation means."""

    name = "cpu"
    precisions = ("float32", "float64")

    def __init__(self, formulas: TiledFormulas | None = None) -> None:
        super().__init__()
        self._formulas = formulas or TiledFormulas()
        self._pool = _Pool()
        self.recorder = Recorder()

    @recorded
    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        self._formulas.run(formula, inputs, outputs, self.recorder.do)

    @recorded
    def copy(self, source: Array, out: Array) -> None:
        real = source.real if source.dtype.kind == "c" and out.dtype.kind != "c" else source
        self.recorder.do(np.copyto, out, real, "unsafe")

    @recorded
    def fill(self, out: Array, value: float) -> None:
        self.recorder.do(out.fill, value)

    @property
    def recorded_with(self) -> tuple[object, ...]:
        """What a record depends on: the thread and its scratch, the kernels of formulas, and who shares the models."""
        return self.recorder.thread, self._formulas.edition, self.recorder.shares

    def program(self, step: Callable[[], None], *, own: bool = True, models: int | None = None) -> Program:
        if not own or os.environ.get("GPUNN_CAPTURE", "1") == "0":
            return Program(step)
        return RecordedStep(self, step, models)

    @contextmanager
    def sharing_models(self, models: int, threads: int) -> Iterator[Callable[[int], None]]:
        before = self.recorder.shares
        self.recorder.shares = shares = Shares(models, threads)
        try:
            yield shares.use
        finally:
            self.recorder.shares = before
            shares.close()

    @recorded
    def matmul(self, A: Array, B: Array, out: Array) -> Array:
        if A.ndim == 2 and B.ndim == 2 and out.flags.c_contiguous:
            self.recorder.do(np.dot, A, B, out)  # the same BLAS call as matmul's, with less around it
        else:
            self.recorder.do(np.matmul, A, B, out)
        return out

    # Reductions

    @recorded
    def sum(self, X: Array, axis: int, out: Array) -> Array:
        if axis == COLUMNS and X.flags.c_contiguous and X.dtype == out.dtype and X.size:
            self._column_sums(X, out)
        else:
            self.recorder.do(_sum, X, axis, out)
        return out

    def _column_sums(self, X: Array, out: Array) -> None:
        """As a product with a row of ones, which BLAS reads X much faster for than NumPy does."""
        do, ones, (n, d) = self.recorder.do, self._pool.ones, X.shape[-2:]
        if n < 2 * BLOCK or X.dtype != np.float32:
            do(np.dot if X.ndim == 2 and out.flags.c_contiguous else np.matmul, ones(n, X.dtype), X, out)
            return
        whole, rest = divmod(n, BLOCK)
        sums = self._pool.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
        do(np.matmul, ones(BLOCK, X.dtype), _blocks(X[..., : whole * BLOCK, :]), sums[..., :whole, None, :])
        if rest:
            do(np.matmul, ones(rest, X.dtype), X[..., whole * BLOCK :, :], sums[..., whole:, :])
        do(np.matmul, ones(sums.shape[-2], X.dtype), sums, out)

    @recorded
    def sum_product(self, X: Array, Y: Array, axis: int, out: Array) -> Array:
        if axis != COLUMNS:
            self.recorder.do(_row_products, X, Y, out[..., 0])
        elif X.shape[-2] >= 2 * BLOCK and X.dtype == np.float32:
            self._blockwise_products(X, Y, out)
        else:
            self.recorder.do(_column_products, X, Y, out[..., 0, :])
        return out

    def _blockwise_products(self, X: Array, Y: Array, out: Array) -> None:
        """Column sums of X Y over blocks of rows, then over the blocks: one long float32 sum loses much."""
        n, d = X.shape[-2:]
        whole, rest = divmod(n, BLOCK)
        sums = self._pool.array("blocks", (*out.shape[:-2], whole + (rest > 0), d), X.dtype)
        even, do = slice(0, whole * BLOCK), self.recorder.do
        do(_column_products, _blocks(X[..., even, :]), _blocks(Y[..., even, :]), sums[..., :whole, :])
        if rest:
            odd = slice(whole * BLOCK, n)
            do(_column_products, X[..., odd, :], Y[..., odd, :], sums[..., whole, :])
        do(_sum, sums, COLUMNS, out)

    @recorded
    def total(self, X: Array, scale: float, out: Array) -> Array:
        if out.ndim == 0 and X.flags.c_contiguous:
            self.recorder.do(_total, X.reshape(-1), scale, out)
        else:
            self.recorder.do(np.add.reduce, X, (-2, -1), None, out)
            self.recorder.do(np.multiply, out, scale, out)
        return out

    # Rows and scores: more in numpy_rows.py

    correct = recorded_whole(Backend.correct)
    row_error = recorded_whole(Backend.row_error)

    @recorded
    def _row_means(self, dZ: Array, Xhat: Array, G: Array | None, first: Array, second: Array) -> None:
        g, do, n = dZ, self.recorder.do, Xhat.shape[-1]
        if G is not None:
            g = self._pool.array("rows", dZ.shape, dZ.dtype)
            do(np.multiply, dZ, G, g)
        do(np.divide, self.sum(g, ROWS, out=first), n, first)
        do(np.divide, self.sum_product(g, Xhat, ROWS, out=second), n, second)

    # Gather and scatter

    @recorded
    def batch(self, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
        if source.dtype == out.dtype and scale == 1.0 and order.ndim + source.ndim == out.ndim + 1:
            self.recorder.do(_take_batch, source, order, cursor, out.shape[order.ndim - 1], out)
            return out
        return self._batch(source, order, cursor, out, scale)

    _batch = recorded_whole(Backend.batch)

    @recorded
    def gather(self, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
        do = self.recorder.do
        if indices.ndim + source.ndim - 1 < out.ndim:  # all models take the same rows
            rows = self.gather(source, indices, self._pool.array("shared", out.shape[1:], out.dtype), scale)
            do(np.copyto, out, rows)
            return out
        if source.dtype == out.dtype:
            do(source.take, indices, 0, out, "clip")  # "clip" writes straight into out; "raise" would buffer
        else:
            rows = self._pool.array("gathered", out.shape, source.dtype)
            do(source.take, indices, 0, rows, "clip")
            do(np.copyto, out, rows, "unsafe")
        if scale != 1.0:
            do(np.multiply, out, scale, out)
        return out

    @recorded_whole
    def lookup(self, table: Array, indices: Array, out: Array) -> Array:
        if table.ndim == 2:
            table.take(indices, 0, out, "clip")
            return out
        return super().lookup(table, indices, out)

    @recorded_whole
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

    @recorded_whole
    def permutation(self, key: Array, step: Array, out: Array) -> Array:
        shares, permute = self.recorder.shares, super().permutation
        if shares is None or key.shape[:-1] != (shares.models,):
            return permute(key, step, out)
        shares.run([partial(permute, key[part], step, out[part]) for part in shares.parts])
        return out

    @recorded_whole
    def random_words(self, key: Array, step: Array, out: Array) -> Array:
        for part, stream in self._chunks(key, step, out):
            part[...] = stream.random_raw(part.size)
        return out

    @recorded_whole
    def random_bits(self, key: Array, step: Array, out: Array) -> Array:
        words = self._pool.array("words", (*key.shape[:-1], -(-_size(key, out) // 4)), np.uint64)
        self.random_words(key, step, out=words)
        np.copyto(out.reshape(*key.shape[:-1], -1), words.view(np.uint16)[..., : _size(key, out)])
        return out

    @recorded_whole
    def random_uniform(self, key: Array, step: Array, out: Array) -> Array:
        each, bits = (2, 24) if out.dtype == np.float32 else (1, 53)  # numbers from a word; bits of a number
        for part, stream in self._chunks(key, step, out):
            words = stream.random_raw(-(-part.size // each))
            integers = words.view(f"u{8 // each}")[: part.size]
            np.right_shift(integers, integers.dtype.type(64 // each - bits), out=integers)
            np.copyto(part, integers, casting="unsafe")
            np.multiply(part, out.dtype.type(2.0**-bits), out=part)
        return out

    @recorded_whole
    def random_normal(self, key: Array, step: Array, out: Array) -> Array:
        for part, stream in self._chunks(key, step, out):
            words = stream.random_raw(part.size + part.size % 2).reshape(-1, 2)
            np.right_shift(words, np.uint64(11), out=words)
            uniform, normal = (self._pool.array(name, words.shape, np.float64) for name in ("uniform", "normal"))
            np.multiply(words, 2.0**-53, out=uniform)
            self.elementwise(formulas.normal_pair, tuple(uniform.T), (normal[:, 0], normal[:, 1]))
            np.copyto(part, normal.reshape(-1)[: part.size], casting="same_kind")
        return out

    def _chunks(self, key: Array, step: Array, out: Array) -> Iterator[tuple[Array, np.random.Philox]]:
        """Parts of each model's numbers with the stream they come from: NumPy's generator only returns new arrays, and
        what numbers are made of takes several times their room."""
        flat = out.reshape(*key.shape[:-1], -1)
        for k in np.ndindex(key.shape[:-1]):
            stream, row = philox_stream(key[k], int(step[0])), flat[k]
            for start in range(0, row.size, CHUNK):
                yield row[start : start + CHUNK], stream


def _sum(X: Array, axis: int, out: Array) -> None:
    np.add.reduce(X, axis=axis, out=out, keepdims=True)


def _total(numbers: Array, scale: float, out: Array) -> None:
    """Of one model, whose sum may be a number on its way: that takes a third of the time."""
    out.fill(np.add.reduce(numbers, dtype=out.dtype) * scale)


def _row_products(X: Array, Y: Array, out: Array) -> None:
    np.einsum("...nd,...nd->...n", X, Y, out=out)


def _column_products(X: Array, Y: Array, out: Array) -> None:
    np.einsum("...nd,...nd->...d", X, Y, out=out)


def _take_batch(source: Array, order: Array, cursor: Array, count: int, out: Array) -> None:
    start = cursor.item()
    source.take(order[..., start : start + count], 0, out, "clip")  # which writes straight into out, as in `gather`


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
