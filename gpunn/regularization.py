"""Penalties on the decaying parameters, limits on gradients, and limits on weights; lists combine them.

Each changes the gradient before the update or the weights after it, on the device and without allocation, in the
order of the list. Any strength or limit may also be a tuple with one number for each model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from gpunn import hyper
from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula, elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.fields import number
from gpunn.parameters import ParameterStore
from gpunn.per_model import Number, PerModel, check_models, for_formula
from gpunn.types import COLUMNS, Array, Shape
from gpunn.value import Value


@dataclass(frozen=True)
class Regularization(Value, abstract=True):
    """Base of all; `t` is a `RegularizationFrame`. Override the methods you need: here they do nothing."""

    family: ClassVar[str] = "regularization"

    def buffers(self, store: ParameterStore) -> dict[str, Shape]:
        """The shapes of work arrays by name, for one model."""
        return {}

    def add_gradient(self, t: RegularizationFrame) -> None:
        """Before the update: change the gradient."""

    def penalty(self, t: RegularizationFrame, out: Array) -> None:
        """Add this penalty for each model to `out`, of shape () or (K,)."""

    def after_update(self, t: RegularizationFrame) -> None:
        """After the update: change the weights."""


class RegularizationFrame:
    """The arrays of one regularization: `W` and `dW` of the decaying parameters, `G`, the gradient of all parameters,
    its `buffers` by name, and its fields: `strength` is `t.strength`, a number or an array (K, 1).
    """

    def __init__(self, ops: Backend, store: ParameterStore, regularization: Regularization) -> None:
        self.ops, self.store, self.regularization = ops, store, regularization
        self.W, self.dW = store.values[..., : store.decaying], store.gradients[..., : store.decaying]
        self.G = store.gradients
        model_axes = store.values.shape[:-1]
        self.buffers = {
            name: ops.zeros((*model_axes, *shape), store.dtype) for name, shape in regularization.buffers(store).items()
        }
        check_models(regularization, store.models)
        for f in fields(regularization):
            setattr(self, f.name, for_formula(getattr(regularization, f.name), ops, store.dtype))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self.regularization).__name__} has no {name!r}")


def _rows(vectors: Array) -> Array:
    """Flat vectors as matrices with one row, for reductions."""
    return vectors[..., None, :]


@dataclass(frozen=True)
class Penalty(Regularization, abstract=True):
    """A sum of terms over the decaying weights; `gradient` is the formula that adds its gradient to dW."""

    gradient: ClassVar[Formula]  # (W, dW, strength) -> dW
    term: ClassVar[Formula]  # (W, strength) -> one term
    field_rules = {"strength": PerModel(number(low=0.0))}

    strength: Number

    def buffers(self, store: ParameterStore) -> dict[str, Shape]:
        return {"terms": (store.decaying,), "sum": ()}

    def add_gradient(self, t: RegularizationFrame) -> None:
        if t.store.decaying:
            t.ops.elementwise(self.gradient, (t.W, t.dW, t.strength), (t.dW,))

    def penalty(self, t: RegularizationFrame, out: Array) -> None:
        if t.store.decaying:
            terms, sums = t.buffers["terms"], t.buffers["sum"]
            t.ops.elementwise(self.term, (t.W, t.strength), (terms,))
            t.ops.total(_rows(terms), 1.0, out=sums)
            t.ops.elementwise(formulas.add, (out, sums), (out,))


@elementwise
def l2_gradient(xp: Any, W: Any, dW: Any, strength: Any) -> Any:
    return dW + 2.0 * strength * W


@elementwise
def l2_term(xp: Any, W: Any, strength: Any) -> Any:
    return strength * (W * W)


@dataclass(frozen=True)
class L2(Penalty):
    """λ ‖W‖², with gradient 2 λ W: the notes' (6.60) to (6.63); their (6.62) says ‖W‖ but means W."""

    gradient = l2_gradient
    term = l2_term


@elementwise
def half_l2_gradient(xp: Any, W: Any, dW: Any, strength: Any) -> Any:
    return dW + strength * W


@elementwise
def half_l2_term(xp: Any, W: Any, strength: Any) -> Any:
    return 0.5 * strength * (W * W)


@dataclass(frozen=True)
class HalfL2(Penalty):
    """½ λ ‖W‖², with gradient λ W: like the optimizers' `weight_decay`, but as a penalty in the loss."""

    gradient = half_l2_gradient
    term = half_l2_term


@elementwise
def l1_gradient(xp: Any, W: Any, dW: Any, strength: Any) -> Any:
    return dW + strength * xp.sign(W)


@elementwise
def l1_term(xp: Any, W: Any, strength: Any) -> Any:
    return strength * xp.absolute(W)


@dataclass(frozen=True)
class L1(Penalty):
    """λ Σ |w|, with gradient λ sign w, which is 0 at 0."""

    gradient = l1_gradient
    term = l1_term


@elementwise
def shorten(xp: Any, X: Any, square: Any, limit: Any) -> Any:
    """X, shortened to length `limit` if it is longer. √(c²) is exactly c, so a shorter X does not change."""
    return X * (limit / xp.sqrt(xp.maximum(square, limit * limit)))


LIMIT = PerModel(number(low=1e-15, high=1e15))  # their squares are within float32


@dataclass(frozen=True)
class MaxNorm(Regularization):
    """After each update, the weights into each unit, a column of a decaying matrix, are scaled back to length c."""

    field_rules = {"limit": LIMIT}

    limit: Number

    def buffers(self, store: ParameterStore) -> dict[str, Shape]:
        matrices = {n: p for n, p in store.parameters.items() if p.decay and len(p.shape) == 2}
        return {name: (1, parameter.shape[1]) for name, parameter in matrices.items()}

    def after_update(self, t: RegularizationFrame) -> None:
        limit = t.limit[..., None] if isinstance(self.limit, tuple) else t.limit
        for name, squares in t.buffers.items():
            W = t.store.views[name]
            t.ops.sum_product(W, W, COLUMNS, out=squares)
            t.ops.elementwise(shorten, (W, squares, limit), (W,))


@dataclass(frozen=True)
class ClipNorm(Regularization):
    """A model's gradient, all parameters together, is scaled back to length c if it is longer.

    It needs one more buffer of the gradient's size. A gradient whose square overflows becomes 0.
    """

    field_rules = {"limit": LIMIT}

    limit: Number

    def buffers(self, store: ParameterStore) -> dict[str, Shape]:
        return {"squares": (store.gradients.shape[-1],), "total": (1,)}

    def add_gradient(self, t: RegularizationFrame) -> None:
        squares, total = t.buffers["squares"], t.buffers["total"]
        t.ops.elementwise(formulas.multiply, (t.G, t.G), (squares,))
        t.ops.total(_rows(squares), 1.0, out=total[..., 0])
        t.ops.elementwise(shorten, (t.G, total, t.limit), (t.G,))


@elementwise
def bounded(xp: Any, X: Any, limit: Any) -> Any:
    return xp.maximum(xp.minimum(X, limit), -limit)


@dataclass(frozen=True)
class ClipValue(Regularization):
    """Every element of the gradient is limited to the range from -c to c."""

    field_rules = {"limit": PerModel(number(low=0.0, open_low=True))}

    limit: Number

    def add_gradient(self, t: RegularizationFrame) -> None:
        t.ops.elementwise(bounded, (t.G, t.limit), (t.G,))


def as_list(regularization: Any) -> tuple[Regularization, ...]:
    """None, one regularization, or a list of them."""
    several = regularization if isinstance(regularization, (list, tuple)) else (regularization,)
    parts = tuple(part for part in several if part is not None)
    expected = "L2, HalfL2, L1, MaxNorm, ClipNorm or ClipValue, or a list of them"
    for part in parts:
        hyper.instance("regularization", part, Regularization, expected=expected, fix="see gpunn.regularization")
    return parts


class Constraints:
    """All regularizations of one network: `before` an update they change the gradient, `after` it the weights.

    `regularization` comes first, then `clip_value`, then `clip_norm`.
    """

    def __init__(
        self,
        ops: Backend,
        store: ParameterStore,
        regularization: Any = None,
        *,
        clip_norm: Number | None = None,
        clip_value: Number | None = None,
    ) -> None:
        parts = list(as_list(regularization))
        parts += [ClipValue(clip_value)] if clip_value is not None else []
        parts += [ClipNorm(clip_norm)] if clip_norm is not None else []
        self.frames = tuple(RegularizationFrame(ops, store, part) for part in parts)

    def before(self) -> None:
        """Penalties and clipping, in order."""
        for frame in self.frames:
            frame.regularization.add_gradient(frame)

    def penalty(self, out: Array) -> None:
        """Add all penalties to each model's loss."""
        for frame in self.frames:
            frame.regularization.penalty(frame, out)

    def after(self) -> None:
        """Limits on weights, in order."""
        for frame in self.frames:
            frame.regularization.after_update(frame)
