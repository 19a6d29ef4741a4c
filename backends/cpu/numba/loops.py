"""Elementwise formulas where Numba is installed: a traced formula as one loop over contiguous memory.

Only operations that are rounded in one way are compiled, and none is contracted or moved, so a loop equals NumPy's
tiles bit for bit: when in a training it takes their place makes no difference. Formulas with the others, exp and its
like, stay with NumPy, which has vectors of them where Numba has not.
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

# A loop is compiled once NumPy has worked on its formula for about as long as that takes, and Numba is loaded once it
# has worked on all formulas for as long: for having Numba, no program takes much more than twice the time.
COMPILING, FETCHING, LOADING = 2e5, 5e4, 5e5  # microseconds; the second is of code that lies on disk
LOOK = 1e4  # microseconds of work between two looks at these
CALL, ELEMENT = 0.5, 2e-4  # microseconds that NumPy takes for an operation, and for each of its elements

INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "and", "logical_or": "or",
}  # fmt: skip
# As NumPy's, a NaN on either side comes through.
TEMPLATES = {
    "negative": "-{0}",
    "logical_not": "not {0}",
    "absolute": "abs({0})",
    "sqrt": "sqrt({0})",
    "sign": "({T}(1) if {0} > 0 else {T}(-1) if {0} < 0 else {T}(0) if {0} == 0 else {0})",
    "maximum": "({0} if {0} >= {1} or {0} != {0} else {1})",
    "minimum": "({0} if {0} <= {1} or {0} != {0} else {1})",
    "where": "({1} if {0} else {2})",
    "power": "{0} * {0}",  # squares, the only power that is rounded in one way
} | {op: f"{{0}} {sign} {{1}}" for op, sign in INFIX.items()}


class LoopFormulas(TiledFormulas):
    """Formulas that run over tiles until a loop will pay; `patient=False` compiles all that can be, at once."""

    broken: ClassVar[bool] = False  # Numba is there but does not work

    def __init__(self, patient: bool = True, tile: int = TILE) -> None:
        super().__init__(tile)
        self.tiles = TiledFormulas(tile)
        self.patient = patient
        self.worked = 0.0  # microseconds, by all formulas that may become loops

    def _build(
        self, key: tuple[Any, ...], formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]
    ) -> Callable[..., None]:
        plain = super()._build(key, formula, inputs, outputs)
        program = formula.trace(tuple(argument_key(a) for a in inputs))
        loop = Loop.of(program, inputs, outputs)
        if loop is None or outputs[0].size == 1:
            return plain
        if not self.patient:
            return self._compiled(loop, plain, (*inputs, *outputs))
        if len(program.nodes) < 2 and program.nodes[0].op != "where":  # one ufunc is as good a loop
            return plain
        calls = left = math.ceil(LOOK / (len(program.nodes) * (CALL + ELEMENT * outputs[0].size)))
        patience = FETCHING if is_stored(loop.source) else COMPILING
        worked = 0.0

        def counted(*arrays: Any) -> None:
            nonlocal left, worked
            left -= 1
            if left == 0:
                left, worked, self.worked = calls, worked + LOOK, self.worked + LOOK
                if worked >= patience and (COMPILER in sys.modules or self.worked >= LOADING):
                    self._kernels[key] = self._compiled(loop, plain, arrays)
                    LoopFormulas.edition += 1
            plain(*arrays)

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

    def _compiled(self, loop: Loop, plain: Callable[..., None], arrays: tuple[Any, ...]) -> Callable[..., None]:
        """The loop in place of `plain`, which still serves arrays of the same shapes that lie otherwise in memory."""
        if self.broken:
            return plain
        try:
            from gpunn.backends.cpu.numba.compiler import compile_loop

            compiled = compile_loop(loop.source, tuple(arrays[i] for i in loop.taken))
        except Exception as error:
            self._give_up(error)
            return plain
        names: dict[str, Any] = {"loop": compiled, "plain": plain}
        everything, taken = (", ".join(f"x{i}" for i in which) for which in (range(len(arrays)), loop.taken))
        exec(f"def formula({everything}):\n    loop({taken}) or plain({everything})", names)  # spares an unpacking
        formula: Callable[..., None] = names["formula"]
        return formula


@dataclass(frozen=True)
class Loop:
    """The text of a loop, and which of the formula's arguments it takes; it is kept, so it holds no array."""

    source: str
    taken: tuple[int, ...]

    @classmethod
    def of(cls, program: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> Loop | None:
        """None where the formula has other operations, or some array no contiguous axis."""
        arrays = [a for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
        shape = outputs[0].shape
        usual = all(type(a) is np.ndarray and a.dtype.isnative and a.dtype.kind in "fiub" for a in arrays)
        if not (usual and program.nodes and math.prod(shape) and all(map(_is_exact, program.nodes))):
            return None
        suffix = next((s for s in range(len(shape)) if all(_runs(a, shape, s) for a in arrays)), None)
        if suffix is None:
            return None
        writer = _LoopWriter(inputs, outputs, suffix)
        return cls(writer.source(program), tuple(int(name[1:]) for name in writer.arguments))


class _LoopWriter:
    """Writes the text of a loop over arrays like these.

    The innermost loop runs over as many of the last axes as every array has whole and contiguous, or only once; the
    others are loops of their own. An array that is both read and written is one argument: of two arguments Numba would
    not know that the same place of both is the same memory, and could not vectorise.
    """

    def __init__(self, inputs: tuple[Any, ...], outputs: tuple[Array, ...], suffix: int) -> None:
        self.shape, self.suffix = outputs[0].shape, suffix
        written = {id(o): f"x{len(inputs) + j}" for j, o in enumerate(outputs)}
        self.names = [written.get(id(a), f"x{i}") for i, a in enumerate((*inputs, *outputs))]
        self.written = self.names[len(inputs) :]
        arrays = {n: a for n, a in zip(self.names, (*inputs, *outputs)) if isinstance(a, np.ndarray)}
        self.arguments = dict(sorted(arrays.items(), key=lambda item: int(item[0][1:])))

    def source(self, program: TracedFormula) -> str:
        return "\n".join(self._lines(program)) + "\n"

    def _lines(self, program: TracedFormula) -> Iterator[str]:
        yield f"def loop({', '.join(self.arguments)}):  # {program.name}"
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
        read = dict.fromkeys(self.names[o.position] for o in _operands(program) if o.op == "input")
        yield from (f"{indent}{name}_value = {places[name]}" for name in read if name not in lines)
        if lines:
            yield f"{indent}for j in range({lines[-1]}_line.size):"
        yield from (f"{inner}{name}_value = {places[name]}" for name in read if name in lines)
        values = {}
        for number, node in enumerate(program.nodes):
            values[id(node)] = f"v{number}"
            texts = [self._text(o, kind, values) for o, kind in zip(node.operands, operand_dtypes(node))]
            text = TEMPLATES[node.op].format(*texts, T=node.dtype.name)
            yield f"{inner}v{number} = {text if node.dtype.kind == 'b' else f'{node.dtype.name}({text})'}"
        for name, value in zip(self.written, program.outputs):
            yield f"{inner}{places[name]} = {self._text(value, self.arguments[name].dtype, values)}"
        yield "    return True"

    def _text(self, operand: Any, dtype: np.dtype[Any], values: dict[int, str]) -> str:
        """A value in the type that the operation computes in, as NumPy's promotion has it."""
        if not isinstance(operand, Node):
            return repr(bool(operand)) if dtype.kind == "b" else f"{dtype.name}({operand!r})"
        text = f"{self.names[operand.position]}_value" if operand.op == "input" else values[id(operand)]
        if operand.dtype == dtype:
            return text
        return f"({text} != 0)" if dtype.kind == "b" else f"{dtype.name}({text})"

    def _is_whole(self, array: Array) -> bool:
        """Whether the array has every element of the innermost loop, not one for all of them."""
        return any(extent > 1 for extent in _extents(array, self.shape)[self.suffix :])

    def _conditions(self, name: str, array: Array) -> Iterator[str]:
        """What an array that lies otherwise in memory fulfils."""
        for axis in range(max(self.suffix - len(self.shape) + array.ndim, 0), array.ndim):
            if array.shape[axis] > 1:
                later = "".join(f" * {name}.shape[{i}]" for i in range(axis + 1, array.ndim))
                yield f"{name}.strides[{axis}] != {name}.itemsize{later}"

    def _place(self, name: str, array: Array) -> str:
        """The array's part in the innermost loop: a line of it, or one element."""
        outer = len(self.shape) - array.ndim
        whole = self._is_whole(array)
        index = [
            "0" if extent == 1 else f"i{outer + axis}"
            for axis, extent in enumerate(array.shape)
            if outer + axis < self.suffix or not whole
        ]
        return f"{name}[{', '.join(index) or '()'}]" if index or not whole else name


def _operands(program: TracedFormula) -> Iterator[Node]:
    values = (*(o for node in program.nodes for o in node.operands), *program.outputs)
    return (value for value in values if isinstance(value, Node))


def _is_exact(node: Node) -> bool:
    """Whether every correct program computes the same bits."""
    return node.op in TEMPLATES and (
        node.op != "power" or (not isinstance(node.operands[1], Node) and node.operands[1] == 2)
    )


def _extents(array: Array, shape: Shape) -> Shape:
    extents: Shape = (1,) * (len(shape) - array.ndim) + array.shape
    return extents


def _runs(array: Array, shape: Shape, suffix: int) -> bool:
    """Whether the array has the last axes of the shape whole and contiguous, or only once."""
    outer = len(shape) - array.ndim
    axes = [axis for axis in range(suffix, len(shape)) if shape[axis] > 1]
    once = [axis < outer or array.shape[axis - outer] == 1 for axis in axes]
    if any(once):
        return all(once)
    return all(array.strides[axis - outer] == array.itemsize * math.prod(shape[axis + 1 :]) for axis in axes)
