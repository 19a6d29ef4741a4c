"""S13, zero-mean Gaussian noise on the inputs: notes 002 §6.8.1.3, Definition 32."""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from tests.lecture.notes import WEIGHTED, assert_drawn_on_the_device, derivative, forward, load, same

ROWS, WIDTH = 400, 50
N = ROWS * WIDTH
X = np.random.default_rng(0).normal(size=(ROWS, WIDTH))
BOUND = 5.0  # deviations of a statistic: a right generator passes at nearly every seed, and this one is fixed


def network(deviation: float, backend: Any, **options: Any) -> gn.Network:
    return gn.Network([gn.GaussianNoise(deviation)], WIDTH, device=backend, dtype="float64", **options)


def noise(net: gn.Network, step: int = 0) -> Any:
    net.step[...] = step
    return forward(net, X) - X


@pytest.mark.parametrize("deviation", [0.05, 0.5, 3.0])
def test_gaussian_noise_has_mean_zero_and_the_chosen_variance(backend: Any, deviation: float) -> None:
    e = noise(network(deviation, backend, seed=1)) / deviation
    assert abs(e.mean()) < BOUND / math.sqrt(N)
    assert abs(e.var() - 1) < BOUND * math.sqrt(2 / N)


def test_gaussian_noise_is_normal_symmetric_and_independent(backend: Any) -> None:
    """ "+2 and -2 are equally likely"; the share within 1 and 2 deviations; nothing shared by neighbours."""
    e = noise(network(2.0, backend, seed=2)) / 2.0
    assert abs((e**3).mean()) < BOUND * math.sqrt(15 / N)
    for within in (1, 2):
        share = math.erf(within / math.sqrt(2))
        assert abs((abs(e) < within).mean() - share) < BOUND * math.sqrt(share * (1 - share) / N)
    for other in (e[:, 1:] * e[:, :-1], e[1:] * e[:-1]):
        assert abs(other.mean()) < BOUND / math.sqrt(other.size)


def test_gaussian_noise_is_drawn_for_every_example_and_column(backend: Any) -> None:
    e = noise(network(1.0, backend))
    assert np.unique(e).size == N


def test_gaussian_noise_is_the_same_for_the_same_seed_and_step(backend: Any) -> None:
    e = noise(network(0.3, backend, seed=7))
    np.testing.assert_array_equal(e, noise(network(0.3, backend, seed=7)))
    net = network(0.3, backend, seed=7)
    noise(net, 1)
    np.testing.assert_array_equal(e, noise(net, 0))


def test_gaussian_noise_differs_for_another_seed_or_step(backend: Any) -> None:
    first = noise(network(1.0, backend, seed=7))
    for other in (noise(network(1.0, backend, seed=8)), noise(network(1.0, backend, seed=7), 1)):
        assert abs((first * other).mean()) < BOUND / math.sqrt(N)  # not even correlated


def test_two_layers_draw_different_gaussian_noise(backend: Any) -> None:
    net = gn.Network([gn.GaussianNoise(1.0), gn.GaussianNoise(1.0)], WIDTH, device=backend, dtype="float64")
    both = forward(net, X) - X
    assert abs(both.var() - 2) < BOUND * 2 * math.sqrt(2 / N)  # 4 if it were the same noise twice


def test_every_device_draws_the_same_gaussian_noise(backend: Any) -> None:
    same(noise(network(0.3, backend, seed=5), 3), noise(network(0.3, Backend(), seed=5), 3))


def test_gaussian_noise_is_added_in_training_only(backend: Any) -> None:
    net = network(0.5, backend)
    np.testing.assert_array_equal(net.predict(X), X)
    np.testing.assert_array_equal(forward(net, X, training=False), X)
    assert np.abs(noise(net)).min() > 0


def test_loss_and_gradient_contain_gaussian_noise_in_training_only(backend: Any) -> None:
    layers = [gn.GaussianNoise(0.5), gn.Dense(1, bias=False)]
    net = gn.Network(layers, WIDTH, device=backend, dtype="float64", seed=3)
    ones = np.ones((ROWS, 1))
    e = noise(network(0.5, backend, seed=3))
    same(net.gradients(X, ones, WEIGHTED)[1]["1.W"], (X + e).sum(axis=0)[:, None])
    same(net.gradients(X, ones, WEIGHTED, training=False)[1]["1.W"], X.sum(axis=0)[:, None])


def test_the_gradient_passes_through_gaussian_noise_unchanged(backend: Any) -> None:
    c = np.random.default_rng(4).normal(size=(ROWS, WIDTH))
    np.testing.assert_array_equal(derivative(X, [gn.GaussianNoise(0.5)], c, WEIGHTED, backend)[1], c)


def test_gaussian_noise_acts_as_weight_decay_on_average(backend: Any) -> None:
    """Why perturbation regularises: E (w·(x + e) - y)² = (w·x - y)² + σ²|w|², which is weight decay."""
    rng = np.random.default_rng(5)
    w, sigma = rng.normal(size=(WIDTH, 1)), 0.4
    net = gn.Network([gn.GaussianNoise(sigma), gn.Dense(1)], WIDTH, device=backend, dtype="float64", seed=6)
    load(net, {"1.W": w, "1.b": np.zeros((1, 1))})
    y = X @ w  # fitted exactly without noise
    losses = []
    for step in range(20):
        net.step[...] = step
        losses.append(net.loss_of(X, y, gn.SquaredError(), training=True))
    expected = sigma**2 * (w**2).sum()
    assert abs(np.mean(losses) - expected) < BOUND * expected * math.sqrt(2 / (20 * ROWS))


def test_gaussian_noise_is_drawn_on_the_device(strict: Any) -> None:
    assert_drawn_on_the_device(network(0.5, strict), X)
