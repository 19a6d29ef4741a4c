"""S3, layers of many neurons: notes 002 (6.45)–(6.49), Notation 16 and 17, denominator layout."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.testing import check_gradients
from tests.lecture.notes import WEIGHTED, derivative, load, same, sigmoid, sigmoid_slope, softmax, softmax_jacobian

WIDTHS, POINTS = (3, 5, 4, 2), 6


def diagonal(slope: Any) -> Any:
    """∂A/∂Z of an activation of each element by itself, Notation 17."""
    return lambda z: np.diag(slope(z))


# Each activation of one vector, and its ∂A/∂Z: row i is z_i, column j is a_j.
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "sigmoid": (sigmoid, diagonal(sigmoid_slope)),
    "tanh": (np.tanh, diagonal(lambda z: 1 - np.tanh(z) ** 2)),
    "relu": (lambda z: np.maximum(z, 0), diagonal(lambda z: (z >= 0).astype(float))),
    "identity": (lambda z: z, diagonal(np.ones_like)),
    "softmax": (softmax, softmax_jacobian),
}
NETWORKS = [
    ("tanh", "sigmoid", "identity"), ("relu", "tanh", "sigmoid"), ("softmax", "relu", "identity"),
    ("sigmoid", "softmax", "tanh"), ("identity", "tanh", "softmax"), ("softmax", "softmax", "softmax"),
]  # fmt: skip


def make(functions: tuple[str, ...], backend: Any) -> tuple[gn.Network, list[Any], list[Any]]:
    """A network with random weights and offsets, and these."""
    rng = np.random.default_rng(len("".join(functions)))
    layers = [gn.Dense(width, f) for width, f in zip(WIDTHS[1:], functions)]
    net = gn.Network(layers, WIDTHS[0], device=backend, dtype="float64")
    W = [rng.normal(size=shape) for shape in pairwise(WIDTHS)]
    W0 = [rng.normal(size=width) for width in WIDTHS[1:]]
    load(net, {f"{k}.W": w for k, w in enumerate(W)} | {f"{k}.b": w0[None] for k, w0 in enumerate(W0)})
    return net, W, W0


def of_one_point(
    x: Any, y: Any, W: list[Any], W0: list[Any], functions: tuple[str, ...]
) -> tuple[list[Any], list[Any]]:
    """∂L/∂W^ℓ and ∂L/∂W0^ℓ of the square loss, matrix by matrix; every vector is one column, as in the notes."""
    A, Z = [x], []
    for w, w0, f in zip(W, W0, functions):
        Z.append(w.T @ A[-1] + w0)
        A.append(FUNCTIONS[f][0](Z[-1]))
    of_A = 2 * (A[-1] - y)[:, None]
    of_W: list[Any] = []
    of_W0: list[Any] = []
    for k in reversed(range(len(W))):
        of_Z = FUNCTIONS[functions[k]][1](Z[k]) @ of_A  # (∂A/∂Z) @ (∂L/∂A)
        of_W.insert(0, A[k][:, None] @ of_Z.T)  # (∂Z/∂W) (∂L/∂Z)ᵀ with ∂Z/∂W = A^(ℓ-1)
        of_W0.insert(0, of_Z.T)
        of_A = W[k] @ of_Z  # (∂Z/∂A) @ (∂L/∂Z) with ∂Z/∂A = W
    return of_W, of_W0


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(9)
    return rng.normal(size=(POINTS, WIDTHS[0])), rng.normal(size=(POINTS, WIDTHS[-1]))


@pytest.mark.parametrize("functions", NETWORKS, ids=str)
@pytest.mark.parametrize("points", [1, POINTS])
def test_the_gradient_of_layers_follows_the_matrix_chain_rule(
    backend: Any, functions: tuple[str, ...], points: int
) -> None:
    """Notation 16; the points of a batch add."""
    net, W, W0 = make(functions, backend)
    X, Y = (table[:points] for table in data())
    _, gradients = net.gradients(X, Y, gn.SquaredError(reduction="sum"))
    parts = [of_one_point(x, y, W, W0, functions) for x, y in zip(X, Y)]
    for k in range(len(W)):
        same(gradients[f"{k}.W"], sum(part[0][k] for part in parts))
        same(gradients[f"{k}.b"], sum(part[1][k] for part in parts))


@pytest.mark.parametrize("functions", NETWORKS, ids=str)
def test_examples_in_rows_give_what_the_notes_compute_in_columns(backend: Any, functions: tuple[str, ...]) -> None:
    """Z = A W + b on points in rows is Z = WᵀA + W0 on points in columns."""
    net, W, W0 = make(functions, backend)
    columns = data()[0].T
    for w, w0, f in zip(W, W0, functions):
        Z = w.T @ columns + w0[:, None]
        columns = np.stack([FUNCTIONS[f][0](z) for z in Z.T], axis=1)
    same(net.predict(data()[0]), columns.T)


@pytest.mark.parametrize("functions", NETWORKS, ids=str)
def test_the_gradient_of_layers_agrees_with_finite_differences_and_complex_step(
    backend: Any, functions: tuple[str, ...]
) -> None:
    net, _, _ = make(functions, backend)
    X, Y = data()
    assert check_gradients(net, X, Y, gn.SquaredError()) <= 1e-7
    assert check_gradients(net, X, Y, gn.AbsoluteError(reduction="sum")) <= 1e-7


@pytest.mark.parametrize("layer", [gn.Softmax(), gn.Activation("softmax")], ids=str)
def test_back_propagation_through_softmax_uses_the_full_jacobian(backend: Any, layer: gn.Layer) -> None:
    """Column j of ∂A/∂Z is what comes back when only ∂L/∂a_j is 1; the complex step of the definition agrees."""
    rng = np.random.default_rng(3)
    for z in rng.normal(scale=2, size=(5, 4)):
        columns = [derivative(z[None], [layer], np.eye(4)[j, None], WEIGHTED, backend)[1][0] for j in range(4)]
        jacobian = np.stack(columns, axis=1)
        same(jacobian, softmax_jacobian(z))
        same(jacobian, np.stack([softmax(z + 1e-30j * step).imag / 1e-30 for step in np.eye(4)]))
        assert np.abs(jacobian - np.diag(np.diag(jacobian))).max() > 1e-3  # more than Notation 17's diagonal


def test_the_derivative_of_a_vector_by_a_vector_has_the_layout_of_the_notes(backend: Any) -> None:
    """(6.49): entry (i, j) of ∂Z/∂A is ∂z_j/∂a_i, so ∂Z/∂A is W itself, and W is (m × n)."""
    W = np.random.default_rng(4).normal(size=(3, 2))
    layer = gn.Network([gn.Dense(3, bias=False), gn.Dense(2, bias=False)], 1, device=backend, dtype="float64")
    load(layer, {"0.W": np.ones((1, 3)), "1.W": W})
    for j in range(2):
        _, gradients = layer.gradients([[1.0]], np.eye(2)[j, None], WEIGHTED)
        same(gradients["0.W"][0], W[:, j])
