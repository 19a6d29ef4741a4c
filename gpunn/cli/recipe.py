"""The layers, loss and optimizer that `gpunn train` makes of its options and the kind of target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import gpunn as gn
from gpunn.errors import ConfigurationError
from gpunn.layers.activation import Nonlinearity
from gpunn.layers.base import Layer
from gpunn.losses import Loss
from gpunn.optimizers import Optimizer

# The highest rate of the cycle, unless --rate is given.
RATES = {
    "adamw": 3e-3, "adam": 3e-3, "nadam": 3e-3, "radam": 3e-3, "adamax": 5e-3, "lion": 3e-4, "rmsprop": 1e-3,
    "adagrad": 3e-2, "adadelta": 1.0, "sgd": 0.1,
}  # fmt: skip
OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in (
        gn.AdamW, gn.Adam, gn.NAdam, gn.RAdam, gn.Adamax, gn.Lion, gn.RMSprop, gn.Adagrad, gn.Adadelta, gn.SGD,
    )
}  # fmt: skip
ACTIVATIONS = sorted(name for name in Nonlinearity.named if "softmax" not in name and name not in ("step", "identity"))

UPDATES = 1500  # of a training, unless --epochs is given
EPOCHS = (20, 200)  # at least and at most
BATCHES = (16, 1024)


def default_batch_size(rows: int) -> int:
    """The power of two nearest to a 25th of the rows."""
    low, high = BATCHES
    return min(high, max(low, 1 << round(math.log2(max(rows / 25, 1)))))


def default_epochs(rows: int, batch_size: int) -> int:
    low, high = EPOCHS
    return min(high, max(low, math.ceil(UPDATES / math.ceil(rows / batch_size))))


def default_patience(epochs: int) -> int:
    """A third of the epochs: in a cycle, the held-out loss improves most near the end."""
    return max(10, math.ceil(epochs / 3))


def hidden_layers(widths: Sequence[int], activation: str, dropout: float, batch_norm: bool) -> list[Layer]:
    """Dense, BatchNorm and Dropout of each width; no bias before BatchNorm, which would remove it."""
    layers: list[Layer] = []
    for width in widths:
        if batch_norm:
            layers += [gn.Dense(width, bias=False), gn.BatchNorm(activation=activation)]
        else:
            layers.append(gn.Dense(width, activation))
        layers += [gn.Dropout(dropout)] if dropout else []
    return layers


def loss_of(classes: bool, smoothing: float) -> tuple[Loss, str]:
    """The loss for classes or quantities, and the metric to show beside it."""
    return (gn.CrossEntropy(smoothing), "accuracy") if classes else (gn.SquaredError(), "r2")


def balanced(classes: Iterable[int]) -> dict[int, float]:
    """Weights of classes that give every class the same sum of weights over its rows."""
    counts = Counter(classes)
    return {c: counts.total() / (len(counts) * count) for c, count in sorted(counts.items())}


def make_optimizer(name: str, rate: float | None, steps: int) -> Optimizer:
    """An optimizer whose rate makes one cycle over all steps."""
    cycle: Any = gn.schedules.OneCycle(RATES[name] if rate is None else rate, steps)
    return OPTIMIZERS[name](cycle, **({"momentum": 0.9} if name == "sgd" else {}))


def describe(optimizer: Optimizer) -> str:
    """The optimizer in words: its rate and the other numbers that change the result."""
    numbers = [(name, getattr(optimizer, name, 0)) for name in ("momentum", "weight_decay")]
    more = "".join(f", {name.replace('_', ' ')} {number:g}" for name, number in numbers if number)
    cycle: Any = optimizer.rate
    return f"{type(optimizer).__name__}{more}; the rate makes one cycle up to {cycle.rate:g}"


def widths(text: str) -> tuple[int, ...]:
    """ "256,256" as numbers; "" means no hidden layer."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise ConfigurationError(
            "--hidden", expected="widths such as 256,256", got=repr(text), fix='use whole numbers, or "" for none'
        ) from None


def share_of(validation: str) -> float | None:
    """The share to hold out; None if --validation names a file."""
    try:
        share = float(validation)
    except ValueError:
        return None
    if not 0.0 < share < 1.0:
        raise ConfigurationError(
            "--validation", expected="a share between 0 and 1, or a file", got=validation, fix="leave it out for 0.2"
        )
    return share
