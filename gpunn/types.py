"""Names for the types that cross module borders."""

from __future__ import annotations

from typing import Any, TypeAlias

# A NumPy or CuPy array. The two share no base class and CuPy is optional, so the alias is all a checker gets.
Array: TypeAlias = Any
# The shape of one example: an array of n examples has shape (n, *shape), of K models (K, n, *shape).
Shape: TypeAlias = tuple[int, ...]
