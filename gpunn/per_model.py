"""A number for all models of a population, or one for each.

Such a field has a `PerModel` as its rule and holds one entry, or a tuple with one for each model. The functions here
check it, compare its length with the number of models, take the entry of model k, and prepare it for formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.fields import FieldRule
from gpunn.hyper import one_or_several
from gpunn.value import Value

Number: TypeAlias = float | tuple[float, ...]
V = TypeVar("V", bound=Value)


class PerModel:
    """The rule of such a field; every entry must follow the given rule."""

    def __init__(self, rule: FieldRule) -> None:
        self.rule = rule

    def __call__(self, where: str, value: Any) -> Any:
        return one_or_several(where, value, self.rule)

    def tuples(self, name: str, value: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The tuples with one entry for each model in the value of this field, each with its name."""
        if isinstance(value, tuple):
            yield name, value

    def of_model(self, value: Any, k: int) -> Any:
        """Model k's entry in the field's value."""
        return value[k] if isinstance(value, tuple) else value


def check_models(value: Value, models: int | None, where: str | None = None, unit: str = "") -> None:
    """Raise an error unless all tuples have an entry for each model; None means no population."""
    for name, rule in value.field_rules.items():
        if isinstance(rule, PerModel):
            for place, entries in rule.tuples(name, getattr(value, name)):
                check_count(f"{where or type(value).__name__} {place}", entries, models, unit=unit)


def check_count(
    where: str, entries: tuple[Any, ...], models: int | None, what: str = "number", *, unit: str = ""
) -> None:
    """Raise an error unless there is one entry for each model."""
    if len(entries) != models:
        raise ConfigurationError(
            where,
            expected=f"one {what} or {models} of them" if models else f"one {what}",
            got=f"{len(entries)}{unit}",
            fix="give one for each model and set models= to their count",
        )


def of_model(value: V, k: int) -> V:
    """The value for model k alone, with its numbers, also in values inside; one nested call per level."""
    changes: dict[str, Any] = {}
    for field in fields(value):  # type: ignore[arg-type]
        given = getattr(value, field.name)
        rule = value.field_rules.get(field.name)
        if isinstance(rule, PerModel):
            changes[field.name] = rule.of_model(given, k)
        elif isinstance(given, Value):
            changes[field.name] = of_model(given, k)
        elif isinstance(given, tuple) and any(isinstance(v, Value) for v in given):
            changes[field.name] = tuple(of_model(v, k) if isinstance(v, Value) else v for v in given)
    return replace(value, **changes) if changes else value  # type: ignore[type-var]


def entries_of(value: Any, models: int = 1) -> tuple[Any, ...]:
    """A tuple with one entry for each of so many models."""
    return value if isinstance(value, tuple) else (value,) * models


def mapped(function: Callable[[float], float], value: Number) -> Number:
    """Apply a function to the number, or to each."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def as_array(value: Number, models: int | None, axes: int, dtype: Any) -> np.ndarray[Any, Any]:
    """The entries as an array (K, 1, ...), or (1, ...) without a population, with so many axes of length 1."""
    model_axes = () if models is None else (models,)
    return np.array(entries_of(value, models or 1), dtype).reshape(*model_axes, *(1,) * axes)


def for_formula(value: Number, ops: Backend, dtype: Any) -> Any:
    """An argument for formulas: a single number as it is, several as an array (K, 1) on the device."""
    return ops.from_host(as_array(value, len(value), 1, dtype)) if isinstance(value, tuple) else value
