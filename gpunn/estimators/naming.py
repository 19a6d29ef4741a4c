"""The preprocessing that is saved with an estimator's network: names of features, and the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.data import Preprocessing
from gpunn.data.columns import Exact
from gpunn.data.table import USUAL_TARGETS
from gpunn.data.targets import Classes, Quantities, Target


def feature_names(estimator: Any) -> list[str]:
    """The columns of the table that it was fitted on, or x0, x1, ..., as `read` names those of a matrix."""
    known = getattr(estimator, "feature_names_in_", None)
    return [f"x{j}" for j in range(estimator.n_features_in_)] if known is None else [str(name) for name in known]


def preprocessing(estimator: Any) -> Preprocessing | None:
    """Features as they are, and the target; None if the outputs are neither classes nor the quantities themselves."""
    names = feature_names(estimator)
    name = next((usual for usual in reversed(USUAL_TARGETS) if usual not in names), "prediction")
    target: Target | None = estimator._target_to_save(name)
    return None if target is None else Preprocessing([Exact(feature) for feature in names], target)


def classes(name: str, labels: Sequence[Any]) -> Classes | None:
    """Classes of text, truth values or whole numbers; None for other labels, and for a single one."""
    labels = [int(label) if isinstance(label, float) and label.is_integer() else label for label in labels]
    alike = len({type(label) for label in labels}) == 1 and isinstance(labels[0], (str, int))
    return Classes(name, labels) if alike and len(labels) > 1 else None


def quantities(name: str, outputs: int) -> Quantities:
    """Targets that are equal to the outputs."""
    names = [name] if outputs == 1 else [f"{name}{j}" for j in range(outputs)]
    return Quantities(names, [0.0] * outputs, [1.0] * outputs)
