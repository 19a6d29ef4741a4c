"""Noise on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

from gpunn.backends.formula import formulas
from gpunn.fields import number
from gpunn.frame import DeviceNumber, Frame, Plan
from gpunn.layers.base import Layer
from gpunn.per_model import PerModel
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class GaussianNoise(Layer):
    """Adds normal noise of mean 0 and the given deviation while training; evaluation returns X itself.

    A = X + deviation ε,  dX = dA
    """

    makes = "inputs"

    field_rules = {"deviation": PerModel(number(low=0.0))}

    deviation: float | tuple[float, ...] = 0.1

    def plan(self, shape: Shape) -> Plan:
        return Plan(output=shape, backward={"A": shape}, constants={"scale": DeviceNumber(self.deviation)})

    def forward(self, t: Frame, X: Array) -> Array:
        if not t.training:
            return X
        t.ops.random_normal(t.key, t.step, out=t.A)
        t.ops.elementwise(formulas.add_scaled, (X, t.A, t.scale), (t.A,))
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        return dA if t.wants_dX else None
