"""Schedules: the rate at step 0, 1, 2, …

A rate is a number, a `Schedule`, any callable `t -> rate`, or a tuple of those, one for each model of a population.
Schedules are ordinary Python: `table` computes the rates of the next steps on the host, and each step on the device
reads its row. The stochastic gradient theorem needs Ση = ∞ and Ση² < ∞; schedules say if they satisfy it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gpunn import hyper, rules
from gpunn.errors import ConfigurationError
from gpunn.fields import choice, number, whole
from gpunn.per_model import PerModel, check_count, entries_of
from gpunn.rules import Rule
from gpunn.value import Value

__all__ = [
    "Constant", "Cosine", "Exponential", "InverseTime", "OneCycle", "Power", "ReduceOnPlateau", "Schedule", "Sequence",
    "StepDecay", "Warmup",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)


@dataclass(frozen=True)
class Schedule(Value, abstract=True):
    """Base of all schedules: `schedule(t)` is the rate at step t, counted from 0."""

    family = "schedule"

    def __call__(self, t: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} needs a __call__ method")


Single: TypeAlias = float | Schedule | Callable[[int], float]
Rate: TypeAlias = Single | tuple[Single, ...]

POSITIVE = number(low=0.0, open_low=True)
NOT_NEGATIVE = number(low=0.0)
FACTOR = number(low=0.0, high=1.0)


def single_rate(where: str, rate: Any) -> Single:
    """The rule of a single rate: a number, not below 0, or a function of the step."""
    checked: Single = rate if callable(rate) else NOT_NEGATIVE(where, rate)
    return checked


RATE = PerModel(single_rate)


def _rates(where: str, value: Any) -> tuple[float, ...]:
    """The rule of a list of rates; a single rate becomes a list."""
    rates = hyper.one_or_several(where, value, NOT_NEGATIVE)
    return rates if isinstance(rates, tuple) else (rates,)


@dataclass(frozen=True)
class Constant(Schedule):
    """η at every step."""

    field_rules = {"rate": NOT_NEGATIVE}

    rate: float

    def __call__(self, t: int) -> float:
        return self.rate


@dataclass(frozen=True)
class Sequence(Schedule):
    """η₁, η₂, …, η_T as listed; training for more than T steps is an error before the first step."""

    field_rules = {"rates": _rates}

    rates: tuple[float, ...]

    def __call__(self, t: int) -> float:
        if t >= len(self.rates):
            raise ConfigurationError(
                "Sequence",
                expected=f"a rate for step {t}, counted from 0",
                got=f"{len(self.rates)} rates",
                fix="list more rates or train for fewer steps",
            )
        return self.rates[t]


@dataclass(frozen=True)
class InverseTime(Schedule):
    """η / (1 + d t). Satisfies Ση = ∞ and Ση² < ∞ for every d > 0."""

    field_rules = {"rate": NOT_NEGATIVE, "decay": POSITIVE}

    rate: float
    decay: float = 1.0

    def __call__(self, t: int) -> float:
        return self.rate / (1.0 + self.decay * t)


@dataclass(frozen=True)
class Power(Schedule):
    """η (t + 1)^-p. Satisfies Ση = ∞ and Ση² < ∞ for ½ < p <= 1 only."""

    field_rules = {"rate": NOT_NEGATIVE, "p": NOT_NEGATIVE}

    rate: float
    p: float = 1.0

    def __call__(self, t: int) -> float:
        return float(self.rate * (t + 1) ** -self.p)


@dataclass(frozen=True)
class Exponential(Schedule):
    """η γ^t. The sum of all steps is finite, η / (1 - γ): training can stop short of a minimum."""

    field_rules = {"rate": NOT_NEGATIVE, "gamma": FACTOR}

    rate: float
    gamma: float

    def __call__(self, t: int) -> float:
        return float(self.rate * self.gamma**t)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """η γ^⌊t / steps⌋: multiplied by γ after every `steps` steps."""

    field_rules = {"rate": NOT_NEGATIVE, "steps": whole(), "gamma": FACTOR}

    rate: float
    steps: int
    gamma: float = 0.1

    def __call__(self, t: int) -> float:
        return float(self.rate * self.gamma ** (t // self.steps))


def _descend(start: float, end: float, part: float) -> float:
    """Half a cosine wave from `start` at part 0 to `end` at part 1."""
    return end + (start - end) * (1.0 + math.cos(math.pi * part)) / 2.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave from η down to `final` at step `steps`, and `final` from there on."""

    field_rules = {"rate": NOT_NEGATIVE, "steps": whole(), "final": NOT_NEGATIVE}

    rate: float
    steps: int
    final: float = 0.0

    def __call__(self, t: int) -> float:
        return _descend(self.rate, self.final, min(t / self.steps, 1.0))


@dataclass(frozen=True)
class Warmup(Schedule):
    """A straight line over `steps` steps up to the first rate of `then`; afterwards `then`, which begins at its step 0.

    The line starts at `start_factor` times that rate: with 0, the default, the first step changes nothing.
    """

    field_rules = {"steps": whole(), "start_factor": FACTOR, "then": single_rate}

    steps: int
    then: Single
    start_factor: float = 0.0

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return _rate_at(self.then, t - self.steps)
        return _rate_at(self.then, 0) * (self.start_factor + (1.0 - self.start_factor) * t / self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From η / `div_factor` up to η over the share `pct_start` of all `steps`, then down to
    η / (`div_factor` `final_div_factor`), which stays. Along half cosine waves, or lines with `anneal="linear"`.
    """

    field_rules = {
        "rate": NOT_NEGATIVE,
        "steps": whole(),
        "pct_start": FACTOR,
        "div_factor": POSITIVE,
        "final_div_factor": POSITIVE,
        "anneal": choice("cos", "linear"),
    }

    rate: float
    steps: int
    pct_start: float = 0.3
    anneal: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __call__(self, t: int) -> float:
        initial, last, top = self.rate / self.div_factor, self.steps - 1, self.pct_start * self.steps - 1.0
        if t <= top:
            return self._between(initial, self.rate, t / top if top else 1.0)
        part = min((t - top) / (last - top), 1.0) if last > top else 1.0
        return self._between(self.rate, initial / self.final_div_factor, part)

    def _between(self, start: float, end: float, part: float) -> float:
        return _descend(start, end, part) if self.anneal == "cos" else start + (end - start) * part


def _rate_at(rate: Single, t: int) -> float:
    return rate(t) if callable(rate) else rate


def table(schedule: Rate, start: int, count: int, models: int | None = None) -> np.ndarray[Any, Any]:
    """The checked rates of `count` steps from `start` on: a row for each step, one column or one for each model."""
    columns = entries_of(schedule)
    if isinstance(schedule, tuple):
        check_count("rate", schedule, models, "rate")
    rows = np.empty((count, len(columns)))
    for k, rate in enumerate(columns):
        if callable(rate):
            rows[:, k] = [hyper.number(f"rate at step {t}", rate(t), low=0.0) for t in range(start, start + count)]
        else:
            rows[:, k] = rate
    return np.repeat(rows, models, axis=1) if models and not isinstance(schedule, tuple) else rows


@dataclass(frozen=True)
class ReduceOnPlateau(Value):
    """Multiply the rate by `factor` when a watched value has not improved for more than `patience` epochs.

    An improvement is a value below best - threshold |best|, or with mode="max" above best + threshold |best|. For
    `cooldown` epochs after a reduction nothing is counted. The product of all factors never falls below `minimum`.
    `begin` returns the state, a dict of lists that JSON can hold, with one entry for each model; `observe` updates it
    after an epoch. Its entry "factor" is what each model's rates are multiplied by.
    """

    family = "schedule"
    field_rules = {
        "factor": number(low=0.0, high=1.0, open_high=True),
        "patience": whole(low=0),
        "threshold": NOT_NEGATIVE,
        "cooldown": whole(low=0),
        "minimum": FACTOR,
        "mode": choice("min", "max"),
    }

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    minimum: float = 0.0
    mode: str = "min"

    def begin(self, models: int | None = None) -> dict[str, list[Any]]:
        """The state before the first epoch."""
        count = models or 1
        return {"best": [None] * count, "bad": [0] * count, "wait": [0] * count, "factor": [1.0] * count}

    def rules(self, models: int) -> dict[str, Rule]:
        """A rule for each entry of a state that comes from a file."""
        return {
            "best": rules.each(rules.maybe(rules.number()), models),
            "bad": rules.each(rules.whole(0, self.patience), models),
            "wait": rules.each(rules.whole(0, self.cooldown), models),
            "factor": rules.each(rules.number(self.minimum, 1.0), models),
        }

    def observe(self, state: dict[str, list[Any]], values: Any) -> list[float]:
        """Update the state with each model's value after an epoch; return the next factors. NaN is no improvement."""
        observed = np.reshape(np.asarray(values, np.float64), -1).tolist()
        if len(observed) != len(state["best"]):
            raise ConfigurationError(
                "ReduceOnPlateau",
                expected=f"{len(state['best'])} values, one for each model",
                got=f"{len(observed)}",
                fix="begin with the number of models",
            )
        best, bad, wait, factor = (state[name] for name in ("best", "bad", "wait", "factor"))
        for k, value in enumerate(observed):
            improved = self._improves(value, best[k])
            best[k] = value if improved else best[k]
            bad[k] = 0 if improved or wait[k] else bad[k] + 1
            wait[k] = max(wait[k] - 1, 0)
            if bad[k] > self.patience:
                factor[k] = max(factor[k] * self.factor, self.minimum)
                wait[k], bad[k] = self.cooldown, 0
        return list(factor)

    def _improves(self, value: float, best: float | None) -> bool:
        if best is None or not math.isfinite(value):
            return math.isfinite(value)
        margin = self.threshold * abs(best)
        return value < best - margin if self.mode == "min" else value > best + margin
