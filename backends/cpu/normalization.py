"""The part of normalisation for which NumPy has faster functions than the reference uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.types import ROWS, Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend


@recorded_in_parts
def row_means(
    ops: NumpyBackend, dZ: Array, Xhat: Array, G: Array | None, gradient_mean: Array, product_mean: Array
) -> None:
    g, do, n = dZ, ops.do, Xhat.shape[-1]
    if G is not None:
        g = ops.scratch.array("rows", dZ.shape, dZ.dtype)
        do(np.multiply, dZ, G, g)
    do(np.divide, ops.sum(g, ROWS, out=gradient_mean), n, gradient_mean)
    do(np.divide, ops.sum_product(g, Xhat, ROWS, out=product_mean), n, product_mean)
