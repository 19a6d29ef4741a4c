"""Optimizers that divide each weight's step by the size of that weight's gradients so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.fields import choice, number
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.optimizers.numbers import (
    BELOW_ONE,
    EPSILON,
    NOT_NEGATIVE,
    any_positive,
    complement,
    with_decay,
    without_none,
)
from gpunn.per_model import Number, PerModel
from gpunn.schedules import Rate


@elementwise
def adagrad(xp: Any, W: Any, dW: Any, s: Any, step: Any, eps: Any, decay: Any) -> Any:
    g = with_decay(dW, W, decay)
    s = s + g * g
    return W - step * (g / (xp.sqrt(s) + eps)), s


@elementwise
def adagrad_step(xp: Any, rate: Any, count: Any, lr_decay: Any) -> Any:
    return rate / (1.0 + (count - 1.0) * lr_decay)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s ← s + g²,  W ← W - ηₜ g / (√s + ε),  ηₜ = η / (1 + (t - 1) `lr_decay`),  g = dW + λ W.

    s starts with `initial_accumulator_value`.
    """

    field_rules = {
        "lr_decay": NOT_NEGATIVE,
        "weight_decay": NOT_NEGATIVE,
        "initial_accumulator_value": NOT_NEGATIVE,
        "eps": EPSILON,
    }
    squares = ("s",)

    rate: Rate = 1e-2
    lr_decay: Number = 0.0
    weight_decay: Number = 0.0
    initial_accumulator_value: Number = 0.0
    eps: Number = 1e-10

    def plan(self) -> OptimizerPlan:
        return OptimizerPlan(
            moments={"s": self.initial_accumulator_value},
            numbers={"eps": self.eps},
            exact={"lr_decay": self.lr_decay},
            scalars=("step",),
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        step = t.rate
        if any_positive(self.lr_decay):
            step = t.step
            t.ops.elementwise(adagrad_step, (t.rate, t.count, t.lr_decay), (step,))
        for p in t.parts:
            t.ops.elementwise(adagrad, (p.W, p.dW, p.s, step, t.eps, p.decay), (p.W, p.s))


@elementwise
def adadelta(xp: Any, W: Any, dW: Any, v: Any, u: Any, rate: Any, fresh: Any, eps: Any, decay: Any) -> Any:
    g = with_decay(dW, W, decay)
    v = v + fresh * (g * g - v)
    d = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
    return W - rate * d, v, u + fresh * (d * d - u)


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """v ← ρ v + (1 - ρ) g²,  d = √(u + ε) / √(v + ε) g,  u ← ρ u + (1 - ρ) d²,  W ← W - η d,  g = dW + λ W.

    d has the unit of the weights already, so the default rate is 1.
    """

    field_rules = {"rho": PerModel(number(low=0.0, high=1.0)), "eps": EPSILON, "weight_decay": NOT_NEGATIVE}
    squares = ("v", "u")

    rate: Rate = 1.0
    rho: Number = 0.9
    eps: Number = 1e-6
    weight_decay: Number = 0.0

    def plan(self) -> OptimizerPlan:
        return OptimizerPlan(
            moments={"v": 0.0, "u": 0.0},
            numbers={"fresh": complement(self.rho), "eps": self.eps},
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        for p in t.parts:
            t.ops.elementwise(
                adadelta, (p.W, p.dW, p.v, p.u, t.rate, t.fresh, t.eps, p.decay), (p.W, p.v, p.u)
            )  # fmt: skip


@elementwise
def rmsprop(
    xp: Any, W: Any, dW: Any, v: Any, m: Any, b: Any, rate: Any, fresh: Any, eps: Any, momentum: Any, decay: Any
) -> Any:
    """A moment that is not used is None and has no result. v - m² below 0, from rounding, counts as 0."""
    g = with_decay(dW, W, decay)
    v = v + fresh * (g * g - v)
    if m is None:
        q = g / (xp.sqrt(v) + eps)
    else:
        m = m + fresh * (g - m)
        q = g / (xp.sqrt(xp.maximum(v - m * m, 0.0)) + eps)
    if b is not None:
        b = q = momentum * b + q
    return without_none(W - rate * q, v, m, b)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """v ← α v + (1 - α) g²,  W ← W - η g / (√v + ε),  g = dW + λ W.

    `centered` also keeps m ← α m + (1 - α) g and divides by √(v - m²) + ε. With `momentum` μ the quotient q goes into
    b ← μ b + q, and W ← W - η b. Each of the two keeps one more moment.
    """

    field_rules = {
        "alpha": BELOW_ONE,
        "eps": EPSILON,
        "momentum": BELOW_ONE,
        "weight_decay": NOT_NEGATIVE,
        "centered": choice(False, True),
    }
    squares = ("v",)

    rate: Rate = 1e-2
    alpha: Number = 0.99
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    momentum: Number = 0.0
    centered: bool = False

    def plan(self) -> OptimizerPlan:
        names = ("v", *["m"] * self.centered, *["b"] * any_positive(self.momentum))
        return OptimizerPlan(
            moments=dict.fromkeys(names, 0.0),
            numbers={"fresh": complement(self.alpha), "eps": self.eps, "momentum": self.momentum},
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        for p in t.parts:
            m, b = (getattr(p, name) if name in t.moments else None for name in "mb")
            inputs = (p.W, p.dW, p.v, m, b, t.rate, t.fresh, t.eps, t.momentum, p.decay)
            t.ops.elementwise(rmsprop, inputs, without_none(p.W, p.v, m, b))
