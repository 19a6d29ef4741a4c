"""Training in float16, whose smallest number many gradients fall below: the loss is multiplied by a factor before the
backward pass and the gradients are divided by it after, in float32.

The factor is found on the device while training: halved where some gradient is not finite, and that update is skipped;
doubled after so many updates without. Each model of a population has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import Formula, elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.parameters import ParameterStore
from gpunn.types import ROWS, Array

FIRST, SMALLEST, LARGEST = 2.0**16, 2.0**-14, 2.0**24  # powers of 2, so that dividing by them is exact
PATIENCE = 2000.0  # updates after which it is doubled


@elementwise
def adapt(xp: Any, squares: Any, scale: Any, streak: Any) -> Any:
    """Whether the gradient's square is a number, the next scale, and for how many updates it has been good."""
    finite = squares <= np.finfo(np.float64).max
    grows = finite & (streak >= PATIENCE - 1.0)
    larger, smaller = xp.minimum(scale * 2.0, LARGEST), xp.maximum(scale * 0.5, SMALLEST)
    return (
        xp.where(finite, 1.0, 0.0),
        xp.where(grows, larger, xp.where(finite, scale, smaller)),
        xp.where(grows, 0.0, xp.where(finite, streak + 1.0, 0.0)),
    )


class LossScale:
    """The factor and what decides it, (1,) or (K, 1), on the device."""

    def __init__(self, ops: Backend, store: ParameterStore) -> None:
        self.ops, self.store = ops, store
        shape = (1,) if store.models is None else (store.models, 1)
        self.scale, self.streak, self.finite = (ops.from_host(np.full(shape, v, np.float32)) for v in (FIRST, 0, 1))
        self.squares = ops.zeros((*shape, 1), np.float64)

    def remove(self) -> None:
        """Divide the gradients by the factor."""
        g = self.store.gradients
        self.ops.elementwise(formulas.divide, (g, self.scale), (g,))

    def judge(self) -> None:
        """Look at the gradients, in float64, where no square overflows; decide on this update and the next."""
        g = self.store.gradients[..., None, :]
        self.ops.sum_product(g, g, ROWS, out=self.squares)
        squares = self.squares[..., 0]
        self.ops.elementwise(adapt, (squares, self.scale, self.streak), (self.finite, self.scale, self.streak))

    def settle(self, again: Callable[[], None]) -> None:
        """Divide the factor out of gradients just made; where they overflowed, make them again with smaller ones."""
        host = self.ops.to_host
        before = {name: host(array) for name, array in self.state().items()}
        self.remove()
        self.judge()
        while not host(self.finite).all() and host(self.scale).min() > SMALLEST:
            again()
            self.remove()
            self.judge()
        for name, array in self.state().items():
            self.ops.copy(self.ops.from_host(before[name]), out=array)

    def state(self) -> dict[str, Array]:
        """What a checkpoint must hold."""
        return {"scale": self.scale, "streak": self.streak}


class Guarded:
    """A backend whose formulas leave what they update in place as it was, for models whose gradient was not finite."""

    def __init__(self, ops: Backend, finite: Array) -> None:
        self._ops, self._finite = ops, finite

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        places = tuple(next((i for i, x in enumerate(inputs) if x is out), None) for out in outputs)
        self._ops.elementwise(_guarded(formula, places), (self._finite, *inputs), outputs)


@cache
def _guarded(formula: Formula, places: tuple[int | None, ...]) -> Formula:
    """The formula with, for each output, the place of the input that it would replace."""

    def guarded(xp: Any, finite: Any, *arguments: Any) -> Any:
        results = formula(xp, *arguments)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(
            result if place is None else xp.where(finite > 0.0, result, arguments[place])
            for result, place in zip(results, places)
        )

    guarded.__name__ = f"guarded_{formula.name}"
    return Formula(guarded)
