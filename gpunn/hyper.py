"""Checks of the arguments of layers, losses, optimizers and others."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpunn.errors import ConfigurationError
from gpunn.types import Shape

T = TypeVar("T")
LARGEST = sys.float_info.max  # a Python int may be larger
LARGEST_WHOLE = 2**63 - 1  # the largest index of an array
AXES, NUMBERS = 62, 2**58  # of one example: NumPy has 64 axes, two for models and rows, and counts bytes in 63 bits
LONGEST = 500  # characters of a value in an error


def number(
    where: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """The value as a float; raise an error unless it is a finite number in the interval."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    plain = value.item() if isinstance(value, np.generic) else value  # NumPy would compare in the type of `value`
    fits = real and -LARGEST <= plain <= LARGEST and low <= plain <= high
    if not fits or (open_low and plain == low) or (open_high and plain == high):
        if low == -math.inf and high == math.inf:
            expected = "a finite number"
        else:
            left = "" if low == -math.inf else f"{low:g} {'<' if open_low else '<='} "
            right = "" if high == math.inf else f" {'<' if open_high else '<='} {high:g}"
            expected = f"a number with {left}value{right}"
        raise ConfigurationError(where, expected=expected, got=shown(value), fix="choose a value in that range")
    return float(value)


def one_or_several(where: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
    """One checked value, or a tuple of them from a sequence; `check` returns what to keep of each."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value:
        return tuple(check(f"{where}[{k}]", v) for k, v in enumerate(value))
    return check(where, value)


def whole(where: str, value: Any, *, low: int = 1, high: int = LARGEST_WHOLE) -> int:
    """The value as an int; raise an error unless it is a whole number from `low` to `high`."""
    known = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not known or not low <= value <= high:
        limit = f" and <= {high}" if known and value > high else ""
        raise ConfigurationError(
            where, expected=f"a whole number >= {low}{limit}", got=shown(value), fix="give such a number"
        )
    return int(value)


def whole_shape(where: str, extents: Sequence[Any]) -> Shape:
    """A shape of whole numbers, each 1 or more."""
    if len(extents) <= AXES:
        extents = [whole(where, extent) for extent in extents]
    shape = tuple(extents)
    check_shape(where, shape)
    return shape


def check_shape(where: str, shape: Shape) -> None:
    """Raise an error for a shape that no machine can hold."""
    if len(shape) > AXES or math.prod(map(int, shape)) > NUMBERS:
        raise ConfigurationError(
            where,
            expected=f"at most {AXES} axes and {NUMBERS} numbers",
            got=f"{len(shape)} axes" if len(shape) > AXES else f"shape {shown(shape)}",
            fix="use fewer or smaller axes",
        )


def shown(value: Any) -> str:
    """A value as code, cut off if it is too long to read."""
    try:
        text = repr(value)
    except ValueError:  # a whole number with thousands of digits
        return f"a {type(value).__name__} of more digits than Python prints"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def instance(where: str, value: Any, kind: type[T], *, expected: str, fix: str) -> T:
    """The value itself; raise an error unless it is an instance of this class."""
    if not isinstance(value, kind):
        raise ConfigurationError(where, expected=expected, got=repr(value), fix=fix)
    return value


def choice(where: str, value: Any, options: tuple[Any, ...]) -> Any:
    """The value itself; raise an error unless it is one of the options."""
    if not any(value is o or (type(value) is type(o) and value == o) for o in options):
        named = ", ".join(repr(o) for o in options)
        raise ConfigurationError(where, expected=f"one of {named}", got=shown(value), fix="choose one of them")
    return value
