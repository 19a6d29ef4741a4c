"""Limited-memory BFGS with a line search that meets the strong Wolfe conditions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.errors import ConfigurationError
from gpunn.fields import number, whole
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.optimizers.wolfe import Point, wolfe_search
from gpunn.rules import require
from gpunn.schedules import Rate
from gpunn.types import Array

SMALLEST = sys.float_info.min
LONGEST_HISTORY = 10_000  # steps, each with two buffers of the gradient's size


class Outcome(NamedTuple):
    """The result of one step; `reason` says why there is nothing left to do, or is None."""

    loss: float
    gradient_norm: float
    evaluations: int
    reason: str | None


@elementwise
def negative(xp: Any, a: Any) -> Any:
    return -a


@elementwise
def subtract_scaled(xp: Any, a: Any, b: Any, scale: Any) -> Any:
    return a - scale * b


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """W ← W - α H dW. H approximates the inverse Hessian from the last `history_size` steps (Nocedal & Wright,
    Algorithm 7.4); the line search tries α = `rate` first and ends where the strong Wolfe conditions hold.

    It minimizes the loss of the whole training set: `minimize_step` takes one step, usually with one or two
    evaluations. Vectors stay on the device; the host decides and waits for a few numbers at each evaluation. It keeps
    2 `history_size` + 4 buffers of the gradient's size. It trains one network, no population, because each model would
    need different evaluations.
    """

    field_rules = {
        "history_size": whole(high=LONGEST_HISTORY),
        "max_evaluations": whole(),
        "tolerance_gradient": number(low=0.0),
        "tolerance_change": number(low=0.0),
    }

    rate: Rate = 1.0
    history_size: int = 10
    max_evaluations: int = 25  # in one step
    tolerance_gradient: float = 1e-7  # of the gradient's length
    tolerance_change: float = 0.0  # of the loss, relative to max(1, |loss|); 0: not checked

    def plan(self) -> OptimizerPlan:
        history = [f"{letter}{i}" for i in range(self.history_size) for letter in "sy"]
        return OptimizerPlan(
            moments=dict.fromkeys(("start", "gradient", "direction", "work", *history), 0.0),
            kept={"pairs": 0.0, "loss": 0.0, "begun": 0.0, **{f"rho{i}": 0.0 for i in range(self.history_size)}},
        )

    def update(self, t: OptimizerFrame) -> None:
        raise ConfigurationError(
            "LBFGS", expected="a full batch and minimize_step", got="a step of the training loop", fix="use Adam or SGD"
        )

    def check_state(self, state: Mapping[str, Array], updates: int) -> None:
        """Check the number of steps in the history, and that the curvature 1/ρ = s y of each is positive."""
        pairs, begun, loss = (float(state[name].item()) for name in ("pairs", "begun", "loss"))
        known = pairs.is_integer() and 0 <= pairs <= updates
        require(known, "optimizer/pairs", expected=f"a whole number from 0 to {updates}", got=f"{pairs:g}")
        wanted = float(updates > 0)
        require(begun == wanted, "optimizer/begun", expected=f"{wanted:g}", got=f"{begun:g}")
        require(math.isfinite(loss), "optimizer/loss", expected="a finite number", got=f"{loss:g}")
        for i in range(min(int(pairs), self.history_size)):
            y, rho = state[f"y{i}"], float(state[f"rho{i}"].item())
            with np.errstate(all="ignore"):
                curvature = rho * float((y * y).sum(dtype=np.float64))
            fits = rho > 0.0 and 0.0 < curvature < math.inf
            require(fits, f"optimizer/rho{i}", expected="a curvature above 0", got=f"{rho:g} and {curvature:g}")

    def refuse_population(self, models: int) -> None:
        raise ConfigurationError(
            "LBFGS",
            expected="one network",
            got=f"a population of {models}",
            fix="train each model in a network of its own, or the population with Adam",
        )

    def minimize_step(self, t: OptimizerFrame, evaluate: Callable[[], float]) -> Outcome:
        """One step. `evaluate()` computes loss and gradient at the store's present values and returns the loss.

        Afterwards values and gradients are those of the accepted point.
        """
        if t.store.models is not None:
            self.refuse_population(t.store.models)
        return _Step(self, t, evaluate).take()


class _Step:
    """One step of L-BFGS."""

    def __init__(self, optimizer: LBFGS, t: OptimizerFrame, evaluate: Callable[[], float]) -> None:
        self.optimizer, self.t, self.ops, self.evaluate = optimizer, t, t.ops, evaluate
        self.values, self.dW = t.store.values, t.store.gradients
        self.gradient, self.direction = t.moments["gradient"], t.moments["direction"]
        self.scale = self.ops.zeros((1,), t.store.dtype)
        self.product = self.ops.zeros((), np.float64)
        self.pairs, self.evaluations = int(self._read(t.pairs)), 0

    def take(self) -> Outcome:
        loss, square = self._begin()
        reason = self._reason(loss, square, math.inf)
        if reason is None and self._read(self.t.rate) == 0.0:  # nothing moves in this step; a later rate may be larger
            if not self.evaluations:
                self._evaluate()  # the loss and the gradient of every step are read
            return Outcome(loss, math.sqrt(square), self.evaluations, None)
        if reason is not None:
            return Outcome(loss, math.sqrt(square), self.evaluations, reason)
        end, slope = None, self._set_direction()
        if slope < 0.0:
            end = self._search(loss, square, slope)
        if end is None and self.pairs:  # the history misleads: clear it and use the steepest descent
            self._write(self.t.pairs, 0.0)
            self.pairs = 0
            end = self._search(loss, square, self._set_direction())
            if end is not None and end.loss >= loss:  # accepted for its slope: rounding could make two points take
                end = None  # turns forever
        if end is None:
            self._move(0.0)
            self.ops.copy(self.gradient, out=self.dW)
            return Outcome(loss, math.sqrt(square), self.evaluations, "no step makes the loss smaller")
        self._remember(end.step)
        square = self._dot(self.dW, self.dW)
        self.ops.copy(self.dW, out=self.gradient)
        self._write(self.t.loss, end.loss)
        change = abs(end.loss - loss) / max(1.0, abs(loss))
        return Outcome(end.loss, math.sqrt(square), self.evaluations, self._reason(end.loss, square, change))

    def _begin(self) -> tuple[float, float]:
        """Loss and squared length of the gradient where the last step ended, evaluated before the first step."""
        if not self._read(self.t.begun):
            self._write(self.t.loss, self._evaluate())
            self.ops.copy(self.dW, out=self.gradient)
            self._write(self.t.begun, 1.0)
        self.ops.copy(self.values, out=self.t.moments["start"])
        return self._read(self.t.loss), self._dot(self.gradient, self.gradient)

    def _reason(self, loss: float, square: float, change: float) -> str | None:
        if not math.isfinite(loss) or not math.isfinite(square):
            return "the loss is not finite"
        if math.sqrt(square) <= self.optimizer.tolerance_gradient:
            return "the gradient is within tolerance_gradient"
        still = change <= self.optimizer.tolerance_change and self.optimizer.tolerance_change > 0.0
        return "the loss changes within tolerance_change" if still else None

    def _set_direction(self) -> float:
        """Compute the direction -H g by the two-loop recursion, on the device; return its slope."""
        t, d, m = self.t, self.direction, self.optimizer.history_size
        self.ops.elementwise(negative, (self.gradient,), (d,))
        newest_first = [i % m for i in range(self.pairs - 1, max(self.pairs - m, 0) - 1, -1)]
        factors: dict[int, Array] = {}
        for i in newest_first:
            factors[i] = self._factor(t.moments[f"s{i}"], i)
            self.ops.elementwise(subtract_scaled, (d, t.moments[f"y{i}"], factors[i]), (d,))
        if newest_first:
            y = t.moments[f"y{newest_first[0]}"]
            curvature = self._read(t.kept[f"rho{newest_first[0]}"]) * self._dot(y, y)
            self._write(self.scale, 1.0 / curvature)
            self.ops.elementwise(formulas.multiply, (d, self.scale), (d,))
        for i in reversed(newest_first):
            back = self._factor(t.moments[f"y{i}"], i)
            self.ops.elementwise(formulas.add_scaled, (d, t.moments[f"s{i}"], factors[i]), (d,))
            self.ops.elementwise(subtract_scaled, (d, t.moments[f"s{i}"], back), (d,))
        return self._dot(self.gradient, d)

    def _factor(self, vector: Array, i: int) -> Array:
        """ρᵢ vector · d, on the device."""
        self._product(vector, self.direction)
        factor = self.ops.zeros((1,), self.t.store.dtype)
        self.ops.elementwise(formulas.multiply, (self.product, self.t.kept[f"rho{i}"]), (factor,))
        return factor

    def _search(self, loss: float, square: float, slope: float) -> Point | None:
        """Search along the direction; return the accepted point, with values and gradients there, or None."""
        rate = self._read(self.t.rate)
        first = max(rate if self.pairs else rate * min(1.0, 1.0 / math.sqrt(square)), SMALLEST)
        budget = self.optimizer.max_evaluations
        end = wolfe_search(
            self._at, Point(0.0, loss, slope), first, budget, 10.0 * float(np.finfo(self.t.store.dtype).eps)
        )
        if end is not None and end.step != self.position:  # another point was evaluated last
            self._at(end.step)
        return end

    def _at(self, step: float) -> Point:
        """Evaluate loss and slope along the direction, `step` away from the start."""
        self._move(step)
        loss = self._evaluate()
        return Point(step, loss, self._dot(self.dW, self.direction))

    def _move(self, step: float) -> None:
        self.position = step
        self._write(self.scale, step)
        inputs = (self.t.moments["start"], self.direction, self.scale)
        self.ops.elementwise(formulas.add_scaled, inputs, (self.values,))

    def _remember(self, step: float) -> None:
        """Add the pair s = α d, y = change of the gradient to the history, if its curvature is positive."""
        t, i = self.t, self.pairs % self.optimizer.history_size
        y = t.moments["start"]  # a buffer that is free now
        self.ops.elementwise(formulas.subtract, (self.dW, self.gradient), (y,))
        curvature, square = step * self._dot(y, self.direction), self._dot(y, y)
        if curvature > 1e-12 * square > 0.0:  # tiny numbers have squares of 0
            self._write(self.scale, step)
            self.ops.elementwise(formulas.multiply, (self.direction, self.scale), (t.moments[f"s{i}"],))
            self.ops.copy(y, out=t.moments[f"y{i}"])
            self._write(t.kept[f"rho{i}"], 1.0 / curvature)
            self._write(t.pairs, self.pairs + 1.0)

    def _evaluate(self) -> float:
        self.evaluations += 1
        return float(self.evaluate())

    def _product(self, a: Array, b: Array) -> None:
        self.ops.elementwise(formulas.multiply, (a, b), (self.t.moments["work"],))
        self.ops.total(self.t.moments["work"][None], 1.0, out=self.product)

    def _dot(self, a: Array, b: Array) -> float:
        self._product(a, b)
        return self._read(self.product)

    def _read(self, array: Array) -> float:
        return float(self.ops.to_host(array).reshape(-1)[0])

    def _write(self, array: Array, value: float) -> None:
        self.ops.copy(self.ops.from_host(np.full(array.shape, value)), out=array)
