"""S5, ∂L/∂Z^L taken directly: notes 002 Concept 19, 000 Concept 1."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.layers.base import Layer, walk
from gpunn.passes import fuse
from tests.lecture.notes import WEIGHTED, derivative, host, same, sigmoid, softmax_jacobian

Z = np.random.default_rng(0).normal(scale=2, size=(7, 3))
INPUTS = np.random.default_rng(1).normal(size=(7, 2))
CLASSES = np.array([0, 2, 1, 1, 0, 2, 2])
SHARES = np.random.default_rng(2).dirichlet(np.ones(3), 7)  # probabilities of the classes, instead of one class
YES = np.random.default_rng(3).integers(0, 2, (7, 3)).astype(float)
REDUCTIONS = ["sum", "mean"]

# Where the last activation can stand: a function of its class and its name that makes the layers from 4 units on.
ENDINGS: dict[str, Callable[[Any, str], list[Layer]]] = {
    "name in Dense": lambda f, name: [gn.Dense(3, name)],
    "layer in Dense": lambda f, name: [gn.Dense(3, f())],
    "Activation in Dense": lambda f, name: [gn.Dense(3, gn.Activation(name))],
    "layer": lambda f, name: [gn.Dense(3), f()],
    "Activation": lambda f, name: [gn.Dense(3), gn.Activation(name)],
    "nested, in Dense": lambda f, name: [gn.Sequential([gn.Dense(3, name)])],
    "nested, layer": lambda f, name: [gn.Sequential([gn.Dense(3), f()])],
    "nested, Activation": lambda f, name: [gn.Sequential([gn.Dense(3), gn.Activation(name)])],
    "nested twice": lambda f, name: [gn.Sequential([gn.Sequential([gn.Dense(3), f()])])],
    "nested alone": lambda f, name: [gn.Dense(3), gn.Sequential([f()])],
    "nested twice alone": lambda f, name: [gn.Dense(3), gn.Sequential([gn.Sequential([gn.Activation(name)])])],
}
PAIRS: dict[str, tuple[Any, ...]] = {
    "softmax": (gn.Softmax, gn.NLLM, gn.CrossEntropy), "sigmoid": (gn.Sigmoid, gn.NLL, gn.BinaryCrossEntropy),
}  # fmt: skip


def made(name: str, ending: str, backend: Any, dtype: str = "float64") -> gn.Network:
    last = ENDINGS[ending](PAIRS[name][0], name)
    return gn.Network([gn.Dense(4, "tanh"), *last], 2, device=backend, dtype=dtype, seed=2)


def long_way(name: str, z: Any, y: Any) -> tuple[Any, Any]:
    """The loss and ∂L/∂z of each row by ∂A/∂Z @ ∂L/∂A, each term a formula of its own; added over outputs."""
    if name == "sigmoid":
        a = sigmoid(z)
        of_a = -(y / a - (1 - y) / (1 - a))  # (6.44)
        return -(y * np.log(a) + (1 - y) * np.log(1 - a)).sum(axis=1), a * (1 - a) * of_a
    a = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    of_a = -y / a  # of -Σ y log a
    return -(y * np.log(a)).sum(axis=1), np.stack([softmax_jacobian(row) @ d for row, d in zip(z, of_a)])


def terms(name: str, reduction: str) -> int:
    """What the mean divides by: examples for NLLM, examples and outputs for NLL."""
    return 1 if reduction == "sum" else Z.size if name == "sigmoid" else len(Z)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_loss_on_probabilities_is_fused_with_the_last_activation(name: str, ending: str, reduction: str) -> None:
    _, loss, on_logits = PAIRS[name]
    network = made(name, ending, "cpu").network
    stripped, fused = fuse(network, loss(reduction=reduction))
    assert fused == on_logits(reduction=reduction)
    assert not [layer for _, layer in walk(stripped) if isinstance(getattr(layer, "resolved", layer), PAIRS[name][0])]
    assert not [layer for _, layer in walk(stripped) if isinstance(layer, gn.Dense) and layer.activation == name]
    assert [layer.units for _, layer in walk(stripped) if isinstance(layer, gn.Dense)] == [4, 3]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("norm", [gn.BatchNorm, gn.LayerNorm, gn.RMSNorm])
def test_a_loss_on_probabilities_is_fused_with_the_activation_of_a_normalisation(name: str, norm: Any) -> None:
    _, loss, on_logits = PAIRS[name]
    stripped, fused = fuse(gn.Sequential([gn.Dense(3), norm(activation=name)]), loss())
    assert stripped == gn.Sequential([gn.Dense(3), norm()])
    assert fused == on_logits()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("name", "y"), [("softmax", CLASSES), ("softmax", SHARES), ("sigmoid", YES)])
def test_the_fused_gradient_of_loss_and_activation_is_that_of_the_chain_rule(
    backend: Any, name: str, y: Any, ending: str, reduction: str
) -> None:
    net = made(name, ending, backend)
    W1, b1, W2, b2 = (host(net, view) for view in net.parameters.values())
    hidden = np.tanh(INPUTS @ W1 + b1)
    values, of_z = long_way(name, hidden @ W2 + b2, np.eye(3)[y] if y.ndim == 1 else y)
    count = terms(name, reduction)
    of_hidden = of_z @ W2.T * (1 - hidden**2)
    value, gradients = net.gradients(INPUTS, y, PAIRS[name][1](reduction=reduction))
    same(value, values.sum() / count)
    wanted = (
        INPUTS.T @ of_hidden,
        of_hidden.sum(axis=0, keepdims=True),
        hidden.T @ of_z,
        of_z.sum(axis=0, keepdims=True),
    )
    for got, want in zip(gradients.values(), wanted, strict=True):
        same(got, want / count)


@pytest.mark.parametrize(("name", "y"), [("softmax", np.eye(3)[CLASSES]), ("softmax", SHARES), ("sigmoid", YES)])
def test_the_fused_and_the_unfused_gradient_of_gpunn_agree(backend: Any, name: str, y: Any) -> None:
    activation, loss, on_logits = PAIRS[name]
    total = loss(reduction="sum")
    value, direct = derivative(Z, [activation()], y, total, backend)
    by_logits, of_logits = derivative(Z, [], y, on_logits(reduction="sum"), backend)
    a = made_of(activation(), backend)
    _, of_a = derivative(a, [], y, total, backend)  # nothing to fuse: ∂L/∂A
    _, of_z = derivative(Z, [activation()], of_a, WEIGHTED, backend)  # ∂A/∂Z @ ∂L/∂A
    same(value, by_logits)
    same(direct, of_logits)
    same(direct, of_z)
    same(direct, a - y)


def made_of(activation: Layer, backend: Any) -> Any:
    return gn.Network([activation], 3, device=backend, dtype="float64").predict(Z)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_softmax_with_log_loss_is_finite_and_right_at_large_logits(backend: Any, ending: str, dtype: str) -> None:
    """Inputs that are the unit vectors, weights of 1e4: logits of ±1e4 and 0, of which exp knows nothing."""
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 1e4, -1e4], [0.0, 0.0, 1e4]])
    net = extreme("softmax", ending, logits, backend, dtype)
    y, p = np.array([0, 0, 1, 0]), np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 1]])
    value, gradients = net.gradients(np.eye(4), y, gn.NLLM(reduction="sum"))
    np.testing.assert_allclose(value, 0 + 2e4 + np.log(2) + 1e4, rtol=1e-6)
    np.testing.assert_allclose(next(iter(gradients.values())), p - np.eye(3)[y], atol=1e-6)
    np.testing.assert_allclose(net.predict(np.eye(4)), p, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_sigmoid_with_log_loss_is_finite_and_right_at_large_logits(backend: Any, ending: str, dtype: str) -> None:
    logits = np.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
    net = extreme("sigmoid", ending, logits, backend, dtype)
    y, p = np.array([[1.0, 0, 1], [0, 1, 0]]), np.array([[1, 0, 0.5], [1, 0, 0.5]])
    value, gradients = net.gradients(np.eye(2), y, gn.NLL(reduction="sum"))
    np.testing.assert_allclose(value, 2e4 + 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(next(iter(gradients.values())), p - y, atol=1e-6)
    np.testing.assert_allclose(net.predict(np.eye(2)), p, atol=1e-6)


def extreme(name: str, ending: str, logits: Any, backend: Any, dtype: str) -> gn.Network:
    """A network without a hidden layer whose weights are the logits of the unit vectors."""
    layers = ENDINGS[ending](PAIRS[name][0], name)
    net = gn.Network(layers, len(logits), device=backend, dtype=dtype)
    W, b = net.parameters
    net.load_parameters({W: logits, b: np.zeros((1, 3))})
    return net


NOT_RECOGNISED: dict[str, tuple[list[Layer], Any]] = {
    "softmax, two classes as one": ([gn.Dense(3, "softmax")], gn.NLL()),
    "sigmoid, several classes": ([gn.Dense(3, "sigmoid")], gn.NLLM()),
    "softmax inside": ([gn.Dense(3, "softmax"), gn.Dense(3, "sigmoid")], gn.NLLM()),
    "softmax in a residual body": ([gn.Dense(3, "sigmoid"), gn.Residual([gn.Dense(3, "softmax")])], gn.NLLM()),
    "softmax and another loss": ([gn.Dense(3, "softmax")], gn.SquaredError()),
    "softmax of logits": ([gn.Dense(3, "softmax")], gn.CrossEntropy()),
}


@pytest.mark.parametrize("case", NOT_RECOGNISED)
def test_no_other_pair_of_activation_and_loss_is_fused(case: str) -> None:
    layers, loss = NOT_RECOGNISED[case]
    network = gn.Sequential(layers)
    same_network, same_loss = fuse(network, loss)
    assert same_network is network
    assert same_loss is loss
