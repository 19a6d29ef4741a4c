"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from gpunn.backends.cuda.gemm_plan import mask_bytes
from gpunn.fields import choice, maybe, whole
from gpunn.frame import Buffer, Frame, Plan
from gpunn.initializers import Initializer, for_activation, known_initializer
from gpunn.layers.activation import Activated, Nonlinearity, known_activation
from gpunn.layers.base import vector_width
from gpunn.parameters import ZEROS, Parameter
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Dense(Activated):
    """Affine map and activation; `t` is the frame, which holds the layer's arrays.

    Z = X W + b,  A = f(Z)
    dZ = dA * f'(Z),  dW = Xᵀ dZ,  db = Σ dZ,  dX = dZ Wᵀ
    """

    field_rules = {
        "units": whole(),
        "bias": choice(True, False),
        "activation": known_activation,
        "initializer": maybe(known_initializer),
        "bias_initializer": known_initializer,
    }

    units: int
    activation: str | Nonlinearity | None = None
    bias: bool = field(default=True, kw_only=True)
    initializer: Initializer | None = field(default=None, kw_only=True)  # of W; None: one that suits the activation
    bias_initializer: Initializer = field(default=ZEROS, kw_only=True)

    def plan(self, shape: Shape) -> Plan:
        features = vector_width(self, shape)
        start = self.initializer or for_activation(self.function.name if self.function else None)
        parameters = {"W": Parameter((features, self.units), start)}
        if self.bias:
            parameters["b"] = Parameter((1, self.units), self.bias_initializer, decay=False)
        buffers = {"A": (self.units,)}
        if self.keeps_Z:
            buffers["Z"] = (self.units,)
        for_backward: dict[str, Shape | Buffer] = {"dX": shape}
        if self.keeps_mask:
            for_backward["mask"] = Buffer((mask_bytes(self.units),), "uint8", device="cuda")
        return Plan(output=(self.units,), parameters=parameters, buffers=buffers, backward=for_backward)

    def forward(self, t: Frame, X: Array) -> Array:
        t.X = X
        b = t.b if self.bias else None
        Z, mask = t.Z if self.keeps_Z else None, t.mask if self.keeps_mask else None
        return t.ops.affine(X, t.W, b, self.function, out=t.A, Z=Z, aux=mask)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        """`Sequential` runs several Dense in a row through `dense_run` instead, with the same formulas."""
        # dZ = dA * f'(Z); it overwrites A, which nobody needs any more.
        dZ = t.ops.activation_gradient(dA, self.kept(t), self.function, out=t.A)
        t.ops.affine_gradients(
            t.X,
            dZ,
            dW=t.dW,  # Xᵀ dZ
            db=t.db if self.bias else None,  # Σ dZ
        )
        return t.ops.matmul(dZ, t.W.mT, out=t.dX) if t.wants_dX else None  # dX = dZ Wᵀ

    @cached_property
    def keeps_mask(self) -> bool:
        """Whether f' is 0 or 1 everywhere: CUDA keeps it as one bit per number, in `t.mask`."""
        return self.function is not None and self.function.ending == "relu"
