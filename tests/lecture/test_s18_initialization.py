"""S18, random start: notes 002 Concept 20 (a Gaussian), 004 (close to 0: small weights ensure small activations)."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.initializers import Gaussian, Glorot, He, Initializer, LeCun, Orthogonal, Uniform
from tests.lecture.notes import host, same

FAN_IN, FAN_OUT = 300, 200
N = FAN_IN * FAN_OUT
BOUND = 5.0


def weights(initializer: Initializer | None, *, seed: int = 0, shape: tuple[int, int] = (FAN_IN, FAN_OUT)) -> Any:
    net = gn.Network([gn.Dense(shape[1], initializer=initializer)], shape[0], device="cpu", dtype="float64", seed=seed)
    return host(net, net.parameters["0.W"])


def assert_normal(W: Any, deviation: float) -> None:
    """Mean, variance, skewness, and the share within one and two deviations, as a Gaussian has them."""
    e = W / deviation
    assert abs(e.mean()) < BOUND / math.sqrt(e.size)
    assert abs(e.var() - 1) < BOUND * math.sqrt(2 / e.size)
    assert abs((e**3).mean()) < BOUND * math.sqrt(15 / e.size)
    for within in (1, 2):
        share = math.erf(within / math.sqrt(2))
        assert abs((abs(e) < within).mean() - share) < BOUND * math.sqrt(share * (1 - share) / e.size)


@pytest.mark.parametrize("deviation", [0.001, 0.01, 0.3, 2.0])
def test_gaussian_initial_weights_have_the_chosen_deviation(deviation: float) -> None:
    assert_normal(weights(Gaussian(deviation)), deviation)


FAN_SCALED = {
    He(): math.sqrt(2 / FAN_IN),
    LeCun(): math.sqrt(1 / FAN_IN),
    Glorot(): math.sqrt(2 / (FAN_IN + FAN_OUT)),
    Glorot(1.5): 1.5 * math.sqrt(2 / (FAN_IN + FAN_OUT)),
}


@pytest.mark.parametrize("initializer", FAN_SCALED, ids=str)
def test_fan_scaled_initial_weights_have_the_stated_variance(initializer: Initializer) -> None:
    assert_normal(weights(initializer), FAN_SCALED[initializer])


def test_uniform_initial_weights_fill_their_interval() -> None:
    W = weights(Uniform(0.2))
    assert -0.2 <= W.min() < -0.199
    assert 0.199 < W.max() < 0.2
    assert abs(W.mean()) < BOUND * 0.2 / math.sqrt(3 * N)
    assert abs(W.var() / (0.04 / 3) - 1) < BOUND * math.sqrt(0.8 / N)


@pytest.mark.parametrize(
    ("activation", "deviation"),
    [
        (None, FAN_SCALED[Glorot()]), ("sigmoid", FAN_SCALED[Glorot()]), ("tanh", FAN_SCALED[Glorot()]),
        ("softmax", FAN_SCALED[Glorot()]), ("relu", FAN_SCALED[He()]), ("leaky_relu", FAN_SCALED[He()]),
        ("gelu", FAN_SCALED[He()]), ("selu", FAN_SCALED[LeCun()]),
    ],
)  # fmt: skip
def test_the_default_initializer_suits_the_activation(activation: str | None, deviation: float) -> None:
    net = gn.Network([gn.Dense(FAN_OUT, activation)], FAN_IN, device="cpu", dtype="float64")
    assert_normal(host(net, net.parameters["0.W"]), deviation)
    np.testing.assert_array_equal(host(net, net.parameters["0.b"]), np.zeros((1, FAN_OUT)))


@pytest.mark.parametrize("shape", [(40, 40), (60, 25), (25, 60), (5, 1), (1, 5)])
@pytest.mark.parametrize("gain", [1.0, 0.5, 3.0])
def test_orthogonal_initial_weights_are_orthogonal(shape: tuple[int, int], gain: float) -> None:
    Q = weights(Orthogonal(gain), shape=shape)
    assert Q.shape == shape
    product = Q.T @ Q if shape[0] >= shape[1] else Q @ Q.T
    np.testing.assert_allclose(product, gain**2 * np.eye(min(shape)), atol=1e-12)


def test_orthogonal_initial_weights_prefer_no_direction() -> None:
    """Over many seeds every entry has mean 0 and variance 1/n, so no sign and no axis is preferred."""
    n, seeds = 4, 400
    Q = np.stack([weights(Orthogonal(), seed=seed, shape=(n, n)) for seed in range(seeds)])
    assert np.abs(Q.mean(axis=0)).max() < BOUND * math.sqrt(1 / n / seeds)
    assert np.abs((Q**2).mean(axis=0) - 1 / n).max() < BOUND * math.sqrt(2 * (n - 1) / n**2 / (n + 2) / seeds)


def test_initial_weights_are_the_same_on_every_device(backend: Any) -> None:
    nets = [gn.Network([gn.Dense(7, "relu")], 5, device=d, dtype="float64", seed=3) for d in (backend, "cpu")]
    first, second = (host(net, net.vector) for net in nets)
    np.testing.assert_array_equal(first, second)


def test_the_seed_decides_the_initial_weights(backend: Any) -> None:
    def start(seed: int) -> Any:
        net = gn.Network([gn.Dense(30)], 20, device=backend, dtype="float64", seed=seed)
        return host(net, net.parameters["0.W"])

    np.testing.assert_array_equal(start(1), start(1))
    assert np.abs(start(1) - start(2)).min() > 0


def test_no_two_neurons_or_layers_start_with_the_same_weights() -> None:
    """Concept 20: symmetric neurons would stay so; and zero weights give 0 whatever the input."""
    net = gn.Network([gn.Dense(20, "tanh")] * 3, 20, device="cpu", dtype="float64")
    layers = [host(net, net.parameters[f"{k}.W"]) for k in range(3)]
    columns = np.concatenate(layers, axis=1).T
    assert np.unique(np.concatenate(layers)).size == 3 * 400
    close = np.corrcoef(columns) - np.eye(60)
    assert np.abs(close).max() < 0.9


def sizes(initializer: Initializer, activation: str, depth: int, width: int = 256) -> list[float]:
    """The root mean square of each layer's activations on normal inputs."""
    X = np.random.default_rng(1).normal(size=(64, width))
    net = gn.Network(
        [gn.Dense(width, activation, initializer=initializer)] * depth, width, device="cpu", dtype="float64", seed=2
    )
    found = []
    for count in range(1, depth + 1):
        part = gn.Network(net.network.layers[:count], width, device="cpu", dtype="float64", seed=2)
        found.append(float(np.sqrt(np.square(part.predict(X)).mean())))
    return found


@pytest.mark.parametrize("deviation", [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
def test_small_initial_weights_keep_activations_small(deviation: float) -> None:
    """z = w·o has deviation σ √fan_in times that of o: proportional to the weights."""
    z = sizes(Gaussian(deviation), "identity", 1)[0]
    assert abs(z / (deviation * math.sqrt(256)) - 1) < 0.05


def test_large_initial_weights_saturate_and_small_ones_do_not() -> None:
    """004: large w, large activations, saturated outputs, small gradients; small w, none of these."""
    X = np.random.default_rng(3).normal(size=(64, 256))
    slopes = {}
    for deviation in (0.01, 5.0):
        layer = gn.Dense(256, "sigmoid", initializer=Gaussian(deviation))
        a = gn.Network([layer], 256, device="cpu", dtype="float64").predict(X)
        slopes[deviation] = (a * (1 - a)).mean()
        if deviation == 0.01:
            assert np.abs(a - 0.5).max() < 0.3  # the straight middle of the sigmoid
    assert slopes[0.01] > 0.24
    assert slopes[5.0] < 0.01


def test_fan_scaled_initial_weights_keep_the_size_of_activations_through_depth() -> None:
    """He under ReLU, LeCun under SELU, Glorot and orthogonal under identity; a small Gaussian lets it die out."""
    for initializer, activation in (
        (He(), "relu"),
        (LeCun(), "selu"),
        (Glorot(), "identity"),
        (Orthogonal(), "identity"),
    ):
        through = sizes(initializer, activation, 10)
        assert 0.5 < through[-1] / through[0] < 2
    fading = sizes(Gaussian(0.01), "relu", 10)
    assert all(later < 0.3 * before for before, later in pairwise(fading))


def test_orthogonal_initial_weights_keep_lengths(backend: Any) -> None:
    X = np.random.default_rng(4).normal(size=(9, 16))
    layers = [gn.Dense(16, initializer=Orthogonal())] * 5
    out = gn.Network(layers, 16, device=backend, dtype="float64").predict(X)
    same(np.square(out).sum(axis=1), np.square(X).sum(axis=1))
