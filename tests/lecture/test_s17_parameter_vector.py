"""S17, the layered graph with one parameter vector: notes 004, a = W o = B w, w ← w - η (v + λ w)."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from tests.lecture.notes import host, same

WIDTHS = (3, 4, 5, 2)
FUNCTIONS = ("tanh", "sigmoid", None)
ROWS = 6


def network(backend: Any, *, bias: bool = False, **options: Any) -> gn.Network:
    layers = [gn.Dense(width, f, bias=bias) for width, f in zip(WIDTHS[1:], FUNCTIONS)]
    return gn.Network(layers, WIDTHS[0], device=backend, dtype="float64", seed=4, **options)


def write(net: gn.Network, vector: Any, out: Any = None) -> None:
    net.ops.copy(net.ops.from_host(np.asarray(vector)), out=net.vector if out is None else out)


def places(net: gn.Network) -> dict[str, Any]:
    """Where in the vector each parameter stands: the indices, read through the views of a vector of indices."""
    before = host(net, net.vector)
    write(net, np.arange(before.size, dtype=float))
    found = {name: host(net, view).astype(int) for name, view in net.parameters.items()}
    write(net, before)
    return found


def block_matrix(o: Any, units: int) -> Any:
    """B of 004, (k_t × k_t k_(t-1)): oᵀ in row j from column j k_(t-1) on, zeros elsewhere."""
    B = np.zeros((units, units * len(o)))
    for j in range(units):
        B[j, j * len(o) : (j + 1) * len(o)] = o
    return B


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(ROWS, WIDTHS[0])), rng.normal(size=(ROWS, WIDTHS[-1]))


def outputs(net: gn.Network, count: int) -> Any:
    """o_t of all layers before `count`, from a network of these alone."""
    X = data()[0]
    if not count:
        return X
    part = gn.Network(net.network.layers[:count], WIDTHS[0], device=net.ops, dtype="float64")
    part.load_parameters({name: host(net, net.parameters[name]) for name in part.parameters})
    return part.predict(X)


def test_the_parameter_vector_has_one_entry_for_every_edge(backend: Any) -> None:
    """w ∈ R^|E|: one place for each pair of neighbouring neurons and no place twice."""
    net = network(backend)
    taken = np.concatenate([indices.reshape(-1) for indices in places(net).values()])
    assert len(taken) == sum(a * b for a, b in pairwise(WIDTHS))
    assert len(np.unique(taken)) == len(taken)


@pytest.mark.parametrize("bias", [False, True])
def test_the_affine_map_of_a_layer_is_B_times_the_parameter_vector(backend: Any, bias: bool) -> None:
    """a = W o = B w, with w the rows of W (units × inputs) one after another, taken from `vector`.

    Offsets are edges from one more neuron, whose output is 1.
    """
    net = network(backend, bias=bias)
    write_randomly(net)
    vector, where = host(net, net.vector), places(net)
    for t, units in enumerate(WIDTHS[1:]):
        rows = edges(where, t, bias)
        w, W = vector[rows].reshape(-1), vector[rows]
        affine = gn.Network([gn.Dense(units, bias=bias)], WIDTHS[t], device=backend, dtype="float64")
        affine.load_parameters({f"0.{n}": host(net, net.parameters[f"{t}.{n}"]) for n in ("W", "b")[: 1 + bias]})
        inputs = outputs(net, t)
        for o, a in zip(inputs, affine.predict(inputs)):
            extended = np.append(o, 1.0) if bias else o
            same(block_matrix(extended, units) @ w, W @ extended)
            same(a, W @ extended)


def edges(where: dict[str, Any], t: int, bias: bool) -> Any:
    """The places of layer t's edges, a row for each neuron; the edge from the 1 comes last."""
    W = where[f"{t}.W"].T
    return np.concatenate([W, where[f"{t}.b"].T], axis=1) if bias else W


def write_randomly(net: gn.Network) -> None:
    rng = np.random.default_rng(5)
    net.load_parameters({name: rng.normal(size=view.shape) for name, view in net.parameters.items()})


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradient_vector_is_the_transpose_of_B_times_the_gradient_of_outputs(backend: Any, bias: bool) -> None:
    """∂L/∂w = Bᵀ ∂L/∂a, layer by layer, added over the examples, is what `gradient_vector` holds at the same places."""
    net = network(backend, bias=bias)
    write_randomly(net)
    X, Y = data()
    net.gradients(X, Y, gn.SquaredError(reduction="sum"))
    vector, gradient, where = host(net, net.vector), host(net, net.gradient_vector), places(net)
    of_o = 2 * (net.predict(X) - Y)
    for t in reversed(range(len(FUNCTIONS))):
        o, after = outputs(net, t), outputs(net, t + 1)
        slope = {"tanh": 1 - after**2, "sigmoid": after * (1 - after), None: 1.0}[FUNCTIONS[t]]
        of_a = of_o * slope
        rows = edges(where, t, bias)
        inputs = np.append(o, np.ones((ROWS, 1)), axis=1) if bias else o
        of_w = sum(block_matrix(row, WIDTHS[t + 1]).T @ d for row, d in zip(inputs, of_a))
        same(gradient[rows].reshape(-1), of_w)
        of_o = of_a @ vector[where[f"{t}.W"]].T


def test_the_parameter_vector_and_the_parameters_share_memory(backend: Any) -> None:
    net = network(backend, bias=True)
    where = places(net)
    new = np.random.default_rng(6).normal(size=host(net, net.vector).size)
    write(net, new)
    for name, view in net.parameters.items():
        np.testing.assert_array_equal(host(net, view), new[where[name]])
    write(net, np.zeros((1, 4)), out=net.parameters["0.b"])
    np.testing.assert_array_equal(host(net, net.vector)[where["0.b"]], np.zeros((1, 4)))


def test_a_change_of_the_parameter_vector_changes_predictions(backend: Any) -> None:
    net = network(backend, bias=True)
    X, _ = data()
    before = net.predict(X)
    net.vector[...] = 0.0
    np.testing.assert_array_equal(net.predict(X), np.zeros((ROWS, WIDTHS[-1])))
    write(net, np.ones(host(net, net.vector).size))
    hidden = np.tanh(X @ np.ones((3, 4)) + 1)
    wanted = (1 / (1 + np.exp(-(hidden @ np.ones((4, 5)) + 1)))) @ np.ones((5, 2)) + 1
    same(net.predict(X), wanted)
    assert np.abs(before - wanted).max() > 0.1


def test_moving_one_entry_of_the_vector_changes_the_loss_by_its_gradient(backend: Any) -> None:
    """The vector can be differentiated by: every entry against central differences, padding included."""
    net, loss, h = network(backend, bias=True), gn.SquaredError(), 1e-5
    write_randomly(net)
    X, Y = data()
    net.gradients(X, Y, loss)
    vector, gradient = host(net, net.vector), host(net, net.gradient_vector)
    for place, slope in enumerate(gradient):
        values = []
        for moved in (vector[place] + h, vector[place] - h):
            write(net, np.where(np.arange(vector.size) == place, moved, vector))
            values.append(net.loss_of(X, Y, loss))
        assert abs((values[0] - values[1]) / (2 * h) - slope) < 1e-8 * max(1.0, np.abs(gradient).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("models", [None, 3])
def test_the_padding_of_the_parameter_vector_stays_zero(backend: Any, models: int | None, dtype: str) -> None:
    layers = [gn.Dense(5, "tanh"), gn.BatchNorm(), gn.Dense(2)]
    net = gn.Network(layers, WIDTHS[0], device=backend, dtype=dtype, models=models)
    size = net.vector.shape[-1]
    one = gn.Network(layers, WIDTHS[0], device=backend, dtype=dtype)
    taken = np.concatenate([indices.reshape(-1) for indices in places(one).values()])
    padding = np.setdiff1d(np.arange(size), taken)
    assert padding.size > 0
    assert taken.size == 3 * 5 + 5 + 5 + 5 + 5 * 2 + 2
    X, Y = data()
    for _ in range(3):
        net.gradients(X, Y, gn.SquaredError())
        vector, gradient = host(net, net.vector), host(net, net.gradient_vector)
        np.testing.assert_array_equal(vector[..., padding], 0.0)
        np.testing.assert_array_equal(gradient[..., padding], 0.0)
        write(net, vector - 0.1 * (gradient + 0.01 * vector))
    net.load_parameters({**{n: np.ones(v.shape) for n, v in net.parameters.items()}, **host_state(net)})
    np.testing.assert_array_equal(host(net, net.vector)[..., padding], 0.0)


def host_state(net: gn.Network) -> dict[str, Any]:
    return {name: host(net, view) for name, view in net.state.items()}


def test_updating_the_whole_vector_updates_every_layer(backend: Any) -> None:
    """w ← w - η (v + λ w), which decays by ½ λ |w|², here written on the vector by hand; the loss gets smaller."""
    net, eta, decay = network(backend, bias=True), 0.05, 0.01
    X, Y = data()
    loss = gn.SquaredError()
    before, gradients = net.gradients(X, Y, loss)
    weights = {name: host(net, view) for name, view in net.parameters.items()}
    w, v = host(net, net.vector), host(net, net.gradient_vector)
    write(net, w - eta * (v + decay * w))
    for name, view in net.parameters.items():
        same(host(net, view), weights[name] - eta * (gradients[name] + decay * weights[name]))
    assert net.loss_of(X, Y, loss) < before
