"""Rules for the fields of frozen values: a table on the class says what each field may be.

    field_rules = {"units": whole(), "rate": number(low=0.0, high=1.0), "merge": choice("concatenate", "add")}

A rule is a function of a name such as "Dense units" and of the given value. It returns the value to keep, or raises a
ConfigurationError. (The module `rules` checks what files hold: it converts nothing and raises CheckpointErrors.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeAlias

from gpunn import hyper

FieldRule: TypeAlias = Callable[[str, Any], Any]


class CheckedFields:
    """Base of frozen dataclasses that check each field by its rule when they are made.

    A class also has the rules of its bases. It checks several fields together in its `__post_init__`, after
    `super().__post_init__()`.
    """

    field_rules: ClassVar[Mapping[str, FieldRule]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        tables = [vars(base).get("field_rules", {}) for base in reversed(cls.__mro__)]
        cls.field_rules = {name: rule for table in tables for name, rule in table.items()}

    def __post_init__(self) -> None:
        for name, rule in self.field_rules.items():
            object.__setattr__(self, name, rule(f"{type(self).__name__} {name}", getattr(self, name)))


def number(**interval: Any) -> FieldRule:
    """A finite real number in an interval, which becomes a float: see `hyper.number`."""
    return partial(hyper.number, **interval)


def whole(low: int = 1, high: int = hyper.LARGEST_WHOLE) -> FieldRule:
    """A whole number from `low` to `high`, which becomes an int."""
    return partial(hyper.whole, low=low, high=high)


def choice(*options: Any) -> FieldRule:
    """One of these options."""
    return partial(hyper.choice, options=options)


def maybe(rule: FieldRule) -> FieldRule:
    """The same rule, but None is allowed."""
    return lambda where, value: None if value is None else rule(where, value)
