"""The contract of an optimizer, in ten lines.

- An optimizer is a frozen dataclass: it says what it is and holds no array. Any number may be one for each model.
- `plan()` names all it needs: moments (flat buffers like the values), the numbers it reads, small kept state.
- `update(t)` reads the gradients and writes the values: one formula over each part of the flat buffer, in place.
- A part (`t.parts`) has W, dW, its moments by name, and `decay`. With weight decay there are two, the decaying
  parameters and the rest, else one.
- What changes from step to step lies on the device: `t.rate`, and `t.count`, the number of the update under way,
  counted from 1. Numbers derived from them are computed there in float64, stored in the network's dtype, and only
  then meet the large arrays.
- Nothing is allocated in `update` and nothing waits for the host, so that a CUDA graph can hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MappingView
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from gpunn import hyper
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.loss_scale import Guarded, LossScale
from gpunn.parameters import ParameterStore
from gpunn.rules import require
from gpunn.schedules import Rate, check_rate, table
from gpunn.types import Array
from gpunn.value import Value

Number: TypeAlias = float | tuple[float, ...]  # one for all models, or one for each
NOT_NEGATIVE: dict[str, Any] = {"low": 0.0}
BELOW_ONE: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_high": True}
# Where a gradient has always been 0 an update is 0/ε: below this, ε would be 0 too in float32.
EPSILON: dict[str, Any] = {"low": 1e-30}


@dataclass(frozen=True)
class OptimizerPlan:
    """Everything an optimizer needs, by name."""

    moments: Mapping[str, Number] = field(default_factory=dict)  # what each flat buffer starts with
    numbers: Mapping[str, Number] = field(default_factory=dict)  # for the large formula, in the network's dtype
    exact: Mapping[str, Number] = field(default_factory=dict)  # for the small ones, in float64
    scalars: tuple[str, ...] = ()  # their results, in the network's dtype
    kept: Mapping[str, float] = field(default_factory=dict)  # small float64 state with its first value
    decay: Number = 0.0  # of the decaying parameters


@dataclass(frozen=True)
class Optimizer(Value, abstract=True):
    """Base of all optimizers; see the contract at the top of this file."""

    family: ClassVar[str] = "optimizer"
    intervals: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # what the numbers among the fields may be
    squares: ClassVar[tuple[str, ...]] = ()  # the moments that are never below 0

    rate: Rate = 1e-3

    def __new__(cls, *arguments: Any, **words: Any) -> Self:
        """Refuse the parameters that PyTorch wants, before it is said that a word is wrong, too."""
        if arguments and _holds_arrays(arguments[0]):
            raise ConfigurationError(
                cls.__name__,
                expected="a rate",
                got=f"a {type(arguments[0]).__name__}",
                fix=f"an optimizer takes no parameters here: gn.{cls.__name__}(1e-3)",
            )
        return super().__new__(cls, *arguments, **words)

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "rate", check_rate(f"{name} rate", self.rate))
        for number, interval in self.intervals.items():
            object.__setattr__(
                self, number, hyper.numbers(f"{name} {number}", getattr(self, number), **interval)
            )  # fmt: skip

    def plan(self) -> OptimizerPlan:
        raise NotImplementedError(f"{type(self).__name__} needs a plan method")

    def update(self, t: OptimizerFrame) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs an update method")

    def check_state(self, state: Mapping[str, Array], updates: int) -> None:
        """Refuse arrays of a frame's `state`, on the host, that no training leaves after so many updates."""
        for name in self.squares:
            least = state[name].min(initial=0.0) if name in state else 0.0
            require(not least < 0.0, f"optimizer/{name}", expected="numbers >= 0", got=f"{least:g}")

    def per_model(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The fields that hold one number for each model, by name."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "betas":
                yield from ((f"betas[{i}]", beta) for i, beta in enumerate(value) if isinstance(beta, tuple))
            elif isinstance(value, tuple):
                yield f.name, value

    def of_model(self, k: int) -> Self:
        """This optimizer as model k of a population has it, with its own numbers."""
        changes: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "betas":
                changes[f.name] = tuple(beta[k] if isinstance(beta, tuple) else beta for beta in value)
            elif isinstance(value, tuple):
                changes[f.name] = value[k]
        return replace(self, **changes)


def _holds_arrays(given: Any) -> bool:
    """Whether it is parameters rather than a rate, or one for each model."""
    if isinstance(given, (list, tuple)):
        return any(getattr(one, "ndim", 0) > 0 for one in given)
    return isinstance(given, (Mapping, MappingView, Iterator))


def check_betas(where: str, betas: Any) -> tuple[Number, Number]:
    """Two decay rates in [0, 1), each a number or one for each model."""
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise ConfigurationError(
            f"{where} betas", expected="two numbers", got=repr(betas), fix="give them as (0.9, 0.999)"
        )  # fmt: skip
    first, second = (hyper.numbers(f"{where} betas[{i}]", beta, **BELOW_ONE) for i, beta in enumerate(betas))
    return first, second


def complement(value: Number) -> Number:
    """1 - β, taken before it is rounded to the network's dtype: 1 - 0.999 in float32 is wrong in the fifth digit."""
    return tuple(1.0 - v for v in value) if isinstance(value, tuple) else 1.0 - value


def is_zero(value: Any) -> bool:
    """Whether a formula's argument is the number 0, known when it is compiled."""
    return isinstance(value, (int, float)) and value == 0


def any_positive(value: Number) -> bool:
    return any(v > 0.0 for v in value) if isinstance(value, tuple) else value > 0.0


def kept(*values: Any) -> tuple[Any, ...]:
    """Without those that are None: moments that this form of an optimizer has no use for."""
    return tuple(value for value in values if value is not None)


def decayed(dW: Any, W: Any, decay: Any) -> Any:
    """dW + λ W: weight decay as part of the gradient."""
    return dW if is_zero(decay) else dW + decay * W


def shrunk(W: Any, rate: Any, decay: Any) -> Any:
    """W (1 - η λ): weight decay decoupled from the gradient."""
    return W if is_zero(decay) else W * (1.0 - rate * decay)


class _Named:
    """Arrays and numbers reached by name."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no {name!r} here: name it in the optimizer's plan")


class Part(_Named):
    """One stretch of the flat buffers: views W, dW and the moments, and the weight decay that holds there."""

    def __init__(self, t: OptimizerFrame, place: slice, decay: Any) -> None:
        self.W, self.dW, self.decay = t.store.values[..., place], t.store.gradients[..., place], decay
        for name, moment in t.moments.items():
            setattr(self, name, moment[..., place])


class OptimizerFrame(_Named):
    """An optimizer's arrays for one network, made before the first step.

    `rate` has shape (1,) or (K, 1) in the network's dtype and is written before each update; here it starts with
    what the optimizer has for step 0 if that is a number. `count` (1,) is float64 and starts with 1.
    """

    def __init__(
        self, ops: Backend, store: ParameterStore, optimizer: Optimizer, loss_scale: LossScale | None = None
    ) -> None:
        self.ops, self.store, self.optimizer = ops, store, optimizer
        if loss_scale is not None:
            self.ops = Guarded(ops, loss_scale.sound)  # type: ignore[assignment]  # which stands for it
        self._check_models()
        plan = optimizer.plan()
        lead = store.values.shape[:-1]
        self.count = ops.from_host(np.ones(1 if loss_scale is None else (*lead, 1)))
        self.rate = ops.zeros((*lead, 1), store.dtype)
        rates = optimizer.rate if isinstance(optimizer.rate, tuple) else (optimizer.rate,)
        if not any(callable(rate) for rate in rates):
            first = table(optimizer.rate, 0, 1, store.models).reshape(self.rate.shape)
            ops.copy(ops.from_host(first), out=self.rate)
        self.moments = {name: self._moment(start) for name, start in plan.moments.items()}
        self.kept = {name: ops.from_host(np.full((*lead, 1), start)) for name, start in plan.kept.items()}
        for name, value in plan.numbers.items():
            setattr(self, name, self._number(value, store.dtype))
        for name, value in plan.exact.items():
            setattr(self, name, self._number(value, np.float64))
        for name in plan.scalars:
            setattr(self, name, ops.zeros((*lead, 1), store.dtype))
        for name, array in self.kept.items():
            setattr(self, name, array)
        self.parts = self._parts(self._number(plan.decay, store.dtype), any_positive(plan.decay))

    def state(self) -> dict[str, Array]:
        """What a checkpoint must hold: the arrays themselves, to be read or written in place."""
        return {**self.moments, **self.kept, "count": self.count}

    def _check_models(self) -> None:
        models = self.store.models
        for name, value in self.optimizer.per_model():
            if len(value) != models:
                raise ConfigurationError(
                    f"{type(self.optimizer).__name__} {name}",
                    expected=f"one number or {models} of them" if models else "one number",
                    got=f"{len(value)}",
                    fix="give one for each model and set models= to their count",
                )

    def _moment(self, start: Number) -> Array:
        buffer = self.ops.zeros(self.store.values.shape, self.store.dtype)
        if not is_zero(start):
            shape = (-1, 1) if isinstance(start, tuple) else (1,)
            self.ops.copy(self.ops.from_host(np.array(start, self.store.dtype).reshape(shape)), out=buffer)
        return buffer

    def _number(self, value: Number, dtype: Any) -> Any:
        """A number is compiled into the formula; one for each model is read from the device."""
        if not isinstance(value, tuple):
            return value
        return self.ops.from_host(np.array(value, dtype).reshape(-1, 1))

    def _parts(self, decay: Any, decays: bool) -> tuple[Part, ...]:
        size, border = self.store.values.shape[-1], self.store.decaying if decays else 0
        if decays and all(parameter.decay for parameter in self.store.parameters.values()):
            border = size  # what follows is padding
        places = [(slice(0, border), decay), (slice(border, size), 0.0)]
        return tuple(Part(self, place, number) for place, number in places if place.stop > place.start)
