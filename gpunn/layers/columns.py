"""Some of the columns, as the start of a branch."""

from __future__ import annotations

from dataclasses import dataclass

from gpunn.errors import ConfigurationError, ShapeError
from gpunn.fields import whole
from gpunn.frame import Frame, Plan
from gpunn.layers.base import Layer, vector_width
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Columns(Layer):
    """Columns start to stop - 1: A = X[:, start:stop];  dX is dA there and 0 elsewhere."""

    field_rules = {"start": whole(low=0), "stop": whole()}

    start: int
    stop: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stop <= self.start:
            raise ConfigurationError(
                "Columns",
                expected="stop above start",
                got=f"{self.start} and {self.stop}",
                fix="take one column or more",
            )

    def plan(self, shape: Shape) -> Plan:
        if vector_width(self, shape) < self.stop:
            raise ShapeError(
                "Columns", expected=f"at least {self.stop} columns", got=f"{shape[0]}", fix="count columns from 0"
            )
        output = (self.stop - self.start,)
        return Plan(output=output, buffers={"A": output}, backward={"dX": shape})

    def forward(self, t: Frame, X: Array) -> Array:
        t.ops.copy(X[..., self.start : self.stop], out=t.A)
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        if not t.wants_dX:
            return None
        t.ops.fill(t.dX, 0)
        t.ops.copy(dA, out=t.dX[..., self.start : self.stop])
        return t.dX
