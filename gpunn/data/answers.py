"""A network and a table: predictions in the table's own labels and units, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.data.goals import Quantities
from gpunn.data.preprocessing import Preprocessing
from gpunn.data.table import Host
from gpunn.errors import ConfigurationError
from gpunn.network import Network


@dataclass(frozen=True, eq=False)
class Answers:
    """`values` are labels (n,), or targets in their own units, (n,) or (n, targets); a population has one each.

    `probabilities` (n, classes) belong to `classes`, both None in regression; `names` are those of the targets.
    """

    names: tuple[str, ...]
    values: Host
    classes: tuple[Any, ...] | None = None
    probabilities: Host | None = None


def predict(network: Network, source: Any, *, batch_size: int | None = None) -> Answers:
    """What a network with preprocessing says of a table, or of anything that `read` takes; a target is not needed."""
    preprocessing = preprocessing_of(network)
    X = preprocessing.inputs(source, network.dtype)
    names = preprocessing.target.names
    if preprocessing.classes is None:
        return Answers(names, preprocessing.decode(network.predict(X, batch_size=batch_size)))
    loss = network.loss or preprocessing.loss
    probabilities = network.predict_probability(X, loss=loss, batch_size=batch_size)
    return Answers(names, preprocessing.decode(probabilities), preprocessing.classes, probabilities)


def evaluate(network: Network, source: Any, *, batch_size: int | None = None) -> dict[str, Any]:
    """The loss and, of classes, the accuracy; of quantities "rmse" and "mae" in their own units, and "r2".

    Of several quantities these are means over all of them.
    """
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(source)
    X, y = preprocessing.inputs(table, network.dtype), preprocessing.targets(table, network.dtype)
    loss, goal = network.loss or preprocessing.loss, preprocessing.target
    metrics = ["r2"] if isinstance(goal, Quantities) else ["accuracy"]
    results = network.evaluate(X, y, metrics=metrics, loss=loss, batch_size=batch_size)
    if isinstance(goal, Quantities):
        error = np.abs(preprocessing.decode(network.predict(X, batch_size=batch_size)) - goal.decode(y))
        axes = tuple(range(error.ndim - (1 if goal.width == 1 else 2), error.ndim))
        largest = error.max(axis=axes, keepdims=True)
        unit = np.where((largest > 0.0) & (largest < np.inf), largest, 1.0)  # squares of large errors are too large
        squares, means = (np.mean((error / unit) ** power, axis=axes) for power in (2, 1))
        unit = unit.reshape(means.shape)
        results["rmse"], results["mae"] = unit * np.sqrt(squares), unit * means
    return {name: value if network.models else float(value) for name, value in results.items()}


def preprocessing_of(network: Network) -> Preprocessing:
    """The preprocessing that travels with a network."""
    if isinstance(network.preprocessing, Preprocessing):
        return network.preprocessing
    raise ConfigurationError(
        "network.preprocessing",
        expected="the preprocessing that the network was trained with",
        got=repr(network.preprocessing)[:80],
        fix="set it to the Preprocessing that made the training inputs, and save the network again",
    )
