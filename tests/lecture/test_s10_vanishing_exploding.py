"""S10, vanishing and exploding gradients: notes 002 §6.7.3, (6.56)–(6.58), Definitions 26 and 27; 004."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.initializers import Constant, Gaussian

DEPTH, WIDTH = 8, 16
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, WIDTH)), rng.normal(size=(40, 2))


def watched(layers: Any, backend: Any, X: Any = X, Y: Any = Y, rate: float = 1e-3, **options: Any) -> gn.GradientFlow:
    flow = gn.GradientFlow()
    net = gn.Network(layers, X.shape[1], device=backend, dtype="float64", **options)
    net.fit(X, Y, loss=gn.SquaredError(), optimizer=gn.SGD(rate), epochs=3, batch_size=20, callbacks=[flow])
    return flow


def deep(activation: Any, initializer: Any, outputs: int = 2) -> list[gn.Layer]:
    return [*(gn.Dense(WIDTH, activation, initializer=initializer) for _ in range(DEPTH)), gn.Dense(outputs)]


BY_LAYER = {
    "deep sigmoid": ("sigmoid", Gaussian(0.3), "vanishing"),
    "badly scaled": ("relu", Gaussian(1.5), "exploding"),
    "badly scaled, linear": (None, Gaussian(1.0), "exploding"),
    "well scaled": ("relu", None, "healthy"),
}


@pytest.mark.parametrize("case", BY_LAYER)
def test_gradient_flow_tells_vanishing_exploding_and_healthy_networks_apart(backend: Any, case: str) -> None:
    activation, initializer, kind = BY_LAYER[case]
    flow = watched(deep(activation, initializer), backend, rate=1e-12)
    assert flow.epochs == [1, 2, 3]
    assert flow.verdict().kind == kind
    gradients = [float(sizes[-1, 0]) for sizes in flow.gradients.values()]
    assert len(gradients) == DEPTH + 1
    if kind == "vanishing":  # layer by layer, towards the input
        assert all(before < after for before, after in pairwise(gradients[:-1]))
        assert gradients[0] < 1e-3 * gradients[-1]
        assert flow.verdict().layers[0] == "0" and flow.verdict().ratio < 1e-3


def test_outputs_of_an_exploding_network_grow_with_every_layer(backend: Any) -> None:
    """The chain is as long forwards: outputs of the badly scaled network grow with every layer, gradients are huge."""
    bad = watched(deep("relu", Gaussian(1.5)), backend, rate=1e-30)
    good = watched(deep("relu", None), backend, rate=1e-30)
    outputs = [float(sizes[0, 0]) for sizes in bad.activations.values()][:DEPTH]
    assert all(after > 2 * before for before, after in pairwise(outputs))
    assert bad.gradients["0"][0, 0] > 1e6 * good.gradients["0"][0, 0]


@pytest.mark.parametrize(("factor", "kind"), [(0.1, "vanishing"), (10.0, "exploding"), (1.0, "healthy")])
def test_a_product_of_eight_factors_gives_the_sizes_of_the_notes(backend: Any, factor: float, kind: str) -> None:
    """(6.57) and (6.58): .1 · .1 · … · .1 = 1e-8 and 10 · … · 10 = 1e8, from the last of nine neurons to the first.

    From an input of 0 all outputs are 0, so each neuron's gradient is that of its offset: the product of the terms.
    """
    layers = [gn.Dense(1, initializer=Constant(factor)) for _ in range(9)]
    flow = watched(layers, backend, np.zeros((40, 1)), np.ones((40, 1)), rate=0.0)
    sizes = [float(flow.gradients[str(i)][0, 0]) for i in range(9)]
    np.testing.assert_allclose(sizes[0] / sizes[8], factor**8, rtol=1e-12)
    np.testing.assert_allclose(np.divide(sizes[:-1], sizes[1:]), factor, rtol=1e-12)
    verdict = flow.verdict()
    assert verdict.kind == kind
    np.testing.assert_allclose(verdict.ratio, factor**8, rtol=1e-12)


def test_gradient_flow_records_the_sizes_of_each_epoch() -> None:
    """A sigmoid network of three layers with a rate that moves: the sizes are those of each epoch, not of the last."""
    flow = watched([gn.Dense(8, "sigmoid"), gn.Dense(8, "sigmoid"), gn.Dense(2)], "cpu", rate=0.5)
    sizes = flow.gradients["2"]
    assert sizes.shape == (3, 1) and len(np.unique(sizes)) == 3


def test_gradient_flow_prints_a_table_of_layers() -> None:
    flow = watched(deep("sigmoid", Gaussian(0.3)), "cpu")
    text = flow.table()
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines if line[:1].isdigit()] == [[str(i), "Dense"] for i in range(DEPTH + 1)]
    assert lines[-1].startswith("vanishing: ")
    assert f"{float(flow.gradients['0'][-1, 0]):.3g}" in next(line for line in lines if line.startswith("0"))


def test_gradient_flow_plots_gradients_and_activations(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")
    made = watched(deep("relu", Gaussian(1.5)), "cpu", rate=1e-12).plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 1000
    titles = {panel.get_title() for panel in made.axes}
    assert titles == {"size of gradients", "size of activations"}
    assert all(panel.get_yscale() == "log" and len(panel.lines) == 3 for panel in made.axes)


def test_gradient_flow_measures_a_training_that_ends_within_an_epoch(backend: Any) -> None:
    """steps= may end a training before an epoch's last batch."""
    flow, net = gn.GradientFlow(), gn.Network(deep("sigmoid", Gaussian(0.3)), WIDTH, device=backend, dtype="float64")
    net.fit(X, Y, loss=gn.SquaredError(), optimizer=gn.SGD(1e-3), steps=3, batch_size=10, callbacks=[flow])
    assert np.isfinite(flow.gradients["0"]).all()
    assert flow.verdict().kind == "vanishing"
