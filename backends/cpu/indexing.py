"""Rows picked by index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.backends.reference import indexing as reference
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend


@recorded_in_parts
def batch(ops: NumpyBackend, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
    if source.dtype == out.dtype and scale == 1.0 and order.ndim + source.ndim == out.ndim + 1:
        ops.do(_take_batch, source, order, cursor, out.shape[order.ndim - 1], out)
        return out
    ops.recorder.do_as_one_call(reference.batch, ops, source, order, cursor, out, scale)
    return out


@recorded_in_parts
def gather(ops: NumpyBackend, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
    do = ops.do
    if indices.ndim + source.ndim - 1 < out.ndim:  # all models take the same rows
        rows = ops.gather(source, indices, ops.scratch.array("shared", out.shape[1:], out.dtype), scale)
        do(np.copyto, out, rows)
        return out
    if source.dtype == out.dtype:
        do(source.take, indices, 0, out, "clip")  # "clip" writes directly to out; "raise" would use a buffer
    else:
        rows = ops.scratch.array("gathered", out.shape, source.dtype)
        do(source.take, indices, 0, rows, "clip")
        do(np.copyto, out, rows, "unsafe")
    if scale != 1.0:
        do(np.multiply, out, scale, out)
    return out


def lookup(ops: NumpyBackend, table: Array, indices: Array, out: Array) -> Array:
    if table.ndim == 2:
        table.take(indices, 0, out, "clip")
        return out
    return reference.lookup(ops, table, indices, out)


def lookup_gradient(ops: NumpyBackend, d: Array, indices: Array, out: Array) -> Array:
    """`np.add.at` is fast on flat arrays only, so it gets the index of each element in the flat table."""
    width = out.shape[-1]
    out[...] = 0
    for k in np.ndindex(out.shape[:-2]):
        rows = indices[k] if indices.ndim == d.ndim - 1 else indices
        places = ops.scratch.array("places", (*rows.shape, width), np.int64)
        np.multiply(rows[..., None], width, out=places)
        np.add(places, ops.scratch.starts((width, 1))[0], out=places)  # 0, 1, ..., width - 1
        np.add.at(out[k].reshape(-1), places.reshape(-1), d[k].reshape(-1))
    return out


def _take_batch(source: Array, order: Array, cursor: Array, count: int, out: Array) -> None:
    start = cursor.item()
    source.take(order[..., start : start + count], 0, out, "clip")  # "clip" as in `gather`
