"""Formulas and copies on each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.backends.formula.tracing import Formula
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend


def elementwise(ops: CupyBackend, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
    ops.activate()
    ops.formulas.run(formula, inputs, outputs)


def copy(ops: CupyBackend, source: Array, out: Array) -> None:
    ops.activate()
    ops.xp.copyto(out, source, casting="unsafe")
