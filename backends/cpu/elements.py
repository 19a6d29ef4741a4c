"""Formulas and copies on each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.backends.cpu.recording import recorded_in_parts
from gpunn.backends.formula.tracing import Formula
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cpu.backend import NumpyBackend


@recorded_in_parts
def elementwise(ops: NumpyBackend, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
    ops.formulas.run(formula, inputs, outputs, ops.do)


@recorded_in_parts
def copy(ops: NumpyBackend, source: Array, out: Array) -> None:
    real = source.real if source.dtype.kind == "c" and out.dtype.kind != "c" else source
    ops.do(np.copyto, out, real, "unsafe")


@recorded_in_parts
def fill(ops: NumpyBackend, out: Array, value: float) -> None:
    ops.do(out.fill, value)
