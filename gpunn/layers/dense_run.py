"""Backward through several Dense layers in a row.

dX of one layer is dA of the layer before it: product and f' are computed together, in one kernel on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gpunn.frame import Frame
from gpunn.layers.base import Layer
from gpunn.layers.dense import Dense
from gpunn.types import Array


def groups_of(layers: Sequence[Layer]) -> tuple[slice, ...]:
    """The layers in groups, from last to first: Dense layers in a row together, every other layer alone."""
    starts = [0]
    for i, (layer, after) in enumerate(pairwise(layers), 1):
        if not type(layer) is type(after) is Dense:  # a subclass may have another backward
            starts.append(i)
    stops = [*starts[1:], len(layers)]
    return tuple(slice(*ends) for ends in reversed(list(zip(starts, stops))))


def backward_through(layers: Sequence[Dense], frames: Sequence[Frame], dA: Array) -> Array | None:
    """Does what `Dense.backward` of each layer does, from the last to the first.

    dZ = (dZ' W'ᵀ) * f'(Z), where dZ' and W' belong to the next layer.
    """
    layer, t = layers[-1], frames[-1]
    dZ = t.ops.activation_gradient(dA, layer.kept(t), layer.function, out=t.A)
    for below, u in zip(layers[-2::-1], frames[-2::-1]):
        t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if layer.bias else None)
        mask = u.mask if below.keeps_mask else None
        dZ = t.ops.input_gradient(dZ, t.W, t.dX, below.function, below.kept(u), mask, out=u.A)
        layer, t = below, u
    t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if layer.bias else None)
    return t.ops.matmul(dZ, t.W.mT, out=t.dX) if t.wants_dX else None
