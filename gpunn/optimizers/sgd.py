"""SGD, which steps along the gradient or a velocity, and Lion, which steps along the sign of a running mean.

In the formulas W and dW are the flat vectors of all parameters and of their gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunn.backends.formula.tracing import elementwise
from gpunn.errors import ConfigurationError
from gpunn.fields import choice, number
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.optimizers.numbers import (
    BELOW_ONE,
    BETAS,
    NOT_NEGATIVE,
    any_positive,
    complement,
    shrink,
    with_decay,
    without_none,
)
from gpunn.per_model import Number, PerModel, entries_of
from gpunn.schedules import Rate


@elementwise
def descend(
    xp: Any, W: Any, dW: Any, v: Any, rate: Any, momentum: Any, factor: Any, nesterov: Any, decay: Any
) -> Any:  # fmt: skip
    """Without momentum v is None; without dampening `factor`, 1 - τ, is None."""
    g = with_decay(dW, W, decay)
    if v is None:
        return W - rate * g
    new = g if factor is None else factor * g
    v = momentum * v + new
    direction = g + momentum * v if nesterov else v
    return W - rate * direction, v


@elementwise
def factor_of_update(xp: Any, count: Any, damped: Any) -> Any:
    """The factor of the gradient in the velocity: 1 in the first update, `damped` = 1 - τ in all others."""
    return xp.where(count > 1.0, damped, 1.0)


@dataclass(frozen=True)
class SGD(Optimizer):
    """W ← W - η g with g = dW + λ W, as in the notes; with momentum μ and dampening τ

    v ← μ v + (1 - τ) g,  W ← W - η v,  or with Nesterov's method  W ← W - η (g + μ v).
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
        damped = complement(self.dampening)
        if isinstance(self.momentum, tuple):  # no dampening for models without momentum
            each = zip(entries_of(damped, len(self.momentum)), self.momentum)
            damped = tuple(factor if momentum else 1.0 for factor, momentum in each)
        return OptimizerPlan(
            moments={"v": 0.0},
            numbers={"momentum": self.momentum},
            exact={"damped": damped},
            scalars=("factor",),
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        factor = None
        if t.moments and any_positive(self.dampening):
            factor = t.factor
            t.ops.elementwise(factor_of_update, (t.count, t.damped), (factor,))
        for p in t.parts:
            v = p.v if t.moments else None
            inputs = (p.W, p.dW, v, t.rate, t.momentum, factor, self.nesterov, p.decay)
            t.ops.elementwise(descend, inputs, without_none(p.W, v))


@elementwise
def lion(
    xp: Any, W: Any, dW: Any, m: Any, rate: Any, beta1: Any, fresh1: Any, beta2: Any, fresh2: Any, decay: Any
) -> Any:
    c = beta1 * m + fresh1 * dW
    direction = c / xp.maximum(xp.absolute(c), 1e-37)  # the sign; np.sign is ten times slower on random numbers
    return shrink(W, rate, decay) - rate * direction, beta2 * m + fresh2 * dW


@dataclass(frozen=True)
class Lion(Optimizer):
    """W ← W - η (sign(β₁ m + (1 - β₁) dW) + λ W),  m ← β₂ m + (1 - β₂) dW.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms". One moment. Every weight moves by η, so
    rates are 3 to 10 times smaller than Adam's, and decays 3 to 10 times larger.
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
