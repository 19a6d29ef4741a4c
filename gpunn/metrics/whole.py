"""Metrics that look at a whole set at once: of classifiers by rank and decision, and functions of ones own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.errors import ConfigurationError
from gpunn.losses import Loss
from gpunn.metrics import ranking
from gpunn.metrics.base import WholeSet, check_certain, check_vector
from gpunn.types import Array, Shape


@dataclass(frozen=True)
class Certain(WholeSet):
    """A figure of a classifier against what is true for certain; of several classes the mean over them."""

    maximise = True

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        check_vector(name, rank)

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        check_certain(name, given, loss, outputs)


@dataclass(frozen=True)
class AreaUnderRoc(Certain):
    """The area under the ROC curve, of more than two classes each against the rest: see `ranking.area_under_roc`.

    Classes that do not occur, or that all are, do not count; NaN where none is left.
    """

    name = "auc"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro(ranking.area_under_roc, ranking.pairs(y, P, exclusive))


@dataclass(frozen=True)
class AveragePrecision(Certain):
    """The area under the precision-recall curve by steps: see `ranking.average_precision`.

    Classes that do not occur do not count; NaN where none is left.
    """

    name = "average_precision"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro(ranking.average_precision, ranking.pairs(y, P, exclusive))


@dataclass(frozen=True)
class F1(Certain):
    """F1 of one output or of the second of two classes, else the mean over all: see `ranking.macro_f1`."""

    name = "f1"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro_f1(y, P, exclusive)


@dataclass(frozen=True)
class FunctionMetric(WholeSet):
    """A function of ones own: `function(y, P)` gives a number."""

    function: Callable[[Array, Array], float]

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(getattr(self.function, "__name__", type(self.function).__name__)).strip("<>")

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        value = np.asarray(self.function(y, P))
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise ConfigurationError(
                f"metrics {self.name}",
                expected="a function that returns a number",
                got=f"{value.dtype} of shape {value.shape}",
                fix="return one number for the whole set",
            )
        return float(value.reshape(()))
