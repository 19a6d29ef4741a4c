"""Elementwise formulas on NumPy: compiled to calls of ufuncs with `out=`, and run over tiles that fit in the cache."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import numpy as np

from gpunn.backends.cpu.inherited import Inherited
from gpunn.backends.cpu.lowering import Lowering
from gpunn.backends.cpu.scalars import scalar_function
from gpunn.backends.formula.tracing import Formula, argument_key
from gpunn.types import Array, Shape

MOST_KERNELS = 2048  # more than a training needs; without a limit, ever new sizes would fill the memory
Kernel = Callable[..., None]
Slots = dict[tuple[np.dtype[Any], int], Array]  # scratch of formulas by dtype and number
Indices = tuple[tuple[slice, ...] | None, ...]  # for each array, the part that a tile needs; None for all of it
TILE = 64 * 1024  # elements; with smaller tiles, threads that share a population wait for each other at every call


class TiledFormulas(threading.local):
    """Compiled formulas by name, shapes, dtypes and aliasing, with their scratch; each thread has its own."""

    __slots__ = ("_left",)  # shared by all threads
    version: ClassVar[int] = 0  # counts up when, in any thread, a kernel replaces another: records are then out of date

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        self = super().__new__(cls, *arguments, **options)
        self._left = []
        return self

    def __init__(self, tile: int = TILE) -> None:
        """`threading.local` calls this once for each thread, at its first use."""
        self.tile = tile
        self.tiles = self  # compiles the kernels of single tiles
        self._inherited: Inherited[tuple[dict[tuple[Any, ...], Kernel], Slots]] = Inherited(
            self._left, lambda: ({}, {})
        )
        self._kernels, self._scratch = self._inherited.value

    def run(
        self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...], do: Callable[..., None]
    ) -> None:
        """Run the formula; its kernels are called by `do`, which may record them."""
        kernel = self.kernel(formula, inputs, outputs)
        if isinstance(kernel, Tiles):
            for part, arrays in kernel.calls((*inputs, *outputs)):
                do(part, *arrays)
        else:
            do(kernel, *inputs, *outputs)

    def kernel(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> Callable[..., None]:
        """The function that runs the formula on arrays with these shapes, dtypes and aliases."""
        key = _key(formula, inputs, outputs, self.tile)
        kernel = self._kernels.get(key)
        if kernel is None:
            if len(self._kernels) >= MOST_KERNELS:
                self._kernels.clear()
            kernel = self._kernels[key] = self._build(key, formula, inputs, outputs)
        return kernel

    def row_loops(self, *arrays: Any) -> tuple[Callable[..., None], ...] | None:
        """Loops along rows for softmax and cross-entropy, or None without Numba; see `numba/compiler.py`."""
        return None

    def _build(
        self, key: tuple[Any, ...], formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]
    ) -> Callable[..., None]:
        shape = np.broadcast_shapes(*(a.shape for a in (*inputs, *outputs) if isinstance(a, np.ndarray)))
        for output in outputs:
            if output.shape != shape:
                raise ValueError(f"{formula}: an output of shape {output.shape} cannot hold a result of shape {shape}")
        if math.prod(shape) <= self.tile:
            return self._compile(formula, inputs, outputs)
        return self._tiled(formula, inputs, outputs, shape)

    def _tiled(
        self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...], shape: Shape
    ) -> Callable[..., None]:
        """A kernel for each tile. They are looked up here and not at every run, which would take longer than a tile."""
        flat = all(_flattens(a, shape) for a in (*inputs, *outputs))
        if flat:
            shape = (math.prod(shape),)
        tiles = Tiles(inputs, outputs, flat)
        arrays = tiles.flattened((*inputs, *outputs))
        for tile in _split(shape, self.tile):
            indices = tuple(
                None if i in tiles.twins else _index(a, shape, tile) for i, a in enumerate((*inputs, *outputs))
            )
            parts = tiles.parts(arrays, indices)
            kernel = self.tiles.kernel(formula, parts[: len(inputs)], parts[len(inputs) :])
            tiles.kernels.append((kernel, indices))
        return tiles

    def _compile(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> Callable[..., None]:
        traced = formula.trace(tuple(argument_key(a) for a in inputs))
        function = Lowering(self, traced, inputs, outputs).function()
        return scalar_function(traced, inputs, outputs, function) or function

    def scratch(self, dtype: np.dtype[Any], slot: int, shape: Shape) -> Array:
        """Slot number `slot` of this dtype, as an array of the given shape."""
        size = math.prod(shape)
        if (dtype, slot) not in self._scratch:
            self._scratch[dtype, slot] = np.empty(self.tile, dtype)
        return self._scratch[dtype, slot][:size].reshape(shape)


class Tiles:
    """A kernel that calls a kernel for each tile."""

    def __init__(self, inputs: tuple[Any, ...], outputs: tuple[Array, ...], flat: bool) -> None:
        self.flat = flat  # whether all arrays are cut as vectors
        count = len(inputs)
        aliases = [(i, count + j) for i, a in enumerate(inputs) for j, o in enumerate(outputs) if a is o]
        self.twins = dict(aliases)  # for each input that is also an output, the index of that output
        self.kernels: list[tuple[Callable[..., None], Indices]] = []

    def __call__(self, *arrays: Any) -> None:
        for kernel, parts in self.calls(arrays):
            kernel(*parts)

    def calls(self, arrays: tuple[Any, ...]) -> Iterator[tuple[Callable[..., None], tuple[Any, ...]]]:
        """The kernel of each tile, with its parts of these arrays."""
        arrays = self.flattened(arrays)
        for kernel, indices in self.kernels:
            yield kernel, self.parts(arrays, indices)

    def flattened(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.reshape(-1) if isinstance(a, np.ndarray) else a for a in arrays) if self.flat else arrays

    def parts(self, arrays: tuple[Any, ...], indices: Indices) -> tuple[Any, ...]:
        parts = [a if i is None else a[i] for a, i in zip(arrays, indices)]
        for i, j in self.twins.items():  # the same view for both, so that the kernel recognises the alias
            parts[i] = parts[j]
        return tuple(parts)


def _key(formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...], tile: int) -> tuple[Any, ...]:
    """The key of a compiled function: shapes, dtypes, constants, and which input is which output."""
    first = outputs[0]
    parts: list[Any] = [formula, first.shape, first.dtype]
    for a in inputs:
        if type(a) is np.ndarray:
            parts += (a.shape, a.dtype, a is first)
        else:
            parts.append(a)
    for o in outputs[1:]:
        parts += (o.shape, o.dtype, *[a is o for a in inputs])
    if outputs[0].size > tile:
        parts += [a.flags.c_contiguous for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
    return tuple(parts)


def _flattens(a: Any, shape: Shape) -> bool:
    """Whether the array can be cut as a vector: it has every element of the shape in order, or only one."""
    return not isinstance(a, np.ndarray) or a.size == 1 or (a.shape == shape and a.flags.c_contiguous)


def _split(shape: Shape, tile: int) -> list[tuple[slice, ...]]:
    """Cut a shape along its leading axes into boxes of at most `tile` elements."""
    axis = next((i for i, extent in enumerate(shape) if extent > 1), None)
    if axis is None:
        return [(slice(None),) * len(shape)]
    rest = math.prod(shape[axis + 1 :])
    step = max(1, tile // rest)
    boxes = []
    for start in range(0, shape[axis], step):
        part = slice(start, min(start + step, shape[axis]))
        inner = _split((1,) * (axis + 1) + shape[axis + 1 :], tile) if rest > tile else [(slice(None),) * len(shape)]
        boxes += [(slice(None),) * axis + (part,) + box[axis + 1 :] for box in inner]
    return boxes


def _index(a: Any, shape: Shape, tile: tuple[slice, ...]) -> tuple[slice, ...] | None:
    """The part of a broadcast operand that a tile of the whole shape needs; None for all of it."""
    if not isinstance(a, np.ndarray) or a.size == 1:
        return None
    extents = (math.prod(a.shape),) if len(shape) == 1 else a.shape
    outer = len(shape) - len(extents)
    return tuple(tile[outer + i] if extent == shape[outer + i] else slice(None) for i, extent in enumerate(extents))
