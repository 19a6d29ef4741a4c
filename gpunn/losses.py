"""Losses: the value for each model and the gradient with respect to the network's output, computed together.

reduction="mean" averages over examples and outputs for elementwise losses and over examples for the others;
"sum" adds everything, as the lecture notes do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import Any, ClassVar

from gpunn import hyper
from gpunn.backends.formula.tracing import Formula, elementwise
from gpunn.fields import choice, number
from gpunn.frame import SUMS, Buffer, Frame, Plan
from gpunn.types import Array, Shape
from gpunn.value import Value
from gpunn.words import AFTER, LOSSES


@dataclass(frozen=True)
class Loss(Value, abstract=True):
    """`evaluate(t, A, y)` writes the loss to `t.value` and returns ∂L/∂A; `t` is the frame made from `plan`."""

    family: ClassVar[str] = "loss"
    target: ClassVar[str] = "numbers"  # what y holds: "numbers", "probabilities" (0 to 1), "classes" or "one_hot"
    takes: ClassVar[str] = "numbers"  # what the network's outputs must be: a key of `passes.MISREAD`, or "numbers"
    link: ClassVar[str | None] = None  # the activation that turns the output into probabilities, if it is not one
    decision: ClassVar[float] = 0.5  # a single output above it means "yes"
    elementwise: ClassVar[bool] = True  # whether the mean is over examples and outputs, not over examples alone

    field_rules = {"reduction": choice("mean", "sum")}

    reduction: str = field(default="mean", kw_only=True)

    def scale(self, rows: int, shape: Shape) -> float:
        """The factor of the sum of all terms."""
        if self.reduction == "sum":
            return 1.0
        return 1.0 / (rows * math.prod(shape) if self.elementwise else rows)

    def plan(self, shape: Shape) -> Plan:
        return loss_plan(shape, shape)

    def evaluate(self, t: Frame, A: Array, y: Array, weight: Array | None = None) -> Array:
        raise NotImplementedError(f"{type(self).__name__} needs an evaluate method")


def loss_plan(output: Shape, terms: Shape) -> Plan:
    """Buffers for terms, gradient and value, never in half precision."""
    value = Buffer((), SUMS, rows=False)
    return Plan(output=output, buffers={"L": Buffer(terms, SUMS), "dA": Buffer(output, SUMS), "value": value})


def checked_loss(where: str, loss: Any) -> Loss:
    """The loss itself; raise an error unless it is one."""
    fix = "make one, with its parentheses" if isinstance(loss, type) else _named_loss(loss)
    return hyper.instance(where, loss, Loss, expected="a loss such as gn.CrossEntropy()", fix=fix)


def _named_loss(given: Any) -> str:
    known = LOSSES.get(given.lower()) if isinstance(given, str) else None
    return f"write gn.{known}(){AFTER.get(known, '')}" if known else "pass one of gpunn's losses"


@dataclass(frozen=True)
class Elementwise(Loss, abstract=True):
    """A loss with a term for each output: `formula(A, y, scale, *constants)` returns it and its scaled derivative."""

    formula: ClassVar[Formula]

    @cached_property
    def constants(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "reduction")

    def evaluate(self, t: Frame, A: Array, y: Array, weight: Array | None = None) -> Array:
        scale = self.scale(A.shape[A.ndim - len(t.shape) - 1], t.shape)
        if weight is None:
            t.ops.elementwise(self.formula, (A, y, scale, *self.constants), (t.L, t.dA))
        else:
            t.ops.elementwise(_weighted(self.formula), (weight, A, y, scale, *self.constants), (t.L, t.dA))
        t.ops.total(_matrix(t.L, len(t.shape)), scale, out=t.value)
        return t.dA


@cache
def _weighted(formula: Formula) -> Formula:
    """The same terms times a weight for each row."""

    def weighted(xp: Any, weight: Any, *arguments: Any) -> Any:
        term, derivative = formula(xp, *arguments)
        return weight * term, weight * derivative

    weighted.__name__ = f"weighted_{formula.name}"
    return Formula(weighted)


def _matrix(L: Array, rank: int) -> Array:
    """The terms as a matrix with one row for each example."""
    if rank == 1:
        return L
    outer = L.shape[: L.ndim - rank]
    return L.reshape(*outer, math.prod(L.shape[len(outer) :]))


@elementwise
def squared_error(xp: Any, A: Any, y: Any, scale: Any) -> Any:
    difference = A - y
    return difference * difference, (2.0 * scale) * difference


@dataclass(frozen=True)
class SquaredError(Elementwise):
    """(a - y)²."""

    formula = squared_error


@elementwise
def absolute_error(xp: Any, A: Any, y: Any, scale: Any) -> Any:
    difference = A - y
    return xp.absolute(difference), scale * xp.sign(difference)


@dataclass(frozen=True)
class AbsoluteError(Elementwise):
    """|a - y|; its derivative at 0 is 0."""

    formula = absolute_error


@elementwise
def huber_error(xp: Any, A: Any, y: Any, scale: Any, delta: Any) -> Any:
    difference = A - y
    size = xp.absolute(difference)
    inside = xp.minimum(size, delta)
    return inside * (size - 0.5 * inside), scale * xp.minimum(xp.maximum(difference, -delta), delta)


@dataclass(frozen=True)
class Huber(Elementwise):
    """½ (a - y)² up to |a - y| = δ, then δ (|a - y| - ½ δ)."""

    formula = huber_error
    field_rules = {"delta": number(low=0.0, open_low=True)}

    delta: float = 1.0


TINY = 1e-37  # smaller float32 probabilities count as this, so that y/p and log p stay finite


@elementwise
def binary_nll(xp: Any, A: Any, y: Any, scale: Any) -> Any:
    p, q = xp.maximum(A, TINY), xp.maximum(1.0 - A, TINY)
    return -(y * xp.log(p) + (1.0 - y) * xp.log(q)), scale * ((1.0 - y) / q - y / p)


@dataclass(frozen=True)
class NLL(Elementwise):
    """-(y log a + (1 - y) log(1 - a)) on probabilities a, as in the notes' (6.44); (6.2) lacks the minus.

    After a sigmoid the two are computed as `BinaryCrossEntropy` on its argument: the same gradient, finite anywhere.
    """

    target = "probabilities"
    takes = "probabilities"
    formula = binary_nll


@elementwise
def multiclass_nll(xp: Any, A: Any, y: Any, scale: Any) -> Any:
    p = xp.maximum(A, TINY)
    return -y * xp.log(p), -scale * y / p


@dataclass(frozen=True)
class NLLM(Elementwise):
    """-Σ y log a on the probabilities of several classes; y holds classes, one-hot rows or probabilities.

    After a softmax the two are computed as `CrossEntropy` on its argument: the same gradient, finite anywhere.
    """

    target = "one_hot"
    takes = "probabilities that add up to 1"
    elementwise = False
    formula = multiclass_nll


@elementwise
def binary_cross_entropy(xp: Any, Z: Any, y: Any, scale: Any) -> Any:
    small = xp.exp(-xp.absolute(Z))
    probability = xp.where(Z >= 0.0, 1.0, small) / (1.0 + small)
    return xp.maximum(Z, 0.0) - Z * y + xp.log1p(small), scale * (probability - y)


@dataclass(frozen=True)
class BinaryCrossEntropy(Elementwise):
    """-(y log σ(z) + (1 - y) log(1 - σ(z))) on logits z: max(z, 0) - z y + log(1 + e^-|z|)."""

    target = "probabilities"
    takes = "log-odds"
    link = "sigmoid"
    decision = 0.0
    formula = binary_cross_entropy


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-Σ y log softmax(z) on logits z; y holds integer classes, one-hot rows or probabilities.

    `smoothing` s replaces y by (1 - s) y + s / classes.
    """

    target = "classes"
    takes = "logits"
    link = "softmax"
    elementwise = False

    field_rules = {"smoothing": number(low=0.0, high=1.0)}

    smoothing: float = 0.0

    def plan(self, shape: Shape) -> Plan:
        return loss_plan(shape, (1,))

    def evaluate(self, t: Frame, A: Array, y: Array, weight: Array | None = None) -> Array:
        scale = self.scale(A.shape[-2], t.shape)
        t.ops.softmax_cross_entropy(A, y, self.smoothing, weight, scale, loss=t.L, dZ=t.dA)
        t.ops.total(t.L, scale, out=t.value)
        return t.dA
