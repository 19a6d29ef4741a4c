"""S1, one neuron: notes 002 (6.1)–(6.9) and (6.44), 001 (1)–(3), 003 (a)–(e)."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.notes import WEIGHTED, derivative, load, same, sigmoid

POINTS, FEATURES = 60, 3
LABELS = [0.0, 1.0]


def points(seed: int) -> tuple[Any, ...]:
    """x, w, w0, z and a of many neurons, one a row."""
    rng = np.random.default_rng(seed)
    x, w, w0 = (rng.normal(size=(POINTS, width)) for width in (FEATURES, FEATURES, 1))
    z = (w * x).sum(axis=1, keepdims=True) + w0
    return x, w, w0, z, sigmoid(z)


def loss_slope(a: Any, y: float) -> Any:
    """∂L/∂a of (6.6) and (6.44). The loss has the leading minus of (6.44), which (6.2) lacks."""
    return -(y / a - (1 - y) / (1 - a))


@pytest.mark.parametrize("y", LABELS)
def test_the_derivative_of_the_loss_by_the_output_of_a_neuron_is_that_of_the_notes(backend: Any, y: float) -> None:
    """∂L/∂a, (6.7)."""
    a = points(1)[4]
    value, slope = derivative(a, [], np.full_like(a, y), gn.NLL(reduction="sum"), backend)
    same(value, -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum())
    np.testing.assert_allclose(slope, loss_slope(a, y), rtol=1e-12)


def test_the_derivative_of_the_sigmoid_of_a_neuron_is_that_of_the_notes(backend: Any) -> None:
    """∂a/∂z, (6.8)."""
    z, a = points(2)[3:]
    value, slope = derivative(z, [gn.Sigmoid()], np.ones_like(z), WEIGHTED, backend)
    same(value, a.sum())
    np.testing.assert_allclose(slope, a * (1 - a), rtol=1e-12)


def test_the_derivative_of_the_preactivation_by_the_weights_is_the_input(backend: Any) -> None:
    """∂z/∂w = x and ∂z/∂w0 = 1, (6.9)."""
    x, w, w0, z, _ = points(3)
    unit = gn.Network([gn.Dense(1)], FEATURES, device=backend, dtype="float64")
    for i in range(POINTS):
        load(unit, {"0.W": w[i, :, None], "0.b": w0[i, None]})
        value, slope = unit.gradients(x[i, None], np.ones((1, 1)), WEIGHTED)
        same(value, z[i, 0])
        np.testing.assert_array_equal(slope["0.W"], x[i, :, None])
        np.testing.assert_array_equal(slope["0.b"], [[1.0]])


@pytest.mark.parametrize("y", LABELS)
def test_the_gradient_of_one_neuron_is_the_product_of_its_three_terms(backend: Any, y: float) -> None:
    """(6.6)."""
    x, w, w0, _, a = points(4)
    neuron = gn.Network([gn.Dense(1, "sigmoid")], FEATURES, device=backend, dtype="float64")
    for i in range(POINTS):
        load(neuron, {"0.W": w[i, :, None], "0.b": w0[i, None]})
        value, gradients = neuron.gradients(x[i, None], np.full((1, 1), y), gn.NLL())
        within = loss_slope(a[i], y) * (a[i] * (1 - a[i]))
        assert value > 0
        np.testing.assert_allclose(value, -(y * np.log(a[i, 0]) + (1 - y) * np.log(1 - a[i, 0])), rtol=1e-12)
        np.testing.assert_allclose(gradients["0.W"], within * x[i, :, None], rtol=1e-12)
        np.testing.assert_allclose(gradients["0.b"], [within], rtol=1e-12)
        np.testing.assert_allclose(neuron.predict(x[i, None]), a[i, None], rtol=1e-12)


@pytest.mark.parametrize("y", LABELS)
def test_the_gradients_of_two_layers_are_those_of_the_handwritten_notes(backend: Any, y: float) -> None:
    """003 (a)–(e): ŷ = g(w2 · a + b2), a = g(W1 x + b1), with every δ built from the one behind it."""
    rng = np.random.default_rng(5)
    net = gn.Network([gn.Dense(4, "sigmoid"), gn.Dense(1, "sigmoid")], FEATURES, device=backend, dtype="float64")
    for _ in range(10):
        x, W1, b1, w2, b2 = (rng.normal(size=shape) for shape in ((FEATURES,), (4, FEATURES), (4,), (4,), (1,)))
        a = sigmoid(W1 @ x + b1)
        out = sigmoid(w2 @ a + b2)
        of_output = -y / out + (1 - y) / (1 - out)  # (a)
        of_z2 = of_output * out * (1 - out)  # (b)
        of_w2 = of_z2 * a  # (c)
        of_z1 = (of_z2 * w2) * a * (1 - a)  # (d), the chain rule
        of_W1 = np.outer(of_z1, x)  # (e)
        load(net, {"0.W": W1.T, "0.b": b1[None], "1.W": w2[:, None], "1.b": b2[None]})
        _, gradients = net.gradients(x[None], np.full((1, 1), y), gn.NLL())
        for name, wanted in {"0.W": of_W1.T, "0.b": of_z1[None], "1.W": of_w2[:, None], "1.b": of_z2[None]}.items():
            same(gradients[name], wanted)
