"""A step seen from outside: arrays that show their shapes and keep their numbers, and a backend that writes down what
it is asked for and does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from gpunn.backends.operation import Operation, operations_from
from gpunn.backends.reference.backend import Backend
from gpunn.frame import Frame
from gpunn.optimizers.base import OptimizerFrame, Part
from gpunn.parameters import ParameterStore
from gpunn.regularization import RegularizationFrame
from gpunn.types import Array, Shape

HOLDERS = (Frame, OptimizerFrame, Part, RegularizationFrame, ParameterStore)  # what has arrays as attributes
Call = tuple[Any, ...]  # the name of an operation, and what tells its arguments from others


class NotRecordableError(Exception):
    """A step does something that a record would not repeat."""


# Arrays that do not show their numbers


class Opaque:
    """Stands for an array: has its shape and its views, and refuses all that would look at its numbers."""

    __slots__ = ("_array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        shape: Shape = self._array.shape
        return shape

    @property
    def ndim(self) -> int:
        return len(self._array.shape)

    @property
    def size(self) -> int:
        return int(self._array.size)

    @property
    def dtype(self) -> Any:
        return self._array.dtype

    @property
    def T(self) -> Opaque:
        return self._view(self._array.T)

    @property
    def mT(self) -> Opaque:
        return self._view(self._array.mT)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Opaque:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts):
            _refuse("picks elements by an array")
        return self._view(self._array[index if any(p is Ellipsis for p in parts) else (*parts, ...)])

    def reshape(self, *shape: Any) -> Opaque:
        return self._view(self._array.reshape(*shape))

    def transpose(self, *axes: Any) -> Opaque:
        return self._view(self._array.transpose(*axes))

    def swapaxes(self, first: int, second: int) -> Opaque:
        return self._view(self._array.swapaxes(first, second))

    def _view(self, array: Array) -> Opaque:
        low, high = _bounds(self._array)
        start, stop = _bounds(array)
        if array.size and not low <= start < stop <= high:
            _refuse("asks for a copy of an array")
        return Opaque(array)

    def __array_ufunc__(self, ufunc: Any, method: str, *arguments: Any, **options: Any) -> NoReturn:
        _refuse(f"calls NumPy's {ufunc.__name__}")

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> NoReturn:
        _refuse(f"calls NumPy's {function.__name__}")

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        _refuse("hands an array to NumPy")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        _refuse("writes to an array")

    def __iter__(self) -> NoReturn:
        _refuse("goes through an array")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"asks an array for its {name}")


def _calculates(self: Opaque, *others: Any) -> NoReturn:
    _refuse("calculates with an array")


def _looks(self: Opaque, *others: Any) -> NoReturn:
    _refuse("looks at a number of an array")


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    for _prefix in ("", "r", "i"):
        setattr(Opaque, f"__{_prefix}{_name}__", _calculates)
for _name in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Opaque, f"__{_name}__", _calculates)
for _name in ("bool", "float", "int", "index", "complex"):
    setattr(Opaque, f"__{_name}__", _looks)


def _refuse(what: str) -> NoReturn:
    raise NotRecordableError(what)


def _bounds(array: Any) -> tuple[int, int]:
    """The first and the last address of an array of NumPy or CuPy."""
    start = int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)
    reach = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + array.dtype.itemsize


class OpaqueHolder:
    """A frame or its like, whose arrays are opaque. What is written to it stays here."""

    def __init__(self, holder: Any, ops: WritingOps) -> None:
        vars(self).update(_holder=holder, _ops=ops, _known={})

    def __getattr__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._ops if name == "ops" else opaque(getattr(self._holder, name), self._ops)
        return self._known[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._known[name] = value


def opaque(value: Any, ops: WritingOps) -> Any:
    """A value with every array in it opaque."""
    if isinstance(value, HOLDERS):
        return ops.holders.setdefault(id(value), OpaqueHolder(value, ops))
    if isinstance(value, dict):
        return {name: opaque(item, ops) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(opaque(item, ops) for item in value)
    return Opaque(value) if ops.device_ops.owns(value) else value


# Operations that are written down


def _written(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that is written down instead of done; one that is made of others is taken apart."""
    if not operation.elementary:
        return function

    def call(ops: WritingOps, *arguments: Any, **options: Any) -> Any:
        named = operation.named(arguments, options)
        for name, value in operation.arrays(named):
            number = name == "inputs" and isinstance(value, (int, float, np.number))
            if not number and not isinstance(value, Opaque):
                _refuse(f"hands {operation.name} a {type(value).__name__} of its own")
        ops.calls.append((operation.name, *((name, key_of(value)) for name, value in named.items())))
        return None if operation.returns is None else named[operation.returns]

    return call


def key_of(value: Any) -> Any:
    """What tells whether two arguments are the same."""
    if isinstance(value, Opaque):
        array = value._array
        return _bounds(array)[0], array.shape, tuple(array.strides), str(array.dtype)
    if isinstance(value, tuple):
        return tuple(map(key_of, value))
    return repr(value) if isinstance(value, (str, int, float, bool, np.generic)) else id(value)


@operations_from(around=_written)
class WritingOps(Backend):
    """Stands in for a backend in a step that is tried."""

    def __init__(self, ops: Backend) -> None:
        self.device_ops = ops
        self.name, self.device = ops.name, ops.device
        self.calls: list[Call] = []
        self.holders: dict[int, OpaqueHolder] = {}

    def __getattribute__(self, name: str) -> Any:
        if name in ("xp", "plain", "empty", "zeros", "from_host", "to_host", "adopt", "synchronize", "all_finite"):
            _refuse(f"asks the backend for {name}")
        return super().__getattribute__(name)

    def owns(self, array: Any) -> bool:
        return isinstance(array, Opaque)
