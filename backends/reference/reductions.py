"""Sums along an axis, which the result keeps with length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunn.backends.operation import operation
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


@operation(writes=["out"], X=2, out=2)
def sum(ops: Backend, X: Array, axis: int, out: Array) -> Array:
    ops.xp.sum(X, axis=axis, keepdims=True, out=out)
    return out


@operation(writes=["out"], X=2, Y=2, out=2)
def sum_product(ops: Backend, X: Array, Y: Array, axis: int, out: Array) -> Array:
    """The sum of X Y, element by element, along an axis."""
    return ops.sum(X * Y, axis, out=out)


@operation(writes=["out"], X=2, out=0)
def total(ops: Backend, X: Array, scale: float, out: Array) -> Array:
    """`scale` times the sum of each model's matrix; `out` has the shape of X without its last two axes."""
    out[...] = ops.xp.sum(X, axis=(-2, -1)) * scale
    return out
