"""The declaration of an operation. It stands once, on the function in `reference/` that defines what it computes:

    @operation(writes=["out"], source=SHARED, indices=1, out=_axes_of_source)
    def gather(ops, source, indices, out, scale=1.0): ...

Every argument that is an array, or a tuple of arrays, is named with the number of axes that it has for a single model.
In a population it may have one more axis in front, with one part for each model; a SHARED array never has that axis. A
function in place of the number computes it from the arguments.

These read the declarations: `cpu/recording.py`, `cpu/model_threads.py`, `cuda/guard.py`, `gpunn/memory.py` (which
counts bytes), `gpunn/opaque.py` (which tries layers of users), and the tests of signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from inspect import signature
from types import ModuleType
from typing import Any, Final, TypeVar


class Sharing(Enum):
    """The type of SHARED."""

    SHARED = "shared"


SHARED: Final = Sharing.SHARED  # in place of a number of axes: one array for all models
Arguments = Mapping[str, Any]  # of a call, by name
Axes = int | Callable[[Arguments], int] | Sharing
Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@dataclass(frozen=True, eq=False)
class Operation:
    """A declared operation."""

    function: Callable[..., Any]  # the reference function
    axes: Mapping[str, Axes]  # of each argument that is an array, for a single model
    writes: frozenset[str]  # the arrays that it writes
    composed: bool  # the reference function only calls other operations, so recorder and trials look inside it

    @property
    def name(self) -> str:
        return self.function.__name__

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the arguments after the backend."""
        return tuple(signature(self.function).parameters)[1:]

    @cached_property
    def returns(self) -> str | None:
        """The name of the argument that it returns: "out" or "dZ" if it writes that, else None."""
        return next((name for name in ("out", "dZ") if name in self.writes), None)

    def named(self, arguments: Sequence[Any], options: Arguments) -> dict[str, Any]:
        """The arguments of a call by name."""
        return {**dict(zip(self.parameters, arguments)), **options}

    def axes_of(self, name: str, arguments: Arguments) -> int | None:
        """How many axes an argument has for a single model; None if it is SHARED or not an array."""
        axes = self.axes.get(name)
        if isinstance(axes, Sharing):
            return None
        return axes(arguments) if callable(axes) else axes

    def arrays(self, arguments: Arguments) -> Iterator[tuple[str, Any]]:
        """Each array of a call with the name of its argument; the inputs of a formula may be numbers."""
        for name in self.axes:
            value = arguments.get(name)
            for item in value if isinstance(value, tuple) else (value,):
                if item is not None:
                    yield name, item


Wrap = Callable[[Operation, Callable[..., Any]], Callable[..., Any]]
OPERATIONS: dict[str, Operation] = {}  # every operation, by name


def operation(*, writes: Sequence[str], composed: bool = False, **axes: Axes) -> Callable[[Function], Function]:
    """Declare an operation; see the top of this file."""

    def declare(function: Function) -> Function:
        OPERATIONS[function.__name__] = Operation(function, axes, frozenset(writes), composed)
        return function

    return declare


def operations_from(*families: ModuleType, wrap: Wrap | None = None) -> Callable[[Class], Class]:
    """Decorate the class of a backend: it takes the operations that these modules define and inherits the others.

    `wrap` is applied to every operation, also to an inherited one.
    """

    def complete(backend: Class) -> Class:
        for declared in OPERATIONS.values():
            found = [vars(family)[declared.name] for family in families if declared.name in vars(family)]
            function = found[0] if found else getattr(backend, declared.name)
            setattr(backend, declared.name, wrap(declared, function) if wrap else function)
        return backend

    return complete


def same_as(name: str) -> Callable[[Arguments], int]:
    """Axes of an array that an elementwise operation broadcasts to the argument `name`: as many as that one has."""

    def axes(arguments: Arguments) -> int:
        array = arguments[name]
        array = array[0] if isinstance(array, tuple) else array
        return int(array.ndim - 1)

    return axes
