"""Elementwise formulas on CUDA: one kernel for each formula and its dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.backends.cuda.kernels import HALVES
from gpunn.backends.formula.tracing import Formula, Node, TracedFormula, argument_key, operand_dtypes
from gpunn.types import Array

NATIVE = frozenset({"erf"})
C_TYPES = {
    "float64": "double", "float32": "float", "bool": "bool",
    "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
    "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int", "uint64": "unsigned long long",
}  # fmt: skip
INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "&&", "logical_or": "||",
}  # fmt: skip
# As in NumPy, the maximum and minimum of a NaN and a number are NaN; fmax would return the number. CUDA overloads exp
# and the other functions for float and double.
TEMPLATES = {
    "negative": "-{0}",
    "logical_not": "!{0}",
    "absolute": "fabs({0})",
    "sign": "({0} > 0 ? ({T})1 : {0} < 0 ? ({T})-1 : {0})",
    "maximum": "({0} >= {1} || {0} != {0} ? {0} : {1})",
    "minimum": "({0} <= {1} || {0} != {0} ? {0} : {1})",
    "where": "({0} ? {1} : {2})",
    "power": "pow({0}, {1})",
}
TEMPLATES |= {op: f"({{0}} {sign} {{1}})" for op, sign in INFIX.items()}
FLOAT_FUNCTIONS = ("sqrt", "exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "erf")
TEMPLATES |= {name: f"{name}({{0}})" for name in FLOAT_FUNCTIONS}


def computed(dtype: Any) -> np.dtype[Any]:
    """The dtype that numbers of a dtype are computed in: float32 for half precision, which CuPy's types convert.

    Traces must not contain half precision: NumPy's promotion makes a float64 of bfloat16 and 0.5.
    """
    return np.dtype(np.float32) if dtype.name in HALVES else dtype


def elementwise_source(formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> tuple[str, str, str]:
    """The source of an `ElementwiseKernel`: its input parameters, its output parameters, and its body."""
    traced = formula.trace(tuple(computed(a.dtype) if hasattr(a, "dtype") else a for a in inputs), NATIVE)
    return (
        ", ".join(f"{a.dtype.name} x{i}" for i, a in enumerate(inputs) if hasattr(a, "dtype")),
        ", ".join(f"{a.dtype.name} y{j}" for j, a in enumerate(outputs)),
        _body(traced, inputs, outputs),
    )


def _body(traced: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> str:
    # An output may be one of the inputs, so all inputs are read before an output is written.
    reads = [(i, C_TYPES[computed(a.dtype).name]) for i, a in enumerate(inputs) if hasattr(a, "dtype")]
    lines = [f"const {kind} a{i} = x{i};" for i, kind in reads]
    names: dict[int, str] = {}
    for position, node in enumerate(traced.nodes):
        names[id(node)] = f"v{position}"
        kind = C_TYPES[node.dtype.name]
        lines.append(f"const {kind} v{position} = {_expression(node, names)};")
    for j, (value, out) in enumerate(zip(traced.outputs, outputs, strict=True)):
        lines.append(f"y{j} = {_operand(value, computed(out.dtype), names)};")
    return "\n".join(lines)


def _expression(node: Node, names: dict[int, str]) -> str:
    operands = node.operands
    if node.op == "power" and isinstance(operands[1], (int, float)) and operands[1] == 2:
        operands = (operands[0], operands[0])
        template = TEMPLATES["multiply"]
    else:
        template = TEMPLATES[node.op]
    if node.op == "absolute" and node.dtype.kind != "f":
        template = "({0} < 0 ? -{0} : {0})"
    texts = (_operand(o, kind, names) for o, kind in zip(operands, operand_dtypes(node), strict=True))
    return template.format(*texts, T=C_TYPES[node.dtype.name])


def _operand(operand: Any, dtype: np.dtype[Any], names: dict[int, str]) -> str:
    """A value converted to the dtype that the node is computed in."""
    kind = C_TYPES[dtype.name]
    if not isinstance(operand, Node):
        return literal(operand, dtype)
    name = f"a{operand.position}" if operand.op == "input" else names[id(operand)]
    return name if C_TYPES[operand.dtype.name] == kind else f"({kind}){name}"


def literal(value: float, dtype: np.dtype[Any]) -> str:
    """A number as a C constant of exactly this type: with a double constant, float arithmetic would become double."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind in "iu":  # long long, since a comparison with a number that does not fit the dtype must be right
        return f"{int(value)}ll" if value >= 0 else f"({int(value)}ll)"
    suffix = "" if dtype == np.float64 else "f"
    value = float(value) if dtype == np.float64 else float(np.float32(value))
    if math.isnan(value):
        return f"(0.0{suffix} / 0.0{suffix})"
    if math.isinf(value):
        return f"({math.copysign(1.0, value)}{suffix} / 0.0{suffix})"
    text = repr(value) + suffix  # Python always writes a point or an exponent
    return text if math.copysign(1.0, value) > 0 else f"({text})"


class CudaFormulas:
    """Compiled formulas by the dtypes and constants of their arguments."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._kernels: dict[tuple[Any, ...], Any] = {}

    def run(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        key = (formula, *(argument_key(a) for a in inputs), *(a.dtype for a in outputs))
        kernel = self._kernels.get(key)
        if kernel is None:
            reads, writes, body = elementwise_source(formula, inputs, outputs)
            kernel = self._cupy.ElementwiseKernel(reads, writes, body, f"gpunn_{formula.name}", no_return=True)
            self._kernels[key] = kernel
        kernel(*(a for a in inputs if hasattr(a, "dtype")), *outputs)
