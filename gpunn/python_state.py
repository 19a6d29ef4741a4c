"""The state in Python that the methods of users' classes can change, beside the arrays of a step: to compare, and to
put back after a trial."""

from __future__ import annotations

import copy
import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

LARGEST = 4096  # elements of a list or an array that are compared
DEEPEST = 4  # levels of attributes that are followed
NOT_FOLLOWED = (FunctionType, ModuleType, type, staticmethod, classmethod, property)
OURS = ("gpunn", "numpy", "builtins")  # packages whose state no user's class keeps


class PythonState:
    """What users' classes could count in: fields, attributes of their classes, closures, and the globals they name."""

    def __init__(self, values: list[Any]) -> None:
        self.places = [place for place in _places(values) if not isinstance(place.value, NOT_FOLLOWED)]
        self.seen = self.now()
        self.drawn = random.getstate(), np.random.get_state()
        self.copies = [_copied(place.value) for place in self.places]

    def now(self) -> list[Any]:
        """Something to compare with what this returned before."""
        return [
            random.getstate(),
            comparable(np.random.get_state(legacy=False)),
            *(comparable(place.get()) for place in self.places),
        ]

    def put_back(self) -> None:
        """Undo all changes since this was made, as far as copies could be made."""
        random.setstate(self.drawn[0])
        np.random.set_state(self.drawn[1])
        for place, before, now, copied in zip(self.places, self.seen[2:], self.now()[2:], self.copies):
            if now != before and copied is not MISSING:
                with suppress(AttributeError, TypeError):  # a place that cannot be written
                    place.put(place.value if _refill(place.value, copied) else copied)


MISSING = object()


@dataclass
class Place:
    """Where a value is found, with the value as it was first found."""

    value: Any
    get: Callable[[], Any]
    put: Callable[[Any], None]


def _places(values: list[Any]) -> Iterator[Place]:
    seen: set[Any] = set()
    for value in values:
        for name, item in list(vars(value).items()):
            yield Place(item, partial(vars(value).get, name), partial(object.__setattr__, value, name))
        for kind in type(value).__mro__:
            if kind.__module__.partition(".")[0] not in OURS and kind not in seen:
                seen.add(kind)
                yield from _of_class(kind, seen)


def _of_class(kind: type, seen: set[Any]) -> Iterator[Place]:
    for name, item in list(vars(kind).items()):
        function = item.fget if isinstance(item, property) else getattr(item, "__func__", item)
        if isinstance(function, FunctionType):
            yield from _of_function(function, seen)
        elif not name.startswith("__"):
            yield Place(item, partial(vars(kind).get, name), partial(setattr, kind, name))


def _of_function(function: FunctionType, seen: set[Any]) -> Iterator[Place]:
    """The values in a function's closure and defaults, and of the globals that it names; also of functions there."""
    if function in seen or str(function.__module__).partition(".")[0] in OURS:
        return
    seen.add(function)
    found = [Place(*_cell(cell)) for cell in function.__closure__ or () if _is_filled(cell)]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    found += [Place(item, partial(_same, item), _same) for item in defaults]  # changed in place, if at all
    space, names = function.__globals__, function.__code__.co_names
    for name in names:
        held = space.get(name)
        if isinstance(held, (ModuleType, type)):
            if held.__name__.partition(".")[0] not in OURS:
                known = [attribute for attribute in names if attribute in vars(held)]
                found += [Place(vars(held)[a], partial(vars(held).get, a), partial(setattr, held, a)) for a in known]
        elif name in space:
            found.append(Place(held, partial(space.get, name), partial(space.__setitem__, name)))
    for place in found:
        if isinstance(place.value, FunctionType):
            yield from _of_function(place.value, seen)
        else:
            yield place


def _same(value: Any) -> Any:
    return value


def _cell(cell: Any) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    return cell.cell_contents, lambda: cell.cell_contents, partial(setattr, cell, "cell_contents")


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def comparable(value: Any, depth: int = 0) -> Any:
    """A copy of a value that can be compared with a later one; None of what is too large or too deep."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    if depth > DEEPEST or isinstance(value, NOT_FOLLOWED):
        return None
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.size <= LARGEST and value.dtype != object else None
    if isinstance(value, Mapping):
        items = itertools.islice(value.items(), LARGEST)
        return [len(value), *((comparable(k, depth + 1), comparable(v, depth + 1)) for k, v in items)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [len(value), *(comparable(item, depth + 1) for item in itertools.islice(value, LARGEST))]
    if isinstance(value, np.random.Generator):
        return comparable(value.bit_generator.state, depth)
    if isinstance(value, np.random.RandomState):
        return comparable(value.get_state(legacy=False), depth)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, (itertools.count, itertools.cycle)):
        return repr(value)
    if type(value).__module__.partition(".")[0] in OURS:
        return None
    return comparable(vars(value), depth + 1) if hasattr(value, "__dict__") else None


def _copied(value: Any) -> Any:
    """A copy, MISSING where none can be made or it would be large."""
    if getattr(value, "size", 0) > LARGEST or (hasattr(value, "__len__") and len(value) > LARGEST):
        return MISSING
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python gives up copies of iterators
        try:
            return copy.deepcopy(value)
        except Exception:
            return MISSING


def _refill(value: Any, copied: Any) -> bool:
    """Give an object that others may hold the content of its copy; False where it has to be replaced."""
    if value is copied:  # such as a function
        return True
    if isinstance(value, (list, bytearray)):
        value[:] = copied
    elif isinstance(value, np.ndarray):
        value[...] = copied
    elif isinstance(value, set):
        value.clear()
        value.update(copied)
    elif isinstance(value, dict):
        _refill_each(value, copied)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = copied.bit_generator.state
    elif isinstance(value, np.random.RandomState):
        value.set_state(copied.get_state())
    elif isinstance(value, random.Random):
        value.setstate(copied.getstate())
    elif hasattr(value, "__dict__"):
        _refill_each(vars(value), vars(copied))
    else:
        return False
    return True


def _refill_each(held: dict[Any, Any], copied: Mapping[Any, Any]) -> None:
    for name in held.keys() - copied.keys():
        del held[name]
    for name, item in copied.items():
        if name not in held or not _refill(held[name], item):
            held[name] = item
