"""S14, dropout: notes 002 (6.64), Definition 33, Clarification 34; 003.

Clarification 34 multiplies by p after training, which is right only for a p that is the probability of *keeping* a
neuron, as in 003. We take Definition 33's p, of turning it *off*, and scale by 1/(1-p) while training instead.
"""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from tests.lecture.notes import WEIGHTED, assert_drawn_on_the_device, derivative, forward, load, same

ROWS, WIDTH = 400, 50
N = ROWS * WIDTH
X = np.random.default_rng(0).uniform(0.5, 1.5, (ROWS, WIDTH))  # no 0 among them
RATES = [0.1, 0.2, 0.5, 0.75, 0.9]  # none but one is its own complement
BOUND = 5.0


def network(rate: float, backend: Any, **options: Any) -> gn.Network:
    return gn.Network([gn.Dropout(rate)], WIDTH, device=backend, dtype="float64", **options)


def dropped(net: gn.Network, step: int = 0) -> Any:
    """The training output at one step."""
    net.step[...] = step
    return forward(net, X)


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_dropout_is_the_probability_of_turning_a_neuron_off(backend: Any, rate: float) -> None:
    off = dropped(network(rate, backend, seed=1)) == 0  # (6.64)
    assert abs(off.mean() - rate) < BOUND * math.sqrt(rate * (1 - rate) / N)


@pytest.mark.parametrize("rate", RATES)
def test_dropout_preserves_the_expectation_of_outputs(backend: Any, rate: float) -> None:
    """What is kept grows by 1/(1-p), up to the rounding of p to 16 bits, and so the mean stays."""
    A = dropped(network(rate, backend, seed=2))
    kept = A != 0
    np.testing.assert_allclose(A[kept] / X[kept], 1 / (1 - rate), rtol=2.0**-17 / (1 - rate))
    ratio = A / X
    assert abs(ratio.mean() - 1) < BOUND * math.sqrt(rate / (1 - rate) / N)
    weights = np.random.default_rng(3).normal(size=WIDTH)
    outputs = [dropped(network(rate, backend, seed=2), step) @ weights for step in range(30)]
    spread = math.sqrt(rate / (1 - rate) / 30) * np.sqrt((X * weights) ** 2 @ np.ones(WIDTH))
    assert np.abs((np.mean(outputs, axis=0) - X @ weights) / spread).max() < BOUND


def test_dropout_turns_neurons_off_independently(backend: Any) -> None:
    off = (dropped(network(0.3, backend, seed=4)) == 0) - 0.3
    for pairs in (off[:, 1:] * off[:, :-1], off[:, 4:] * off[:, :-4], off[1:] * off[:-1]):
        assert abs(pairs.mean()) < BOUND * 0.21 / math.sqrt(pairs.size)


def test_dropout_turns_other_neurons_off_in_the_next_step(backend: Any) -> None:
    """ "At the next step, we remove a different random selection": as many are off twice as chance has it."""
    net = network(0.4, backend, seed=5)
    first, second = dropped(net, 0) == 0, dropped(net, 1) == 0
    assert abs((first & second).mean() - 0.16) < BOUND * math.sqrt(0.16 * 0.84 / N)
    np.testing.assert_array_equal(first, dropped(net, 0) == 0)
    np.testing.assert_array_equal(second, dropped(net, 1) == 0)


def test_dropout_masks_differ_between_seeds_and_layers(backend: Any) -> None:
    first, other = (dropped(network(0.4, backend, seed=seed)) == 0 for seed in (5, 6))
    assert abs((first & other).mean() - 0.16) < BOUND * math.sqrt(0.16 * 0.84 / N)
    np.testing.assert_array_equal(first, dropped(network(0.4, backend, seed=5)) == 0)
    twice = gn.Network([gn.Dropout(0.4), gn.Dropout(0.4)], WIDTH, device=backend, dtype="float64", seed=5)
    assert abs((forward(twice, X) == 0).mean() - 0.64) < BOUND * math.sqrt(0.64 * 0.36 / N)


def test_every_device_draws_the_same_dropout_mask(backend: Any) -> None:
    same(dropped(network(0.3, backend, seed=5), 2), dropped(network(0.3, Backend(), seed=5), 2))


@pytest.mark.parametrize("rate", RATES)
def test_dropout_changes_nothing_in_evaluation(backend: Any, rate: float) -> None:
    """Nothing to multiply by at test time."""
    net = network(rate, backend)
    np.testing.assert_array_equal(net.predict(X), X)
    np.testing.assert_array_equal(forward(net, X, training=False), X)
    c = np.random.default_rng(6).normal(size=X.shape)
    got = derivative(X, [gn.Dropout(rate)], c, WEIGHTED, backend, training=False)[1]
    np.testing.assert_array_equal(got, c)


def test_dropout_with_rate_zero_changes_nothing(backend: Any) -> None:
    np.testing.assert_array_equal(dropped(network(0.0, backend)), X)


@pytest.mark.parametrize("rate", RATES)
def test_dropout_uses_the_forward_mask_in_the_backward_pass(backend: Any, rate: float) -> None:
    """The sum of dropped outputs is linear in X: value = gradient · X, and what is off has gradient 0."""
    c = np.random.default_rng(7).normal(size=X.shape)
    value, slope = derivative(X, [gn.Dropout(rate)], c, WEIGHTED, backend)
    np.testing.assert_allclose(value, (slope * X).sum(), rtol=1e-10)
    kept = slope != 0
    assert abs(kept.mean() - (1 - rate)) < BOUND * math.sqrt(rate * (1 - rate) / N)
    np.testing.assert_allclose(slope[kept], c[kept] / (1 - rate), rtol=2.0**-17 / (1 - rate))


def test_a_neuron_turned_off_by_dropout_gets_and_passes_no_gradient(backend: Any) -> None:
    """After (6.64), neuron by neuron on one example: no gradient into it, none out of it."""
    layers = [gn.Dense(WIDTH, "tanh"), gn.Dropout(0.5), gn.Dense(1)]
    net = gn.Network(layers, 3, device=backend, dtype="float64", seed=8)
    x = np.array([[0.3, -1.0, 0.6]])
    _, gradients = net.gradients(x, [[10.0]], gn.SquaredError())
    into, out_of = gradients["0.W"], gradients["2.W"][:, 0]
    off = out_of == 0
    assert 5 < off.sum() < WIDTH - 5
    np.testing.assert_array_equal(into[:, off], 0.0)
    assert np.abs(into[:, ~off]).min() > 0
    weights = net.ops.to_host(net.parameters["2.W"])
    changed = load(net, {"2.W": np.where(off[:, None], 99.0, weights)})
    _, again = changed.gradients(x, [[10.0]], gn.SquaredError())
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(again[name], gradient)  # whatever its weight, nothing changes


def test_dropout_masks_are_drawn_on_the_device(strict: Any) -> None:
    assert_drawn_on_the_device(network(0.5, strict), X)
