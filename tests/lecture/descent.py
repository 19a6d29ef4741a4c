"""A small network of two layers, its loss and its gradients for one data point, as the notes write them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.initializers import Gaussian
from tests.lecture.notes import host

POINTS, INPUTS, HIDDEN, OUTPUTS = 12, 3, 4, 2
LOSS = gn.SquaredError(reduction="sum")  # of one point |a - y|²; of several their sum
Weights = dict[str, Any]

_rng = np.random.default_rng(1)
X, Y = _rng.normal(size=(POINTS, INPUTS)), _rng.normal(size=(POINTS, OUTPUTS))
VALIDATION = _rng.normal(size=(9, INPUTS)), _rng.normal(size=(9, OUTPUTS))


def network(backend: Any, *, bias: bool = True, seed: int = 2, **options: Any) -> gn.Network:
    """Weights and offsets both random, as in SGD-NEURAL-NET."""
    start: dict[str, Any] = {"initializer": Gaussian(0.5), "bias": bias, "bias_initializer": Gaussian(0.3)}
    layers = [gn.Dense(HIDDEN, "tanh", **start), gn.Dense(OUTPUTS, **start)]
    return gn.Network(layers, INPUTS, device=backend, dtype="float64", seed=seed, **options)


def values(net: gn.Network) -> Weights:
    return {name: host(net, view) for name, view in net.parameters.items()}


def gradients(w: Weights, i: int) -> Weights:
    """∂L/∂W and ∂L/∂W0 of both layers for data point i, one chain of columns (6.29)."""
    x, y = X[i][:, None], Y[i][:, None]
    a1 = np.tanh(w["0.W"].T @ x + w["0.b"].T)
    a2 = w["1.W"].T @ a1 + w["1.b"].T
    of_z2 = 2 * (a2 - y)
    of_z1 = (1 - a1**2) * (w["1.W"] @ of_z2)
    return {"0.W": x @ of_z1.T, "0.b": of_z1.T, "1.W": a1 @ of_z2.T, "1.b": of_z2.T}


def added(w: Weights, points: Any) -> Weights:
    """Definitions 21, 22 and 24: the gradients of all these points, added."""
    several = [gradients(w, i) for i in points]
    return {name: np.sum([g[name] for g in several], axis=0) for name in w}


def step(w: Weights, eta: float, g: Weights) -> Weights:
    """(6.51)."""
    return {name: w[name] - eta * g[name] for name in w}


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in b)


class Watch(gn.Callback):
    """Copies the weights after each step."""

    def __init__(self) -> None:
        self.seen: list[Weights] = []

    def on_step(self, run: Any) -> None:
        self.seen.append(values(run.network))


class Epochs(gn.Callback):
    """Copies the weights and what was measured after each epoch."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []
        self.losses: list[float] = []

    def on_epoch(self, run: Any, record: Any) -> None:
        self.weights.append(values(run.network))
        self.losses.append(float(record["validation_loss" if "validation_loss" in record else "loss"][0]))
