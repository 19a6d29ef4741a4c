"""Normalisation over the batch or over each row, with trained scale and shift, and an activation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from gpunn import hyper
from gpunn.backends.formula import formulas
from gpunn.backends.reference.normalization import Norm, Statistics
from gpunn.errors import ConfigurationError
from gpunn.fields import choice, number
from gpunn.frame import SUMS, Buffer, Frame, Plan
from gpunn.initializers import Constant, Zeros
from gpunn.layers.activation import Activated, Nonlinearity, known_activation
from gpunn.layers.base import vector_width
from gpunn.parameters import Parameter, State
from gpunn.types import COLUMNS, ROWS, Array, Shape


def _eps(where: str, value: Any) -> float:
    eps = hyper.number(where, value, low=0.0, open_low=True)
    if eps >= 1.0:
        raise ConfigurationError(
            where,
            expected="a number below 1",
            got=f"{eps:g}",
            fix="leave the width out: a layer takes it from the one before",
        )
    return eps


@dataclass(frozen=True)
class Normalization(Activated, abstract=True):
    """Base of the three normalisations: X̂ = (X - μ) / σ along an axis, Z = G X̂ + B, A = f(Z).

    dZ = dA * f'(Z),  dG = Σ dZ X̂,  dB = Σ dZ,  dX: see `Backend.normalize_gradient`
    """

    axis: ClassVar[int] = ROWS
    center: ClassVar[bool] = True
    shift: ClassVar[bool] = True  # whether there is a B
    eps_outside: ClassVar[bool] = False

    field_rules = {"eps": _eps, "affine": choice(True, False), "activation": known_activation}

    eps: float = 1e-5
    activation: str | Nonlinearity | None = field(default=None, kw_only=True)
    affine: bool = field(default=True, kw_only=True)

    @cached_property
    def norm(self) -> Norm:
        """The settings that the backends need."""
        return Norm(self.axis, self.center, self.eps, self.eps_outside)

    def plan(self, shape: Shape) -> Plan:
        width = vector_width(self, shape)
        column = Buffer((1, width), SUMS, rows=False)
        statistic = column if self.axis == COLUMNS else Buffer((1,), SUMS)
        parameters = {}
        if self.affine:
            parameters["G"] = Parameter((1, width), Constant(1.0), decay=False, exact=True)
            if self.shift:
                parameters["B"] = Parameter((1, width), Zeros(), decay=False, exact=True)
        work = {f"d{name}": column for name in ("G", "B") if name not in parameters}
        return Plan(
            output=shape,
            parameters=parameters,
            buffers={"A": shape, "Xhat": shape, **({"Z": shape} if self.keeps_Z else {})}
            | dict.fromkeys(("mean", "var", "inverse"), statistic),
            backward={"gradient_mean": statistic, "product_mean": statistic, **work},
        )

    def forward(self, t: Frame, X: Array) -> Array:
        Xhat = t.ops.normalize(X, self.norm, Statistics(t.mean, t.var, t.inverse), out=t.Xhat)
        return self.finish(t, Xhat)

    def finish(self, t: Frame, Xhat: Array) -> Array:
        """A = f(G X̂ + B)."""
        G = t.G if self.affine else None
        B = t.B if self.affine and self.shift else None
        return t.ops.scale_shift(Xhat, G, B, self.function, out=t.A, Z=t.Z if self.keeps_Z else None)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        dZ = t.ops.activation_gradient(dA, self.kept(t), self.function, out=t.A)
        return self.gradient(t, dZ, Statistics(t.mean, t.var, t.inverse, t.gradient_mean, t.product_mean))

    def gradient(self, t: Frame, dZ: Array, statistics: Statistics) -> Array | None:
        """dG, dB and dX."""
        G, dX = t.G if self.affine else None, t.Xhat if t.wants_dX else None
        return t.ops.normalize_gradient(dZ, t.Xhat, G, self.norm, statistics, t.dG, t.dB, out=dX)


@dataclass(frozen=True)
class LayerNorm(Normalization):
    """Brings each row to mean 0 and deviation 1, then G X̂ + B."""


@dataclass(frozen=True)
class RMSNorm(Normalization):
    """Divides each row by its root mean square, then G X̂."""

    center = False
    shift = False


@dataclass(frozen=True)
class BatchNorm(Normalization):
    """Brings each column to mean 0 and deviation 1 over the batch, then G X̂ + B; evaluation uses running statistics.

    Running mean μ ← μ + momentum (batch mean - μ), and the same for the unbiased variance. The usual form divides by
    √(σ² + ε), the lecture notes' Definition 41 by σ + ε: eps_outside=True.
    """

    axis = COLUMNS
    minimum_rows = 2

    field_rules = {"momentum": number(low=0.0, high=1.0), "eps_outside": choice(True, False)}

    momentum: float = 0.1
    eps_outside: bool = field(default=False, kw_only=True)  # type: ignore[misc]

    def plan(self, shape: Shape) -> Plan:
        plan = super().plan(shape)
        width = vector_width(self, shape)
        column = Buffer((1, width), SUMS, rows=False)
        others = {name: buffer for name, buffer in plan.buffers.items() if name not in ("mean", "var", "inverse")}
        return Plan(
            output=plan.output,
            parameters=plan.parameters,
            state={"mean": State((1, width)), "var": State((1, width), 1.0)},
            buffers=others,
            backward={**plan.backward, "batch_mean": column, "batch_var": column, "inverse": column},
        )

    def forward(self, t: Frame, X: Array) -> Array:
        if not t.training:
            t.ops.elementwise(formulas.standardize, (X, t.mean, t.var, self.eps, self.eps_outside), (t.Xhat,))
            return self.finish(t, t.Xhat)
        Xhat = t.ops.normalize(X, self.norm, Statistics(t.batch_mean, t.batch_var, t.inverse), out=t.Xhat)
        if t.track:
            n = X.shape[-2]
            batch = (t.batch_mean, t.batch_var, n / (n - 1), self.momentum)
            t.ops.elementwise(formulas.running_statistics, (t.mean, t.var, *batch), (t.mean, t.var))
        return self.finish(t, Xhat)

    def backward(self, t: Frame, dA: Array) -> Array | None:
        dZ = t.ops.activation_gradient(dA, self.kept(t), self.function, out=t.A)
        if t.training:
            statistics = Statistics(t.batch_mean, t.batch_var, t.inverse, t.gradient_mean, t.product_mean)
            return self.gradient(t, dZ, statistics)
        t.ops.sum_product(dZ, t.Xhat, COLUMNS, out=t.dG)
        t.ops.sum(dZ, COLUMNS, out=t.dB)
        if not t.wants_dX:
            return None
        gain = t.G if self.affine else 1.0  # the running statistics are constants here: no sums over the batch
        t.ops.elementwise(formulas.fixed_gradient, (dZ, gain, t.var, self.eps, self.eps_outside), (t.Xhat,))
        return t.Xhat
