"""Training in float16, where many gradients would be too small: the loss is multiplied by a factor before the backward
pass, and the gradients are divided by it afterwards, in float32.

The factor changes on the device during training. If a gradient is not finite, the update is skipped and the factor
halved; after many good updates it is doubled. Each model of a population has its own factor.
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
PATIENCE = 2000.0  # good updates in a row after which the factor is doubled


@elementwise
def adapt(xp: Any, squares: Any, scale: Any, streak: Any) -> Any:
    """Whether the gradient is finite, the next scale, and the number of good updates in a row."""
    finite = squares <= np.finfo(np.float64).max
    grows = finite & (streak >= PATIENCE - 1.0)
    larger, smaller = xp.minimum(scale * 2.0, LARGEST), xp.maximum(scale * 0.5, SMALLEST)
    return (
        xp.where(finite, 1.0, 0.0),
        xp.where(grows, larger, xp.where(finite, scale, smaller)),
        xp.where(grows, 0.0, xp.where(finite, streak + 1.0, 0.0)),
    )


class LossScale:
    """The factor `scale` and what it depends on, each (1,) or (K, 1), on the device."""

    def __init__(self, ops: Backend, store: ParameterStore) -> None:
        self.ops, self.store = ops, store
        shape = (1,) if store.models is None else (store.models, 1)
        self.scale, self.streak, self.finite = (ops.from_host(np.full(shape, v, np.float32)) for v in (FIRST, 0, 1))
        self.squares = ops.zeros((*shape, 1), np.float64)

    def unscale_gradients(self) -> None:
        """Divide the gradients by the factor."""
        g = self.store.gradients
        self.ops.elementwise(formulas.divide, (g, self.scale), (g,))

    def check_and_adapt(self) -> None:
        """Check the gradients: sets `finite`, whether to make this update, and adapts the factor for the next.

        Squares are summed in float64, where they cannot overflow.
        """
        g = self.store.gradients[..., None, :]
        self.ops.sum_product(g, g, ROWS, out=self.squares)
        squares = self.squares[..., 0]
        self.ops.elementwise(adapt, (squares, self.scale, self.streak), (self.finite, self.scale, self.streak))

    def unscale_or_repeat(self, again: Callable[[], None]) -> None:
        """Unscale new gradients; while some are not finite, compute them `again` with a smaller factor.

        The factor afterwards is the one from before.
        """
        host = self.ops.to_host
        before = {name: host(array) for name, array in self.state().items()}
        self.unscale_gradients()
        self.check_and_adapt()
        while not host(self.finite).all() and host(self.scale).min() > SMALLEST:
            again()
            self.unscale_gradients()
            self.check_and_adapt()
        for name, array in self.state().items():
            self.ops.copy(self.ops.from_host(before[name]), out=array)

    def state(self) -> dict[str, Array]:
        """The arrays that a checkpoint must hold."""
        return {"scale": self.scale, "streak": self.streak}


class Guarded:
    """A backend whose formulas change nothing in place for models whose gradient is not finite."""

    def __init__(self, ops: Backend, finite: Array) -> None:
        self._ops, self._finite = ops, finite

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def elementwise(self, formula: Formula, inputs: tuple[Any, ...], outputs: tuple[Array, ...]) -> None:
        places = tuple(next((i for i, x in enumerate(inputs) if x is out), None) for out in outputs)
        self._ops.elementwise(_guarded(formula, places), (self._finite, *inputs), outputs)


@cache
def _guarded(formula: Formula, places: tuple[int | None, ...]) -> Formula:
    """The formula with a guard; `places` says which input each output overwrites."""

    def guarded(xp: Any, finite: Any, *arguments: Any) -> Any:
        results = formula(xp, *arguments)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(
            result if place is None else xp.where(finite > 0.0, result, arguments[place])
            for result, place in zip(results, places)
        )

    guarded.__name__ = f"guarded_{formula.name}"
    return Formula(guarded)
