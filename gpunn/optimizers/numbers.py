"""Rules for the numbers of optimizers, and pieces of their formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunn.errors import ConfigurationError
from gpunn.fields import number
from gpunn.per_model import Number, PerModel, entries_of, mapped

NOT_NEGATIVE = PerModel(number(low=0.0))
BELOW_ONE = PerModel(number(low=0.0, high=1.0, open_high=True))
# While a gradient has always been 0 an update is 0/ε: a smaller ε would be 0 in float32.
EPSILON = PerModel(number(low=1e-30))


class Pair(PerModel):
    """The rule of two decay rates, each a number or one for each model."""

    def __call__(self, where: str, value: Any) -> tuple[Number, Number]:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise ConfigurationError(where, expected="two numbers", got=repr(value), fix="give them as (0.9, 0.999)")
        single = super().__call__
        return single(f"{where}[0]", value[0]), single(f"{where}[1]", value[1])

    def tuples(self, name: str, value: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for i, beta in enumerate(value):
            yield from super().tuples(f"{name}[{i}]", beta)

    def of_model(self, value: Any, k: int) -> tuple[float, float]:
        return super().of_model(value[0], k), super().of_model(value[1], k)


BETAS = Pair(BELOW_ONE.rule)


def complement(value: Number) -> Number:
    """1 - β, the share of the new value in a running mean; in float64, because float32 has too few digits of it."""
    return mapped(lambda v: 1.0 - v, value)


def is_zero(value: Any) -> bool:
    """Whether an argument is the number 0, which is known when a formula is compiled."""
    return isinstance(value, (int, float)) and value == 0


def any_positive(value: Number) -> bool:
    return any(v > 0.0 for v in entries_of(value))


def without_none(*values: Any) -> tuple[Any, ...]:
    """The values that are not None: an optimizer has None for moments that it does not use."""
    return tuple(value for value in values if value is not None)


def with_decay(dW: Any, W: Any, decay: Any) -> Any:
    """dW + λ W: weight decay as part of the gradient."""
    return dW if is_zero(decay) else dW + decay * W


def shrink(W: Any, rate: Any, decay: Any) -> Any:
    """W (1 - η λ): weight decay decoupled from the gradient."""
    return W if is_zero(decay) else W * (1.0 - rate * decay)
