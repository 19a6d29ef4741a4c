"""S17, stochastic gradient descent on the layered graph's one vector: notes 004, w ← w - η_i (v_i + λ w)."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.regularization import HalfL2
from gpunn.schedules import Sequence
from tests.lecture.descent import LOSS, POINTS, VALIDATION, X, Y, network
from tests.lecture.notes import host

T, DECAY = 30, 0.05
ETAS = [0.04 / (1 + 0.1 * i) for i in range(T)]


class Vectors(gn.Callback):
    """w⁽ⁱ⁾ after each step, and after each epoch the loss on the validation set."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.epochs: list[Any] = []
        self.losses: list[float] = []

    def on_step(self, run: Any) -> None:
        self.steps.append(host(run.network, run.network.vector))

    def on_epoch(self, run: Any, record: Any) -> None:
        self.epochs.append(self.steps[-1])
        self.losses.append(float(record["validation_loss"][0]))


def fit(net: gn.Network, **options: Any) -> Vectors:
    seen = Vectors()
    defaults: dict[str, Any] = {
        "optimizer": gn.SGD(Sequence(ETAS)), "regularization": HalfL2(DECAY), "steps": T, "batch_size": 1,
        "validation": VALIDATION,
    }  # fmt: skip
    net.fit(X, Y, loss=LOSS, callbacks=[seen], **(defaults | options))
    return seen


def gradient_at(net: gn.Network, w: Any, i: int) -> Any:
    """v, by back-propagation of one example, as a vector beside w."""
    net.ops.copy(net.ops.from_host(w), out=net.vector)
    net.gradients(X[i : i + 1], Y[i : i + 1], LOSS)
    return host(net, net.gradient_vector)


@pytest.mark.parametrize("form", ["penalty", "weight_decay"])
def test_every_update_of_the_parameter_vector_is_that_of_the_notes(backend: Any, form: str) -> None:
    """Examples in their order; a graph without offsets, so that every edge decays."""
    net, other = network(backend, bias=False), network(backend, bias=False)
    w = host(net, net.vector)
    options: dict[str, Any] = {}
    if form == "weight_decay":
        options = {"regularization": None, "optimizer": gn.SGD(Sequence(ETAS), weight_decay=DECAY)}
    seen = fit(net, sampling="sequential", **options)
    assert len(seen.steps) == T
    for i, (eta, after) in enumerate(zip(ETAS, seen.steps)):
        v = gradient_at(other, w, i % POINTS)
        w = w - eta * (v + DECAY * w)
        np.testing.assert_allclose(after, w, rtol=0, atol=1e-14)


def test_weights_start_at_random_and_close_to_zero(backend: Any) -> None:
    """w⁽¹⁾ at random and close to 0, which keeps activations small: a smaller deviation, all in proportion."""
    outputs = {}
    for deviation in (0.5, 0.005):
        start = gn.initializers.Gaussian(deviation)
        layers = [gn.Dense(8, bias=False, initializer=start), gn.Dense(2, bias=False, initializer=start)]
        net = gn.Network(layers, 3, device=backend, dtype="float64")
        w = host(net, net.vector)
        outputs[deviation] = np.abs(net.predict(X)).max()
        assert 0 < np.abs(w).max() < 5 * deviation
    np.testing.assert_allclose(outputs[0.5] / outputs[0.005], 1e4, rtol=1e-10)


@pytest.mark.parametrize("batch_size", [1, POINTS])
def test_stochastic_descent_returns_the_best_weights_on_the_validation_set(backend: Any, batch_size: int) -> None:
    """Looked at after each epoch: of 12 steps, or of 1, where an epoch is one step of all examples."""
    net = network(backend, bias=False)
    seen = fit(net, batch_size=batch_size, steps=None, epochs=T, optimizer=gn.SGD(0.04), regularization=None)
    best = int(np.argmin(seen.losses))
    assert 0 < best < T - 1
    np.testing.assert_array_equal(host(net, net.vector), seen.epochs[best])
    np.testing.assert_allclose(net.loss_of(*VALIDATION, LOSS), seen.losses[best], rtol=1e-13)
    assert np.abs(seen.epochs[-1] - seen.epochs[best]).max() > 1e-2
