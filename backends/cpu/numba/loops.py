"""Elementwise formulas with Numba: a traced formula becomes one loop over contiguous memory.

Only functions with one correct rounding are compiled, and the compiler may neither fuse nor reorder them. So a loop
gives NumPy's results bit for bit, and may replace NumPy's tiles at any time in a training. Formulas with other
functions, such as exp, stay with NumPy, which vectorises them; Numba does not.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn.backends.cpu.numba.store import is_stored
from gpunn.backends.cpu.tiles import TILE, TiledFormulas
from gpunn.backends.formula.tracing import Formula, Node, TracedFormula, argument_key, operand_dtypes
from gpunn.types import Array, Shape

log = logging.getLogger("gpunn")
COMPILER = "gpunn.backends.cpu.numba.compiler"

# A loop is compiled when NumPy has worked on its formula for about as long as compiling takes, and Numba is loaded when
# NumPy has worked on all formulas for as long as loading takes. So with Numba installed, no program takes much more
# than twice the time it would take without.
COMPILING, FETCHING, LOADING = 2e5, 5e4, 5e5  # microseconds; FETCHING: for code that is stored on disk
LOOK = 1e4  # microseconds of work after which these are checked again
CALL, ELEMENT = 0.5, 2e-4  # microseconds that NumPy takes for a call of a ufunc, and for each element

INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "and", "logical_or": "or",
}  # fmt: skip
# As in NumPy, the maximum and minimum of a NaN and a number are NaN.
TEMPLATES = {
    "negative": "-{0}",
    "logical_not": "not {0}",
    "absolute": "abs({0})",
    "sqrt": "sqrt({0})",
    "sign": "({T}(1) if {0} > 0 else {T}(-1) if {0} < 0 else {T}(0) if {0} == 0 else {0})",
    "maximum": "({0} if {0} >= {1} or {0} != {0} else {1})",
    "minimum": "({0} if {0} <= {1} or {0} != {0} else {1})",
    "where": "({1} if {0} else {2})",
    "power": "{0} * {0}",  # squares, the only powers that all libraries round equally
} | {op: f"{{0}} {sign} {{1}}" for op, sign in INFIX.items()}


class LoopFormulas(TiledFormulas):
    """Formulas that run on NumPy until compiling a loop pays; with `patient=False`, loops are compiled at once."""

    broken: ClassVar[bool] = False  # Numba is installed but does not work

    def __init__(self, patient: bool = True, tile: int = TILE) -> None:
        super().__init__(tile)
        self.tiles = TiledFormulas(tile)
        self.patient = patient
        self.worked = 0.0  # microseconds that NumPy has worked on all formulas that may become loops

    def _build(
        self, key: tuple[Any, ...], formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]
    ) -> Callable[..., None]:
        fallback = super()._build(key, formula, inputs, outputs)
        traced = formula.trace(tuple(argument_key(a) for a in inputs))
        loop = Loop.of(traced, inputs, outputs)
        if loop is None or outputs[0].size == 1:
            return fallback
        if not self.patient:
            return self._compiled(loop, fallback, (*inputs, *outputs))
        if len(traced.nodes) < 2 and traced.nodes[0].op != "where":  # one ufunc is as good a loop
            return fallback
        calls = left = math.ceil(LOOK / (len(traced.nodes) * (CALL + ELEMENT * outputs[0].size)))
        patience = FETCHING if is_stored(loop.source) else COMPILING
        worked = 0.0

        def counted(*arrays: Any) -> None:
            nonlocal left, worked
            left -= 1
            if left == 0:
                left, worked, self.worked = calls, worked + LOOK, self.worked + LOOK
                if worked >= patience and (COMPILER in sys.modules or self.worked >= LOADING):
                    self._kernels[key] = self._compiled(loop, fallback, arrays)
                    LoopFormulas.version += 1
            fallback(*arrays)

        return counted

    def row_loops(self, *arrays: Any) -> tuple[Callable[..., None], ...] | None:
        if self.broken or (self.patient and COMPILER not in sys.modules):
            return None
        try:
            from gpunn.backends.cpu.numba.compiler import compile_rows

            return compile_rows(*arrays)
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        LoopFormulas.broken = True
        log.info("formulas stay with NumPy, because Numba fails: %s", error)

    def _compiled(self, loop: Loop, fallback: Callable[..., None], arrays: tuple[Any, ...]) -> Callable[..., None]:
        """The compiled loop; it calls `fallback` for arrays of the same shapes with another layout in memory."""
        if self.broken:
            return fallback
        try:
            from gpunn.backends.cpu.numba.compiler import compile_loop

            compiled = compile_loop(loop.source, tuple(arrays[i] for i in loop.taken))
        except Exception as error:
            self._give_up(error)
            return fallback
        names: dict[str, Any] = {"loop": compiled, "fallback": fallback}
        everything, taken = (", ".join(f"x{i}" for i in which) for which in (range(len(arrays)), loop.taken))
        exec(f"def formula({everything}):\n    loop({taken}) or fallback({everything})", names)  # faster than *arrays
        formula: Callable[..., None] = names["formula"]
        return formula


@dataclass(frozen=True)
class Loop:
    """The source of a loop, and the indices of the arguments that it takes. It is kept, so it holds no array."""

    source: str
    taken: tuple[int, ...]

    @classmethod
    def of(cls, traced: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> Loop | None:
        """Write the loop; None if a function is not in TEMPLATES or the layout of an array does not allow a loop."""
        arrays = [a for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
        shape = outputs[0].shape
        usual = all(type(a) is np.ndarray and a.dtype.isnative and a.dtype.kind in "fiub" for a in arrays)
        if not (usual and traced.nodes and math.prod(shape) and all(map(_is_exact, traced.nodes))):
            return None
        suffix = next((s for s in range(len(shape)) if all(_runs(a, shape, s) for a in arrays)), None)
        if suffix is None:
            return None
        writer = _LoopWriter(inputs, outputs, suffix)
        return cls(writer.source(traced), tuple(int(name[1:]) for name in writer.arguments))


class _LoopWriter:
    """Writes the source of a loop over arrays with these shapes and layouts.

    The innermost loop runs over all axes from `suffix` on; in each array they are contiguous, or all have length 1.
    Each axis before `suffix` has a separate loop. An array that is read and written is one argument, because Numba
    would not know that two arguments are the same memory, and could not vectorise.
    """

    def __init__(self, inputs: tuple[Any, ...], outputs: tuple[Array, ...], suffix: int) -> None:
        self.shape, self.suffix = outputs[0].shape, suffix
        written = {id(o): f"x{len(inputs) + j}" for j, o in enumerate(outputs)}
        self.names = [written.get(id(a), f"x{i}") for i, a in enumerate((*inputs, *outputs))]
        self.written = self.names[len(inputs) :]
        arrays = {n: a for n, a in zip(self.names, (*inputs, *outputs)) if isinstance(a, np.ndarray)}
        self.arguments = dict(sorted(arrays.items(), key=lambda item: int(item[0][1:])))

    def source(self, traced: TracedFormula) -> str:
        return "\n".join(self._lines(traced)) + "\n"

    def _lines(self, traced: TracedFormula) -> Iterator[str]:
        yield f"def loop({', '.join(self.arguments)}):  # {traced.name}"
        conditions = [c for name, a in self.arguments.items() for c in self._conditions(name, a)]
        if conditions:
            yield f"    if {' or '.join(conditions)}:"
            yield "        return False"
        indent = "    "
        for axis in range(self.suffix):
            if self.shape[axis] > 1:
                yield f"{indent}for i{axis} in range({self.written[0]}.shape[{axis}]):"
                indent += "    "
        lines = [name for name, a in self.arguments.items() if self._is_whole(a)]
        places = {name: self._place(name, a) for name, a in self.arguments.items()}
        for name in lines:
            yield f"{indent}{name}_line = line({places[name]})"
            places[name] = f"{name}_line[j]"
        inner = indent + "    " if lines else indent
        read = dict.fromkeys(self.names[o.position] for o in _operands(traced) if o.op == "input")
        yield from (f"{indent}{name}_value = {places[name]}" for name in read if name not in lines)
        if lines:
            yield f"{indent}for j in range({lines[-1]}_line.size):"
        yield from (f"{inner}{name}_value = {places[name]}" for name in read if name in lines)
        values = {}
        for number, node in enumerate(traced.nodes):
            values[id(node)] = f"v{number}"
            texts = [self._text(o, kind, values) for o, kind in zip(node.operands, operand_dtypes(node))]
            text = TEMPLATES[node.op].format(*texts, T=node.dtype.name)
            yield f"{inner}v{number} = {text if node.dtype.kind == 'b' else f'{node.dtype.name}({text})'}"
        for name, value in zip(self.written, traced.outputs):
            yield f"{inner}{places[name]} = {self._text(value, self.arguments[name].dtype, values)}"
        yield "    return True"

    def _text(self, operand: Any, dtype: np.dtype[Any], values: dict[int, str]) -> str:
        """A value converted to the dtype that the node is computed in."""
        if not isinstance(operand, Node):
            return repr(bool(operand)) if dtype.kind == "b" else f"{dtype.name}({operand!r})"
        text = f"{self.names[operand.position]}_value" if operand.op == "input" else values[id(operand)]
        if operand.dtype == dtype:
            return text
        return f"({text} != 0)" if dtype.kind == "b" else f"{dtype.name}({text})"

    def _is_whole(self, array: Array) -> bool:
        """Whether the array has an element for each run of the innermost loop, not one for all."""
        return any(extent > 1 for extent in _extents(array, self.shape)[self.suffix :])

    def _conditions(self, name: str, array: Array) -> Iterator[str]:
        """Conditions, of which an array with another layout fulfils at least one."""
        for axis in range(max(self.suffix - len(self.shape) + array.ndim, 0), array.ndim):
            if array.shape[axis] > 1:
                later = "".join(f" * {name}.shape[{i}]" for i in range(axis + 1, array.ndim))
                yield f"{name}.strides[{axis}] != {name}.itemsize{later}"

    def _place(self, name: str, array: Array) -> str:
        """The array's part in the innermost loop: a contiguous line, or one element."""
        outer = len(self.shape) - array.ndim
        whole = self._is_whole(array)
        index = [
            "0" if extent == 1 else f"i{outer + axis}"
            for axis, extent in enumerate(array.shape)
            if outer + axis < self.suffix or not whole
        ]
        return f"{name}[{', '.join(index) or '()'}]" if index or not whole else name


def _operands(traced: TracedFormula) -> Iterator[Node]:
    values = (*(o for node in traced.nodes for o in node.operands), *traced.outputs)
    return (value for value in values if isinstance(value, Node))


def _is_exact(node: Node) -> bool:
    """Whether the node has one correct result, bit for bit."""
    return node.op in TEMPLATES and (
        node.op != "power" or (not isinstance(node.operands[1], Node) and node.operands[1] == 2)
    )


def _extents(array: Array, shape: Shape) -> Shape:
    extents: Shape = (1,) * (len(shape) - array.ndim) + array.shape
    return extents


def _runs(array: Array, shape: Shape, suffix: int) -> bool:
    """Whether the array is contiguous along all last axes of the shape, from `suffix` on, or has length 1 along all."""
    outer = len(shape) - array.ndim
    axes = [axis for axis in range(suffix, len(shape)) if shape[axis] > 1]
    once = [axis < outer or array.shape[axis - outer] == 1 for axis in axes]
    if any(once):
        return all(once)
    return all(array.strides[axis - outer] == array.itemsize * math.prod(shape[axis + 1 :]) for axis in axes)
