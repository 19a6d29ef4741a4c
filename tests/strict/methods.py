"""The operators and methods of the stand-in's arrays, in terms of its functions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.strict import names
from tests.strict.array import DeviceArray

OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift", "matmul": "matmul",
}  # fmt: skip
COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def attach(array: type[DeviceArray]) -> None:
    """Give an array class its operators and methods; they find their functions in `array.functions`."""
    for short, name in (OPERATORS | COMPARISONS).items():
        setattr(array, f"__{short}__", _binary(name))
    for short, name in OPERATORS.items():
        setattr(array, f"__r{short}__", _reflected(name))
        if name != "matmul":
            setattr(array, f"__i{short}__", _in_place(name))
    for short, name in UNARY.items():
        setattr(array, f"__{short}__", _forward(name))
    for name in names.METHODS:
        setattr(array, name, _forward(name))
    for method in (astype, copy, flatten, reshape, transpose, view, sort, argmax, argmin, clip):
        setattr(array, method.__name__, method)


def _binary(name: str) -> Callable[..., Any]:
    return lambda self, other: self.functions[name](self, other)


def _reflected(name: str) -> Callable[..., Any]:
    return lambda self, other: self.functions[name](other, self)


def _in_place(name: str) -> Callable[..., Any]:
    return lambda self, other: self.functions[name](self, other, out=self)


def _forward(name: str) -> Callable[..., Any]:
    def method(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        return self.functions[name](self, *args, **kwargs)

    method.__name__ = name
    return method


def astype(
    self: DeviceArray, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: Any = True
) -> Any:
    """Convert; the same array where nothing changes and no copy is asked for."""
    host, kind = self.host, np.dtype(dtype)
    if not copy and host.dtype == kind and np.array(host, order=order, copy=None) is host:
        return self
    if casting is not None and not np.can_cast(host.dtype, kind, casting):
        raise TypeError(f"Cannot cast array data from {host.dtype!r} to {kind!r} according to the rule {casting!r}")
    return self.functions["compute"](lambda: host.astype(kind, order=order))


def copy(self: DeviceArray, order: Any = "C") -> Any:
    """A copy on the device."""
    host = self.host
    return self.functions["compute"](lambda: host.copy(order=order))


def flatten(self: DeviceArray, order: Any = "C") -> Any:
    """A copy of one axis."""
    host = self.host
    return self.functions["compute"](lambda: host.flatten(order))


def reshape(self: DeviceArray, *shape: Any, order: Any = "C") -> Any:
    """A view where the strides allow one, else a copy."""
    return self.functions["reshape"](self, shape[0] if len(shape) == 1 else shape, order)


def transpose(self: DeviceArray, *axes: Any) -> Any:
    """A view with its axes in another order."""
    return self.functions["transpose"](self, (axes[0] if len(axes) == 1 else axes) or None)


def view(self: DeviceArray, dtype: Any = None) -> Any:
    """The same memory, under another type if asked."""
    return self.view_of_host(self.host.view() if dtype is None else self.host.view(dtype))


def sort(self: DeviceArray, axis: int = -1, kind: Any = None) -> None:
    """Sort in place."""
    self.host[...] = self.functions["sort"](self, axis, kind).host


def argmax(self: DeviceArray, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The place of the largest element."""
    return self.functions["argmax"](self, axis, dtype, out, keepdims)


def argmin(self: DeviceArray, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The place of the smallest element."""
    return self.functions["argmin"](self, axis, dtype, out, keepdims)


def clip(self: DeviceArray, min: Any = None, max: Any = None, out: Any = None) -> Any:
    """Limit to a range."""
    return self.functions["clip"](self, min, max, out)
