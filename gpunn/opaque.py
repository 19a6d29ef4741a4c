"""For the trial of a step (`gpunn/recordable.py`): arrays that show their shapes but not their numbers, and a backend
that lists the operations that it is called for and does nothing."""

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

HOLDERS = (Frame, OptimizerFrame, Part, RegularizationFrame, ParameterStore)  # these have arrays as attributes
Call = tuple[Any, ...]  # the name of an operation, and the name and key of each argument, see `key_of`


class NotRecordableError(Exception):
    """A step does something that replaying its record would not do."""


# Arrays that do not show their numbers


class Opaque:
    """Takes the place of an array: it has its shape and views, and raises a NotRecordableError for everything else."""

    __slots__ = ("_array", "_key")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Array) -> None:
        self._array = array
        self._key = _address(array), array.shape, array.strides, array.dtype

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


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr)


def _bounds(array: Any) -> tuple[int, int]:
    """The start and the end (exclusive) of the memory of an array of NumPy or a device."""
    start = _address(array)
    spans = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape)]
    return start + sum(s for s in spans if s < 0), start + sum(s for s in spans if s > 0) + array.dtype.itemsize


class OpaqueHolder:
    """Takes the place of one of HOLDERS; its arrays are opaque. Attributes that are set are kept here only."""

    def __init__(self, holder: Any, ops: TrialOps) -> None:
        vars(self).update(_holder=holder, _ops=ops, _known={})

    def __getattr__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._ops if name == "ops" else opaque(getattr(self._holder, name), self._ops)
        return self._known[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._known[name] = value


def opaque(value: Any, ops: TrialOps) -> Any:
    """The value with an Opaque in place of every array in it."""
    if isinstance(value, HOLDERS):
        return ops.holders.setdefault(id(value), OpaqueHolder(value, ops))
    if isinstance(value, dict):
        return {name: opaque(item, ops) for name, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(opaque(item, ops) for item in value)
    return Opaque(value) if ops.device_ops.owns(value) else value


# Operations that are listed and not done


def _listed(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an operation: its calls are listed and not done; of a composed one, the operations that it calls are."""
    if operation.composed:
        return function

    def call(ops: TrialOps, *arguments: Any, **options: Any) -> Any:
        named = operation.named(arguments, options)
        for name, value in operation.arrays(named):
            number = name == "inputs" and isinstance(value, (int, float, np.number))
            if not number and not isinstance(value, Opaque):
                _refuse(f"hands {operation.name} a {type(value).__name__} of its own")
        ops.calls.append((operation.name, *((name, key_of(value)) for name, value in named.items())))
        return None if operation.returns is None else named[operation.returns]

    return call


def key_of(value: Any) -> Any:
    """A key that is equal for equal arguments; for arrays, if they are the same memory with the same layout."""
    if isinstance(value, Opaque):
        return value._key
    if isinstance(value, tuple):
        return tuple(map(key_of, value))
    return repr(value) if isinstance(value, (str, int, float, bool, np.generic)) else id(value)


@operations_from(wrap=_listed)
class TrialOps(Backend):
    """Takes the place of a backend in the trial of a step, and lists its `calls`."""

    def __init__(self, ops: Backend) -> None:
        self.device_ops = ops  # the real backend
        self.name, self.device = ops.name, ops.device
        self.calls: list[Call] = []
        self.holders: dict[int, OpaqueHolder] = {}

    def __getattribute__(self, name: str) -> Any:
        if name in ("xp", "math", "empty", "zeros", "from_host", "to_host", "adopt", "synchronize", "all_finite"):
            _refuse(f"asks the backend for {name}")
        return super().__getattribute__(name)

    def owns(self, array: Any) -> bool:
        return isinstance(array, Opaque)
