"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from gpunn.backends.formula import formulas
from gpunn.fields import number
from gpunn.frame import Buffer, DeviceNumber, Frame, Plan
from gpunn.layers.base import Layer
from gpunn.per_model import PerModel, mapped
from gpunn.types import Array, Shape

LEVELS = 65536  # 16 random bits decide each element


@dataclass(frozen=True)
class Dropout(Layer):
    """While training, each input becomes 0 with probability `rate`; the others are multiplied by 1 / (1 - rate).

    A = X m / (1 - rate),  dX = dA m / (1 - rate)

    The expectation stays that of X, so evaluation returns X itself. `rate` is p of the notes' Definition 33; their
    Clarification 34 multiplies by p at test time instead, which is right only if p is the probability of *keeping*.
    The rate is rounded to a multiple of 1/65536, and the factor is exact for the rounded rate.
    """

    makes = "inputs"

    field_rules = {"rate": PerModel(number(low=0.0, high=1.0, open_high=True))}

    rate: float | tuple[float, ...] = 0.5

    def plan(self, shape: Shape) -> Plan:
        off = mapped(lambda rate: float(min(round(rate * LEVELS), LEVELS - 1)), self.rate)
        return Plan(
            output=shape,
            backward={"A": shape, "bits": Buffer(shape, "uint16")},
            constants={
                "threshold": DeviceNumber(off, "uint16"),
                "scale": DeviceNumber(mapped(lambda level: LEVELS / (LEVELS - level), off)),
            },
        )

    def forward(self, t: Frame, X: Array) -> Array:
        if not t.training:
            return X
        t.ops.random_bits(t.key, t.step, out=t.bits)
        t.ops.elementwise(formulas.dropout, (X, t.bits, t.threshold, t.scale), (t.A,))
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        if not t.wants_dX or not t.training:
            return dA if t.wants_dX else None
        t.ops.elementwise(formulas.dropout, (dA, t.bits, t.threshold, t.scale), (t.A,))
        return t.A
