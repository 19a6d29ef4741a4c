"""Adam and its relatives: a running mean of the gradient over the root of a running mean of its square.

m ← m + (1 - β₁)(g - m),  v ← v + (1 - β₂)(g² - v). Both start at 0, and dividing by 1 - βᵗ corrects for that. The
optimizers here differ in a few numbers, which are computed once in each step. `fresh1` and `fresh2` are 1 - β₁ and
1 - β₂; `count` is t, the number of the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gpunn import hyper
from gpunn.backends.formula.tracing import elementwise
from gpunn.errors import ConfigurationError
from gpunn.fields import choice
from gpunn.optimizers.base import Optimizer, OptimizerFrame, OptimizerPlan
from gpunn.optimizers.numbers import BETAS, EPSILON, NOT_NEGATIVE, complement, shrink, with_decay, without_none
from gpunn.per_model import Number
from gpunn.rules import require
from gpunn.schedules import Rate
from gpunn.types import Array


def _average(xp: Any, g: Any, m: Any, v: Any, fresh1: Any, fresh2: Any) -> Any:
    """The two running means after gradient g."""
    return m + fresh1 * (g - m), v + fresh2 * (g * g - v)


def _decay(W: Any, dW: Any, rate: Any, decay: Any, decoupled: Any) -> Any:
    """The weights and the gradient after weight decay, which changes one of the two."""
    return (shrink(W, rate, decay), dW) if decoupled else (W, with_decay(dW, W, decay))


@elementwise
def adam(
    xp: Any, W: Any, dW: Any, m: Any, v: Any, largest: Any, fresh1: Any, fresh2: Any, step: Any, root: Any, floor: Any,
    rate: Any, decay: Any, decoupled: Any,
) -> Any:  # fmt: skip
    """`largest` is None without amsgrad; `root` is None except for RAdam."""
    W, g = _decay(W, dW, rate, decay, decoupled)
    m, v = _average(xp, g, m, v, fresh1, fresh2)
    if largest is not None:
        largest = xp.maximum(largest, v)
    scale = xp.sqrt(v if largest is None else largest)
    if root is not None:
        scale = root * scale
    return without_none(W - step * (m / (scale + floor)), m, v, largest)


@elementwise
def adam_scalars(xp: Any, rate: Any, count: Any, beta1: Any, beta2: Any, eps: Any, hat: Any) -> Any:
    """With m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ), η m̂ / (√v̂ + ε) is step m / (√v + floor)."""
    root = xp.sqrt(1.0 - xp.power(beta2, count))
    return rate * root / (1.0 - xp.power(beta1, count)), eps if hat else eps * root


@dataclass(frozen=True)
class _Averaging(Optimizer, abstract=True):
    """Base of all: two decay rates, ε, weight decay, and two moments."""

    field_rules = {"eps": EPSILON, "weight_decay": NOT_NEGATIVE, "betas": BETAS}
    scalars: ClassVar[tuple[str, ...]] = ("step", "floor")
    squares: ClassVar[tuple[str, ...]] = ("v",)

    rate: Rate = 1e-3
    betas: tuple[Number, Number] = (0.9, 0.999)
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    def plan(self) -> OptimizerPlan:
        beta1, beta2 = self.betas
        return OptimizerPlan(
            moments={"m": 0.0, "v": 0.0},
            numbers={"fresh1": complement(beta1), "fresh2": complement(beta2)},
            exact={"beta1": beta1, "beta2": beta2, "eps": self.eps},
            scalars=self.scalars,
            decay=self.weight_decay,
        )


def _convention(where: str, value: Any) -> str:
    """The rule of `epsilon`, which names a convention; the number is `eps`."""
    if isinstance(value, (int, float)):
        raise ConfigurationError(where, expected="'pytorch' or 'hat'", got=repr(value), fix=f"write eps={value}")
    return str(hyper.choice(where, value, ("pytorch", "hat")))


@dataclass(frozen=True)
class Adam(_Averaging):
    """W ← W - η m̂ / (√v̂ + ε) with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ) and g = dW + λ W.

    `epsilon="hat"` is the convention of scikit-learn and Keras, η √(1 - β₂ᵗ) / (1 - β₁ᵗ) · m / (√v + ε): only ε counts
    differently. `amsgrad` divides by the root of the largest v so far and keeps one more moment.
    """

    decoupled: ClassVar[bool] = False
    squares = ("v", "largest")

    field_rules = {"amsgrad": choice(False, True), "epsilon": _convention}

    amsgrad: bool = False
    epsilon: str = "pytorch"

    def plan(self) -> OptimizerPlan:
        plan = super().plan()
        return OptimizerPlan(**{**vars(plan), "moments": {**plan.moments, "largest": 0.0}}) if self.amsgrad else plan

    def update(self, t: OptimizerFrame) -> None:
        scalars = (t.rate, t.count, t.beta1, t.beta2, t.eps, self.epsilon == "hat")
        t.ops.elementwise(adam_scalars, scalars, (t.step, t.floor))
        for p in t.parts:
            largest = p.largest if self.amsgrad else None
            inputs = (p.W, p.dW, p.m, p.v, largest, t.fresh1, t.fresh2, t.step, None, t.floor)
            decay = (t.rate, p.decay, self.decoupled)
            t.ops.elementwise(adam, (*inputs, *decay), without_none(p.W, p.m, p.v, largest))


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: W ← W (1 - η λ) - η m̂ / (√v̂ + ε); the moments see dW without the decay."""

    decoupled = True

    weight_decay: Number = 1e-2


@elementwise
def adamax(
    xp: Any, W: Any, dW: Any, m: Any, u: Any, fresh1: Any, beta2: Any, eps: Any, step: Any, decay: Any
) -> Any:  # fmt: skip
    g = with_decay(dW, W, decay)
    m = m + fresh1 * (g - m)
    u = xp.maximum(beta2 * u, xp.absolute(g) + eps)
    return W - step * (m / u), m, u


@elementwise
def adamax_scalars(xp: Any, rate: Any, count: Any, beta1: Any) -> Any:
    return rate / (1.0 - xp.power(beta1, count))


@dataclass(frozen=True)
class Adamax(_Averaging):
    """W ← W - η m̂ / u with u ← max(β₂ u, |g| + ε), a running maximum in place of √v̂."""

    squares = ("u",)

    rate: Rate = 2e-3

    def plan(self) -> OptimizerPlan:
        beta1, beta2 = self.betas
        return OptimizerPlan(
            moments={"m": 0.0, "u": 0.0},
            numbers={"fresh1": complement(beta1), "beta2": beta2, "eps": self.eps},
            exact={"beta1": beta1},
            scalars=("step",),
            decay=self.weight_decay,
        )

    def update(self, t: OptimizerFrame) -> None:
        t.ops.elementwise(adamax_scalars, (t.rate, t.count, t.beta1), (t.step,))
        for p in t.parts:
            inputs = (p.W, p.dW, p.m, p.u, t.fresh1, t.beta2, t.eps, t.step, p.decay)
            t.ops.elementwise(adamax, inputs, (p.W, p.m, p.u))


@elementwise
def nadam(
    xp: Any, W: Any, dW: Any, m: Any, v: Any, fresh1: Any, fresh2: Any, now: Any, step: Any, floor: Any,
    rate: Any, decay: Any, decoupled: Any,
) -> Any:  # fmt: skip
    W, g = _decay(W, dW, rate, decay, decoupled)
    m, v = _average(xp, g, m, v, fresh1, fresh2)
    return W - (now * g + step * m) / (xp.sqrt(v) + floor), m, v


@elementwise
def nadam_scalars(
    xp: Any, rate: Any, count: Any, product: Any, beta1: Any, beta2: Any, eps: Any, momentum_decay: Any
) -> Any:  # fmt: skip
    """The product of all momenta μₜ = β₁ (1 - ½ · 0.96^(t ψ)), and the factors of g, of m, and of ε."""
    mu = beta1 * (1.0 - 0.5 * xp.power(0.96, count * momentum_decay))
    following = beta1 * (1.0 - 0.5 * xp.power(0.96, (count + 1.0) * momentum_decay))
    product = product * mu
    root = xp.sqrt(1.0 - xp.power(beta2, count))
    now = rate * root * (1.0 - mu) / (1.0 - product)
    return product, now, rate * root * following / (1.0 - product * following), eps * root


@dataclass(frozen=True)
class NAdam(_Averaging):
    """Adam with Nesterov's method: W ← W - η ((1 - μₜ) g / (1 - Πμ) + μₜ₊₁ m / (1 - μₜ₊₁ Πμ)) / (√v̂ + ε).

    μₜ = β₁ (1 - ½ · 0.96^(t ψ)) with ψ = `momentum_decay`, and Πμ is the product of μ₁ to μₜ.
    """

    field_rules = {"momentum_decay": NOT_NEGATIVE, "decoupled_weight_decay": choice(False, True)}
    scalars = ("now", "step", "floor")

    rate: Rate = 2e-3
    momentum_decay: Number = 4e-3
    decoupled_weight_decay: bool = False

    def plan(self) -> OptimizerPlan:
        plan = vars(super().plan())
        exact = {**plan["exact"], "momentum_decay": self.momentum_decay}
        return OptimizerPlan(**{**plan, "exact": exact, "kept": {"product": 1.0}})

    def check_state(self, state: Mapping[str, Array], updates: int) -> None:
        super().check_state(state, updates)
        product = state["product"]
        fits = ((product >= 0.0) & (product < 1.0 if updates else product == 1.0)).all()
        expected = "numbers >= 0 and below 1" if updates else "1 before the first update"
        require(fits, "optimizer/product", expected=expected, got=f"{product.min():g} to {product.max():g}")

    def update(self, t: OptimizerFrame) -> None:
        scalars = (t.rate, t.count, t.product, t.beta1, t.beta2, t.eps, t.momentum_decay)
        t.ops.elementwise(nadam_scalars, scalars, (t.product, t.now, t.step, t.floor))
        for p in t.parts:
            decay = (t.rate, p.decay, self.decoupled_weight_decay)
            inputs = (p.W, p.dW, p.m, p.v, t.fresh1, t.fresh2, t.now, t.step, t.floor, *decay)
            t.ops.elementwise(nadam, inputs, (p.W, p.m, p.v))


@elementwise
def radam_scalars(xp: Any, rate: Any, count: Any, beta1: Any, beta2: Any, eps: Any) -> Any:
    """step, root and floor of W - step m / (root √v + floor); with root 0 and floor 1 only m is left."""
    power = xp.power(beta2, count)
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * count * power / (1.0 - power)
    tame = length > 5.0
    long, limit = xp.maximum(length, 5.0), xp.maximum(longest, 5.0)  # so that both branches of `where` are finite
    rectifier = xp.sqrt((long - 4.0) * (long - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * long))
    step = rate / (1.0 - xp.power(beta1, count))
    return (
        step * xp.where(tame, rectifier * xp.sqrt(1.0 - power), 1.0),
        xp.where(tame, 1.0, 0.0),
        xp.where(tame, eps, 1.0),
    )


@dataclass(frozen=True)
class RAdam(_Averaging):
    """Adam with smaller steps while v comes from few gradients: η r m̂ √(1 - β₂ᵗ) / (√v + ε).

    ρ∞ = 2 / (1 - β₂) - 1 and ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ); where ρ > 5,
    r² = (ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ), else the step is η m̂ (Liu et al. 2020).
    """

    scalars = ("step", "root", "floor")

    field_rules = {"decoupled_weight_decay": choice(False, True)}

    decoupled_weight_decay: bool = False

    def update(self, t: OptimizerFrame) -> None:
        t.ops.elementwise(
            radam_scalars, (t.rate, t.count, t.beta1, t.beta2, t.eps), (t.step, t.root, t.floor)
        )  # fmt: skip
        for p in t.parts:
            decay = (t.rate, p.decay, self.decoupled_weight_decay)
            inputs = (p.W, p.dW, p.m, p.v, None, t.fresh1, t.fresh2, t.step, t.root, t.floor, *decay)
            t.ops.elementwise(adam, inputs, (p.W, p.m, p.v))
