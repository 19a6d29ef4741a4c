"""Metrics: a score for each example, made on the device, averaged over the examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn.backends.base import Backend
from gpunn.errors import ConfigurationError
from gpunn.types import Array


@dataclass(frozen=True)
class Metric:
    """`rows(ops, A, y, decision, out)` writes the score of each example to `out` (..., n, 1)."""

    named: ClassVar[dict[str, Metric]] = {}
    needs_targets: ClassVar[bool] = False  # whether `finish` looks at the whole set's target
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if cls.name:
            Metric.named[cls.name] = cls()

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs a rows method")

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        """Refuse targets of outputs with `rank` axes that this cannot score."""

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        """The figure from the mean score; `y` is the whole set's target, `rank` that of one output."""
        return mean


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of examples whose largest output is their class; of a single output, on the right side."""

    name = "accuracy"

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        if rank != 1:
            raise ConfigurationError(
                f"metrics {name}",
                expected="outputs that are one vector for each example",
                got=f"outputs of {rank} axes",
                fix="end the network in Flatten()",
            )

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.correct(A, y, decision, out=out)


@dataclass(frozen=True)
class RowError(Metric):
    """A score from the distance of outputs and targets, which must be of one kind."""

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        if y.dtype != dtype or y.ndim <= rank:
            raise ConfigurationError(
                f"metrics {name}",
                expected="a target of one number for each output, of shape (n, ...)",
                got=f"{y.dtype} of shape {y.shape}",
                fix="use accuracy for classes",
            )


@dataclass(frozen=True)
class MeanSquaredError(RowError):
    """The mean of (a - y)²."""

    name = "mse"

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.row_error(A, y, 2, out=out)


@dataclass(frozen=True)
class MeanAbsoluteError(RowError):
    """The mean of |a - y|."""

    name = "mae"

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.row_error(A, y, 1, out=out)


@dataclass(frozen=True)
class R2(RowError):
    """1 - Σ (a - y)² / Σ (y - mean y)², over all outputs together; 0 for a constant target that is missed."""

    name = "r2"
    needs_targets = True

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.row_error(A, y, 2, out=out)

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        examples, every = y.ndim - rank - 1, tuple(range(y.ndim - rank - 1, y.ndim))
        shifted = np.subtract(y, y.take([0], axis=examples), dtype=np.float64)  # exactly 0 where y is constant
        spread = np.square(shifted - shifted.mean(axis=examples, keepdims=True)).mean(axis=every)
        constant = spread == 0.0
        return np.where(constant, mean == 0.0, 1.0 - mean / np.where(constant, 1.0, spread))


def resolve(metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    """Metrics by name, in the order given."""
    found: dict[str, Metric] = {}
    for metric in metrics if isinstance(metrics, Iterable) and not isinstance(metrics, str) else [metrics]:
        if isinstance(metric, str) and metric in Metric.named:
            found[metric] = Metric.named[metric]
        elif isinstance(metric, Metric):
            found[metric.name] = metric
        else:
            raise ConfigurationError(
                "metrics",
                expected=f"some of {', '.join(Metric.named)}",
                got=repr(metric),
                fix="use one of these names",
            )
    return found
