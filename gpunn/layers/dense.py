"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from gpunn import hyper
from gpunn.frame import Frame, Plan
from gpunn.initializers import Initializer, checked, for_activation
from gpunn.layers.activation import Nonlinearity, resolve
from gpunn.layers.base import Layer, vector_width
from gpunn.parameters import ZEROS, Parameter
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Dense(Layer):
    """Affine map and activation.

    Z = X W + b,  A = f(Z)
    dZ = dA * f'(Z),  dW = Xᵀ dZ,  db = Σ dZ,  dX = dZ Wᵀ
    """

    units: int
    activation: str | Nonlinearity | None = None
    bias: bool = field(default=True, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)  # of W; None: what suits the activation
    bias_initializer: Initializer = field(default=ZEROS, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", hyper.whole("Dense units", self.units))
        hyper.choice("Dense bias", self.bias, (True, False))
        resolve(self.activation, "Dense activation")
        if self.initializer is not None:
            checked("Dense initializer", self.initializer)
        checked("Dense bias_initializer", self.bias_initializer)

    @cached_property
    def function(self) -> Nonlinearity | None:
        return resolve(self.activation, "Dense activation")

    def plan(self, shape: Shape) -> Plan:
        features = vector_width(self, shape)
        start = self.initializer or for_activation(self.function.name if self.function else None)
        parameters = {"W": Parameter((features, self.units), start)}
        if self.bias:
            parameters["b"] = Parameter((1, self.units), self.bias_initializer, decay=False)
        buffers = {"A": (self.units,)}
        if self.function and not self.function.keeps_output:
            buffers["Z"] = (self.units,)
        return Plan(output=(self.units,), parameters=parameters, buffers=buffers, backward={"dX": shape})

    def forward(self, t: Frame, X: Array) -> Array:
        t.X = X
        b = t.b if self.bias else None
        Z = None if self.function is None or self.function.keeps_output else t.Z
        return t.ops.affine(X, t.W, b, self.function, out=t.A, Z=Z)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        kept = t.A if self.function is None or self.function.keeps_output else t.Z
        dZ = t.ops.activation_gradient(dA, kept, self.function, out=t.A)
        t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if self.bias else None)
        return t.ops.matmul(dZ, t.W.mT, out=t.dX) if t.wants_dX else None
