"""Metrics: what training and evaluation measure besides the loss. Weights of examples do not change them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gpunn.errors import ConfigurationError
from gpunn.hyper import shown
from gpunn.metrics.base import EXCLUSIVE, Metric, WholeSet
from gpunn.metrics.rows import (
    R2,
    Accuracy,
    LogLoss,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
    RowError,
    TopK,
)
from gpunn.metrics.whole import F1, AreaUnderRoc, AveragePrecision, FunctionMetric
from gpunn.words import METRICS

__all__ = [
    "EXCLUSIVE", "F1", "R2", "Accuracy", "AreaUnderRoc", "AveragePrecision", "FunctionMetric", "LogLoss",
    "MeanAbsoluteError", "MeanSquaredError", "Metric", "RootMeanSquaredError", "RowError", "TopK", "WholeSet", "grows",
    "known", "resolve",
]  # fmt: skip

OTHERS = ("rate", "seconds", "examples_per_second", "gradient_norm")  # what a history has besides loss and metrics


def known(name: str) -> Metric | None:
    """The metric with this name, or None."""
    top = re.fullmatch(r"top_([1-9][0-9]{0,17})", name)
    return TopK(int(top[1])) if top else Metric.named.get(name)


def resolve(metrics: Any) -> dict[str, Metric]:
    """Metrics by name, in the given order; None means no metrics."""
    if metrics is None:
        return {}
    found: dict[str, Metric] = {}
    for one in metrics if isinstance(metrics, Iterable) and not isinstance(metrics, str) else [metrics]:
        metric = known(one) if isinstance(one, str) else one
        if callable(one) and not isinstance(one, type):
            metric = FunctionMetric(one)
        if not isinstance(metric, Metric):
            ours = _ours(one) if isinstance(one, str) else None
            raise ConfigurationError(
                "metrics",
                expected=f"some of {', '.join(Metric.named)}, top_5, or functions of y and the prediction",
                got=shown(one),
                fix=f"write {ours!r}" if ours else "use one of these names",
            )
        if metric.name == "loss" or found.setdefault(metric.name, metric) != metric:
            raise ConfigurationError(
                "metrics", expected="a name for each", got=f"{metric.name!r} twice", fix="rename your function"
            )
    return found


def _ours(name: str) -> str | None:
    """Our name for a metric that other libraries call so, or None."""
    small = name.lower()
    return small if known(small) else METRICS.get(small)


def grows(name: str) -> bool | None:
    """Whether larger values are better for this name in a history; None for a user's function."""
    part = name.removeprefix("validation_")
    metric = known(part)
    if metric is not None:
        return metric.maximise
    return False if part in ("loss", *OTHERS) else None
