"""A trained vector for each category."""

from __future__ import annotations

from dataclasses import dataclass

from gpunn.fields import whole
from gpunn.frame import Buffer, Frame, Plan
from gpunn.initializers import Gaussian
from gpunn.layers.base import Layer
from gpunn.parameters import Parameter
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Embedding(Layer):
    """Replaces integers by rows of a table: a[i] = E[x[i]], dE[v] = Σ dA[i] over all i with x[i] = v.

    Inputs of shape (columns,) give outputs of shape (columns, width); `Flatten()` puts them side by side.
    """

    integer_input = True
    field_rules = {"categories": whole(), "width": whole()}

    categories: int
    width: int

    def plan(self, shape: Shape) -> Plan:
        return Plan(
            output=(*shape, self.width),
            parameters={"E": Parameter((self.categories, self.width), Gaussian(1.0))},
            buffers={"indices": Buffer(shape, "int64"), "A": (*shape, self.width)},
        )

    def forward(self, t: Frame, X: Array) -> Array:
        t.ops.copy(X, out=t.indices)
        return t.ops.lookup(t.E, t.indices, out=t.A)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        t.ops.lookup_gradient(dA, t.indices, out=t.dE)
        return None
