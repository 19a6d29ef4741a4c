"""A network and a table: predictions in the table's own labels and units, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.data.goals import Classes, Quantities
from gpunn.data.preprocessing import Preprocessing
from gpunn.data.table import Host
from gpunn.errors import ConfigurationError, DataError
from gpunn.layers import Identity
from gpunn.losses import TINY, Loss
from gpunn.memory import memory_errors
from gpunn.network import Network


@dataclass(frozen=True, eq=False)
class Answers:
    """`values` are labels (n,), or targets in their own units, (n,) or (n, targets): one row for each row of data.

    `probabilities` (n, classes) belong to `classes`, both None in regression; `names` are those of the targets.
    """

    names: tuple[str, ...]
    values: Host
    classes: tuple[Any, ...] | None = None
    probabilities: Host | None = None


@memory_errors("memory")
def predict(network: Network, source: Any, *, batch_size: int | None = None) -> Answers:
    """What a network with preprocessing says of a table, or of anything that `read` takes; a target is not needed.

    A population says what its models do on average: the mean of their probabilities, or of their numbers.
    """
    preprocessing = preprocessing_of(network)
    outputs = _outputs(network, preprocessing, preprocessing.inputs(source, network.dtype), batch_size)
    goal = preprocessing.target
    if isinstance(goal, Classes):
        probabilities = goal.probabilities(outputs)
        return Answers(goal.names, goal.decode(probabilities), preprocessing.classes, probabilities)
    return Answers(goal.names, goal.decode(outputs))


def evaluate(network: Network, source: Any, *, batch_size: int | None = None) -> dict[str, float]:
    """The loss and, of classes, the accuracy; of quantities "rmse" and "mae" in their own units, and "r2".

    Of several quantities these are means over all of them. A population is judged by what `predict` says for it.
    The loss of quantities is that of the standardised ones.
    """
    return figures(network, source, batch_size=batch_size)[0]


@memory_errors("memory")
def figures(
    network: Network, source: Any, *, batch_size: int | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Those of `evaluate`, and, of several quantities, the rmse of each by its name."""
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(source)
    X, y = preprocessing.inputs(table, network.dtype), preprocessing.targets(table, network.dtype)
    loss, goal = network.loss or preprocessing.loss, preprocessing.target
    quantities = isinstance(goal, Quantities)
    y = y[:, None] if network.outputs == (1,) and not quantities else y  # one output for two classes
    outputs = _outputs(network, preprocessing, X, batch_size) if quantities or network.models else X
    judged, inputs = (network, X) if network.models is None else _of_means(outputs, loss)
    metrics = ["r2"] if quantities else ["accuracy"]
    results = judged.evaluate(inputs, y, metrics=metrics, loss=loss, batch_size=batch_size)
    of_each: dict[str, float] = {}
    if quantities:
        error = np.abs(goal.decode(outputs) - goal.decode(y))
        results["rmse"], results["mae"] = _rmse_and_mae(error)
        if error.ndim > 1:
            of_each = {name: _rmse_and_mae(column)[0] for name, column in zip(goal.names, error.T)}
    return {name: float(value) for name, value in results.items()}, of_each


def _rmse_and_mae(error: Host) -> tuple[float, float]:
    largest = error.max()
    unit = largest if 0.0 < largest < np.inf else 1.0  # squares of large errors are too large
    return float(unit * np.sqrt(np.mean((error / unit) ** 2))), float(unit * np.mean(error / unit))


def _outputs(network: Network, preprocessing: Preprocessing, X: Host, batch_size: int | None) -> Host:
    """Probabilities of classes, or standardised numbers; of a population, the means over its models."""
    if preprocessing.classes is None:
        outputs: Host = network.predict(X, batch_size=batch_size)
    else:
        loss = network.loss or preprocessing.loss
        outputs = network.predict_probability(X, loss=loss, batch_size=batch_size)
    if network.models is None:
        return outputs
    wild = [k for k in range(network.models) if not np.isfinite(outputs[k]).all()]
    if wild:
        raise DataError(
            "predictions of a population",
            expected="finite ones of every model",
            got=f"others of {', '.join(f'model {k}' for k in wild[:8])}",
            fix="leave these out: network.member(k) is model k alone",
        )
    means: Host = outputs.mean(axis=0, dtype=np.float64)
    return means


def _of_means(means: Host, loss: Loss) -> tuple[Network, Host]:
    """A network that hands its inputs on, and the inputs of which the loss takes these means for what was predicted."""
    if loss.link == "softmax":
        means = np.log(np.maximum(means, TINY))
    elif loss.link == "sigmoid":
        means = np.log(np.maximum(means, TINY)) - np.log(np.maximum(1.0 - means, TINY))
    return Network([Identity()], means.shape[1:], device="cpu", dtype="float64"), means


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
