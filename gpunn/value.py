"""What layers, losses and initializers have in common: frozen values that print as code and are stored as JSON."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar, Self

from gpunn.errors import ConfigurationError
from gpunn.words import check_words


class Value:
    """Base of the frozen dataclasses that describe a network; a family is "layer", "loss" or the like.

    A class made with `abstract=True` is one to derive from: no file can name it.
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
        if not abstract:  # a base is nothing that a file may name
            Value.known[key] = cls
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Value.__repr__  # type: ignore[method-assign]  # keeps @dataclass from writing a longer one

    def __new__(cls, *arguments: Any, **words: Any) -> Self:
        """Look at the words before Python does: its own message names none of ours."""
        if not words.keys() <= getattr(cls, "__dataclass_fields__", {}).keys():
            parameters = inspect.signature(cls.__init__).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                check_words(cls.__name__, words, parameters)
        if cls.__init__ is object.__init__ and (arguments or words):  # which would take them in silence
            raise TypeError(f"{cls.__name__}() takes no arguments")
        return super().__new__(cls)

    def __repr__(self) -> str:
        """Code that makes this value; what stands at its default is left out."""
        parts: list[str] = []
        for position, field in enumerate(sorted(fields(self), key=lambda f: f.kw_only is True)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                named = field.kw_only or len(parts) != position
                parts.append(f"{field.name}={_code(value)}" if named else _code(value))
        return f"{type(self).__name__}({', '.join(parts)})"


def _code(value: Any) -> str:
    """A tuple of layers as the list one would write."""
    if isinstance(value, tuple) and any(isinstance(v, Value) for v in value):
        return f"[{', '.join(map(_code, value))}]"
    return repr(value)


def is_own(*values: Any) -> bool:
    """Whether these and all in them are of gpunn's own classes."""
    return all(
        is_own(*value)
        if isinstance(value, (tuple, list))
        else type(value).__module__.startswith("gpunn.") and is_own(*(getattr(value, f.name) for f in fields(value)))
        if is_dataclass(value)
        else True
        for value in values
    )


def to_json(value: Any) -> Any:
    """A value as nested dicts and lists of plain ones."""
    if isinstance(value, Value) and is_dataclass(value):
        return {value.family: type(value).__name__, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def from_json(data: Any) -> Any:
    """What `to_json` was given. Only classes that were imported can be named; nothing else is ever run."""
    if isinstance(data, list):
        return tuple(from_json(v) for v in data)
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
    try:
        return Value.known[key](**{field: from_json(v) for field, v in data.items() if field != key[0]})
    except TypeError as error:
        raise ConfigurationError(
            f"architecture {key[1]}",
            expected="its own fields",
            got=str(error),
            fix="load it with the version that wrote it",
        ) from None
