"""Rows picked by index: batches of examples, and tables of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.operation import SHARED, Arguments, operation
from gpunn.types import Array, Shape

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


def _axes_of_source(arguments: Arguments) -> int:
    return int(arguments["source"].ndim)


def _axes_of_vectors(arguments: Arguments) -> int:
    """The axes of the vectors that are looked up, or of their gradients `d`: those of the indices and one more."""
    a = arguments
    return int(a["out"].ndim - (a["table"].ndim - 2) if "table" in a else a["d"].ndim - (a["out"].ndim - 2))


def _axes_of_indices(arguments: Arguments) -> int:
    return _axes_of_vectors(arguments) - 1


@operation(writes=["out"], source=SHARED, indices=1, out=_axes_of_source)
def gather(ops: Backend, source: Array, indices: Array, out: Array, scale: float = 1.0) -> Array:
    """out[..., i, :] = scale source[indices[..., i], :], cast to `out`; all models share the source."""
    rows = source[indices]
    out[...] = rows if scale == 1.0 else rows * scale
    return out


@operation(writes=["out"], source=SHARED, order=1, cursor=SHARED, out=_axes_of_source)
def batch(ops: Backend, source: Array, order: Array, cursor: Array, out: Array, scale: float = 1.0) -> Array:
    """The examples from the cursor on: out[..., i, :] = scale source[order[..., cursor + i], :].

    `order` has shape (m,) for all models or (K, m). `cursor` (1,) is read on the device at every run, so that a
    recorded step takes the next batch.
    """
    start = int(cursor[0])
    return ops.gather(source, order[..., start : start + out.shape[order.ndim - 1]], out, scale)


@operation(writes=["out"], table=2, indices=_axes_of_indices, out=_axes_of_vectors)
def lookup(ops: Backend, table: Array, indices: Array, out: Array) -> Array:
    """out[k, i] = table[k, indices[k, i]]: each model has its own table; indices may be shared."""
    if table.ndim == 2:
        out[...] = table[indices]
    else:
        for k in range(table.shape[0]):
            out[k] = table[k][_of_model(indices, out.shape[:-1], k)]
    return out


@operation(writes=["out"], d=_axes_of_vectors, indices=_axes_of_indices, out=2)
def lookup_gradient(ops: Backend, d: Array, indices: Array, out: Array) -> Array:
    """out[k, v] = the sum of d[k, i] over all i with indices[k, i] = v."""
    out[...] = 0
    if out.ndim == 2:
        ops.xp.add.at(out, indices, d)
    else:
        for k in range(out.shape[0]):
            ops.xp.add.at(out[k], _of_model(indices, d.shape[:-1], k), d[k])
    return out


def _of_model(indices: Array, shape: Shape, k: int) -> Array:
    """Model k's indices; without a population axis, the shared ones."""
    return indices[k] if indices.ndim == len(shape) else indices
