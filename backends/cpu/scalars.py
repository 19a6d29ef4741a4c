"""Formulas on arrays of one number, in Python's arithmetic, which takes a tenth of the time of NumPy's calls.

Steps have such formulas for counters and factors. Only those are compiled whose results equal NumPy's bit for bit:
float64, 64-bit integers, and float32 where nothing is rounded. Powers are computed by NumPy, since each library rounds
them differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import COMPARISONS, Node, TracedFormula, operand_dtypes

WIDE = ("float64", "int64", "uint64", "bool")
UNROUNDED = COMPARISONS | {"negative", "absolute", "where"}  # exact for float32 too
TEMPLATES = {
    "add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "divide": "{0} / {1}",
    "power": "float(power({0}, {1}))", "negative": "-{0}", "absolute": "abs({0})", "sqrt": "sqrt({0})",
    "where": "({1} if {0} else {2})",
    "logical_and": "{0} and {1}", "logical_or": "{0} or {1}", "logical_not": "not {0}",
    "less": "{0} < {1}", "less_equal": "{0} <= {1}", "greater": "{0} > {1}", "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}", "not_equal": "{0} != {1}",
}  # fmt: skip
TYPES = {"f": "float", "i": "int", "u": "int", "b": "bool"}


def scalar_function(
    traced: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Any, ...], fallback: Callable[..., None]
) -> Callable[..., None] | None:
    """Compile the formula for arrays of one number each; None if Python's results could differ from NumPy's.

    Where Python raises an error, as for 1 / 0, the compiled function calls `fallback`.
    """
    arrays = [a for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
    usual = all(a.size == 1 and a.dtype.name in (*WIDE, "float32") for a in arrays)
    if not (usual and traced.nodes and all(map(_is_exact, traced.nodes))):
        return None
    names = [f"x{i}" for i in range(len(inputs))], [f"o{j}" for j in range(len(outputs))]
    lines = [f"    {line}\n" for line in _lines(traced, inputs, outputs)]
    given = ", ".join((*names[0], *names[1]))
    source = f"def formula_{traced.name}({given}):\n    try:\n" + "".join(f"    {line}" for line in lines)
    source += f"    except (ArithmeticError, ValueError, TypeError):\n        return fallback({given})\n"
    source += "".join(f"    o{j}.fill(w{j})\n" for j in range(len(outputs)))
    space: dict[str, Any] = {
        "fallback": fallback, "sqrt": math.sqrt, "power": np.power, "inf": math.inf, "nan": math.nan,
    }  # fmt: skip
    exec(source, space)  # the source written above
    function: Callable[..., None] = space[f"formula_{traced.name}"]
    return function


def _lines(traced: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Iterator[str]:
    yield from (f"v{i} = x{i}.item()" for i, a in enumerate(inputs) if isinstance(a, np.ndarray))
    values: dict[int, str] = {}

    def text(operand: Any, dtype: np.dtype[Any]) -> str:
        """A value converted to the dtype that the node is computed in."""
        if not isinstance(operand, Node):
            return repr(dtype.type(operand).item())
        name = f"v{operand.position}" if operand.op == "input" else values[id(operand)]
        return name if operand.dtype.kind == dtype.kind else f"{TYPES[dtype.kind]}({name})"

    for number, node in enumerate(traced.nodes):
        values[id(node)] = f"n{number}"
        yield f"n{number} = " + TEMPLATES[node.op].format(*map(text, node.operands, operand_dtypes(node)))
    for j, (value, out) in enumerate(zip(traced.outputs, outputs)):
        yield f"w{j} = {text(value, out.dtype)}"


def _is_exact(node: Node) -> bool:
    """Whether Python computes exactly what NumPy does."""
    if node.op not in TEMPLATES or (node.dtype.kind in "iu" and node.op not in ("add", "where")):
        return False
    kinds = {dtype.name for dtype in operand_dtypes(node)} | {node.dtype.name}
    if "float32" in kinds:
        numbers = [operand for operand in node.operands if not isinstance(operand, Node)]
        return node.op in UNROUNDED and all(float(np.float32(number)) == number for number in numbers)
    return kinds <= set(WIDE)
