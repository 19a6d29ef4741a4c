"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gpunn import hyper
from gpunn.backends.cuda.gemm_plan import mask_bytes
from gpunn.frame import Buffer, Frame, Plan
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

    @property
    def makes(self) -> str:  # type: ignore[override]
        return "numbers" if self.function is None or self.function.makes == "inputs" else self.function.makes

    def plan(self, shape: Shape) -> Plan:
        features = vector_width(self, shape)
        start = self.initializer or for_activation(self.function.name if self.function else None)
        parameters = {"W": Parameter((features, self.units), start)}
        if self.bias:
            parameters["b"] = Parameter((1, self.units), self.bias_initializer, decay=False)
        buffers = {"A": (self.units,)}
        if self.keeps_Z:
            buffers["Z"] = (self.units,)
        backward: dict[str, Shape | Buffer] = {"dX": shape}
        if self.masked:
            backward["mask"] = Buffer((mask_bytes(self.units),), "uint8", device="cuda")
        return Plan(output=(self.units,), parameters=parameters, buffers=buffers, backward=backward)

    def forward(self, t: Frame, X: Array) -> Array:
        t.X = X
        b = t.b if self.bias else None
        Z, aux = t.Z if self.keeps_Z else None, t.mask if self.masked else None
        return t.ops.affine(X, t.W, b, self.function, out=t.A, Z=Z, aux=aux)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        return self.backward_from(t, self.gradient(t, dA))

    def gradient(self, t: Frame, dA: Array) -> Array:
        """dZ."""
        return t.ops.activation_gradient(dA, t.Z if self.keeps_Z else t.A, self.function, out=t.A)

    def backward_from(self, t: Frame, dZ: Array, below: tuple[Dense, Frame] | None = None) -> Array | None:
        """The rest: dW, db and dX; or, with the Dense layer that made X, on to its own dZ = dX * f'(Z) at once."""
        t.ops.affine_gradients(t.X, dZ, dW=t.dW, db=t.db if self.bias else None)
        if below is None:
            return t.ops.matmul(dZ, t.W.mT, out=t.dX) if t.wants_dX else None
        layer, u = below
        kept, aux = u.Z if layer.keeps_Z else u.A, u.mask if layer.masked else None
        return t.ops.input_gradient(dZ, t.W, t.dX, layer.function, kept, aux, out=u.A)

    @cached_property
    def keeps_Z(self) -> bool:
        """Whether f' is computed from Z rather than A."""
        return self.function is not None and not self.function.keeps_output

    @cached_property
    def masked(self) -> bool:
        """Whether f' is 0 or 1, which CUDA keeps as a bit for each number."""
        return self.function is not None and self.function.ending == "relu"


def backward_through(layers: Sequence[Dense], frames: Sequence[Frame], dA: Array) -> Array | None:
    """`backward` of Dense layers one on another: dZ = (dZ' W'ᵀ) * f'(Z), where dZ' and W' are the next layer's."""
    dZ: Any = layers[-1].gradient(frames[-1], dA)
    for i in range(len(layers) - 1, 0, -1):
        dZ = layers[i].backward_from(frames[i], dZ, (layers[i - 1], frames[i - 1]))
    return layers[0].backward_from(frames[0], dZ)
