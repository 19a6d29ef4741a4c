"""Scores: one number for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.operation import Arguments, operation
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


def _axes_of_labels(arguments: Arguments) -> int:
    return 1 if arguments["y"].dtype.kind in "iu" else 2


def _axes_of_outputs(arguments: Arguments) -> int:
    """The axes of outputs: examples may have any shape, and each has one score."""
    return int(arguments["A"].ndim - arguments["out"].ndim + 2)


@operation(writes=["out"], A=2, y=_axes_of_labels, out=2)
def correct(ops: Backend, A: Array, y: Array, decision: float, out: Array) -> Array:
    """1 where class y has the largest output, else 0; for a single output, 1 where A > `decision` equals y > 1/2."""
    if A.shape[-1] == 1:
        out[...] = (A > decision) == (y > 0.5)
    else:
        classes = y if y.dtype.kind in "iu" else y.argmax(axis=-1)
        out[..., 0] = A.argmax(axis=-1) == classes
    return out


@operation(writes=["out"], A=_axes_of_outputs, y=_axes_of_outputs, out=2)
def row_error(ops: Backend, A: Array, y: Array, power: int, out: Array) -> Array:
    """The mean of |a - y| or of its square over each example's outputs."""
    difference = A - y
    terms = difference * difference if power == 2 else abs(difference)
    axes = tuple(range(out.ndim - 1, terms.ndim))
    out[...] = terms.mean(axis=axes).reshape(out.shape)
    return out
