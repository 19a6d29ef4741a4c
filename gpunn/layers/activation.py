"""Activations: each a formula and its derivative, usable as a layer of its own or inside Dense and the normalisations.

A derivative is written in terms of the output A where that determines it (`keeps_output`), else of the argument Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, ClassVar

from gpunn import hyper
from gpunn.backends import formulas
from gpunn.backends.base import Backend
from gpunn.backends.elementwise import Formula, elementwise
from gpunn.errors import ConfigurationError
from gpunn.frame import Frame, Plan
from gpunn.layers.base import Layer
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Nonlinearity(Layer, abstract=True):
    """A = f(Z), dZ = dA f'(Z): what `Activation` and its short names have in common."""

    named: ClassVar[dict[str, type[Nonlinearity]]] = {}
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.name:
            Nonlinearity.named[cls.name] = cls

    @property
    def keeps_output(self) -> bool:
        """Whether backward needs A rather than Z."""
        return True

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        """out = f(Z + b)."""
        raise NotImplementedError

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        """out = dA f'."""
        raise NotImplementedError

    def plan(self, shape: Shape) -> Plan:
        return Plan(output=shape, buffers={"A": shape})

    def forward(self, t: Frame, X: Array) -> Array:
        t.X = X
        self.value(t.ops, X, None, out=t.A)
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        if not t.wants_dX:
            return None
        self.gradient(t.ops, dA, t.A if self.keeps_output else t.X, out=t.A)
        return t.A


@dataclass(frozen=True)
class Pointwise(Nonlinearity, abstract=True):
    """An activation of each element by itself; its fields are the constants of its two formulas."""

    formula: ClassVar[Formula]
    derivative: ClassVar[Formula]

    @cached_property
    def constants(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        if b is None:
            ops.elementwise(self.formula, (Z, *self.constants), (out,))
        else:
            ops.elementwise(_biased(self.formula), (Z, b, *self.constants), (out,))

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.elementwise(self.derivative, (dA, kept, *self.constants), (out,))


@cache
def _biased(formula: Formula) -> Formula:
    """The same formula of Z + b: one pass over the data instead of two."""

    def biased(xp: Any, Z: Any, b: Any, *constants: Any) -> Any:
        return formula(xp, Z + b, *constants)

    biased.__name__ = f"{formula.name}_biased"
    return Formula(biased)


@elementwise
def identity(xp: Any, Z: Any) -> Any:
    return Z


@elementwise
def identity_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return dA


@dataclass(frozen=True)
class Identity(Pointwise):
    """f(z) = z."""

    name = "identity"
    formula, derivative = identity, identity_gradient


@elementwise
def step(xp: Any, Z: Any) -> Any:
    return xp.where(Z >= 0.0, 1.0, 0.0 * Z)


@elementwise
def step_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return 0.0


@dataclass(frozen=True)
class Step(Pointwise):
    """f(z) = 1 where z >= 0, else 0; its derivative is 0 everywhere, so nothing below it learns."""

    name = "step"
    formula, derivative = step, step_gradient


@elementwise
def relu(xp: Any, Z: Any) -> Any:
    return xp.maximum(Z, 0.0)


@elementwise
def relu_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return dA * (A > 0.0)


@dataclass(frozen=True)
class ReLU(Pointwise):
    """f(z) = max(z, 0)."""

    name = "relu"
    formula, derivative = relu, relu_gradient


@elementwise
def leaky_relu(xp: Any, Z: Any, slope: Any) -> Any:
    return xp.where(Z > 0.0, Z, slope * Z)


@elementwise
def leaky_relu_gradient(xp: Any, dA: Any, kept: Any, slope: Any) -> Any:
    return xp.where(kept > 0.0, dA, slope * dA)


@dataclass(frozen=True)
class LeakyReLU(Pointwise):
    """f(z) = z where z > 0, else slope z."""

    slope: float = 0.01
    name = "leaky_relu"
    formula, derivative = leaky_relu, leaky_relu_gradient

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", hyper.number("LeakyReLU slope", self.slope))

    @property
    def keeps_output(self) -> bool:
        return self.slope > 0.0  # only then has the output the sign of the argument


@elementwise
def elu(xp: Any, Z: Any, alpha: Any) -> Any:
    return xp.where(Z > 0.0, Z, alpha * xp.expm1(xp.minimum(Z, 0.0)))


@elementwise
def elu_gradient(xp: Any, dA: Any, A: Any, alpha: Any) -> Any:
    return dA * xp.where(A > 0.0, 1.0, A + alpha)


@dataclass(frozen=True)
class ELU(Pointwise):
    """f(z) = z where z > 0, else α (e^z - 1)."""

    alpha: float = 1.0
    name = "elu"
    formula, derivative = elu, elu_gradient

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", hyper.number("ELU alpha", self.alpha, low=0.0, open_low=True))


# The two numbers that make mean 0 and variance 1 a fixed point (Klambauer et al. 2017).
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@elementwise
def selu(xp: Any, Z: Any) -> Any:
    return SELU_SCALE * elu(xp, Z, SELU_ALPHA)


@elementwise
def selu_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return dA * xp.where(A > 0.0, SELU_SCALE, A + SELU_SCALE * SELU_ALPHA)


@dataclass(frozen=True)
class SELU(Pointwise):
    """f(z) = λ ELU(z; α) with the constants of self-normalising networks."""

    name = "selu"
    formula, derivative = selu, selu_gradient


@elementwise
def gelu(xp: Any, Z: Any) -> Any:
    return 0.5 * Z * (1.0 + xp.erf(math.sqrt(0.5) * Z))


@elementwise
def gelu_gradient(xp: Any, dA: Any, Z: Any) -> Any:
    density = xp.exp(-0.5 * Z * Z) * (1.0 / math.sqrt(2.0 * math.pi))
    return dA * (0.5 * (1.0 + xp.erf(math.sqrt(0.5) * Z)) + Z * density)


def _gelu_tanh(xp: Any, Z: Any) -> Any:
    return xp.tanh(math.sqrt(2.0 / math.pi) * (Z + 0.044715 * Z * Z * Z))


@elementwise
def gelu_by_tanh(xp: Any, Z: Any) -> Any:
    return 0.5 * Z * (1.0 + _gelu_tanh(xp, Z))


@elementwise
def gelu_by_tanh_gradient(xp: Any, dA: Any, Z: Any) -> Any:
    T = _gelu_tanh(xp, Z)
    inner = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * Z * Z)
    return dA * (0.5 * (1.0 + T) + 0.5 * Z * (1.0 - T * T) * inner)


@dataclass(frozen=True)
class GELU(Nonlinearity):
    """f(z) = z Φ(z), Φ the normal distribution function; approximate="tanh" for the cheaper formula."""

    approximate: str = "none"
    name = "gelu"

    def __post_init__(self) -> None:
        hyper.choice("GELU approximate", self.approximate, ("none", "tanh"))

    @property
    def keeps_output(self) -> bool:
        return False

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        formula = gelu if self.approximate == "none" else gelu_by_tanh
        ops.elementwise(formula if b is None else _biased(formula), (Z,) if b is None else (Z, b), (out,))

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        formula = gelu_gradient if self.approximate == "none" else gelu_by_tanh_gradient
        ops.elementwise(formula, (dA, kept), (out,))


@elementwise
def sigmoid(xp: Any, Z: Any) -> Any:
    """1 / (1 + e^-z) for z >= 0 and e^z / (1 + e^z) below: never an exponential of a large number."""
    small = xp.exp(-xp.absolute(Z))
    return xp.where(Z >= 0.0, 1.0, small) / (1.0 + small)


@elementwise
def sigmoid_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return dA * A * (1.0 - A)


@dataclass(frozen=True)
class Sigmoid(Pointwise):
    """f(z) = 1 / (1 + e^-z)."""

    name = "sigmoid"
    formula, derivative = sigmoid, sigmoid_gradient


@elementwise
def silu(xp: Any, Z: Any) -> Any:
    return Z * sigmoid(xp, Z)


@elementwise
def silu_gradient(xp: Any, dA: Any, Z: Any) -> Any:
    S = sigmoid(xp, Z)
    return dA * S * (1.0 + Z * (1.0 - S))


@dataclass(frozen=True)
class SiLU(Pointwise):
    """f(z) = z σ(z)."""

    name = "silu"
    formula, derivative = silu, silu_gradient

    @property
    def keeps_output(self) -> bool:
        return False


@elementwise
def softplus(xp: Any, Z: Any, beta: Any) -> Any:
    return xp.maximum(Z, 0.0) + xp.log1p(xp.exp(-xp.absolute(beta * Z))) * (1.0 / beta)


@elementwise
def softplus_gradient(xp: Any, dA: Any, A: Any, beta: Any) -> Any:
    return -dA * xp.expm1(-beta * A)


@dataclass(frozen=True)
class Softplus(Pointwise):
    """f(z) = log(1 + e^(β z)) / β."""

    beta: float = 1.0
    name = "softplus"
    formula, derivative = softplus, softplus_gradient

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", hyper.number("Softplus beta", self.beta, low=0.0, open_low=True))


@elementwise
def tanh(xp: Any, Z: Any) -> Any:
    return xp.tanh(Z)


@elementwise
def tanh_gradient(xp: Any, dA: Any, A: Any) -> Any:
    return dA * (1.0 - A * A)


@dataclass(frozen=True)
class Tanh(Pointwise):
    """f(z) = tanh z."""

    name = "tanh"
    formula, derivative = tanh, tanh_gradient


@dataclass(frozen=True)
class Softmax(Nonlinearity):
    """a = e^z / Σ e^z over the last axis, with its full Jacobian."""

    name = "softmax"

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        ops.softmax(_with_bias(ops, Z, b, out), out=out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.softmax_gradient(dA, kept, out=out)


@dataclass(frozen=True)
class LogSoftmax(Nonlinearity):
    """a = z - log Σ e^z over the last axis."""

    name = "log_softmax"

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        ops.log_softmax(_with_bias(ops, Z, b, out), out=out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.log_softmax_gradient(dA, kept, out=out)


def _with_bias(ops: Backend, Z: Array, b: Array | None, out: Array) -> Array:
    if b is None:
        return Z
    ops.elementwise(formulas.add, (Z, b), (out,))
    return out


@dataclass(frozen=True)
class Activation(Nonlinearity):
    """An activation by name: `Activation("relu")` computes what `ReLU()` does."""

    function: str

    def __post_init__(self) -> None:
        if self.function is None or isinstance(self.function, Nonlinearity):
            raise ConfigurationError(
                "Activation function",
                expected="a name such as 'relu'",
                got=repr(self.function),
                fix="use the activation itself as the layer",
            )
        resolve(self.function, "Activation function")

    @cached_property
    def resolved(self) -> Nonlinearity:
        return Nonlinearity.named[self.function]()

    @property
    def keeps_output(self) -> bool:
        return self.resolved.keeps_output

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        self.resolved.value(ops, Z, b, out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        self.resolved.gradient(ops, dA, kept, out)


def resolve(activation: str | Nonlinearity | None, where: str) -> Nonlinearity | None:
    """The activation that a name or a value stands for."""
    if activation is None or isinstance(activation, Activation):
        return None if activation is None else activation.resolved
    if isinstance(activation, Nonlinearity):
        return activation
    if not isinstance(activation, str) or activation not in Nonlinearity.named:
        raise ConfigurationError(
            where,
            expected=f"one of {', '.join(sorted(Nonlinearity.named))}, or an activation such as gn.ReLU()",
            got=repr(activation),
            fix="use one of these names",
        )
    return Nonlinearity.named[activation]()
