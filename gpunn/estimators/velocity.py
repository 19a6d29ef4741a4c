"""Gradient descent as scikit-learn has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn import hyper
from gpunn.backends.formula.tracing import elementwise
from gpunn.optimizers.base import Number, Optimizer, OptimizerFrame, OptimizerPlan


@elementwise
def move(xp: Any, W: Any, dW: Any, v: Any, rate: Any, momentum: Any, nesterov: Any) -> Any:
    v = momentum * v - rate * dW
    return W + (momentum * v - rate * dW if nesterov else v), v


@dataclass(frozen=True)
class Velocity(Optimizer, abstract=True):
    """v ← μ v - η dW,  W ← W + v, or with Nesterov's look ahead  W ← W + μ v - η dW.

    `gn.SGD` is the same while the rate stays as it is. Here the velocity keeps the rates of the past steps.
    """

    intervals = {"momentum": {"low": 0.0, "high": 1.0}}

    momentum: Number = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        hyper.choice("Velocity nesterov", self.nesterov, (False, True))

    def plan(self) -> OptimizerPlan:
        return OptimizerPlan(moments={"v": 0.0}, numbers={"momentum": self.momentum})

    def update(self, t: OptimizerFrame) -> None:
        for p in t.parts:
            t.ops.elementwise(move, (p.W, p.dW, p.v, t.rate, t.momentum, self.nesterov), (p.W, p.v))
