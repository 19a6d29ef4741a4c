"""Elementwise formulas: each is written once in ordinary Python and compiled for each backend.

A formula is a function of `xp` and arrays. Called with an `ArrayMath` as `xp`, it computes at once. Called with a
`Tracer` and symbols, it is traced: each function it calls becomes a node. From the nodes, `cpu/tiles.py` makes calls of
NumPy's ufuncs, `cpu/numba/` a loop, and `cuda/formulas.py` one kernel.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.backends.formula import special
from gpunn.types import Array

MOST_TRACES = 256  # kept of one formula; a constant such as 1/n needs one for each batch size
UNARY = ("negative", "absolute", "sign", "sqrt", "exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "logical_not")
BINARY = (
    "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "logical_and", "logical_or",
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal",
)  # fmt: skip
COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"})
LOGICAL = frozenset({"logical_and", "logical_or", "logical_not"})
OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power", "and": "logical_and",
    "or": "logical_or", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip


class Node:
    """A value in a traced formula: an argument (op "input"), or the function `op` of other values."""

    __slots__ = ("dtype", "op", "operands", "position", "tracer")

    def __init__(self, tracer: Tracer, op: str, operands: tuple[Any, ...], dtype: np.dtype[Any], position: int) -> None:
        self.tracer, self.op, self.operands, self.dtype, self.position = tracer, op, operands, dtype, position

    def __neg__(self) -> Any:
        return self.tracer.node("negative", self)

    def __invert__(self) -> Any:
        return self.tracer.node("logical_not", self)

    def __eq__(self, other: object) -> bool:
        raise TypeError("a formula compares with xp.equal(a, b) or xp.not_equal(a, b), not with == or !=")

    __hash__ = object.__hash__


def _operator(op: str, reflected: bool) -> Callable[[Node, Any], Any]:
    if reflected:
        return lambda self, other: self.tracer.node(op, other, self)
    return lambda self, other: self.tracer.node(op, self, other)


for _short, _op in OPERATORS.items():
    setattr(Node, f"__{_short}__", _operator(_op, reflected=False))
    if _short not in ("lt", "le", "gt", "ge"):
        setattr(Node, f"__r{_short}__", _operator(_op, reflected=True))


class Tracer:
    """The `xp` of a formula that is being traced. Equal functions of equal operands become one node."""

    def __init__(self, native: frozenset[str]) -> None:
        self.native = native  # functions beside UNARY and BINARY that the target has, such as erf on CUDA
        self.nodes: list[Node] = []
        self._known: dict[tuple[Any, ...], Node] = {}

    def input(self, position: int, dtype: np.dtype[Any]) -> Node:
        return Node(self, "input", (), dtype, position)

    def node(self, op: str, *operands: Any) -> Any:
        """The node of a function; of numbers only, the result itself."""
        if not any(isinstance(operand, Node) for operand in operands):
            return getattr(np, op)(*operands).item()
        key = (op, *((id(o),) if isinstance(o, Node) else o for o in operands))
        if key not in self._known:
            node = Node(self, op, operands, _result_dtype(op, operands), len(self.nodes))
            self.nodes.append(node)
            self._known[key] = node
        return self._known[key]

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        return self.node("where", condition, yes, no)

    def erf(self, x: Any) -> Any:
        return self.node("erf", x) if "erf" in self.native else special.erf(self, x)


def _function(op: str) -> Callable[..., Any]:
    return lambda self, *operands: self.node(op, *operands)


for _op in UNARY + BINARY:
    setattr(Tracer, _op, _function(_op))


def _result_dtype(op: str, operands: tuple[Any, ...]) -> np.dtype[Any]:
    samples = [np.ones(1, o.dtype) if isinstance(o, Node) else o for o in operands]
    result: np.dtype[Any] = samples[0].dtype if op == "erf" else getattr(np, op)(*samples).dtype
    return result


class ArrayMath:
    """The `xp` of a formula that computes at once. Complex numbers are compared by their real parts, so that a formula
    stays analytic along the real axis and the complex step can differentiate it."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def __getattr__(self, name: str) -> Any:
        return getattr(self.xp, name)

    def absolute(self, x: Any) -> Any:
        return self.where(x.real < 0, -x, x) if self.xp.iscomplexobj(x) else self.xp.absolute(x)

    def sign(self, x: Any) -> Any:
        return self.xp.sign(x.real)

    def maximum(self, a: Any, b: Any) -> Any:
        complex_operands = self.xp.iscomplexobj(a) or self.xp.iscomplexobj(b)
        return self.where(_real(a) >= _real(b), a, b) if complex_operands else self.xp.maximum(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        complex_operands = self.xp.iscomplexobj(a) or self.xp.iscomplexobj(b)
        return self.where(_real(a) <= _real(b), a, b) if complex_operands else self.xp.minimum(a, b)

    def erf(self, x: Any) -> Any:
        return special.erf(self, x)


def _real(x: Any) -> Any:
    return x.real


@dataclass(frozen=True)
class TracedFormula:
    """A traced formula: its nodes in the order of their computation, and the node or number of each output."""

    name: str
    nodes: tuple[Node, ...]
    outputs: tuple[Any, ...]


class Formula:
    """An elementwise function of arrays; see `elementwise`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.arguments = tuple(inspect.signature(function).parameters)[1:]
        self._traces: dict[tuple[Any, ...], TracedFormula] = {}
        functools.update_wrapper(self, function)

    def __call__(self, xp: Any, *arguments: Any) -> Any:
        return self.function(xp, *arguments)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"

    def trace(self, arguments: tuple[Any, ...], native: frozenset[str] = frozenset()) -> TracedFormula:
        """Trace the formula for these dtypes of arguments; a Python number in place of a dtype is a constant."""
        key = (arguments, native)
        if key not in self._traces:
            if len(self._traces) >= MOST_TRACES:
                self._traces.clear()
            tracer = Tracer(native)
            symbols = [tracer.input(i, a) if isinstance(a, np.dtype) else a for i, a in enumerate(arguments)]
            results = self.function(tracer, *symbols)
            outputs = results if isinstance(results, tuple) else (results,)
            self._traces[key] = TracedFormula(self.name, _needed(tracer.nodes, outputs), outputs)
        return self._traces[key]


def operand_dtypes(node: Node) -> list[np.dtype[Any]]:
    """The dtypes to which a node's operands are converted before it is computed, by NumPy's rules of promotion."""
    if node.op in LOGICAL:
        return [np.dtype(bool)] * len(node.operands)
    if node.op == "where":
        return [np.dtype(bool), node.dtype, node.dtype]
    if node.op in COMPARISONS:
        common = np.result_type(*(o.dtype if isinstance(o, Node) else o for o in node.operands))
        return [common] * len(node.operands)
    return [node.dtype] * len(node.operands)


def _needed(nodes: list[Node], outputs: tuple[Any, ...]) -> tuple[Node, ...]:
    """The nodes that some output depends on, in the order in which they were made."""
    wanted = {id(o) for o in outputs}
    kept = []
    for node in reversed(nodes):
        if id(node) in wanted:
            kept.append(node)
            wanted.update(id(o) for o in node.operands)
    return tuple(reversed(kept))


def elementwise(function: Callable[..., Any]) -> Formula:
    """Make an elementwise formula of `function(xp, *arrays)`.

    It may use operators and the functions of `xp` listed in UNARY and BINARY, `xp.where` and `xp.erf`, call other
    formulas, and return one value or a tuple. Branch with `xp.where`; both branches are computed: neither may overflow.
    """
    return Formula(function)


def argument_key(argument: Array | float) -> Any:
    """The part of an argument that a trace depends on: an array's dtype, a number's value."""
    return argument.dtype if hasattr(argument, "dtype") else argument
