"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.backends.reference.products import ActivationFunction, add_bias_and_activate
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend


@recorded_in_parts
def matmul(ops: NumpyBackend, A: Array, B: Array, out: Array) -> Array:
    ops.do(_product(A, B, out), A, B, out)
    return out


@recorded_in_parts
def affine(
    ops: NumpyBackend, X: Array, W: Array, b: Array | None, activation: ActivationFunction | None, out: Array,
    Z: Array | None = None, aux: Array | None = None,
) -> Array:  # fmt: skip
    product = out if Z is None else Z
    ops.do(_product(X, W, product), X, W, product)
    return add_bias_and_activate(ops, b, activation, out, Z)


def _product(A: Array, B: Array, out: Array) -> Callable[..., Any]:
    """NumPy's function for a product: `dot` makes the same call of BLAS as `matmul` faster, but for matrices only."""
    matrices = A.ndim == 2 and B.ndim == 2 and out.flags.c_contiguous
    return np.dot if matrices else np.matmul
