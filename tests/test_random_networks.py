"""A thousand random networks: depth 1 to 8, mixed, residual and branching, any batch, alone and as populations."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpunn as gn
from gpunn.testing import check_gradients
from tests import zoo

widths = st.integers(1, 6)
activations = st.sampled_from(zoo.ACTIVATIONS)
norms = st.sampled_from([gn.BatchNorm, gn.LayerNorm, gn.RMSNorm])


@st.composite
def simple(draw: Any) -> Any:
    """A layer of any width."""
    kind = draw(st.sampled_from(["dense", "norm", "activation", "dropout", "noise"]))
    if kind == "dense":
        return gn.Dense(draw(widths), draw(activations), bias=draw(st.booleans()))
    if kind == "norm":
        return draw(norms)(1e-3, activation=draw(activations))
    if kind == "activation":
        return gn.Activation(draw(st.sampled_from(sorted(zoo.Nonlinearity.named))))
    return gn.Dropout(draw(st.sampled_from([0.0, 0.2, 0.7]))) if kind == "dropout" else gn.GaussianNoise(0.2)


@st.composite
def layers(draw: Any, depth: int = 2) -> Any:
    """A simple layer, or one made of layers."""
    kind = draw(st.sampled_from(["simple", "simple", "simple", "residual", "branch"])) if depth else "simple"
    if kind == "simple":
        return draw(simple())
    inner = st.lists(layers(depth - 1), min_size=1, max_size=2)
    if kind == "residual":
        width = draw(widths)
        return gn.Residual([*draw(inner), gn.Dense(width)], shortcut=gn.Dense(width))
    merge = draw(st.sampled_from(["concatenate", "add"]))
    ends = [gn.Dense(3)] if merge == "add" else []
    return gn.Branch([[*draw(inner), *ends] for _ in range(draw(st.integers(1, 3)))], merge=merge)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.lists(layers(), min_size=0, max_size=7),
    loss=st.sampled_from(zoo.LOSSES),
    rows=st.integers(1, 33),
    models=st.sampled_from([None, None, 1, 2, 3, 4]),
    seed=st.integers(0, 2**40),
)
def test_the_gradient_of_any_network_is_exact(body: Any, loss: Any, rows: int, models: int | None, seed: int) -> None:
    stack = [*body, gn.Dense(3, zoo.PROBABILITIES.get(type(loss)))]
    network = gn.Network(stack, 4, device="cpu", dtype="float64", models=models, seed=seed)
    if any(layer.minimum_rows > rows for _, layer in gn.layers.base.walk(network.network)):
        rows = 2
    rng = np.random.default_rng(seed)
    for view in network.parameters.values():  # biases of 0 would put whole layers on a kink
        view += rng.normal(scale=0.1, size=view.shape)
    X = rng.normal(size=(rows, 4))
    check_gradients(network, X, zoo.targets(loss, rows, 3), loss, coordinates=24)
