"""Networks of one layer have a best point that mathematics gives: normal equations, or Newton's method."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import L2, HalfL2
from gpunn.schedules import Exponential

ROWS, FEATURES, OUTPUTS = 40, 5, 2
DECAY, EPOCHS = 0.3, 250

rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, FEATURES)) @ (np.eye(FEATURES) + 0.1 * rng.normal(size=(FEATURES, FEATURES)))
Y = X @ rng.normal(size=(FEATURES, OUTPUTS)) + 1.5 + 0.5 * rng.normal(size=(ROWS, OUTPUTS))
YES = (Y[:, :1] + 4.0 * rng.normal(size=(ROWS, 1)) > 1.0).astype(float)  # not separable
WEIGHT = rng.uniform(0.2, 2.0, ROWS)
LABELS = (X @ rng.normal(size=(FEATURES, 3)) + 2.0 * rng.normal(size=(ROWS, 3))).argmax(axis=1)

EXTENDED = np.hstack([X, np.ones((ROWS, 1))])  # the last column is the offset's, which does not decay
DECAYING = np.diag([1.0] * FEATURES + [0.0])

hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)


def network(backend: Any, outputs: int, **options: Any) -> gn.Network:
    return gn.Network([gn.Dense(outputs)], FEATURES, device=backend, dtype="float64", **options)


def train(net: gn.Network, y: Any, optimizer: Any, loss: Any, epochs: int, **options: Any) -> gn.History:
    return net.fit(
        X, y, optimizer=optimizer, loss=loss, epochs=epochs, batch_size=ROWS, keep="last", **options
    )  # fmt: skip


def found(net: gn.Network) -> Any:
    """Weights with the offset as their last row, (6, outputs) or (K, 6, outputs)."""
    return np.concatenate([net.ops.to_host(net.parameters[name]) for name in ("0.W", "0.b")], axis=-2)


def distance(net: gn.Network, wanted: Any) -> float:
    return float(np.abs(found(net) - wanted).max() / np.abs(wanted).max())


# Ridge regression


def ridge(decay: float, weight: Any = 1.0) -> Any:
    """argmin Σ_i c_i |x_i w + b - y_i|² + decay |w|², from its normal equations."""
    weighted = EXTENDED * np.reshape(weight, (-1, 1))
    return np.linalg.solve(weighted.T @ EXTENDED + decay * DECAYING, weighted.T @ Y)


MEAN = ROWS * OUTPUTS  # what the mean divides by, and a penalty therefore counts times in the sum
OBJECTIVES: dict[str, Any] = {
    "none": (gn.SquaredError(), None, 0.0, 0.0),
    "λ|w|² beside the mean": (gn.SquaredError(), L2(DECAY / MEAN), 0.0, DECAY),
    "λ|w|² beside the sum": (gn.SquaredError(reduction="sum"), L2(DECAY), 0.0, DECAY),
    "½λ|w|² beside the mean": (gn.SquaredError(), HalfL2(DECAY / MEAN), 0.0, DECAY / 2),
    "½λ|w|² of the optimizer": (gn.SquaredError(reduction="sum"), None, DECAY, DECAY / 2),
    "twice": (gn.SquaredError(reduction="sum"), [L2(DECAY), HalfL2(DECAY)], DECAY, 2 * DECAY),
}


@hosts
@pytest.mark.parametrize("case", OBJECTIVES)
def test_gradient_descent_finds_the_ridge_solution(backend: Any, case: str) -> None:
    loss, regularization, weight_decay, decay = OBJECTIVES[case]
    rate = 6e-3 * (MEAN if loss.reduction == "mean" else 1.0)
    net = network(backend, OUTPUTS)
    train(net, Y, gn.SGD(rate, weight_decay=weight_decay), loss, EPOCHS, regularization=regularization)
    assert distance(net, ridge(decay)) <= 1e-10
    assert decay in (0.0, DECAY) or distance(net, ridge(DECAY)) > 1e-4


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_finds_the_ridge_solution(nesterov: bool) -> None:
    net, optimizer = network("cpu", OUTPUTS), gn.SGD(4e-3, momentum=0.5, nesterov=nesterov)
    train(net, Y, optimizer, gn.SquaredError(reduction="sum"), EPOCHS, regularization=L2(DECAY))
    assert distance(net, ridge(DECAY)) <= 1e-10


@hosts
@pytest.mark.parametrize("case", [case for case in OBJECTIVES if "optimizer" not in case and case != "twice"])
def test_lbfgs_finds_the_ridge_solution(backend: Any, case: str) -> None:
    loss, regularization, _, decay = OBJECTIVES[case]
    net = network(backend, OUTPUTS)
    history = train(net, Y, gn.LBFGS(tolerance_gradient=1e-12), loss, 100, regularization=regularization)
    assert distance(net, ridge(decay)) <= 1e-10
    assert history.epochs < 40


@hosts
def test_weighted_examples_give_the_weighted_ridge_solution(backend: Any) -> None:
    net = network(backend, OUTPUTS)
    options = {"regularization": L2(DECAY), "sample_weight": WEIGHT}
    train(net, Y, gn.SGD(6e-3), gn.SquaredError(reduction="sum"), EPOCHS, **options)
    assert distance(net, ridge(DECAY, WEIGHT)) <= 1e-10
    assert distance(net, ridge(DECAY)) > 1e-3


@hosts
def test_accumulated_batches_find_the_ridge_solution(backend: Any) -> None:
    net = network(backend, OUTPUTS)
    net.fit(
        X, Y, optimizer=gn.SGD(6e-3), loss=gn.SquaredError(reduction="sum"), epochs=EPOCHS, batch_size=15, accumulate=3,
        keep="last", regularization=L2(DECAY),
    )  # fmt: skip
    assert distance(net, ridge(DECAY)) <= 1e-10


@hosts
def test_a_population_finds_the_ridge_solutions_of_several_decays(backend: Any) -> None:
    decays = (0.0, 0.1, 1.0, 10.0)
    net = network(backend, OUTPUTS, models=len(decays))
    train(net, Y, gn.SGD(6e-3), gn.SquaredError(reduction="sum"), EPOCHS, regularization=L2(decays))
    wanted = np.stack([ridge(decay) for decay in decays])
    for k, one in enumerate(wanted):
        assert np.abs(found(net)[k] - one).max() <= 1e-10
    assert (np.diff(np.square(wanted[:, :-1]).sum(axis=(1, 2))) < -1e-3).all()


def test_descent_on_the_stand_in_for_cuda_approaches_the_ridge_solution(strict: Any) -> None:
    """On a stand-in for CUDA, fewer epochs: the same descent, step by step."""
    net, plain = network(strict, OUTPUTS), network("cpu", OUTPUTS)
    for one in (net, plain):
        train(one, Y, gn.SGD(5e-3), gn.SquaredError(reduction="sum"), 20, regularization=L2(DECAY))
    assert distance(net, found(plain)) <= 1e-13 and distance(net, ridge(DECAY)) > 1e-3


# Logistic regression


def newton(y: Any, decay: float, weight: Any = 1.0) -> Any:
    """argmin of the mean of c_i × cross-entropy + ½ decay |w|², to the last digit."""
    w = np.zeros((FEATURES + 1, 1))
    c = np.broadcast_to(np.reshape(weight, (-1, 1)), (ROWS, 1))
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-EXTENDED @ w))
        slope = EXTENDED.T @ (c * (p - y)) / ROWS + decay * DECAYING @ w
        curvature = EXTENDED.T @ (c * p * (1 - p) * EXTENDED) / ROWS + decay * DECAYING
        w = w - np.linalg.solve(curvature, slope)
    assert np.abs(slope).max() < 1e-14
    return w


FIRST_ORDER: dict[str, Any] = {
    "SGD": (gn.SGD(1.0), 1000),
    "Nesterov": (gn.SGD(0.5, momentum=0.9, nesterov=True), 500),
    "Adam": (gn.Adam(Exponential(0.3, 0.99)), 1500),
    "RMSprop": (gn.RMSprop(Exponential(0.1, 0.99)), 1800),
}


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("form", FIRST_ORDER)
def test_first_order_optimizers_find_the_logistic_regression(form: str, decay: float) -> None:
    optimizer, epochs = FIRST_ORDER[form]
    net = network("cpu", 1)
    train(net, YES, optimizer, gn.BinaryCrossEntropy(), epochs, regularization=HalfL2(decay))
    assert distance(net, newton(YES, decay)) <= 1e-6
    assert distance(net, newton(YES, 0.05 - decay)) > 1e-2


@hosts
@pytest.mark.parametrize("loss", ["logits", "probabilities"])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_lbfgs_finds_the_logistic_regression(backend: Any, decay: float, loss: str) -> None:
    """Also in chunks of 16 that make one function, and with the loss taken after a sigmoid."""
    last = gn.Dense(1, "sigmoid" if loss == "probabilities" else None)
    net = gn.Network([last], FEATURES, device=backend, dtype="float64")
    history = net.fit(
        X, YES, optimizer=gn.LBFGS(tolerance_gradient=1e-11), loss=gn.NLL() if last.activation else
        gn.BinaryCrossEntropy(), epochs=200, batch_size=16, keep="last", regularization=HalfL2(decay),
        sample_weight=WEIGHT,
    )  # fmt: skip
    assert distance(net, newton(YES, decay, WEIGHT)) <= 1e-8
    assert history.stopped.startswith("LBFGS: ") and history.epochs < 60


@hosts
def test_lbfgs_finds_the_softmax_regression(backend: Any) -> None:
    """At the best point of three classes the gradient is 0: Xᵀ (P - Y) / n + λ W = 0, and there is only one."""
    classes = int(LABELS.max()) + 1
    net = network(backend, classes)
    train(net, LABELS, gn.LBFGS(tolerance_gradient=1e-11), gn.CrossEntropy(), 200, regularization=HalfL2(0.05))
    w = found(net)
    powers = np.exp(EXTENDED @ w)
    error = powers / powers.sum(axis=1, keepdims=True) - np.eye(classes)[LABELS]
    assert classes > 2 and np.abs(EXTENDED.T @ error / ROWS + 0.05 * DECAYING @ w).max() < 1e-9
    other = network(backend, classes, seed=1)
    train(other, LABELS, gn.LBFGS(tolerance_gradient=1e-11), gn.CrossEntropy(), 200, regularization=HalfL2(0.05))
    difference = found(other) - w
    assert np.abs(difference[:-1]).max() < 1e-8
    assert np.ptp(difference[-1]) < 1e-8  # the same number for all classes changes nothing
