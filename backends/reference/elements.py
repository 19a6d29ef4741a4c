"""Formulas and copies: operations on each element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.backends.formula.tracing import Formula
from gpunn.backends.operation import operation, same_as
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.reference.backend import Backend


@operation(writes=["outputs"], inputs=same_as("outputs"), outputs=same_as("outputs"))
def elementwise(ops: Backend, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
    """outputs = formula(inputs). A Python number among the inputs becomes a constant of the compiled formula, so pass a
    number that changes from step to step as an array."""
    results = formula(ops.math, *inputs)
    for out, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
        out[...] = result


@operation(writes=["out"], source=same_as("out"), out=same_as("out"))
def copy(ops: Backend, source: Array, out: Array) -> None:
    """out = source, cast and broadcast as needed; of a complex source a real `out` takes the real part."""
    if source.dtype.kind == "c" and out.dtype.kind != "c":
        source = source.real
    ops.xp.copyto(out, source, casting="unsafe")


@operation(writes=["out"], out=same_as("out"))
def fill(ops: Backend, out: Array, value: float) -> None:
    out[...] = value
