"""Optimizers whose step is the gradient, its running mean, or the sign of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.errors import ConfigurationError
from gpunn.fields import choice, number
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.optimizers.numbers import BELOW_ONE, BETAS, NOT_NEGATIVE, any_positive, complement, decayed, kept, shrunk
from gpunn.per_model import Number, PerModel, entries_of
from gpunn.schedules import Rate


@elementwise
def descend(
    xp: Any, W: Any, dW: Any, v: Any, rate: Any, momentum: Any, fresh: Any, nesterov: Any, decay: Any
) -> Any:  # fmt: skip
    """Without momentum v is None; without dampening `fresh` is None."""
    g = decayed(dW, W, decay)
    if v is None:
        return W - rate * g
    v = momentum * v + (g if fresh is None else fresh * g)
    return W - rate * (g + momentum * v if nesterov else v), v


@elementwise
def first_is_fresh(xp: Any, count: Any, fresh: Any) -> Any:
    """The first gradient starts the velocity undamped."""
    return xp.where(count > 1.0, fresh, 1.0)


@dataclass(frozen=True)
class SGD(Optimizer):
    """W ← W - η g with g = dW + λ W, the notes' plain step; with momentum μ and dampening τ

    v ← μ v + (1 - τ) g,  W ← W - η v,  or with Nesterov's look ahead  W ← W - η (g + μ v).
    The first velocity is g itself. Without momentum no velocity is kept.
    """

    field_rules = {
        "momentum": BELOW_ONE,
        "dampening": PerModel(number(low=0.0, high=1.0)),
        "weight_decay": NOT_NEGATIVE,
        "nesterov": choice(False, True),
    }

    rate: Rate = 1e-3
    momentum: Number = 0.0
    nesterov: bool = False
    dampening: Number = 0.0
    weight_decay: Number = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (any_positive(self.dampening) or 0.0 in entries_of(self.momentum)):
            raise ConfigurationError(
                "SGD nesterov",
                expected="momentum > 0 and no dampening",
                got=f"momentum={self.momentum}, dampening={self.dampening}",
                fix="set momentum=0.9 and leave dampening out",
            )

    def plan(self) -> OptimizerPlan:
        if not any_positive(self.momentum):
            return OptimizerPlan(numbers={"momentum": 0.0}, decay=self.weight_decay)
        fresh = complement(self.dampening)
        if isinstance(self.momentum, tuple):  # without momentum dampening means nothing, for a model as for all
            each = zip(entries_of(fresh, len(self.momentum)), self.momentum)
            fresh = tuple(f if momentum else 1.0 for f, momentum in each)
        return OptimizerPlan(
            moments={"v": 0.0},
            numbers={"momentum": self.momentum},
            exact={"undamped": fresh},
            scalars=("fresh",),
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        fresh = None
        if t.moments and any_positive(self.dampening):
            fresh = t.fresh
            t.ops.elementwise(first_is_fresh, (t.count, t.undamped), (fresh,))
        for p in t.parts:
            v = p.v if t.moments else None
            inputs = (p.W, p.dW, v, t.rate, t.momentum, fresh, self.nesterov, p.decay)
            t.ops.elementwise(descend, inputs, kept(p.W, v))


@elementwise
def lion(
    xp: Any, W: Any, dW: Any, m: Any, rate: Any, beta1: Any, fresh1: Any, beta2: Any, fresh2: Any, decay: Any
) -> Any:
    c = beta1 * m + fresh1 * dW
    direction = c / xp.maximum(xp.absolute(c), 1e-37)  # the sign; NumPy's own is ten times slower on random numbers
    return shrunk(W, rate, decay) - rate * direction, beta2 * m + fresh2 * dW


@dataclass(frozen=True)
class Lion(Optimizer):
    """W ← W - η (sign(β₁ m + (1 - β₁) dW) + λ W),  m ← β₂ m + (1 - β₂) dW.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms". One moment; every weight moves by η, so rates
    are 3 to 10 times smaller than Adam's and decays as much larger.
    """

    field_rules = {"weight_decay": NOT_NEGATIVE, "betas": BETAS}

    rate: Rate = 1e-4
    betas: tuple[Number, Number] = (0.9, 0.99)
    weight_decay: Number = 0.0

    def plan(self) -> OptimizerPlan:
        beta1, beta2 = self.betas
        numbers = {"beta1": beta1, "fresh1": complement(beta1), "beta2": beta2, "fresh2": complement(beta2)}
        return OptimizerPlan(moments={"m": 0.0}, numbers=numbers, decay=self.weight_decay)

    def update(self, t: OptimizerFrame) -> None:
        for p in t.parts:
            inputs = (p.W, p.dW, p.m, t.rate, t.beta1, t.fresh1, t.beta2, t.fresh2, p.decay)
            t.ops.elementwise(lion, inputs, (p.W, p.m))
