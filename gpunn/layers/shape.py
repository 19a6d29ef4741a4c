"""Layers that return their input in another shape, without a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunn import hyper
from gpunn.errors import ShapeError
from gpunn.frame import Frame, Plan
from gpunn.layers.base import Layer
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """Each input as one vector."""

    makes = "inputs"

    def target(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def plan(self, shape: Shape) -> Plan:
        return Plan(output=self.target(shape))

    def forward(self, t: Frame, X: Array) -> Array:
        return X.reshape(*X.shape[: X.ndim - len(t.shape)], *self.target(t.shape))

    def backward(self, t: Frame, dA: Array) -> Array | None:
        outer = dA.ndim - len(self.target(t.shape))
        return dA.reshape(*dA.shape[:outer], *t.shape) if t.wants_dX else None


def _shape(where: str, value: Any) -> Shape:
    """The rule of a shape; a single number is a shape with one axis."""
    return hyper.whole_shape(where, value if isinstance(value, (tuple, list)) else (value,))


@dataclass(frozen=True)
class Reshape(Flatten):
    """Each input in the given shape."""

    field_rules = {"shape": _shape}

    shape: Shape

    def target(self, shape: Shape) -> Shape:
        if math.prod(self.shape) != math.prod(shape):
            raise ShapeError(
                "Reshape",
                expected=f"inputs of {math.prod(self.shape)} numbers for shape {self.shape}",
                got=f"inputs of shape {shape}",
                fix="make the two products equal",
            )
        return self.shape
