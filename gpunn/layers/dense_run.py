"""Backward through Dense layers that follow one another, as one run.

The product that brings a gradient down to X is followed at once by the f' of the layer that made X: one kernel on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gpunn.frame import Frame
from gpunn.layers.base import Layer
from gpunn.layers.dense import Dense
from gpunn.types import Array


def runs_of(layers: Sequence[Layer]) -> tuple[slice, ...]:
    """The layers from last to first: Dense layers in a row together, each other by itself."""
    starts = [0]
    for i, (layer, after) in enumerate(pairwise(layers), 1):
        if not type(layer) is type(after) is Dense:  # a class derived from it may have a backward of its own
            starts.append(i)
    stops = [*starts[1:], len(layers)]
    return tuple(slice(*ends) for ends in reversed(list(zip(starts, stops))))


def backward_through(layers: Sequence[Dense], frames: Sequence[Frame], dA: Array) -> Array | None:
    """What `Dense.backward` of each does, from the last to the first.

    dZ = (dZ' W'ᵀ) * f'(Z), where dZ' and W' are those of the layer after it.
    """
    layer, t = layers[-1], frames[-1]
    dZ = t.ops.activation_gradient(dA, layer.kept(t), layer.function, out=t.A)
    for below, u in zip(layers[-2::-1], frames[-2::-1]):
        t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if layer.bias else None)
        mask = u.mask if below.masked else None
        dZ = t.ops.input_gradient(dZ, t.W, t.dX, below.function, below.kept(u), mask, out=u.A)
        layer, t = below, u
    t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if layer.bias else None)
    return t.ops.matmul(dZ, t.W.mT, out=t.dX) if t.wants_dX else None
