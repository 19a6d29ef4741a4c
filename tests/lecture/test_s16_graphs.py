"""S16, back-propagation on a graph: notes 003, ∂L/∂u = Σ_v ∂L/∂v · ∂v/∂u over all successors v of u."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.testing import check_gradients
from tests.lecture.notes import WEIGHTED, derivative, host, same

ROWS, INPUTS = 4, 3


class Node:
    """A number in the graph, with each successor v and ∂v/∂u."""

    def __init__(self, value: float) -> None:
        self.value = float(value)
        self.successors: list[tuple[Node, float]] = []
        self.known: float | None = None

    def slope(self, loss: Node) -> float:
        """∂L/∂u; the base case is ∂L/∂L = 1."""
        if self.known is None:
            self.known = 1.0 if self is loss else sum(v.slope(loss) * dv_du for v, dv_du in self.successors)
        return self.known


def node(value: float, *predecessors: tuple[Node, float]) -> Node:
    made = Node(value)
    for u, slope in predecessors:
        u.successors.append((made, slope))
    return made


def total(nodes: list[Node]) -> Node:
    return node(sum(u.value for u in nodes), *((u, 1.0) for u in nodes))


def dense(u: list[Node], W: Any, b: Any, activation: Any) -> list[Node]:
    """g(w·u + b), every product and sum a node."""
    outputs = []
    for j in range(W.shape[1]):
        products = [node(w.value * a.value, (w, a.value), (a, w.value)) for w, a in zip(W[:, j], u)]
        z = total([*products, b[0, j]])
        a = np.tanh(z.value)
        outputs.append(node(a, (z, 1 - a**2)) if activation == "tanh" else z)
    return outputs


def grow(layer: gn.Layer, u: list[Node], weights: dict[str, Any], path: str) -> list[Node]:
    """The nodes that a layer adds behind u."""
    prefix = f"{path}." if path else ""
    if isinstance(layer, gn.Sequential):
        for i, inner in enumerate(layer.layers):
            u = grow(inner, u, weights, f"{prefix}{i}")
        return u
    if isinstance(layer, gn.Residual):
        straight = grow(layer.shortcut, u, weights, f"{prefix}shortcut") if layer.shortcut else u
        return [total(list(pair)) for pair in zip(grow(layer.body, u, weights, f"{prefix}body"), straight)]
    if isinstance(layer, gn.Branch):
        parts = [grow(branch, u, weights, f"{prefix}{i}") for i, branch in enumerate(layer.branches)]
        return list(chain(*parts)) if layer.merge == "concatenate" else [total(list(v)) for v in zip(*parts)]
    if isinstance(layer, gn.Dense):
        return dense(u, weights[f"{prefix}W"], weights[f"{prefix}b"], layer.activation)
    assert isinstance(layer, gn.Identity)
    return [node(a.value, (a, 1.0)) for a in u]


def tanh(units: int) -> gn.Dense:
    return gn.Dense(units, "tanh")


NETWORKS: dict[str, list[gn.Layer]] = {
    "no branching": [tanh(4), gn.Dense(2)],
    "residual": [tanh(4), gn.Residual([tanh(4)]), gn.Dense(2)],
    "residual of two layers": [tanh(4), gn.Residual([tanh(5), gn.Dense(4)]), tanh(3), gn.Dense(2)],
    "residual on the inputs": [gn.Residual([tanh(3)]), gn.Dense(2)],
    "residual at the end": [tanh(2), gn.Residual([gn.Dense(2)])],
    "three residuals": [tanh(4), *[gn.Residual([tanh(4)])] * 3, gn.Dense(2)],
    "shortcut": [tanh(4), gn.Residual([tanh(5)], shortcut=gn.Dense(5)), gn.Dense(2)],
    "residual of nothing": [tanh(4), gn.Residual([gn.Identity()]), gn.Dense(2)],
    "side by side": [tanh(4), gn.Branch([tanh(2), [tanh(3), tanh(2)], gn.Identity()]), gn.Dense(2)],
    "side by side, twice the same": [tanh(4), gn.Branch([tanh(2), tanh(2)]), gn.Dense(2)],
    "added": [tanh(4), gn.Branch([tanh(4), gn.Identity(), [tanh(3), gn.Dense(4)]], merge="add"), gn.Dense(2)],
    "added identities": [tanh(4), gn.Branch([gn.Identity()] * 3, merge="add"), gn.Dense(2)],
    "branches on the inputs": [gn.Branch([gn.Identity(), tanh(2)]), gn.Dense(2)],
    "branches at the end": [tanh(4), gn.Branch([gn.Dense(1), [tanh(3), gn.Dense(1)]])],
    "residual of branches": [tanh(4), gn.Residual([gn.Branch([tanh(1), tanh(3)])]), gn.Dense(2)],
    "branches of residuals": [
        tanh(3),
        gn.Branch([gn.Residual([tanh(3)]), gn.Residual([gn.Residual([tanh(3)]), tanh(3)])], merge="add"),
        gn.Dense(2),
    ],
    "one branch": [tanh(4), gn.Branch([tanh(3)]), gn.Branch([tanh(2)], merge="add")],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_at_a_node_is_the_sum_over_its_successors(backend: Any, name: str) -> None:
    """Node by node; the weights are nodes too, with a successor in every example."""
    net = gn.Network(NETWORKS[name], INPUTS, device=backend, dtype="float64", seed=1)
    rng = np.random.default_rng(2)
    net.load_parameters({key: rng.normal(scale=0.7, size=view.shape) for key, view in net.parameters.items()})
    X, Y = rng.normal(size=(ROWS, INPUTS)), rng.normal(size=(ROWS, 2))
    weights = {key: np.vectorize(Node, otypes=[object])(host(net, view)) for key, view in net.parameters.items()}
    outputs = [grow(net.network, [Node(x) for x in row], weights, "") for row in X]
    errors = [(a, y) for row, target in zip(outputs, Y) for a, y in zip(row, target, strict=True)]
    loss = total([node((a.value - y) ** 2, (a, 2 * (a.value - y))) for a, y in errors])
    value, gradients = net.gradients(X, Y, gn.SquaredError(reduction="sum"))
    same(net.predict(X), np.array([[a.value for a in row] for row in outputs]))
    same(value, loss.value)
    assert gradients.keys() == weights.keys()
    for key, nodes in weights.items():
        same(gradients[key], np.vectorize(lambda u: u.slope(loss), otypes=[float])(nodes))
    assert check_gradients(net, X, Y, gn.SquaredError()) <= 1e-7


def test_the_gradient_with_two_successors_agrees_with_the_one_by_hand(backend: Any) -> None:
    """v = u + tanh(w u): ∂L/∂u = ∂L/∂v · 1 + ∂L/∂v · w (1 - tanh²(w u)), neither term alone."""
    u, w, c = np.array([[0.7]]), 1.3, np.array([[2.0]])
    block = gn.Residual([gn.Dense(1, "tanh", bias=False, initializer=gn.initializers.Constant(w))])
    value, slope = derivative(u, [block], c, WEIGHTED, backend)
    through = 2.0 * w * (1 - np.tanh(w * 0.7) ** 2)
    same(value, 2.0 * (0.7 + np.tanh(w * 0.7)))
    same(slope, np.array([[2.0 + through]]))
    assert abs(through) > 0.1


@pytest.mark.parametrize("successors", [1, 2, 3, 5])
def test_every_branch_adds_its_gradient(backend: Any, successors: int) -> None:
    """u copied k times: ∂L/∂u is k times that of one copy, added, and the sum of all columns, side by side."""
    u, c = np.random.default_rng(3).normal(size=(2, ROWS, INPUTS))
    copies = [gn.Identity()] * successors
    same(derivative(u, [gn.Branch(copies, merge="add")], c, WEIGHTED, backend)[1], successors * c)
    wide = np.random.default_rng(4).normal(size=(ROWS, successors * INPUTS))
    parts = wide.reshape(ROWS, successors, INPUTS).sum(axis=1)
    same(derivative(u, [gn.Branch(copies)], wide, WEIGHTED, backend)[1], parts)
