"""`Value`, the base of layers, losses and others: frozen values that print as code and are stored as JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar, Self

from gpunn.errors import ConfigurationError
from gpunn.fields import CheckedFields
from gpunn.words import check_words

DEPTH_LIMIT = 640  # levels of values and lists; code makes one nested call per level, and Python allows some 1,000


class Value(CheckedFields):
    """Base of the frozen dataclasses that describe a network; `family` is "layer", "loss" or the like.

    A class with `abstract=True` is only a base class: no file can name it.
    """

    family: ClassVar[str] = ""
    known: ClassVar[dict[tuple[str, str], type[Value]]] = {}

    def __init_subclass__(cls, *, abstract: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        key = (cls.family, cls.__name__)
        taken = Value.known.get(key)
        if taken and taken.__module__.startswith("gpunn.") and not cls.__module__.startswith("gpunn."):
            raise ConfigurationError(
                f"class {cls.__name__}",
                expected="a name of its own",
                got=f"that of gpunn's own {cls.family}",
                fix="rename it: saved networks find classes by name",
            )
        if not abstract:  # files cannot name base classes
            Value.known[key] = cls
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Value.__repr__  # type: ignore[method-assign]  # so that @dataclass does not write its own
        for name in ("__eq__", "__hash__"):  # its own ones make several calls per level
            if name not in cls.__dict__:
                setattr(cls, name, getattr(Value, name))

    def __eq__(self, other: object) -> bool:
        """Whether it is a value of the same class with equal fields."""
        if type(other) is not type(self):
            return NotImplemented
        waiting: list[tuple[Any, Any]] = [(self, other)]
        while waiting:
            one, two = waiting.pop()
            if one is two:
                continue
            if type(one) is type(two) and (isinstance(one, tuple) or _follows(one, "__eq__")):
                parts, others = _parts(one), _parts(two)
                if len(parts) != len(others):
                    return False
                waiting += zip(parts, others)
            elif one != two:
                return False
        return True

    def __hash__(self) -> int:
        plain: list[Any] = []
        waiting: list[Any] = [self]
        while waiting:
            part = waiting.pop()
            nests = isinstance(part, tuple) or _follows(part, "__hash__")
            plain.append(type(part).__name__ if nests else part)
            if nests:
                waiting += _parts(part)
        return hash(tuple(plain))

    def __new__(cls, *arguments: Any, **words: Any) -> Self:
        """Check the words before Python does, because its message would not name ours."""
        if not words.keys() <= getattr(cls, "__dataclass_fields__", {}).keys():
            parameters = inspect.signature(cls.__init__).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                check_words(cls.__name__, words, parameters)
        if cls.__init__ is object.__init__ and (arguments or words):  # it would ignore them silently
            raise TypeError(f"{cls.__name__}() takes no arguments")
        return super().__new__(cls)

    def __repr__(self) -> str:
        """Code that makes this value, without fields that have their default."""
        pieces: list[str] = []
        _write(self, pieces)
        return "".join(pieces)


def _follows(value: Any, name: str) -> bool:
    """Whether the class has this method from `Value`."""
    return getattr(type(value), name) is getattr(Value, name)


def _write(value: Any, pieces: list[str]) -> None:
    """Append code that makes the value, with tuples of layers as lists."""
    if isinstance(value, tuple) and any(isinstance(v, Value) for v in value):
        pieces.append("[")
        for i, item in enumerate(value):
            pieces.append(", " * (i > 0))
            _write(item, pieces)
        pieces.append("]")
    elif _follows(value, "__repr__"):
        pieces.append(f"{type(value).__name__}(")
        written = 0
        for position, field in enumerate(sorted(fields(value), key=lambda f: f.kw_only is True)):
            held = getattr(value, field.name)
            if field.default is MISSING or held != field.default:
                named = field.kw_only is True or written != position
                pieces.append(", " * (written > 0) + f"{field.name}=" * named)
                _write(held, pieces)
                written += 1
        pieces.append(")")
    else:
        pieces.append(repr(value))


def _parts(value: Any) -> Sequence[Any]:
    """The items of a value, tuple, list or dict, one level deep."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, dict):
        return list(value.values())
    return [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else ()


def check_depth(where: str, value: Any) -> None:
    """Raise an error for a value, or JSON, that is nested too deeply."""
    level = [value]
    for _ in range(DEPTH_LIMIT):
        inside = {id(part): part for v in level for part in _parts(v) if isinstance(part, (Value, tuple, list, dict))}
        level = list(inside.values())  # each only once: a layer may occur in many places
        if not level:
            return
    raise too_deep(where)


def too_deep(where: str) -> ConfigurationError:
    return ConfigurationError(
        where,
        expected=f"at most {DEPTH_LIMIT} levels of layers and lists inside one another",
        got="more",
        fix="put layers that follow one another into one list",
    )


def of_users(*values: Any) -> list[Any]:
    """Of these values and all values inside them, those whose classes are not gpunn's."""
    found: list[Any] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if is_dataclass(value) and not type(value).__module__.startswith("gpunn."):
            found.append(value)
        if not isinstance(value, dict):
            waiting += reversed(_parts(value))
    return found


def is_own(*values: Any) -> bool:
    """Whether the classes of these values and all values inside them are gpunn's."""
    return not of_users(*values)


def to_json(value: Any) -> Any:
    """A value as nested dicts and lists for JSON."""
    if isinstance(value, Value) and is_dataclass(value):
        names = [field.name for field in fields(value)]
        return {value.family: type(value).__name__, **dict(zip(names, map(to_json, _parts(value))))}
    if isinstance(value, (tuple, list)):
        return list(map(to_json, value))
    return value


def from_json(data: Any) -> Any:
    """The value from which `to_json` made the data. It can only make values of classes that were imported."""
    check_depth("architecture", data)
    return _made(data)


def _made(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(map(_made, data))
    if not isinstance(data, dict):
        return data
    key = next(((f, name) for f, name in data.items() if isinstance(name, str) and (f, name) in Value.known), None)
    if key is None:
        raise ConfigurationError(
            "architecture",
            expected="a known layer, loss or initializer",
            got=json.dumps(data)[:100],
            fix="import the module that defines it before loading",
        )
    given = {field: v for field, v in data.items() if field != key[0]}
    arguments = dict(zip(given, map(_made, given.values())))
    try:
        return Value.known[key](**arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"architecture {key[1]}",
            expected="its own fields",
            got=str(error),
            fix="load it with the version that wrote it",
        ) from None
