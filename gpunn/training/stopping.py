"""When to end training before its last epoch.

A criterion is a frozen value. `start(models)` returns its state, which JSON can store, and `judge(state, record)` is
called after each epoch: it changes the state and says which models stop. The record maps names such as "loss" to one
number for each model. `rules(models, epochs)` says what the state may be after so many epochs; a checkpoint that
breaks these rules is an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from gpunn import hyper, rules
from gpunn.errors import ConfigurationError
from gpunn.fields import choice, maybe, number, whole
from gpunn.metrics import grows
from gpunn.rules import Rule
from gpunn.types import Array
from gpunn.value import Value
from gpunn.words import recorded

State = dict[str, Any]


@dataclass(frozen=True)
class Monitor:
    """The loss or metric that decides what is best, and whether larger values are better."""

    name: str
    maximise: bool

    @property
    def worst(self) -> float:
        """The value that every other one is better than."""
        return -math.inf if self.maximise else math.inf

    def better(self, new: Array, best: Array, minimum_change: float = 0.0) -> Array:
        """Where `new` beats `best` by more than `minimum_change`; NaN and infinity never do and are always beaten."""
        ahead = new > best + minimum_change if self.maximise else new < best - minimum_change
        return np.isfinite(new) & (ahead | ~np.isfinite(best))


def improvement(monitor: str, mode: str = "auto") -> Monitor:
    """How to compare values of this name; mode "auto" takes it from the name."""
    hyper.choice("mode", mode, ("auto", "min", "max"))
    return Monitor(monitor, grows(monitor) is True if mode == "auto" else mode == "max")


def monitored(names: Collection[str], monitor: str | None = None) -> str:
    """The name to judge by: `monitor` if given, else the validation loss if there is one, else the training loss."""
    return monitor or ("validation_loss" if "validation_loss" in names else "loss")


class Stopping(Value, abstract=True):
    """Base of the criteria; see the top of this file."""

    family: ClassVar[str] = "stopping"

    def monitored(self, names: Collection[str]) -> str:
        """The one name in the record that this criterion looks at."""
        raise NotImplementedError(f"{type(self).__name__} needs a monitored method")

    def start(self, models: int) -> State:
        return {}

    def rules(self, models: int, epochs: int) -> Mapping[str, Rule]:
        """A rule for each name in the state."""
        return dict.fromkeys(self.start(models), rules.anything)

    def judge(self, state: State, record: Mapping[str, Array]) -> Array:
        """Return which models stop, as an array of K truth values; it may change `state` and nothing else."""
        raise NotImplementedError(f"{type(self).__name__} needs a judge method")

    def check(self, names: Collection[str]) -> None:
        """Raise an error unless the record has the name that this criterion looks at."""
        name = self.monitored(names)
        if name not in names:
            raise ConfigurationError(
                type(self).__name__,
                expected=f"one of the recorded names {', '.join(names)}",
                got=repr(name),
                fix=f"write {ours!r}"
                if (ours := recorded(name)) in names
                else "monitor one of these, or pass validation= or metrics= so that it is recorded",
            )

    def _value(self, record: Mapping[str, Array]) -> Array:
        self.check(record)
        return np.atleast_1d(np.asarray(record[self.monitored(record)], np.float64))

    def reason_for(self, k: int, state: State, record: Mapping[str, Array]) -> str:
        """Why this criterion stopped model k, in the epoch of this record."""
        return self.reason

    @property
    def reason(self) -> str:
        """The criterion as code, with its first field and those that are not the default."""
        known = fields(self)  # type: ignore[arg-type]
        shown = [*known[:1], *(f for f in known[1:] if getattr(self, f.name) != f.default)]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


def _recorded_name(where: str, value: Any) -> str:
    if not (isinstance(value, str) and value):
        raise ConfigurationError(
            where,
            expected="a recorded name such as 'validation_accuracy', or None",
            got=repr(value),
            fix="leave it out for the loss",
        )
    return value


def _rules(name: str, models: int, epochs: int) -> dict[str, Rule]:
    """The rules of a state with a number or null for each model under this name, and the epochs each has waited."""
    waited = rules.each(rules.whole(0, epochs), models)
    return {name: rules.each(rules.maybe(rules.number()), models), "waited": waited}


@dataclass(frozen=True)
class EarlyStopping(Stopping):
    """Stop after `patience` epochs in a row of which none beats the best one by more than `minimum_change`.

    `monitor=None` looks at the validation loss if there is one, else at the training loss. `mode` is "min", "max" or
    "auto": then larger is better for accuracy, r2, auc, average_precision, f1 and top_k, and smaller for losses and
    errors. For a metric that is your own function, give "min" or "max".
    """

    field_rules = {
        "patience": whole(),
        "minimum_change": number(low=0.0),
        "mode": choice("auto", "min", "max"),
        "monitor": maybe(_recorded_name),
    }

    patience: int = 10
    minimum_change: float = field(default=0.0, kw_only=True)
    monitor: str | None = field(default=None, kw_only=True)
    mode: str = field(default="auto", kw_only=True)

    def monitored(self, names: Collection[str]) -> str:
        return monitored(names, self.monitor)

    def check(self, names: Collection[str]) -> None:
        super().check(names)
        if self.mode == "auto" and grows(self.monitored(names)) is None:
            raise ConfigurationError(
                "EarlyStopping mode",
                expected=f"'min' or 'max' for {self.monitored(names)!r}",
                got="'auto', which knows only gpunn's own metrics",
                fix="write mode='max' if more of it is better",
            )

    def start(self, models: int) -> State:
        return {"best": [None] * models, "waited": [0] * models}

    def rules(self, models: int, epochs: int) -> Mapping[str, Rule]:
        return _rules("best", models, epochs)

    def judge(self, state: State, record: Mapping[str, Array]) -> Array:
        value, best = self._value(record), _array(state["best"])
        better = improvement(self.monitored(record), self.mode).better(value, best, self.minimum_change)
        waited = np.where(better, 0, np.array(state["waited"]) + 1)
        state["best"], state["waited"] = _list(np.where(better, value, best)), waited.tolist()
        return waited >= self.patience

    def reason_for(self, k: int, state: State, record: Mapping[str, Array]) -> str:
        """Adds that no value was a number, if that is the reason."""
        if state["best"][k] is None:
            return f"{self.reason}: {self.monitored(record)} is not a number"
        return self.reason


@dataclass(frozen=True)
class GradientTolerance(Stopping):
    """Stop at the end of an epoch whose last gradient, after clipping, has a norm of at most `tolerance`."""

    field_rules = {"tolerance": number(low=0.0)}

    tolerance: float

    def monitored(self, names: Collection[str]) -> str:
        return "gradient_norm"

    def judge(self, state: State, record: Mapping[str, Array]) -> Array:
        return self._value(record) <= self.tolerance


@dataclass(frozen=True)
class LossTolerance(Stopping):
    """Stop when |L_t - L_{t-1}| <= tolerance, or `relative` <= tolerance |L_{t-1}|, for `patience` epochs in a row.

    L is the training loss.
    """

    field_rules = {"tolerance": number(low=0.0), "patience": whole(), "relative": choice(True, False)}

    tolerance: float
    patience: int = 1
    relative: bool = False

    def monitored(self, names: Collection[str]) -> str:
        return "loss"

    def start(self, models: int) -> State:
        return {"previous": [None] * models, "waited": [0] * models}

    def rules(self, models: int, epochs: int) -> Mapping[str, Rule]:
        return _rules("previous", models, epochs)

    def judge(self, state: State, record: Mapping[str, Array]) -> Array:
        value, previous = self._value(record), _array(state["previous"])
        limit = self.tolerance * abs(previous) if self.relative else self.tolerance
        small = np.isfinite(value) & np.isfinite(previous) & (abs(_finite(value) - previous) <= limit)
        waited = np.where(small, np.array(state["waited"]) + 1, 0)
        state["previous"], state["waited"] = _list(value), waited.tolist()
        return waited >= self.patience


@dataclass(frozen=True)
class TimeLimit(Stopping):
    """Stop at the end of the epoch in which training has taken this long, with the time before a resume."""

    field_rules = {"seconds": number(low=0.0, open_low=True)}

    seconds: float

    def monitored(self, names: Collection[str]) -> str:
        return "seconds"

    def judge(self, state: State, record: Mapping[str, Array]) -> Array:
        return self._value(record) >= self.seconds


def as_criteria(stopping: Any) -> tuple[Stopping, ...]:
    """None, one criterion or several, as a tuple."""
    given = () if stopping is None else (stopping,) if not isinstance(stopping, Iterable) else tuple(stopping)
    for criterion in given:
        hint = "write EarlyStopping(), an instance" if isinstance(criterion, type) else "pass one, or a list of them"
        expected = "criteria such as EarlyStopping(patience=5)"
        hyper.instance("stopping", criterion, Stopping, expected=expected, fix=hint)
        for name in ("monitored", "judge"):
            if getattr(type(criterion), name) is getattr(Stopping, name):
                raise ConfigurationError(
                    f"stopping {type(criterion).__name__}",
                    expected=f"a {name} method",
                    got="none of its own",
                    fix="write one, as EarlyStopping has it",
                )
    return given


def state_of(criterion: Stopping, models: int) -> State:
    """The first state of a criterion; raise an error unless it is a dict."""
    state = criterion.start(models)
    if not isinstance(state, dict):
        raise ConfigurationError(
            f"{type(criterion).__name__} start",
            expected="a dict of numbers, text and lists",
            got=f"a {type(state).__name__}",
            fix="return {} where nothing is to be kept",
        )
    return state


def told_to_stop(criterion: Stopping, state: State, record: Mapping[str, Array], models: int) -> Array:
    """Which models a criterion stops, one truth value for each; a single model's may come without an axis."""
    told = np.asarray(criterion.judge(state, record))
    fits = told.shape == (models,) or (models == 1 and told.shape == ())
    if told.dtype != bool or not fits:
        raise ConfigurationError(
            f"{type(criterion).__name__} judge",
            expected=f"an array of {models} truth value{'s' * (models != 1)}",
            got=f"{told.dtype} of shape {told.shape}",
            fix="return one for each model, as record[...] > limit gives them",
        )
    return told.reshape(models)


def in_words(where: str, reason: Any) -> str:
    """The reason why a training ends; raise an error unless it is text."""
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(where, expected="a reason in words", got=repr(reason)[:200], fix="say why it ends")
    return str(reason)


def _array(values: Sequence[float | None]) -> Array:
    """Numbers from a state; NaN for None."""
    return np.array([math.nan if v is None else v for v in values], np.float64)


def _list(values: Array) -> list[float | None]:
    """Numbers for a state; None for NaN and infinity."""
    return [v if math.isfinite(v) else None for v in values.tolist()]


def _finite(values: Array) -> Array:
    """With NaN in place of infinity, because NumPy warns of differences of infinities."""
    return np.where(np.isfinite(values), values, math.nan)
