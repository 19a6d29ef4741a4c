"""What an operation is, declared once: on the function in `reference/` that says what the operation means.

    @operation(writes=["out"], table=2, indices=1, out=2)
    def lookup(ops, table, indices, out): ...

Every argument that is an array, or a tuple of arrays, is named with the axes that it has in a single model. In a
population it may have one more in front, with a part for each model; an array that is SHARED never has. A function in
place of the number finds it from the arguments.

Whatever treats all operations alike reads these declarations: the recorder and the model threads of the CPU, the guard
of CUDA, the rehearsal that counts bytes, the trial of a layer, and the tests of signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from types import ModuleType
from typing import Any, TypeVar

Arguments = Mapping[str, Any]  # of a call, by name
Axes = int | Callable[[Arguments], int] | None
SHARED: Axes = None
Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation's declaration."""

    function: Callable[..., Any]  # the plain one, which says what it means
    axes: Mapping[str, Axes]  # of each argument that is an array, in a single model
    writes: frozenset[str]  # the arrays that it writes
    elementary: bool  # whether it is done at once; else it is made of other operations

    @property
    def name(self) -> str:
        return self.function.__name__

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the arguments, without the backend."""
        return tuple(signature(self.function).parameters)[1:]

    @cached_property
    def returns(self) -> str | None:
        """The argument that it returns: the array that it writes last, if that is an output by name."""
        return next((name for name in ("out", "dZ") if name in self.writes), None)

    def named(self, arguments: Sequence[Any], options: Arguments) -> dict[str, Any]:
        """The arguments of a call by name."""
        return {**dict(zip(self.parameters, arguments)), **options}

    def axes_of(self, name: str, arguments: Arguments) -> int | None:
        """How many axes an argument has in a single model; None where it is shared or no array."""
        axes = self.axes.get(name)
        return axes(arguments) if callable(axes) else axes

    def arrays(self, arguments: Arguments) -> Iterator[tuple[str, Any]]:
        """What stands for the arrays in a call, each with its argument's name; of formulas, numbers too."""
        for name in self.axes:
            value = arguments.get(name)
            for item in value if isinstance(value, tuple) else (value,):
                if item is not None:
                    yield name, item


Around = Callable[[Operation, Callable[..., Any]], Callable[..., Any]]
OPERATIONS: dict[str, Operation] = {}  # all that there are, by name


def operation(*, writes: Sequence[str], elementary: bool = True, **axes: Axes) -> Callable[[Function], Function]:
    """Declare an operation; see the top of this file."""

    def declared(function: Function) -> Function:
        OPERATIONS[function.__name__] = Operation(function, axes, frozenset(writes), elementary)
        return function

    return declared


def operations_from(*families: ModuleType, around: Around | None = None) -> Callable[[Class], Class]:
    """Of a backend's class: it has the operations that these files write, and inherits the others.

    `around` goes around every one of them, those that the class inherits too.
    """

    def complete(backend: Class) -> Class:
        for declared in OPERATIONS.values():
            own = [vars(family)[declared.name] for family in families if declared.name in vars(family)]
            function = own[0] if own else getattr(backend, declared.name)
            setattr(backend, declared.name, around(declared, function) if around else function)
        return backend

    return complete


def same_as(name: str) -> Callable[[Arguments], int]:
    """For operations that go through all elements: an array is broadcast to this one, so it has its axes."""

    def axes(arguments: Arguments) -> int:
        array = arguments[name]
        array = array[0] if isinstance(array, tuple) else array
        return int(array.ndim - 1)

    return axes
