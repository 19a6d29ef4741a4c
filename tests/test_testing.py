"""`check_layer`: the example of its docstring passes, every built-in layer does, and each fault is found."""

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpunn as gn
import gpunn.testing
from gpunn.backends.formula import formulas
from gpunn.frame import Plan
from gpunn.layers import Layer
from gpunn.testing import check_gradients, check_layer
from tests import zoo
from tests.conftest import backend_named


def test_the_example_layer_of_the_testing_docstring_passes_check_layer() -> None:
    text = (gpunn.testing.__doc__ or "").partition("A complete layer with its check:")[2]
    example = textwrap.dedent(text)
    assert "check_layer(SoftSquare(), (5,))" in example
    assert 25 <= len([line for line in example.splitlines() if line.strip()]) <= 40
    try:
        exec(compile(example, "the docstring of gpunn.testing", "exec"), {"__name__": "example"})
    finally:
        Layer.known.pop(("layer", "SoftSquare"), None)


@pytest.mark.parametrize("name", zoo.LAYERS)
def test_every_layer_passes_check_layer_on_every_backend(name: str) -> None:
    check_layer(zoo.LAYERS[name]("tanh"), (4,), backends=[backend_named(b) for b in ("cpu", "reference", "strict")])


def test_layers_of_indices_and_of_several_axes_pass_check_layer() -> None:
    check_layer(gn.Embedding(7, 3), (4,))
    check_layer(gn.Sequential([gn.Flatten(), gn.Dense(3)]), (2, 3))


@dataclass(frozen=True)
class Square(Layer):
    """A = X², with one fault chosen by name."""

    fault: str = ""

    def plan(self, shape: Any) -> Plan:
        return Plan(output=shape, buffers={"A": shape}, backward={"dX": shape})

    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        if self.fault == "allocates":
            return X * X
        if self.fault == "looks across models" and X.ndim == 3:
            X = X - 1e-3 * X.mean(axis=0)
        t.ops.elementwise(formulas.multiply, (X, X), (t.A,))
        if self.fault == "float32" and X.dtype == np.float32:
            t.A[...] = t.A.astype(np.float16)
        return t.A

    def backward(self, t: Any, dA: Any) -> Any:
        if not t.wants_dX:
            return None
        factor = 2.0 + (1e-9 if self.fault == "gradient" else 0.0)
        out = dA if self.fault == "writes over dA" else t.dX
        t.ops.elementwise(formulas.scaled_product, (dA, t.X, factor), (out,))
        return out


@dataclass(frozen=True)
class Forgetful(Square):
    """A layer that JSON does not restore."""

    width: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", self.width + 1)


def test_a_sound_user_defined_layer_passes_check_layer() -> None:
    check_layer(Square(), (5,))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Square("gradient"), r"gradient of 0\.\w\[.*\] is .*, the complex step give"),
        (Square("writes over dA"), "writes over dA, which it must leave as it found it"),
        (Square("allocates"), "write into buffers named in the plan, with out="),
        (Square("looks across models"), r"gradient of 0\.\w\[|of a population: loss is off by"),
        (Square("float32"), "in float32: .* is off by"),
        (Forgetful(), "comes back from JSON as"),
    ],
    ids=lambda v: getattr(v, "fault", "") or None,
)
def test_check_layer_finds_each_fault(layer: Layer, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_layer(layer, (5,), backends=[backend_named("cpu")])


def test_check_gradients_takes_populations_with_data_for_each_model() -> None:
    rng = np.random.default_rng(0)
    net = gn.Network([gn.Dense(3, "tanh"), gn.Dense(3)], 2, device="cpu", dtype="float64", models=3)
    X = rng.normal(size=(3, 3, 2))
    check_gradients(net, X, rng.integers(0, 3, (3, 3)), gn.CrossEntropy())
    check_gradients(net, X, rng.normal(size=(3, 3, 3)), gn.SquaredError())
    check_gradients(net, X[0], rng.integers(0, 3, 3), gn.CrossEntropy())


def test_check_gradients_accepts_a_loss_at_its_minimum() -> None:
    X = np.random.default_rng(0).normal(size=(6, 2))
    net = gn.Network([gn.Dense(3)], 2, device="cpu", dtype="float64")
    loss = gn.CrossEntropy()
    check_gradients(net, X, net.predict_probability(X, loss=loss), loss)


def test_check_gradients_allows_a_gradient_that_cancels_only_rounding_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias before a batch normalisation has no effect; its gradient is the rounding error of a sum of large terms."""
    network = gn.Network([gn.Dense(3), gn.BatchNorm(), gn.Dense(2)], 4, device="cpu", dtype="float64", seed=0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    loss, gradients = network.gradients(X, y, gn.SquaredError())
    largest = max(np.abs(g).max() for g in gradients.values())
    for left, passes in ((2e-15, True), (2e-14, False)):
        found = {name: left * largest * np.sign(g) if name == "0.b" else g for name, g in gradients.items()}
        monkeypatch.setattr(network, "gradients", lambda *args, found=found, **options: (loss, found))
        if passes:
            check_gradients(network, X, y, gn.SquaredError())
        else:
            with pytest.raises(AssertionError, match=r"gradient of 0\.b"):
                check_gradients(network, X, y, gn.SquaredError())
