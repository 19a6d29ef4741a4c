"""Softmax, log-softmax and cross-entropy: a warp for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.launch import reference_where_irregular
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


def _rows(ops: CupyBackend, file: str, name: str, inputs: tuple[Array, ...], out: Array) -> Array:
    target = out
    if out.ndim > 3 and all(X.shape == out.shape and X.flags.c_contiguous for X in (*inputs, out)):
        inputs = tuple(X.reshape(-1, X.shape[-1]) for X in inputs)  # rows do not depend on each other
        out = out.reshape(-1, out.shape[-1])
    models, (rows, columns) = launch.models_of(out), out.shape[-2:]
    arrays = [launch.operand(X, models, rows, columns, X.dtype) for X in inputs]
    arrays.append(launch.result(out, models, rows, columns, out.dtype))
    types = launch.mixed_types(out.dtype, S=inputs[0].dtype, R=inputs[-1].dtype)
    ops.launch(file, name, types, (launch.row_blocks(rows), models), *arrays, rows, columns)
    return target


@reference_where_irregular
def softmax(ops: CupyBackend, Z: Array, out: Array) -> Array:
    return _rows(ops, "softmax", "softmax", (Z,), out)


@reference_where_irregular
def softmax_gradient(ops: CupyBackend, dA: Array, A: Array, out: Array) -> Array:
    return _rows(ops, "softmax", "softmax_gradient", (dA, A), out)


@reference_where_irregular
def log_softmax(ops: CupyBackend, Z: Array, out: Array) -> Array:
    return _rows(ops, "softmax", "log_softmax", (Z,), out)


@reference_where_irregular
def log_softmax_gradient(ops: CupyBackend, dA: Array, A: Array, out: Array) -> Array:
    return _rows(ops, "softmax", "log_softmax_gradient", (dA, A), out)


@reference_where_irregular
def softmax_cross_entropy(
    ops: CupyBackend, Z: Array, target: Array, smoothing: float, weight: Array | None, scale: float, loss: Array,
    dZ: Array,
) -> Array:  # fmt: skip
    models, (rows, columns), dtype = launch.models_of(dZ), dZ.shape[-2:], launch.sums_of(dZ.dtype)
    # Without weights, any pointer of their type: the kernel does not use it.
    row_weight = (loss, 0, 0) if weight is None else launch.operand(weight, models, rows, 1, dtype)
    logits = launch.operand(Z, models, rows, columns, Z.dtype)
    written = launch.result(loss, models, rows, 1, dtype), launch.result(dZ, models, rows, columns, dZ.dtype)
    types = launch.mixed_types(dZ.dtype, R=Z.dtype)
    if target.dtype.kind in "iu":
        types, name = (*types, ("I", target.dtype.name)), "cross_entropy_classes"
        wanted = launch.operand(target[..., None], models, rows, 1, target.dtype)
    else:
        types, name = (*types, ("I", "int64")), "cross_entropy_weights"
        wanted = launch.operand(target, models, rows, columns, dtype)
    ops.launch(
        "cross_entropy", name, types, (launch.row_blocks(rows), models), logits, wanted, row_weight, *written,
        rows, columns, int(weight is not None), float(smoothing), float(scale),
    )  # fmt: skip
    return dZ
