"""S15, batch normalisation: notes 002 Key Equation 37, Concept 40, (6.65), (6.66), Definition 41, "Appendix B"."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.testing import check_gradients
from tests.lecture.notes import WEIGHTED, derivative, forward, given, host, load, same

K, WIDTH = 7, 4
EPS = 0.05  # large, so that the two forms differ in the second digit
rng = np.random.default_rng(0)
Z = rng.normal(loc=rng.normal(size=WIDTH), scale=rng.uniform(0.5, 2.0, WIDTH), size=(K, WIDTH))
G, B = rng.normal(size=(2, 1, WIDTH))
C = rng.normal(size=(K, WIDTH))  # ∂L/∂Ẑ
FORMS = {"usual": False, "Definition 41": True}


def divisor(var: Any, form: str) -> Any:
    """√(σ² + ε), or Definition 41's σ + ε."""
    return np.sqrt(var) + EPS if form == "Definition 41" else np.sqrt(var + EPS)


def normalized(Z: Any, G: Any, B: Any, form: str) -> Any:
    """Ẑ = G * (Z - μ) / divisor + B with the mean and the deviation of the batch, both over K."""
    mean = Z.sum(axis=0, keepdims=True) / len(Z)
    var = ((Z - mean) ** 2).sum(axis=0, keepdims=True) / len(Z)
    return G * (Z - mean) / divisor(var, form) + B


def backward(Z: Any, G: Any, C: Any, form: str) -> tuple[Any, Any, Any]:
    """∂L/∂Z, ∂L/∂G and ∂L/∂B of a batch from C = ∂L/∂Ẑ: the sum over all successors of Z, of σ² and of μ in turn."""
    mean = Z.mean(axis=0, keepdims=True)
    centred = Z - mean
    var = (centred**2).mean(axis=0, keepdims=True)
    d = divisor(var, form)
    of_bar = C * G
    of_d = -(of_bar * centred).sum(axis=0, keepdims=True) / d**2
    of_var = of_d / (2 * np.sqrt(var)) if form == "Definition 41" else of_d / (2 * d)
    of_mean = -of_bar.sum(axis=0, keepdims=True) / d - 2 * of_var * centred.mean(axis=0, keepdims=True)
    of_Z = of_bar / d + of_var * 2 * centred / len(Z) + of_mean / len(Z)
    return of_Z, (C * centred / d).sum(axis=0, keepdims=True), C.sum(axis=0, keepdims=True)


def layer(form: str, **options: Any) -> gn.BatchNorm:
    return gn.BatchNorm(EPS, eps_outside=FORMS[form], **options)


def network(form: str, backend: Any, **options: Any) -> gn.Network:
    """The layer alone on Z, with G and B as above."""
    return load(given(Z, [layer(form, **options)], backend), {"1.G": G, "1.B": B})


def trained(net: gn.Network, batch: Any) -> None:
    """A forward pass in training that moves the running statistics."""
    load(net, {"0.V": batch})
    forward(net, np.zeros((len(batch), 1)), track=True)


BLANK = np.zeros((K, 1))


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_in_training_normalises_as_the_notes_do(backend: Any, form: str) -> None:
    net = network(form, backend)
    same(forward(net, BLANK), normalized(Z, G, B, form))


def test_the_two_forms_of_batch_norm_differ() -> None:
    a, b = (normalized(Z, G, B, form) for form in FORMS)
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_of_rows_is_that_of_the_columns_of_the_notes(backend: Any, form: str) -> None:
    """Element by element as in Key Equation 37 and Concept 40: Z_ij is dimension i of point j."""
    columns, net = Z.T, network(form, backend)
    wanted = np.empty_like(columns)
    for i in range(WIDTH):
        mean = sum(columns[i, j] for j in range(K)) / K
        var = sum((columns[i, j] - mean) ** 2 for j in range(K)) / K
        for j in range(K):
            wanted[i, j] = G[0, i] * (columns[i, j] - mean) / divisor(var, form) + B[0, i]
    same(forward(net, BLANK), wanted.T)


def test_a_new_batch_norm_gives_mean_zero_and_deviation_one(backend: Any) -> None:
    out = forward(given(Z, [gn.BatchNorm(1e-12)], backend), BLANK)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(out.std(axis=0), 1, rtol=1e-10)


def test_batch_norm_reproduces_the_example_of_the_notes(backend: Any) -> None:
    """(6.65) divides by the sample deviation (K-1), the definition by K. We follow the definition."""
    data = np.array([[1.0], [2], [100], [3], [4], [5]])
    out = forward(given(data, [gn.BatchNorm(1e-12)], backend), np.zeros((6, 1)))[:, 0]
    same(out, ((data - data.mean()) / data.std())[:, 0], 1e-9)
    printed = [-0.458, -0.433, 2.04, -0.408, -0.383, -0.358]
    np.testing.assert_allclose(out * np.sqrt(5 / 6), printed, atol=2e-3)
    assert np.abs(out - printed).max() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_updates_its_running_statistics_in_training(backend: Any, form: str) -> None:
    """μ ← μ + m (batch mean - μ), and so the variance over K-1; from 0 and 1, over several batches."""
    net, momentum = network(form, backend, momentum=0.3), 0.3
    mean, var = np.zeros((1, WIDTH)), np.ones((1, WIDTH))
    for seed in range(4):
        batch = Z + np.random.default_rng(seed).normal(size=Z.shape)
        trained(net, batch)
        mean += momentum * (batch.mean(axis=0) - mean)
        var += momentum * (batch.var(axis=0, ddof=1) - var)
        same(host(net, net.state["1.mean"]), mean)
        same(host(net, net.state["1.var"]), var)
    load(net, {"0.V": Z})
    same(net.predict(BLANK), G * (Z - mean) / divisor(var, form) + B)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_in_evaluation_does_not_depend_on_the_batch(backend: Any, form: str) -> None:
    """Each row alone gives what it gives among others; and a batch of one is no problem."""
    net = gn.Network([layer(form)], WIDTH, device=backend, dtype="float64")
    state = {"0.mean": rng.normal(size=(1, WIDTH)), "0.var": rng.uniform(0.5, 2, (1, WIDTH))}
    load(net, {"0.G": G, "0.B": B, **state})
    wanted = G * (Z - state["0.mean"]) / divisor(state["0.var"], form) + B
    same(net.predict(Z), wanted)
    same(np.concatenate([net.predict(row[None]) for row in Z]), wanted)
    for name, value in state.items():
        same(host(net, net.state[name]), value, 0.0)


def test_computing_gradients_does_not_change_running_statistics(backend: Any) -> None:
    net = network("usual", backend)
    net.gradients(BLANK, C, WEIGHTED)
    net.loss_of(BLANK, C, WEIGHTED, training=True)
    np.testing.assert_array_equal(host(net, net.state["1.mean"]), np.zeros((1, WIDTH)))
    np.testing.assert_array_equal(host(net, net.state["1.var"]), np.ones((1, WIDTH)))


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_batch_norm_in_training_is_that_of_the_notes(backend: Any, form: str) -> None:
    _, gradients = network(form, backend).gradients(BLANK, C, WEIGHTED)
    for got, wanted in zip(gradients.values(), backward(Z, G, C, form), strict=True):
        same(got, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_the_expected_gradient_of_batch_norm_agrees_with_the_complex_step(form: str) -> None:
    """By the complex step on the definition."""
    numeric = np.empty_like(Z)
    for index in np.ndindex(Z.shape):
        moved = Z.astype(complex)
        moved[index] += 1e-30j
        numeric[index] = (C * normalized(moved, G, B, form)).sum().imag / 1e-30
    same(backward(Z, G, C, form)[0], numeric)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_batch_norm_in_evaluation_takes_statistics_as_constants(backend: Any, form: str) -> None:
    """The running statistics are constants: no successor of Z but its own Ẑ."""
    net = network(form, backend)
    mean, var = rng.normal(size=(1, WIDTH)), rng.uniform(0.5, 2, (1, WIDTH))
    load(net, {"1.mean": mean, "1.var": var})
    _, gradients = net.gradients(BLANK, C, WEIGHTED, training=False)
    same(gradients["0.V"], C * G / divisor(var, form))
    same(gradients["1.G"], (C * (Z - mean) / divisor(var, form)).sum(axis=0, keepdims=True))
    same(gradients["1.B"], C.sum(axis=0, keepdims=True))


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_without_affine_has_scale_one_and_shift_zero(backend: Any, form: str) -> None:
    one, zero = np.ones((1, WIDTH)), np.zeros((1, WIDTH))
    net = given(Z, [layer(form, affine=False)], backend)
    same(forward(net, BLANK), normalized(Z, one, zero, form))
    same(net.gradients(BLANK, C, WEIGHTED)[1]["0.V"], backward(Z, one, C, form)[0])


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_stands_between_weights_and_activation(backend: Any, form: str) -> None:
    """Concept 38: after Z = WᵀA and before f; the activation as a layer, or inside the normalisation, is the same."""
    X, c = rng.normal(size=(2, K, WIDTH))
    inside = gn.Network([gn.Dense(WIDTH), layer(form, activation="tanh")], WIDTH, device=backend, dtype="float64")
    behind = gn.Network([gn.Dense(WIDTH), layer(form), gn.Tanh()], WIDTH, device=backend, dtype="float64")
    W, b = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=(1, WIDTH))
    bar = normalized(X @ W + b, G, B, form)
    of_Z, of_G, of_B = backward(X @ W + b, G, c * (1 - np.tanh(bar) ** 2), form)
    for net in (inside, behind):
        load(net, {"0.W": W, "0.b": b, "1.G": G, "1.B": B})
        same(forward(net, X), np.tanh(bar))
        gradients = net.gradients(X, c, WEIGHTED)[1]
        same(gradients["0.W"], X.T @ of_Z)
        same(gradients["1.G"], of_G)
        same(gradients["1.B"], of_B)
        np.testing.assert_allclose(gradients["0.b"], 0, atol=1e-12)  # an offset before it has no effect


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_networks_with_batch_norm_agree_with_finite_differences(
    backend: Any, form: str, training: bool
) -> None:
    layers = [gn.Dense(5), layer(form, activation="sigmoid"), gn.Dense(4, "tanh"), layer(form), gn.Dense(2)]
    net = gn.Network(layers, 3, device=backend, dtype="float64", seed=1)
    data = np.random.default_rng(2)
    X, y = data.normal(size=(6, 3)), data.normal(size=(6, 2))
    assert check_gradients(net, X, y, gn.SquaredError(), training=training) <= 1e-7


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_of_equal_inputs_is_finite(backend: Any, form: str) -> None:
    """Why there is an ε: σ = 0. The output is B; the gradient is finite and its mean over the batch is 0."""
    flat = np.full((K, WIDTH), 3.0)
    net = load(given(flat, [layer(form)], backend), {"1.G": G, "1.B": B})
    same(forward(net, BLANK), np.broadcast_to(B, flat.shape))
    gradient = net.gradients(BLANK, C, WEIGHTED)[1]["0.V"]
    same(gradient, G * (C - C.mean(axis=0)) / divisor(np.zeros(1), form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_about_a_large_mean_loses_no_digits(backend: Any, form: str, dtype: str) -> None:
    shifted = np.asarray(1e5 + rng.normal(size=(64, WIDTH)), dtype).astype(float)
    net = given(shifted, [layer(form)], backend, dtype)
    wanted = normalized(shifted, 1.0, 0.0, form)
    same(forward(net, np.zeros((64, 1))), wanted, 1e-6 if dtype == "float32" else 1e-9)


def test_scale_and_shift_of_batch_norm_set_deviation_and_mean(backend: Any) -> None:
    """(6.66): G gives the deviations and B the means."""
    net = load(given(Z, [gn.BatchNorm(1e-12)], backend), {"1.G": G, "1.B": B})
    out = forward(net, BLANK)
    np.testing.assert_allclose(out.mean(axis=0), B[0], atol=1e-9)
    np.testing.assert_allclose(out.std(axis=0), np.abs(G[0]), rtol=1e-9)


def test_batch_norm_removes_the_scale_of_the_layer_before_it(backend: Any) -> None:
    """§6.8.3.2: if layer 1's outputs all get larger, layer 2 does not notice."""
    tiny = gn.BatchNorm(1e-12)
    once, scaled = (forward(given(factor * Z, [tiny], backend), BLANK) for factor in (1.0, 25.0))
    same(scaled, once, 1e-9)
    slope = derivative(Z, [tiny], C, WEIGHTED, backend)[1]
    assert np.abs((slope * Z).sum(axis=0)).max() < 1e-9  # so the gradient has no part along Z
