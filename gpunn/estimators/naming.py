"""What an estimator's network knows when it is saved by itself: the names of features and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.data import Preprocessing
from gpunn.data.columns import Exact
from gpunn.data.goals import Classes, Goal, Quantities
from gpunn.data.table import TARGETS


def feature_names(estimator: Any) -> list[str]:
    """Those of the table that it was fitted on, or x0, x1, ..., as tables of a matrix have them."""
    known = getattr(estimator, "feature_names_in_", None)
    return [f"x{j}" for j in range(estimator.n_features_in_)] if known is None else [str(name) for name in known]


def preprocessing(estimator: Any) -> Preprocessing | None:
    """Features as they are and the target; None where the outputs are neither classes nor the quantities themselves."""
    names = feature_names(estimator)
    target = next((name for name in reversed(TARGETS) if name not in names), "prediction")
    goal: Goal | None = estimator._goal(target)
    return None if goal is None else Preprocessing([Exact(name) for name in names], goal)


def classes(target: str, labels: Sequence[Any]) -> Classes | None:
    """Text, truth values and whole numbers; of other labels, or of one alone, a table has no classes."""
    labels = [int(label) if isinstance(label, float) and label.is_integer() else label for label in labels]
    alike = len({type(label) for label in labels}) == 1 and isinstance(labels[0], (str, int))
    return Classes(target, labels) if alike and len(labels) > 1 else None


def quantities(target: str, outputs: int) -> Quantities:
    """The outputs themselves."""
    names = [target] if outputs == 1 else [f"{target}{j}" for j in range(outputs)]
    return Quantities(names, [0.0] * outputs, [1.0] * outputs)
