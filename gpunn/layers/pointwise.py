"""Activations that treat each element separately, each with formula and derivative, from simple to complex."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.fields import choice, number
from gpunn.layers.activation import Nonlinearity, Pointwise, biased_form
from gpunn.types import Array


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
    makes = "inputs"
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

    @property
    def ending(self) -> str | None:
        return "relu" if type(self) is ReLU else None


@elementwise
def leaky_relu(xp: Any, Z: Any, slope: Any) -> Any:
    return xp.where(Z > 0.0, Z, slope * Z)


@elementwise
def leaky_relu_gradient(xp: Any, dA: Any, kept: Any, slope: Any) -> Any:
    return xp.where(kept > 0.0, dA, slope * dA)


@dataclass(frozen=True)
class LeakyReLU(Pointwise):
    """f(z) = z where z > 0, else slope z."""

    name = "leaky_relu"
    formula, derivative = leaky_relu, leaky_relu_gradient
    field_rules = {"slope": number()}

    slope: float = 0.01

    @property
    def keeps_output(self) -> bool:
        return self.slope > 0.0  # only then does the output have the sign of the argument


@elementwise
def elu(xp: Any, Z: Any, alpha: Any) -> Any:
    return xp.where(Z > 0.0, Z, alpha * xp.expm1(xp.minimum(Z, 0.0)))


@elementwise
def elu_gradient(xp: Any, dA: Any, A: Any, alpha: Any) -> Any:
    return dA * xp.where(A > 0.0, 1.0, A + alpha)


@dataclass(frozen=True)
class ELU(Pointwise):
    """f(z) = z where z > 0, else α (e^z - 1)."""

    name = "elu"
    formula, derivative = elu, elu_gradient
    field_rules = {"alpha": number(low=0.0, open_low=True)}

    alpha: float = 1.0


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

    name = "gelu"
    field_rules = {"approximate": choice("none", "tanh")}

    approximate: str = "none"

    @property
    def keeps_output(self) -> bool:
        return False

    @property
    def ending(self) -> str | None:
        return "gelu" if type(self) is GELU and self.approximate == "tanh" else None

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        formula = gelu if self.approximate == "none" else gelu_by_tanh
        ops.elementwise(formula if b is None else biased_form(formula), (Z,) if b is None else (Z, b), (out,))

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
    makes = "separate probabilities"
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

    name = "softplus"
    formula, derivative = softplus, softplus_gradient
    field_rules = {"beta": number(low=0.0, open_low=True)}

    beta: float = 1.0


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
