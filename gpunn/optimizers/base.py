"""The contract of an optimizer, in ten lines.

- An optimizer is a frozen dataclass. Its fields are checked by `field_rules`; it holds no array. Every number in them
  may also be a tuple with one for each model.
- `plan()` names all it needs: moments (flat buffers like the values), the numbers it reads, small state.
- `update(t)` reads the gradients and changes the values: one formula over each part of the flat buffer, in place.
- A part (`t.parts`) is a stretch of the flat vector of all parameters. It has W, dW, its moments by name, and `decay`.
  With weight decay there are two parts, the decaying parameters and the rest, else one.
- What changes from step to step lies on the device: `t.rate`, and `t.count`, the number of the present update,
  counted from 1. Numbers derived from them are computed on the device in float64 and stored in the network's dtype;
  the formulas over all parameters read these.
- `update` allocates nothing and never waits for the device, so that it can be recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MappingView
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.loss_scale import Guarded, LossScale
from gpunn.optimizers.numbers import any_positive
from gpunn.parameters import ParameterStore
from gpunn.per_model import Number, check_models, entries_of, for_formula, of_model
from gpunn.rules import require
from gpunn.schedules import RATE, Rate, table
from gpunn.types import Array
from gpunn.value import Value


@dataclass(frozen=True)
class OptimizerPlan:
    """Everything an optimizer needs, by name."""

    moments: Mapping[str, Number] = field(default_factory=dict)  # flat buffers, with the number that each starts with
    numbers: Mapping[str, Number] = field(default_factory=dict)  # for the large formula, in the network's dtype
    exact: Mapping[str, Number] = field(default_factory=dict)  # for formulas of a few numbers, in float64
    scalars: tuple[str, ...] = ()  # results of these, in the network's dtype
    kept: Mapping[str, float] = field(default_factory=dict)  # small float64 state, with its first value
    decay: Number = 0.0  # weight decay of the decaying parameters


@dataclass(frozen=True)
class Optimizer(Value, abstract=True):
    """Base of all optimizers; see the contract at the top of this file."""

    family: ClassVar[str] = "optimizer"
    field_rules = {"rate": RATE}
    squares: ClassVar[tuple[str, ...]] = ()  # the moments that are never below 0

    rate: Rate = 1e-3

    def __new__(cls, *arguments: Any, **words: Any) -> Self:
        """Raise an error for parameters as the first argument, which PyTorch wants, before words are checked."""
        if arguments and _holds_arrays(arguments[0]):
            raise ConfigurationError(
                cls.__name__,
                expected="a rate",
                got=f"a {type(arguments[0]).__name__}",
                fix=f"an optimizer takes no parameters here: gn.{cls.__name__}(1e-3)",
            )
        return super().__new__(cls, *arguments, **words)

    def plan(self) -> OptimizerPlan:
        raise NotImplementedError(f"{type(self).__name__} needs a plan method")

    def update(self, t: OptimizerFrame) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs an update method")

    def check_state(self, state: Mapping[str, Array], updates: int) -> None:
        """Raise an error unless a frame's `state`, on the host, may come from a training after so many updates."""
        for name in self.squares:
            least = state[name].min(initial=0.0) if name in state else 0.0
            require(not least < 0.0, f"optimizer/{name}", expected="numbers >= 0", got=f"{least:g}")

    def of_model(self, k: int) -> Self:
        """This optimizer as model k of a population has it, with its own numbers."""
        return of_model(self, k)


def _holds_arrays(given: Any) -> bool:
    """Whether it is parameters rather than a rate or rates."""
    if isinstance(given, (list, tuple)):
        return any(getattr(one, "ndim", 0) > 0 for one in given)
    return isinstance(given, (Mapping, MappingView, Iterator))


class _Named:
    """Arrays and numbers reached by name."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no {name!r} here: name it in the optimizer's plan")


class Part(_Named):
    """A stretch of the flat buffers: views W, dW and the moments, and the weight decay of these parameters."""

    def __init__(self, t: OptimizerFrame, place: slice, decay: Any) -> None:
        self.W, self.dW, self.decay = t.store.values[..., place], t.store.gradients[..., place], decay
        for name, moment in t.moments.items():
            setattr(self, name, moment[..., place])


class OptimizerFrame(_Named):
    """An optimizer's arrays for one network, made before the first step.

    `rate` has shape (1,) or (K, 1) in the network's dtype and is written before each update; here it starts with
    the optimizer's rate for step 0, if it is no function. `count` (1,) is float64 and starts with 1.
    """

    def __init__(
        self, ops: Backend, store: ParameterStore, optimizer: Optimizer, loss_scale: LossScale | None = None
    ) -> None:
        self.ops, self.store, self.optimizer = ops, store, optimizer
        if loss_scale is not None:
            self.ops = Guarded(ops, loss_scale.finite)  # type: ignore[assignment]  # a stand-in for the backend
        check_models(optimizer, store.models)
        plan = optimizer.plan()
        model_axes = store.values.shape[:-1]
        self.count = ops.from_host(np.ones(1 if loss_scale is None else (*model_axes, 1)))
        self.rate = ops.zeros((*model_axes, 1), store.dtype)
        if not any(map(callable, entries_of(optimizer.rate))):
            first = table(optimizer.rate, 0, 1, store.models).reshape(self.rate.shape)
            ops.copy(ops.from_host(first), out=self.rate)
        self.moments = {name: self._moment(start) for name, start in plan.moments.items()}
        self.kept = {name: ops.from_host(np.full((*model_axes, 1), start)) for name, start in plan.kept.items()}
        for name, value in plan.numbers.items():
            setattr(self, name, for_formula(value, ops, store.dtype))
        for name, value in plan.exact.items():
            setattr(self, name, for_formula(value, ops, np.float64))
        for name in plan.scalars:
            setattr(self, name, ops.zeros((*model_axes, 1), store.dtype))
        for name, array in self.kept.items():
            setattr(self, name, array)
        self.parts = self._parts(for_formula(plan.decay, ops, store.dtype), any_positive(plan.decay))

    def state(self) -> dict[str, Array]:
        """The arrays that a checkpoint must hold, not copies."""
        return {**self.moments, **self.kept, "count": self.count}

    def _moment(self, start: Number) -> Array:
        buffer = self.ops.zeros(self.store.values.shape, self.store.dtype)
        if isinstance(start, tuple):
            self.ops.copy(for_formula(start, self.ops, self.store.dtype), out=buffer)
        elif start:
            self.ops.fill(buffer, start)
        return buffer

    def _parts(self, decay: Any, decays: bool) -> tuple[Part, ...]:
        size, border = self.store.values.shape[-1], self.store.decaying if decays else 0
        if decays and all(parameter.decay for parameter in self.store.parameters.values()):
            border = size  # what follows is padding
        places = [(slice(0, border), decay), (slice(border, size), 0.0)]
        return tuple(Part(self, place, number) for place, number in places if place.stop > place.start)
