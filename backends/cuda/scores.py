"""Scores: one number for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.backends.cuda import launch
from gpunn.backends.cuda.launch import reference_where_irregular
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


@reference_where_irregular
def correct(ops: CupyBackend, A: Array, y: Array, decision: float, out: Array) -> Array:
    if A.shape[-1] == 1:
        return _score(ops, "correct_side", A, y, out, float(decision))
    if y.dtype.kind in "iu":
        return _score(ops, "correct_class", A, y[..., None], out)
    return _score(ops, "correct_weights", A, y, out)


@reference_where_irregular
def row_error(ops: CupyBackend, A: Array, y: Array, power: int, out: Array) -> Array:
    return _score(ops, "row_error", A, y, out, int(power))


def _score(ops: CupyBackend, name: str, A: Array, y: Array, out: Array, *options: Any) -> Array:
    models, (rows, columns) = launch.models_of(out), A.shape[-2:]
    types = (*launch.mixed_types(out.dtype, S=A.dtype), ("I", launch.c_name(y.dtype)))
    X = launch.operand(A, models, rows, columns, A.dtype)
    target = launch.operand(y, models, rows, 1 if name == "correct_class" else columns, y.dtype)
    written = launch.result(out, models, rows, 1, out.dtype)
    ops.launch("scores", name, types, (launch.row_blocks(rows), models), X, target, written, rows, columns, *options)
    return out
