"""50 steps beside scikit-learn's multi-layer perceptrons: same start weights, same examples in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import HalfL2

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra `sklearn`)")

from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier, MLPRegressor

STEPS, BATCH, EPOCHS = 50, 30, 2
HIDDEN, ALPHA = 128, 0.3
LAYERS = {"one hidden layer": (HIDDEN,), "two hidden layers": (32, 16)}
SGD = {"plain": {"momentum": 0.0, "nesterov": False}, "momentum": {"momentum": 0.9, "nesterov": False},
       "nesterov": {"momentum": 0.9, "nesterov": True}}  # fmt: skip


def digits() -> tuple[Any, Any]:
    """As many images as two epochs of 25 batches take."""
    images, labels = load_digits(return_X_y=True)
    rows = STEPS // EPOCHS * BATCH
    return images[:rows] / 16.0, labels[:rows]


def network(backend: Any, hidden: tuple[int, ...], outputs: int, activation: str) -> gn.Network:
    """The offsets are not 0, so that they matter from the first step on."""
    functions = [*(activation,) * len(hidden), None]
    start = gn.initializers.Gaussian(0.1)
    layers = [gn.Dense(width, f, bias_initializer=start) for width, f in zip((*hidden, outputs), functions)]
    return gn.Network(layers, 64, device=backend, dtype="float64", seed=3)


def twin(net: gn.Network, estimator: Any, X: Any, y: Any, **first: Any) -> Any:
    """scikit-learn's estimator with the weights of the network; the step in which it allocates its own is undone."""
    estimator.partial_fit(X[:BATCH], y[:BATCH], **first)
    del estimator._optimizer
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_)):
        W[...], b[...] = net.ops.to_host(net.parameters[f"{i}.W"]), net.ops.to_host(net.parameters[f"{i}.b"])[0]
    return estimator


def steps(estimator: Any, X: Any, y: Any) -> None:
    """A call of partial_fit that gets one batch takes one step."""
    for _ in range(EPOCHS):
        for start in range(0, len(X), BATCH):
            estimator.partial_fit(X[start : start + BATCH], y[start : start + BATCH])


def fit(net: gn.Network, X: Any, y: Any, optimizer: Any, loss: Any, alpha: float = ALPHA) -> None:
    """scikit-learn adds alpha/2 ‖W‖² / n to the mean loss of a batch of n; offsets do not decay."""
    net.fit(
        X, y, loss=loss, optimizer=optimizer, steps=STEPS, batch_size=BATCH, sampling="sequential",
        regularization=HalfL2(alpha / BATCH), keep="last",
    )  # fmt: skip


def distance(net: gn.Network, estimator: Any) -> float:
    """The largest difference of a weight over the largest weight of its kind."""
    found = []
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_)):
        for name, wanted in (("W", W), ("b", b[None])):
            got = net.ops.to_host(net.parameters[f"{i}.{name}"])
            found.append(np.abs(got - wanted).max() / np.abs(wanted).max())
    return float(max(found))


def classifier(hidden: tuple[int, ...], activation: str, **options: Any) -> Any:
    return MLPClassifier(hidden, activation=activation, alpha=ALPHA, batch_size=BATCH, shuffle=False, **options)


on_hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)


@on_hosts
@pytest.mark.parametrize("hidden", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("form", SGD)
def test_a_classifier_trained_by_sgd_equals_that_of_scikit_learn(
    backend: Any, form: str, hidden: tuple[int, ...]
) -> None:
    (X, y), options = digits(), SGD[form]
    net = network(backend, hidden, 10, "relu")
    settings = {"momentum": options["momentum"], "nesterovs_momentum": options["nesterov"]}
    peer = classifier(hidden, "relu", solver="sgd", learning_rate_init=0.02, **settings)
    twin(net, peer, X, y, classes=range(10))
    assert distance(net, peer) == 0.0
    before = net.ops.to_host(net.vector)
    fit(net, X, y, gn.SGD(0.02, **options), gn.CrossEntropy())
    steps(peer, X, y)
    assert np.abs(net.ops.to_host(net.vector) - before).max() > 0.02
    assert distance(net, peer) <= 1e-13


@on_hosts
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
def test_a_classifier_trained_by_adam_equals_that_of_scikit_learn(backend: Any, activation: str) -> None:
    X, y = digits()
    net = network(backend, (HIDDEN,), 10, {"logistic": "sigmoid"}.get(activation, activation))
    peer = classifier((HIDDEN,), activation, solver="adam", learning_rate_init=2e-3, beta_1=0.8, epsilon=1e-6)
    twin(net, peer, X, y, classes=range(10))
    fit(net, X, y, gn.Adam(2e-3, (0.8, 0.999), 1e-6, epsilon="hat"), gn.CrossEntropy())
    steps(peer, X, y)
    assert distance(net, peer) <= 1e-12
    np.testing.assert_allclose(net.predict_probability(X), peer.predict_proba(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", ["epsilon", "alpha", "order"])
def test_comparing_networks_with_scikit_learn_notices_a_difference(change: str) -> None:
    """For example Adam's other ε, a penalty that is not divided by n, or another order of rows."""
    X, y = digits()
    net = network("cpu", (HIDDEN,), 10, "relu")
    peer = classifier((HIDDEN,), "relu", solver="adam", learning_rate_init=2e-3, epsilon=1e-6)
    twin(net, peer, X, y, classes=range(10))
    optimizer = gn.Adam(2e-3, eps=1e-6, epsilon="pytorch" if change == "epsilon" else "hat")
    fit(net, X, y, optimizer, gn.CrossEntropy(), ALPHA * (BATCH if change == "alpha" else 1))
    places = np.arange(len(X)) if change != "order" else np.roll(np.arange(len(X)), 1)
    steps(peer, X[places], y[places])
    assert distance(net, peer) > 1e-6


# Half the squared error is what scikit-learn's gradient is of. Huber's loss is just that up to δ, and of one output
# SquaredError is the double of it.


def regressor(hidden: tuple[int, ...], **options: Any) -> Any:
    return MLPRegressor(hidden_layer_sizes=hidden, alpha=ALPHA, batch_size=BATCH, shuffle=False, **options)


@on_hosts
@pytest.mark.parametrize("loss", ["half", "whole"])
@pytest.mark.parametrize("form", SGD)
def test_a_regressor_trained_by_sgd_equals_that_of_scikit_learn(backend: Any, form: str, loss: str) -> None:
    X, y = digits()
    options, target = SGD[form], y / 9.0
    net = network(backend, (HIDDEN,), 1, "relu")
    settings = {"momentum": options["momentum"], "nesterovs_momentum": options["nesterov"]}
    peer = twin(net, regressor((HIDDEN,), solver="sgd", learning_rate_init=0.01, **settings), X, target)
    double = loss == "whole"
    optimizer = gn.SGD(0.005 if double else 0.01, **options)
    fit(net, X, target[:, None], optimizer, gn.SquaredError() if double else gn.Huber(1e3), ALPHA * (1 + double))
    steps(peer, X, target)
    assert distance(net, peer) <= 1e-13


@on_hosts
def test_a_regressor_trained_by_adam_equals_that_of_scikit_learn(backend: Any) -> None:
    X, y = digits()
    net = network(backend, (HIDDEN,), 1, "relu")
    peer = twin(net, regressor((HIDDEN,), solver="adam", learning_rate_init=2e-3), X, y / 9.0)
    fit(net, X, y[:, None] / 9.0, gn.Adam(2e-3, epsilon="hat"), gn.Huber(1e3))
    steps(peer, X, y / 9.0)
    assert distance(net, peer) <= 1e-12
    np.testing.assert_allclose(net.predict(X)[:, 0], peer.predict(X), rtol=0, atol=1e-12)
