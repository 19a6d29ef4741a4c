"""Types that many modules use, and the two axes of a matrix."""

from __future__ import annotations

from typing import Any, TypeAlias

# A NumPy or CuPy array. The two have no common base class and CuPy is optional, so type checkers see Any.
Array: TypeAlias = Any
# The shape of one example: an array of n examples has shape (n, *shape), of K models (K, n, *shape).
Shape: TypeAlias = tuple[int, ...]

ROWS, COLUMNS = -1, -2  # the axis that a reduction runs along: within each row, within each column
