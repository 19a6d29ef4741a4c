"""Metrics that look at a whole set at once: for classifiers, and functions of users."""

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
    """A metric of classifiers whose targets are certain: classes, or zeros and ones."""

    maximise = True

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        check_vector(name, rank)

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        check_certain(name, given, loss, outputs)


@dataclass(frozen=True)
class AreaUnderRoc(Certain):
    """The area under the ROC curve; with more than two classes the mean of each against the rest.

    Classes with no or with all examples do not count; NaN if none is left. See `ranking.area_under_roc`.
    """

    name = "auc"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro(ranking.area_under_roc, ranking.pairs(y, P, exclusive))


@dataclass(frozen=True)
class AveragePrecision(Certain):
    """The area under the precision-recall curve by steps: see `ranking.average_precision`.

    Classes that do not occur do not count; NaN if none is left.
    """

    name = "average_precision"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro(ranking.average_precision, ranking.pairs(y, P, exclusive))


@dataclass(frozen=True)
class F1(Certain):
    """F1 for one output or the second of two classes, else the mean over all: see `ranking.macro_f1`."""

    name = "f1"

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        return ranking.macro_f1(y, P, exclusive)


@dataclass(frozen=True)
class FunctionMetric(WholeSet):
    """A user's function: `function(y, P)` returns a number."""

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
