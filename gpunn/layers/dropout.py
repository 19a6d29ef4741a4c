"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gpunn import hyper
from gpunn.backends.formula import formulas
from gpunn.frame import Buffer, Constant, Frame, Plan
from gpunn.layers.base import Layer
from gpunn.types import Array, Shape

LEVELS = 65536  # 16 random bits decide each element


@dataclass(frozen=True)
class Dropout(Layer):
    """Each input is turned off with probability `rate` while training; the rest grow by 1 / (1 - rate).

    A = X m / (1 - rate),  dX = dA m / (1 - rate)

    The expectation is that of the untouched layer, so evaluation passes X through. `rate` is the notes' Definition
    33; their Clarification 34 multiplies by p at test time instead, which suits only a p that means *keeping*.
    The rate is rounded to a multiple of 1/65536 and the factor is exact for the rounded one.
    """

    makes = "inputs"

    rate: float | tuple[float, ...] = 0.5
    per_model: ClassVar[tuple[str, ...]] = ("rate",)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "rate", hyper.numbers("Dropout rate", self.rate, low=0.0, high=1.0, open_high=True)
        )  # fmt: skip

    def plan(self, shape: Shape) -> Plan:
        rates = self.rate if isinstance(self.rate, tuple) else (self.rate,)
        off = tuple(float(min(round(rate * LEVELS), LEVELS - 1)) for rate in rates)
        scale = tuple(LEVELS / (LEVELS - level) for level in off)
        single = not isinstance(self.rate, tuple)
        return Plan(
            output=shape,
            backward={"A": shape, "bits": Buffer(shape, "uint16")},
            constants={
                "threshold": Constant(off[0] if single else off, "uint16"),
                "scale": Constant(scale[0] if single else scale),
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
