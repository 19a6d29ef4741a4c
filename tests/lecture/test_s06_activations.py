"""S6, activations and their derivatives: notes 002 (6.30)–(6.39), Notation 13."""

import math
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.notes import WEIGHTED, derivative, given, host, same, sigmoid, sigmoid_slope

GRID = np.concatenate([np.linspace(-8, 8, 81)[:, None], [[0.0], [1e-3], [-1e-3], [20.0], [-20.0]]])
GRID = GRID[GRID[:, 0] != 0]  # 0 has tests of its own
LARGE = np.array([[1e4], [-1e4], [100.0], [-100.0]])
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805

erf = np.vectorize(math.erf)


def step(z: Any) -> Any:
    """(6.31)."""
    return np.where(z >= 0, 1.0, 0.0)


def normal(z: Any) -> Any:
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(z: Any) -> Any:
    return np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))


def elu(z: Any, alpha: float) -> Any:
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def elu_slope(z: Any, alpha: float) -> Any:
    return np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0)))


# Layer, f, f'. (6.32) says ReLU where it means step: the derivative that is 0 is step's.
TABLE: list[tuple[Any, Any, Any]] = [
    (gn.Step(), step, np.zeros_like),
    (gn.ReLU(), lambda z: np.maximum(0, z), step),
    (gn.Sigmoid(), sigmoid, sigmoid_slope),
    (gn.Identity(), lambda z: z, np.ones_like),
    (gn.Tanh(), np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    (gn.LeakyReLU(0.1), lambda z: np.where(z > 0, z, 0.1 * z), lambda z: np.where(z > 0, 1.0, 0.1)),
    (gn.LeakyReLU(0.0), lambda z: np.maximum(0, z), step),
    (gn.LeakyReLU(-0.5), lambda z: np.where(z > 0, z, -0.5 * z), lambda z: np.where(z > 0, 1.0, -0.5)),
    (gn.ELU(0.7), lambda z: elu(z, 0.7), lambda z: elu_slope(z, 0.7)),
    (gn.SELU(), lambda z: SCALE * elu(z, ALPHA), lambda z: SCALE * elu_slope(z, ALPHA)),
    (
        gn.GELU(),
        lambda z: z * (1 + erf(z / math.sqrt(2))) / 2,
        lambda z: (1 + erf(z / math.sqrt(2))) / 2 + z * normal(z),
    ),
    (
        gn.GELU("tanh"),
        lambda z: z / 2 * (1 + gelu_tanh(z)),
        lambda z: (
            (1 + gelu_tanh(z)) / 2
            + z / 2 * (1 - gelu_tanh(z) ** 2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)
        ),
    ),
    (gn.SiLU(), lambda z: z * sigmoid(z), lambda z: sigmoid(z) + z * sigmoid_slope(z)),
    (gn.Softplus(2.0), lambda z: np.log1p(np.exp(2 * z)) / 2, lambda z: sigmoid(2 * z)),
]
ROWWISE = [gn.Softmax(), gn.LogSoftmax()]
# Values and slopes at 1e4, -1e4, 100 and -100, where they are at their limits to all digits.
LIMITS: dict[str, tuple[list[float], list[float]]] = {
    "step": ([1, 0, 1, 0], [0, 0, 0, 0]),
    "relu": ([1e4, 0, 100, 0], [1, 0, 1, 0]),
    "sigmoid": ([1, 0, 1, 0], [0, 0, 0, 0]),
    "identity": ([1e4, -1e4, 100, -100], [1, 1, 1, 1]),
    "tanh": ([1, -1, 1, -1], [0, 0, 0, 0]),
    "leaky_relu": ([1e4, -1e2, 100, -1], [1, 0.01, 1, 0.01]),
    "elu": ([1e4, -1, 100, -1], [1, 0, 1, 0]),
    "selu": ([SCALE * 1e4, -SCALE * ALPHA, SCALE * 100, -SCALE * ALPHA], [SCALE, 0, SCALE, 0]),
    "gelu": ([1e4, 0, 100, 0], [1, 0, 1, 0]),
    "silu": ([1e4, 0, 100, 0], [1, 0, 1, 0]),
    "softplus": ([1e4, 0, 100, 0], [1, 0, 1, 0]),
}


def values_of(layer: Any, Z: Any, backend: Any, dtype: str = "float64") -> Any:
    return given(Z, [layer], backend, dtype).predict(np.zeros((len(Z), 1)))


def slopes_of(layer: Any, Z: Any, backend: Any, dtype: str = "float64") -> Any:
    return derivative(Z, [layer], np.ones_like(Z), WEIGHTED, backend, dtype)[1]


@pytest.mark.parametrize(("layer", "value", "slope"), TABLE, ids=lambda v: str(v) if isinstance(v, gn.Layer) else "")
def test_an_activation_and_its_derivative_are_those_of_the_notes(
    backend: Any, layer: Any, value: Any, slope: Any
) -> None:
    np.testing.assert_allclose(values_of(layer, GRID, backend), value(GRID), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slopes_of(layer, GRID, backend), slope(GRID), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("layer", "value", "slope"), TABLE, ids=lambda v: str(v) if isinstance(v, gn.Layer) else "")
def test_the_expected_derivatives_of_activations_agree_with_differences(layer: Any, value: Any, slope: Any) -> None:
    h = 1e-4
    numeric = (8 * (value(GRID + h) - value(GRID - h)) - (value(GRID + 2 * h) - value(GRID - 2 * h))) / (12 * h)
    np.testing.assert_allclose(slope(GRID), numeric, atol=1e-9)


@pytest.mark.parametrize(("layer", "value", "slope"), TABLE, ids=lambda v: str(v) if isinstance(v, gn.Layer) else "")
def test_an_activation_inside_dense_gives_the_same_as_after_it(
    backend: Any, layer: Any, value: Any, slope: Any
) -> None:
    """Inside Dense the offset joins the activation: f(Z + b) and f'(Z + b)."""
    rng = np.random.default_rng(1)
    X, W, b = rng.normal(size=(9, 2)), rng.normal(size=(2, 3)), rng.normal(size=(1, 3))
    net = gn.Network([gn.Dense(3, layer)], 2, device=backend, dtype="float64")
    net.load_parameters({"0.W": W, "0.b": b})
    np.testing.assert_allclose(net.predict(X), value(X @ W + b), rtol=1e-12, atol=1e-12)
    _, gradients = net.gradients(X, np.ones((9, 3)), WEIGHTED)
    same(gradients["0.W"], X.T @ slope(X @ W + b))
    same(gradients["0.b"], slope(X @ W + b).sum(axis=0, keepdims=True))


def test_every_named_activation_is_tested_against_the_notes() -> None:
    """A new activation needs a line in TABLE and in LIMITS."""
    rowwise = {layer.name for layer in ROWWISE}
    assert {layer.name for layer, _, _ in TABLE} | rowwise == set(type(gn.ReLU()).named)
    assert set(LIMITS) | rowwise == set(type(gn.ReLU()).named)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LIMITS)
def test_saturated_activations_give_their_limits_and_never_nan(backend: Any, name: str, dtype: str) -> None:
    values, slopes = LIMITS[name]
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    got = values_of(gn.Activation(name), LARGE, backend, dtype)
    np.testing.assert_allclose(got[:, 0], values, rtol=tolerance, atol=tolerance)
    got = slopes_of(gn.Activation(name), LARGE, backend, dtype)
    np.testing.assert_allclose(got[:, 0], slopes, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [layer for layer, _, _ in TABLE], ids=str)
def test_saturated_activations_with_other_constants_stay_finite(backend: Any, layer: Any, dtype: str) -> None:
    assert np.isfinite(values_of(layer, LARGE, backend, dtype)).all()
    assert np.isfinite(slopes_of(layer, LARGE, backend, dtype)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturated_softmax_gives_its_limits_and_never_nan(backend: Any, dtype: str) -> None:
    Z = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]])
    p = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    logs = np.array([[0, -2e4, -1e4], [-np.log(3)] * 3, [-np.log(2), -np.log(2), -2e4 - np.log(2)]])
    c = np.array([[1.0, 2.0, -3.0]] * 3)
    np.testing.assert_allclose(values_of(gn.Softmax(), Z, backend, dtype), p, atol=1e-6)
    np.testing.assert_allclose(values_of(gn.LogSoftmax(), Z, backend, dtype), logs, rtol=1e-6)
    of_z = derivative(Z, [gn.Softmax()], c, WEIGHTED, backend, dtype)[1]
    np.testing.assert_allclose(of_z, p * (c - (p * c).sum(axis=1, keepdims=True)), atol=1e-6)
    of_z = derivative(Z, [gn.LogSoftmax()], c, WEIGHTED, backend, dtype)[1]
    np.testing.assert_allclose(of_z, c - p * c.sum(axis=1, keepdims=True), atol=1e-6)


def test_softmax_and_log_softmax_and_their_derivatives_are_right(backend: Any) -> None:
    """The notes leave the derivative out: a_j (1[i = j] - a_i)."""
    rng = np.random.default_rng(2)
    Z, c = rng.normal(scale=3, size=(2, 8, 5))
    a = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    same(values_of(gn.Softmax(), Z, backend), a)
    same(values_of(gn.LogSoftmax(), Z, backend), np.log(a))
    full = np.stack([(np.diag(row) - np.outer(row, row)) @ d for row, d in zip(a, c)])
    same(derivative(Z, [gn.Softmax()], c, WEIGHTED, backend)[1], full)
    of_log = np.stack([(np.eye(5) - np.outer(row, np.ones(5))) @ d for row, d in zip(a, c)])
    same(derivative(Z, [gn.LogSoftmax()], c, WEIGHTED, backend)[1], of_log)


def test_activations_at_zero_have_the_values_and_subgradients_of_the_notes(backend: Any) -> None:
    """step(0) = 1, (6.31). ReLU has no derivative at 0: (6.35) takes 1, gpunn 0, and both are subgradients."""
    zero = np.zeros((1, 1))
    assert values_of(gn.Step(), zero, backend) == 1.0
    assert slopes_of(gn.Step(), zero, backend) == 0.0
    assert values_of(gn.ReLU(), zero, backend) == 0.0
    assert 0.0 <= slopes_of(gn.ReLU(), zero, backend)[0, 0] <= 1.0
    np.testing.assert_allclose(slopes_of(gn.Sigmoid(), zero, backend), [[0.25]], rtol=1e-12)
    np.testing.assert_allclose(slopes_of(gn.Tanh(), zero, backend), [[1.0]], rtol=1e-12)


def test_layers_before_a_step_activation_do_not_learn(backend: Any) -> None:
    """(6.30): "this is part of why we don't use this function: it has no gradient"."""
    net = gn.Network([gn.Dense(4, "tanh"), gn.Dense(3, "step"), gn.Dense(2)], 2, device=backend, dtype="float64")
    rng = np.random.default_rng(0)
    _, gradients = net.gradients(rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), gn.SquaredError())
    for name in ("0.W", "0.b", "1.W", "1.b"):
        np.testing.assert_array_equal(gradients[name], np.zeros_like(host(net, net.parameters[name])))
    assert np.abs(gradients["2.b"]).min() > 0
