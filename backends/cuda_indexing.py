"""Gather, lookup and random numbers on CUDA."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.backends.cuda_launch import (
    SUMS,
    IrregularOperandError,
    Launcher,
    blocks,
    c_name,
    float_types,
    mixed_types,
    operand,
    plain_where_irregular,
    result,
    vectors,
)
from gpunn.backends.kernels import BLOCK
from gpunn.types import Array

MOST_BLOCKS = 4096  # of a grid whose threads go round; enough to fill any device


class CudaIndexing(Launcher):
    """Rows by index. Indices are not checked: out of range they read or write foreign memory."""

    @plain_where_irregular
    def gather(self, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
        lead = tuple(out.shape[: out.ndim - source.ndim + 1])
        models, index, own = _indices(indices, lead, populated=len(lead) > 1)
        return self._gather(source, (*index, None), own, models, out, scale)

    def batch(self, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
        models = int(order.shape[0]) if order.ndim == 2 else 1
        rows, stretch = out.shape[order.ndim - 1], vectors(order, (order.shape[-1],), models)
        return self._gather(source, (*stretch, cursor), (rows,), models, out, scale)

    def _gather(
        self, source: Array, index: tuple[Any, ...], own: tuple[int, ...], models: int, out: Array, scale: float
    ) -> Array:
        """`index` is the row numbers, the distance between those of two models, and the cursor or None; `own` is the
        shape of one model's."""
        rows, columns = math.prod(own), math.prod(source.shape[1:])
        vectors(source, tuple(source.shape), 1)
        target = vectors(out, (*own, *source.shape[1:]), models)
        product = "float32" if SUMS.get(source.dtype.name) == "float32" else "float64"
        types = (
            ("S", c_name(source.dtype)), ("T", c_name(out.dtype)), ("I", c_name(index[0].dtype)),
            ("ACC", product),
        )  # fmt: skip
        grid = min(blocks(rows * columns), MOST_BLOCKS), models
        self.launch("gather", "gather", types, grid, source, index, target, rows, columns, float(scale))
        return out

    @plain_where_irregular
    def lookup(self, table: Array, indices: Array, out: Array) -> Array:
        (entries, columns), dtype = table.shape[-2:], out.dtype
        models, index, own = _indices(indices, tuple(out.shape[:-1]), populated=table.ndim == 3)
        rows = math.prod(own)
        types = (*float_types(dtype, S=dtype), ("I", c_name(indices.dtype)))
        grid = min(blocks(rows * columns), MOST_BLOCKS), models
        source = operand(table, models, entries, columns, dtype)
        target = vectors(out, (*own, columns), models)
        self.launch("lookup", "lookup", types, grid, source, index, target, rows, columns)
        return out

    def lookup_gradient(self, d: Array, indices: Array, out: Array) -> Array:
        """Refuses what has no kernel: CuPy's own way is atomic, so its sums change from run to run."""
        (entries, columns), dtype = out.shape[-2:], out.dtype
        models, index, own = _indices(indices, tuple(d.shape[:-1]), populated=out.ndim == 3)
        rows = math.prod(own)
        types = (*mixed_types(dtype, S=d.dtype), ("I", c_name(indices.dtype)))
        source = vectors(d, (*own, columns), models)
        target = result(out, models, entries, columns, dtype)
        grid = blocks(entries * columns), models
        self.launch("lookup", "lookup_gradient", types, grid, source, index, target, rows, columns, entries)
        return out


class CudaRandom(Launcher):
    """Philox streams; key and step stay on the device, so a captured launch draws anew at every replay."""

    def random_words(self, key: Array, step: Array, out: Array) -> Array:
        return self._fill("random_words", key, step, out, 4, np.uint64)

    def random_bits(self, key: Array, step: Array, out: Array) -> Array:
        return self._fill("random_bits", key, step, out, 16, np.uint16)

    def random_uniform(self, key: Array, step: Array, out: Array) -> Array:
        if out.dtype == np.float32:
            return self._fill("random_uniform_float", key, step, out, 8, np.float32)
        return self._fill("random_uniform_double", key, step, out, 4, np.float64)

    def random_normal(self, key: Array, step: Array, out: Array) -> Array:
        return self._fill("random_normal", key, step, out, 4, out.dtype)

    def permutation(self, key: Array, step: Array, out: Array) -> Array:
        """The sort allocates and waits, so this runs between captured steps and not in one."""
        low = (1 << max(out.shape[-1] - 1, 1).bit_length()) - 1
        words = out.view(np.uint64)
        self._fill("random_tagged", key, step, words, 4, np.uint64, np.uint64(low))
        words.sort(axis=-1)
        self.xp.bitwise_and(words, np.uint64(low), out=words)
        return out

    def _fill(self, name: str, key: Array, step: Array, out: Array, each: int, dtype: Any, *more: Any) -> Array:
        """`each` is how many numbers a thread makes from the four words of one Philox block."""
        models = math.prod(key.shape[:-1])
        shape = tuple(out.shape[key.ndim - 1 :])
        size = math.prod(shape)
        if key.ndim > 2 or key.dtype != np.uint64 or step.dtype.itemsize != 8 or out.dtype != dtype:
            raise IrregularOperandError(f"no kernel for {out.dtype} from keys {key.shape} {key.dtype}")
        types = (("T", out.dtype.name if out.dtype.name in SUMS else "float64"),)
        keys, target = vectors(key, (2,), models), vectors(out, shape, models)
        if size:
            grid = min(blocks(size, each * BLOCK), MOST_BLOCKS), models
            self.launch("philox", name, types, grid, keys, step.view(np.uint64), target, size, *more)
        return out


def _indices(indices: Array, lead: tuple[int, ...], populated: bool) -> tuple[int, tuple[Array, int], tuple[int, ...]]:
    """Models, the indices as kernels take them, and their shape in one model; `lead` is their shape, broadcast."""
    models, own = (lead[0], lead[1:]) if populated else (1, lead)
    if 0 in lead or indices.dtype.kind not in "iu":
        raise IrregularOperandError(f"no kernel for indices {indices.shape} of {indices.dtype}")
    return models, vectors(indices, own, models), own
