"""Scratch: memory for the intermediate results of operations."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from gpunn.types import Array, Shape

MOST_SHAPES = 64  # for which the starts of rows are kept


class Scratch(threading.local):
    """Arrays by name and dtype; each thread has its own. The next call with the same name and dtype returns the same
    memory, or new memory if it asks for more."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, Any], Array] = {}
        self._ones: dict[Any, Array] = {}
        self._starts: dict[Shape, tuple[Array, Array]] = {}

    def array(self, name: str, shape: Shape, dtype: Any) -> Array:
        size = math.prod(shape)
        flat = self._flat.get((name, dtype))
        if flat is None or flat.size < size:
            flat = self._flat[name, dtype] = np.empty(size, dtype)
        return flat[:size].reshape(shape)

    def ones(self, count: int, dtype: Any) -> Array:
        """A row (1, count) of ones."""
        row = self._ones.get(dtype)
        if row is None or row.shape[1] < count:
            row = self._ones[dtype] = np.ones((1, count), dtype)
        return row[:, :count]

    def starts(self, shape: Shape) -> tuple[Array, Array]:
        """For arrays of this shape, the flat index of each row's first element, and an array of the same shape and any
        content to write to. Do not write to the first."""
        starts = self._starts.get(shape)
        if starts is None:
            if len(self._starts) > MOST_SHAPES:
                self._starts.clear()
            rows = math.prod(shape[:-1])
            first = (np.arange(rows, dtype=np.int64) * shape[-1]).reshape(shape[:-1])
            starts = self._starts[shape] = first, np.empty_like(first)
        return starts
