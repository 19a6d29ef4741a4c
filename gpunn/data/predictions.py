"""A network and a table: predictions in the table's own labels and units, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.data.preprocessing import Preprocessing
from gpunn.data.table import Host
from gpunn.data.targets import Classes, Quantities
from gpunn.errors import ConfigurationError, DataError
from gpunn.layers import Identity
from gpunn.losses import TINY, Loss
from gpunn.memory import memory_errors
from gpunn.network import Network


@dataclass(frozen=True, eq=False)
class Predictions:
    """`values` are labels (n,), or targets in their own units, (n,) or (n, targets): one row for each row of data.

    `probabilities` (n, classes) belong to `classes`, both None in regression; `names` are those of the targets.
    """

    names: tuple[str, ...]
    values: Host
    classes: tuple[Any, ...] | None = None
    probabilities: Host | None = None


@memory_errors("memory")
def predict(network: Network, source: Any, *, batch_size: int | None = None) -> Predictions:
    """What a network with preprocessing predicts for a table, or for anything that `read` takes; no target is needed.

    A population predicts the mean over its models: of their probabilities, or of their numbers.
    """
    preprocessing = preprocessing_of(network)
    outputs = _outputs(network, preprocessing, preprocessing.inputs(source, network.dtype), batch_size)
    target = preprocessing.target
    if isinstance(target, Classes):
        probabilities = target.probabilities(outputs)
        return Predictions(target.names, target.decode(probabilities), preprocessing.classes, probabilities)
    return Predictions(target.names, target.decode(outputs))


def evaluate(network: Network, source: Any, *, batch_size: int | None = None) -> dict[str, float]:
    """The loss; for classes also "accuracy", for quantities also "rmse" and "mae" in their own units and "r2".

    With several quantities these are means over all of them. A population is evaluated by what `predict` returns
    for it. The loss of quantities is that of the standardised ones.
    """
    return evaluate_by_target(network, source, batch_size=batch_size)[0]


@memory_errors("memory")
def evaluate_by_target(
    network: Network, source: Any, *, batch_size: int | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """What `evaluate` returns, and, with several quantities, the rmse of each by its name."""
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(source)
    X, y = preprocessing.inputs(table, network.dtype), preprocessing.targets(table, network.dtype)
    loss, target = network.loss or preprocessing.loss, preprocessing.target
    quantities = isinstance(target, Quantities)
    y = y[:, None] if network.outputs == (1,) and not quantities else y  # one output for two classes
    outputs = _outputs(network, preprocessing, X, batch_size) if quantities or network.models else X
    evaluated, inputs = (network, X) if network.models is None else _network_returning(outputs, loss)
    metrics = ["r2"] if quantities else ["accuracy"]
    results = evaluated.evaluate(inputs, y, metrics=metrics, loss=loss, batch_size=batch_size)
    rmse_by_name: dict[str, float] = {}
    if quantities:
        error = np.abs(target.decode(outputs) - target.decode(y))
        results["rmse"], results["mae"] = _rmse_and_mae(error)
        if error.ndim > 1:
            rmse_by_name = {name: _rmse_and_mae(column)[0] for name, column in zip(target.names, error.T)}
    return {name: float(value) for name, value in results.items()}, rmse_by_name


def _rmse_and_mae(error: Host) -> tuple[float, float]:
    largest = error.max()
    unit = largest if 0.0 < largest < np.inf else 1.0  # squares of large errors would overflow
    return float(unit * np.sqrt(np.mean((error / unit) ** 2))), float(unit * np.mean(error / unit))


def _outputs(network: Network, preprocessing: Preprocessing, X: Host, batch_size: int | None) -> Host:
    """Probabilities of classes, or standardised numbers; for a population, the means over its models."""
    if preprocessing.classes is None:
        outputs: Host = network.predict(X, batch_size=batch_size)
    else:
        loss = network.loss or preprocessing.loss
        outputs = network.predict_probability(X, loss=loss, batch_size=batch_size)
    if network.models is None:
        return outputs
    not_finite = [k for k in range(network.models) if not np.isfinite(outputs[k]).all()]
    if not_finite:
        raise DataError(
            "predictions of a population",
            expected="finite ones of every model",
            got=f"others of {', '.join(f'model {k}' for k in not_finite[:8])}",
            fix="leave these out: network.member(k) is model k alone",
        )
    means: Host = outputs.mean(axis=0, dtype=np.float64)
    return means


def _network_returning(means: Host, loss: Loss) -> tuple[Network, Host]:
    """A network that returns its inputs, and inputs for which the loss sees these means as the prediction."""
    if loss.link == "softmax":
        means = np.log(np.maximum(means, TINY))
    elif loss.link == "sigmoid":
        means = np.log(np.maximum(means, TINY)) - np.log(np.maximum(1.0 - means, TINY))
    return Network([Identity()], means.shape[1:], device="cpu", dtype="float64"), means


def preprocessing_of(network: Network) -> Preprocessing:
    """The preprocessing that is saved with a network."""
    if isinstance(network.preprocessing, Preprocessing):
        return network.preprocessing
    raise ConfigurationError(
        "network.preprocessing",
        expected="the preprocessing that the network was trained with",
        got=repr(network.preprocessing)[:80],
        fix="set it to the Preprocessing that made the training inputs, and save the network again",
    )
