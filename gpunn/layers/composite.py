"""Layers made of layers. Where a value has several successors, their gradients are added:

∂L/∂u = Σ_v ∂L/∂v · ∂v/∂u over all successors v of u.

They may be nested up to `value.DEPTH_LIMIT` levels of layers and lists, some 200 residuals with lists as bodies. Code
that walks them makes at most one call per level, because Python allows only some 1,000 nested calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from gpunn.backends.formula import formulas
from gpunn.errors import ConfigurationError, ShapeError
from gpunn.fields import choice, maybe
from gpunn.frame import Frame, Plan, planning
from gpunn.layers.base import Layer
from gpunn.layers.dense_run import backward_through, groups_of
from gpunn.types import Array, Shape


def _layer(where: str, value: Any) -> Layer:
    """The rule of a field that holds a layer; a list of layers becomes a `Sequential`."""
    if isinstance(value, Layer):
        return value
    return Sequential(value) if isinstance(value, (list, tuple)) else _some_layers(where, (value,))[0]


def _layers(where: str, values: Any) -> tuple[Layer, ...]:
    """The rule of a field that holds layers; its error names the class without the field."""
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, dict)) else (values,)
    return _some_layers(where.rpartition(" ")[0], given)


def _branches(where: str, values: Any) -> tuple[Layer, ...]:
    """The same, where a list inside the list becomes a `Sequential`."""
    if isinstance(values, Iterable) and not isinstance(values, (str, dict)):
        values = [Sequential(v) if isinstance(v, (list, tuple)) else v for v in values]
    return _layers(where, values)


def _some_layers(where: str, given: tuple[Any, ...]) -> tuple[Layer, ...]:
    strangers = [v for v in given if not isinstance(v, Layer)]
    if strangers or not given:
        wrong = strangers[0] if strangers else None
        hint = (
            "write Dense(...), an instance, rather than Dense" if isinstance(wrong, type) else "pass a list of layers"
        )
        got = "an empty list" if not given else repr(wrong)
        raise ConfigurationError(where, expected="one layer or more, such as [Dense(10)]", got=got, fix=hint)
    return given


@dataclass(frozen=True)
class Sequential(Layer):
    """One layer after another. `backward` runs them in reverse, several Dense in a row together: see `dense_run`."""

    field_rules = {"layers": _layers}

    layers: Sequence[Layer]

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        return self.layers[0].integer_input

    @cached_property
    def makes(self) -> str:  # type: ignore[override]
        for layer in reversed(self.layers):
            if layer.makes != "inputs":
                return layer.makes
        return "inputs"

    def plan(self, shape: Shape) -> Plan:
        children: dict[str, tuple[Layer, Shape, Plan]] = {}
        for i, layer in enumerate(self.layers):
            with planning(str(i)):
                plan = layer.plan(shape)
            children[str(i)] = (layer, shape, plan)
            shape = plan.output
        return Plan(output=shape, children=children)

    def child_wants_dX(self, wants_dX: bool, below: bool) -> bool:
        return below

    def forward(self, t: Frame, X: Array) -> Array:
        for layer, frame in zip(self.layers, t.children.values()):
            X = layer.forward(frame, X)
        return X

    def backward(self, t: Frame, dA: Array) -> Array | None:
        dX: Array | None = dA
        frames = tuple(t.children.values())
        for group in self.groups:
            if group.stop - group.start == 1:
                dX = self.layers[group.start].backward(frames[group.start], dX)
            else:
                dX = backward_through(self.layers[group], frames[group], dX)  # type: ignore[arg-type]
            if dX is None:  # no layer before these has parameters
                return None
        return dX

    @cached_property
    def groups(self) -> tuple[slice, ...]:
        return groups_of(self.layers)


@dataclass(frozen=True)
class Residual(Layer):
    """A = F(X) + S(X): F is the body, S the identity or a `shortcut` that brings X to the body's shape.

    dX = F.backward(dA) + S.backward(dA), where the identity's is dA
    """

    field_rules = {"body": _layer, "shortcut": maybe(_layer)}

    body: Any  # a layer, or a list that becomes a Sequential
    shortcut: Any = field(default=None, kw_only=True)

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        return self.body.integer_input and self.shortcut is not None and self.shortcut.integer_input

    def plan(self, shape: Shape) -> Plan:
        with planning("body"):
            body = self.body.plan(shape)
        children, output, straight = {"body": (self.body, shape, body)}, body.output, shape
        if self.shortcut:
            with planning("shortcut"):
                plan = self.shortcut.plan(shape)
            children["shortcut"] = (self.shortcut, shape, plan)
            straight = plan.output
        if output != straight:
            raise ShapeError(
                "Residual",
                expected=f"a body that returns the shape {straight} of what it is added to",
                got=f"{output}",
                fix="give a shortcut such as shortcut=Dense(units)",
            )
        return Plan(output=output, buffers={"A": output}, backward={"dX": shape}, children=children)

    def forward(self, t: Frame, X: Array) -> Array:
        straight = self.shortcut.forward(t.children["shortcut"], X) if self.shortcut else X
        t.ops.elementwise(formulas.add, (self.body.forward(t.children["body"], X), straight), (t.A,))
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        dX = self.body.backward(t.children["body"], dA)
        straight = self.shortcut.backward(t.children["shortcut"], dA) if self.shortcut else dA
        return _summed(t, [dX, straight]) if t.wants_dX else None


@dataclass(frozen=True)
class Branch(Layer):
    """Several layers on the same input, their outputs side by side (merge="concatenate") or added (merge="add").

    dX is the sum of the branches' dX.
    """

    field_rules = {"branches": _branches, "merge": choice("concatenate", "add")}

    branches: Sequence[Any]
    merge: str = field(default="concatenate", kw_only=True)

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        return {branch.integer_input for branch in self.branches} == {True}

    @cached_property
    def makes(self) -> str:  # type: ignore[override]
        kinds = set()
        for branch in self.branches:
            kinds.add(branch.makes)
        return kinds.pop() if len(kinds) == 1 and self.merge == "concatenate" else "numbers"

    def plan(self, shape: Shape) -> Plan:
        children: dict[str, tuple[Layer, Shape, Plan]] = {}
        for i, branch in enumerate(self.branches):
            with planning(str(i)):
                children[str(i)] = (branch, shape, branch.plan(shape))
        outputs = [plan.output for _, _, plan in children.values()]
        fits = {o[:-1] for o in outputs} if self.merge == "concatenate" else set(outputs)
        if len(fits) != 1 or not outputs[0]:
            raise ShapeError(
                "Branch",
                expected="branches whose outputs "
                + ("differ in the last axis only" if self.merge != "add" else "agree"),
                got=", ".join(map(str, outputs)),
                fix="end the branches in Dense(units) or Flatten()",
            )
        output = outputs[0] if self.merge == "add" else (*outputs[0][:-1], sum(o[-1] for o in outputs))
        parts = {f"part{i}": o for i, o in enumerate(outputs)} if self.merge == "concatenate" else {}
        return Plan(output, buffers={"A": output}, backward={**parts, "dX": shape}, children=children)

    def forward(self, t: Frame, X: Array) -> Array:
        outputs = [b.forward(frame, X) for b, frame in zip(self.branches, t.children.values())]
        if self.merge == "add":
            return _accumulated(t, outputs, t.A)
        t.columns = _columns(outputs)
        for columns, output in zip(t.columns, outputs):
            t.ops.copy(output, out=t.A[..., columns])
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        gradients = []
        for i, (branch, frame) in enumerate(zip(self.branches, t.children.values())):
            if self.merge == "concatenate":
                part = getattr(t, f"part{i}")
                t.ops.copy(dA[..., t.columns[i]], out=part)
            gradients.append(branch.backward(frame, part if self.merge == "concatenate" else dA))
        return _summed(t, gradients) if t.wants_dX else None


def _columns(outputs: list[Array]) -> list[slice]:
    edges = [0]
    for output in outputs:
        edges.append(edges[-1] + output.shape[-1])
    return [slice(a, b) for a, b in pairwise(edges)]


def _summed(t: Frame, gradients: list[Array | None]) -> Array | None:
    """dX, the sum over all successors; None if none of them returned a gradient."""
    return _accumulated(t, [g for g in gradients if g is not None], t.dX)


def _accumulated(t: Frame, terms: list[Array], out: Array) -> Array | None:
    if not terms:
        return None
    if len(terms) == 1:
        t.ops.copy(terms[0], out=out)
        return out
    t.ops.elementwise(formulas.add, (terms[0], terms[1]), (out,))
    for term in terms[2:]:
        t.ops.elementwise(formulas.add, (out, term), (out,))
    return out
