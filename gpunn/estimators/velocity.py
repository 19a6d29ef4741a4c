"""Gradient descent as scikit-learn has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.fields import choice, number
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.per_model import Number, PerModel


@elementwise
def move(xp: Any, W: Any, dW: Any, v: Any, rate: Any, momentum: Any, nesterov: Any) -> Any:
    v = momentum * v - rate * dW
    return W + (momentum * v - rate * dW if nesterov else v), v


@dataclass(frozen=True)
class Velocity(Optimizer, abstract=True):
    """v ← μ v - η dW,  W ← W + v, or with Nesterov's momentum  W ← W + μ v - η dW.

    `gn.SGD` is the same as long as the rate is constant. Here the velocity contains the rates of the past steps.
    """

    field_rules = {"momentum": PerModel(number(low=0.0, high=1.0)), "nesterov": choice(False, True)}

    momentum: Number = 0.9
    nesterov: bool = True

    def plan(self) -> OptimizerPlan:
        return OptimizerPlan(moments={"v": 0.0}, numbers={"momentum": self.momentum})

    def update(self, t: OptimizerFrame) -> None:
        for p in t.parts:
            t.ops.elementwise(move, (p.W, p.dW, p.v, t.rate, t.momentum, self.nesterov), (p.W, p.v))
