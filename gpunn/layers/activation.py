"""Activations: a formula and its derivative, used as a layer or inside Dense and the normalisations.

A derivative is computed from the output A if that is enough (`keeps_output`), else from the argument Z.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, ClassVar

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.frame import Frame, Plan
from gpunn.layers.base import Layer
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Nonlinearity(Layer, abstract=True):
    """Base of all activations: A = f(Z), dZ = dA f'(Z)."""

    named: ClassVar[dict[str, type[Nonlinearity]]] = {}
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__dict__.get("name"):  # an inherited name still means the base class
            Nonlinearity.named[cls.name] = cls

    @property
    def keeps_output(self) -> bool:
        """Whether backward needs A rather than Z."""
        return True

    @property
    def ending(self) -> str | None:
        """The backends' name for it if a matrix product can apply it: "relu", or "gelu" for GELU by tanh; else None."""
        return None

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        """out = f(Z + b)."""
        raise NotImplementedError

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        """out = dA f', computed from `kept`: A if `keeps_output`, else Z."""
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
    """An activation that treats each element separately; its fields are the constants of both formulas."""

    formula: ClassVar[Formula]
    derivative: ClassVar[Formula]

    @cached_property
    def constants(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        if b is None:
            ops.elementwise(self.formula, (Z, *self.constants), (out,))
        else:
            ops.elementwise(biased_form(self.formula), (Z, b, *self.constants), (out,))

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.elementwise(self.derivative, (dA, kept, *self.constants), (out,))


@cache
def biased_form(formula: Formula) -> Formula:
    """The same formula of Z + b: one pass over the data instead of two."""

    def biased(xp: Any, Z: Any, b: Any, *constants: Any) -> Any:
        return formula(xp, Z + b, *constants)

    biased.__name__ = f"{formula.name}_biased"
    return Formula(biased)


@dataclass(frozen=True)
class Softmax(Nonlinearity):
    """a = e^z / Σ e^z over the last axis, with its full Jacobian."""

    name = "softmax"
    makes = "probabilities"

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        ops.softmax(_with_bias(ops, Z, b, out), out=out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.softmax_gradient(dA, kept, out=out)


@dataclass(frozen=True)
class LogSoftmax(Nonlinearity):
    """a = z - log Σ e^z over the last axis."""

    name = "log_softmax"
    makes = "log-probabilities"

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        ops.log_softmax(_with_bias(ops, Z, b, out), out=out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        ops.log_softmax_gradient(dA, kept, out=out)


def _with_bias(ops: Backend, Z: Array, b: Array | None, out: Array) -> Array:
    if b is None:
        return Z
    ops.elementwise(formulas.add, (Z, b), (out,))
    return out


def resolve(activation: str | Nonlinearity | None, where: str) -> Nonlinearity | None:
    """The activation with this name, or the value itself; None stays None."""
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


def known_activation(where: str, value: Any) -> Any:
    """The rule of a field that holds an activation, the name of one, or None."""
    resolve(value, where)
    return value


class Activated(Layer, abstract=True):
    """A layer that applies the activation in its field `activation` at the end: A = f(Z)."""

    activation: str | Nonlinearity | None

    @cached_property
    def function(self) -> Nonlinearity | None:
        """The activation f itself; the field `activation` may hold its name."""
        return resolve(self.activation, f"{type(self).__name__} activation")

    @property
    def makes(self) -> str:  # type: ignore[override]
        return "numbers" if self.function is None or self.function.makes == "inputs" else self.function.makes

    @cached_property
    def keeps_Z(self) -> bool:
        """Whether f' is computed from Z rather than A."""
        return self.function is not None and not self.function.keeps_output

    def kept(self, t: Frame) -> Array:
        """The array that f' is computed from."""
        return t.Z if self.keeps_Z else t.A


def _name(where: str, value: Any) -> Any:
    """The rule of a field that holds the name of an activation."""
    if value is None or isinstance(value, Nonlinearity):
        raise ConfigurationError(
            where, expected="a name such as 'relu'", got=repr(value), fix="use the activation itself as the layer"
        )
    return known_activation(where, value)


@dataclass(frozen=True)
class Activation(Nonlinearity):
    """An activation by name: `Activation("relu")` computes what `ReLU()` does."""

    field_rules = {"function": _name}

    function: str

    @cached_property
    def resolved(self) -> Nonlinearity:
        return Nonlinearity.named[self.function]()

    @property
    def makes(self) -> str:  # type: ignore[override]
        return self.resolved.makes

    @property
    def keeps_output(self) -> bool:
        return self.resolved.keeps_output

    def value(self, ops: Backend, Z: Array, b: Array | None, out: Array) -> None:
        self.resolved.value(ops, Z, b, out)

    def gradient(self, ops: Backend, dA: Array, kept: Array, out: Array) -> None:
        self.resolved.gradient(ops, dA, kept, out)
