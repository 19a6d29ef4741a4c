"""Checks of the numbers that layers, losses and optimizers are made with."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from gpunn.errors import ConfigurationError

LARGEST = sys.float_info.max  # a Python int may lie beyond


def number(
    where: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A finite real number in an interval; infinity and NaN are refused whatever the interval."""
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
        raise ConfigurationError(where, expected=expected, got=repr(value), fix="choose a value in that range")
    return float(value)


def numbers(where: str, value: Any, **interval: Any) -> float | tuple[float, ...]:
    """One number for all models, or a sequence with one for each, kept as a tuple."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)) and value:
        return tuple(number(f"{where}[{k}]", v, **interval) for k, v in enumerate(value))
    return number(where, value, **interval)


def whole(where: str, value: Any, *, low: int = 1) -> int:
    """A whole number not below `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ConfigurationError(
            where, expected=f"a whole number >= {low}", got=repr(value), fix="give such a number"
        )  # fmt: skip
    return int(value)


def choice(where: str, value: Any, options: tuple[Any, ...]) -> Any:
    """One of a few named options."""
    if not any(value is o or (type(value) is type(o) and value == o) for o in options):
        named = ", ".join(repr(o) for o in options)
        raise ConfigurationError(where, expected=f"one of {named}", got=repr(value), fix="choose one of them")
    return value
