"""Memory that operations work in."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from gpunn.types import Array, Shape

MOST_SHAPES = 64  # for which the places of rows are kept


class Scratch(threading.local):
    """Arrays by name and dtype: grown when needed, otherwise the same memory at every call; one set for each thread."""

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
        """A row of them."""
        row = self._ones.get(dtype)
        if row is None or row.shape[1] < count:
            row = self._ones[dtype] = np.ones((1, count), dtype)
        return row[:, :count]

    def starts(self, shape: Shape) -> tuple[Array, Array]:
        """The flat index of each row's first element, in the shape of the rows; and room for as many others."""
        starts = self._starts.get(shape)
        if starts is None:
            if len(self._starts) > MOST_SHAPES:
                self._starts.clear()
            rows = math.prod(shape[:-1])
            first = (np.arange(rows, dtype=np.int64) * shape[-1]).reshape(shape[:-1])
            starts = self._starts[shape] = first, np.empty_like(first)
        return starts
