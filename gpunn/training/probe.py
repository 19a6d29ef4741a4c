"""Measures how large activations and gradients are, layer by layer, on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpunn.frame import Frame, Planned
from gpunn.passes import Pass
from gpunn.types import ROWS, Array

CHUNK = 1 << 17  # numbers in one chunk, all models together
TALLEST = 4096  # rows of a chunk


@dataclass(frozen=True)
class _Chunk:
    """Some rows of a matrix, and buffers: the rows in float64, their squared lengths, and the sum of these."""

    source: Array
    numbers: Array
    rows: Array
    total: Array


class FlowProbe:
    """The root mean square of each layer's output and gradient in one pass, for each model.

    It computes in a small float64 buffer, because in float32 the square of a vanishing gradient is 0. All arrays are
    allocated here, so a recorded step may call `measure_activations` and `measure_gradients`. Layers with parameters
    or with a buffer A are measured; Dropout and Flatten are not.
    """

    def __init__(self, batch_pass: Pass) -> None:
        self.ops = batch_pass.ops
        self.kinds: dict[str, str] = {}  # the class of each layer, by path
        matrices: dict[str, dict[str, list[Array]]] = {"activations": {}, "gradients": {}}
        for node, frame in _walk(batch_pass.planned, batch_pass.frame):
            if "A" in node.plan.buffers:
                rank, width = len(node.plan.output), math.prod(node.plan.output[-1:])
                matrices["activations"][node.path] = [frame.A.reshape(*frame.A.shape[: -rank - 1], -1, width)]
            if node.plan.parameters:
                matrices["gradients"][node.path] = [getattr(frame, f"d{name}") for name in node.plan.parameters]
            if any(node.path in of_kind for of_kind in matrices.values()):
                self.kinds[node.path] = type(node.layer).__name__
        self._prepare(matrices)

    def _prepare(self, matrices: dict[str, dict[str, list[Array]]]) -> None:
        """Cut everything into chunks, and allocate buffers for the largest."""
        every = [matrix for paths in matrices.values() for several in paths.values() for matrix in several]
        chunks = [chunk for matrix in every for chunk in _chunks(matrix)]
        model_axes = every[0].shape[:-2] if every else ()
        self.population, self.models = bool(model_axes), math.prod(model_axes)
        room = self.ops.empty((max((chunk.size for chunk in chunks), default=0),), np.float64)
        rows = self.ops.empty((max((chunk[..., 0].size for chunk in chunks), default=0),), np.float64)
        self.sums = self.ops.from_host(np.full((len(chunks), *model_axes), np.nan))
        self.chunks: dict[str, list[_Chunk]] = {kind: [] for kind in matrices}
        self.places: dict[str, dict[str, tuple[slice, int]]] = {kind: {} for kind in matrices}
        stop = 0
        for kind, paths in matrices.items():
            for path, several in paths.items():
                start = stop
                for chunk in (chunk for matrix in several for chunk in _chunks(matrix)):
                    column = rows[: chunk[..., 0].size].reshape(*chunk.shape[:-1], 1)
                    numbers = room[: chunk.size].reshape(chunk.shape)
                    self.chunks[kind].append(_Chunk(chunk, numbers, column, self.sums[stop, ...]))
                    stop += 1
                count = sum(matrix.size for matrix in several) // self.models
                self.places[kind][path] = slice(start, stop), count

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles keep names and sizes without arrays: they cannot measure."""
        return {name: vars(self)[name] for name in ("kinds", "population", "models")}

    def measure_activations(self) -> None:
        """Call it after forward and before backward, which may write over outputs."""
        self._measure("activations")

    def measure_gradients(self) -> None:
        """Call it after backward, before penalties or clipping change the gradient."""
        self._measure("gradients")

    def _measure(self, kind: str) -> None:
        for chunk in self.chunks[kind]:
            self.ops.copy(chunk.source, out=chunk.numbers)
            self.ops.sum_product(chunk.numbers, chunk.numbers, ROWS, out=chunk.rows)
            self.ops.total(chunk.rows, 1.0, out=chunk.total)

    def read(self) -> dict[str, dict[str, Array]]:
        """The last measurement, {"activations": {path: array (K,)}, "gradients": ...}; NaN before the first."""
        sums = self.ops.to_host(self.sums).reshape(-1, self.models)
        return {
            kind: {path: np.sqrt(sums[place].sum(axis=0) / count) for path, (place, count) in paths.items()}
            for kind, paths in self.places.items()
        }


def _walk(planned: Planned, frame: Frame) -> Iterator[tuple[Planned, Frame]]:
    yield planned, frame
    for name, child in planned.children.items():
        yield from _walk(child, frame.children[name])


def _chunks(matrix: Array) -> Iterator[Array]:
    """Views of a few rows each of a matrix, or of K matrices."""
    height = max(1, min(TALLEST, CHUNK // max(matrix[..., 0, :].size, 1)))
    for start in range(0, matrix.shape[-2], height):
        yield matrix[..., start : start + height, :]
