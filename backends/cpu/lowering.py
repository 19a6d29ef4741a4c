"""Compiles a traced formula to a Python function that calls ufuncs with `out=`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.backends.formula.tracing import Node, TracedFormula
from gpunn.types import Array, Shape

if TYPE_CHECKING:
    from gpunn.backends.cpu.tiles import TiledFormulas


class Lowering:
    """Writes the source of the function for one traced formula, and compiles it.

    Each node gets a register, the array that holds its value: an output if the value may be written there already, else
    scratch, which another node may take after the last reader of the value has run.
    """

    def __init__(
        self, pool: TiledFormulas, traced: TracedFormula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]
    ) -> None:
        self.pool, self.traced, self.inputs, self.outputs = pool, traced, inputs, outputs
        self.last_use = {
            id(operand): i for i, node in enumerate(traced.nodes) for operand in node.operands if _is_node(operand)
        }
        self.readers: dict[int, int] = {}
        for node in traced.nodes:
            for operand in node.operands:
                self.readers[id(operand)] = self.readers.get(id(operand), 0) + 1
        self.names: dict[str, Any] = {}
        self.lines: list[str] = []
        self.registers: dict[int, str] = {}
        self.shapes: dict[int, Shape] = {}
        self.free: dict[tuple[np.dtype[Any], Shape], list[str]] = {}
        self.slots: dict[np.dtype[Any], int] = {}

    def function(self) -> Callable[..., None]:
        targets = self._targets()
        for i, node in enumerate(self.traced.nodes):
            self._emit(node, i, targets.get(id(node)))
        for j, value in enumerate(self.traced.outputs):
            source = self._operand(value, self.outputs[j].dtype)
            if source != f"o{j}":
                self._call("copyto", f"o{j}", source)
        arguments = [f"x{i}" for i in range(len(self.inputs))] + [f"o{j}" for j in range(len(self.outputs))]
        body = "".join(f"    {line}\n" for line in self.lines)
        exec(
            f"def formula_{self.traced.name}({', '.join(arguments)}):\n{body}", self.names
        )  # generated two lines above
        function: Callable[..., None] = self.names[f"formula_{self.traced.name}"]
        return function

    def _targets(self) -> dict[int, str]:
        """Map nodes whose value may be written directly to an output, and operands computed there before, to it."""
        targets: dict[int, str] = {}
        index = {id(node): i for i, node in enumerate(self.traced.nodes)}
        for j, value in enumerate(self.traced.outputs):
            same = [n for n in self._inputs_of() if self.inputs[n.position] is self.outputs[j]]
            last_read = max((self.last_use[id(n)] for n in same), default=-1)
            while (
                _is_node(value)
                and value.op != "input"
                and id(value) not in targets
                and index[id(value)] >= last_read
                and value.dtype == self.outputs[j].dtype
                and self._shape(value) == self.outputs[j].shape
                and not (value.op == "where" and any(value.operands[1] is n for n in same))  # "no" is written first
            ):
                targets[id(value)] = f"o{j}"
                candidates = value.operands[2:] if value.op == "where" else value.operands
                value = next((o for o in candidates if self._only_read_once(o)), None)
        return targets

    def _only_read_once(self, value: Any) -> bool:
        return _is_node(value) and self.readers[id(value)] == 1 and not any(value is o for o in self.traced.outputs)

    def _inputs_of(self) -> list[Node]:
        return [o for node in self.traced.nodes for o in node.operands if _is_node(o) and o.op == "input"]

    def _emit(self, node: Node, i: int, target: str | None) -> None:
        reusable = node.operands[2:] if node.op == "where" else node.operands
        self._release(reusable, i)
        register = target or self._scratch(node)
        self.registers[id(node)] = register
        if node.op == "where":
            condition, yes, no = (self._operand(o, d) for o, d in zip(node.operands, (bool, node.dtype, node.dtype)))
            if _is_kept_or_zero(node):
                bits = f".view('u{node.dtype.itemsize}')"
                self._call("multiply", yes + bits, condition, register + bits)
            else:
                if no != register:
                    self._call("copyto", register, no)
                self._call("copyto", register, yes, "'same_kind'", condition)
            self._release(node.operands[:2], i)
        else:
            dtype = np.result_type(*(o.dtype if _is_node(o) else o for o in node.operands))
            self._call(node.op, *(self._operand(o, dtype) for o in node.operands), f"out={register}")

    def _release(self, operands: tuple[Any, ...], i: int) -> None:
        for operand in {id(o): o for o in operands if _is_node(o)}.values():
            register = self.registers.get(id(operand), "")
            if register.startswith("s") and self.last_use[id(operand)] == i:
                kept = any(operand is value for value in self.traced.outputs)
                pool = self.free.setdefault((operand.dtype, self._shape(operand)), [])
                if not kept and register not in pool:
                    pool.append(register)

    def _scratch(self, node: Node) -> str:
        shape = self._shape(node)
        pool = self.free.setdefault((node.dtype, shape), [])
        if pool:
            return pool.pop()
        slot = self.slots[node.dtype] = self.slots.get(node.dtype, -1) + 1
        register = f"s{len(self.names)}"
        self.names[register] = self.pool.scratch(node.dtype, slot, shape)
        return register

    def _shape(self, node: Node) -> Shape:
        if node.op == "input":
            shape: Shape = self.inputs[node.position].shape
            return shape
        if id(node) not in self.shapes:
            self.shapes[id(node)] = np.broadcast_shapes(*(self._shape(o) for o in node.operands if _is_node(o)))
        return self.shapes[id(node)]

    def _operand(self, operand: Any, dtype: Any) -> str:
        if not _is_node(operand):
            name = f"c{len(self.names)}"
            self.names[name] = np.array(operand, dtype)  # a 0-d array spares a conversion at every call
            return name
        return f"x{operand.position}" if operand.op == "input" else self.registers[id(operand)]

    def _call(self, op: str, *arguments: str) -> None:
        self.names[op] = getattr(np, op)
        self.lines.append(f"{op}({', '.join(arguments)})")


def _is_kept_or_zero(node: Node) -> bool:
    """Whether "where" keeps numbers or replaces them by 0: then the result is their bits, as integers, times 0 or 1.

    That takes a tenth of the time of a masked copy, in which the processor guesses a branch for each random bit.
    """
    condition, yes, no = node.operands
    zero = not _is_node(no) and no == 0 and math.copysign(1.0, no) > 0
    kept = _is_node(yes) and yes.dtype == node.dtype and node.dtype.kind == "f"
    return zero and kept and _is_node(condition) and condition.dtype == bool


def _is_node(value: Any) -> bool:
    return isinstance(value, Node)
