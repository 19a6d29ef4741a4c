"""Every layer × activation × loss: the gradient against finite differences and the complex step, and across devices."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.reference.backend import Backend
from gpunn.testing import check_gradients
from tests import zoo

X = np.random.default_rng(1).normal(size=(6, 3))
CASES = [(name, f) for name in zoo.LAYERS for f in zoo.ACTIVATIONS]


def gradients_of(network: gn.Network, loss: Any, like: gn.Network | None = None, **options: Any) -> Any:
    """The loss and gradients, from the same values as another network where one is given."""
    if like is not None:
        views = {**like.parameters, **like.state}
        network.load_parameters({name: like.ops.to_host(view) for name, view in views.items()})
    return network.gradients(X, zoo.targets(loss, len(X), network.outputs[0]), loss, **options)


def assert_close(result: Any, expected: Any, tolerance: float) -> None:
    """Relative to the largest number of each array, or a thousandth of the largest of all."""
    largest = 1e-3 * max(np.abs(g).max() for g in expected[1].values())
    assert result[1].keys() == expected[1].keys()
    for got, wanted in [(result[0], expected[0]), *((result[1][n], expected[1][n]) for n in expected[1])]:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), largest))


@pytest.mark.parametrize(("name", "activation"), CASES, ids=lambda v: str(v))
def test_gradient_of_every_layer_and_activation_with_every_loss(name: str, activation: Any) -> None:
    for loss in zoo.LOSSES:
        for training in (True, False):
            network = zoo.network(zoo.LAYERS[name](activation), loss, device="cpu", dtype="float64", seed=3)
            y = zoo.targets(loss, len(X), 3)
            assert check_gradients(network, X, y, loss, training=training, coordinates=40) <= 1e-7


@pytest.mark.parametrize(("name", "activation"), CASES, ids=lambda v: str(v))
def test_a_population_of_three_equals_three_single_networks(name: str, activation: Any) -> None:
    for loss in zoo.LOSSES:
        population = zoo.network(zoo.LAYERS[name](activation), loss, device="cpu", dtype="float64", models=3, seed=5)
        values, gradients = gradients_of(population, loss)
        for k in range(3):
            single = zoo.network(zoo.LAYERS[name](activation), loss, device="cpu", dtype="float64", seed=5 + k)
            own = values[k], {n: g[k] for n, g in gradients.items()}
            assert_close(own, gradients_of(single, loss), 1e-12)
            assert_close(own, gradients_of(population.member(k), loss), 1e-12)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize(("name", "activation"), CASES, ids=lambda v: str(v))
def test_gradients_on_every_device_agree_with_the_reference(
    backend: Any, name: str, activation: Any, models: int | None
) -> None:
    for loss in (gn.SquaredError(), gn.CrossEntropy(), gn.NLLM()):
        layer = zoo.LAYERS[name](activation)
        reference = zoo.network(layer, loss, device=Backend(), dtype="float64", models=models, seed=7)
        expected = gradients_of(reference, loss)
        for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
            network = zoo.network(layer, loss, device=backend, dtype=dtype, models=models, seed=7)
            assert_close(gradients_of(network, loss, like=reference), expected, tolerance)
            np.testing.assert_allclose(network.predict(X), reference.predict(X), rtol=0, atol=20 * tolerance)


def test_gradients_through_an_embedding_of_integer_columns_are_exact(backend: Any) -> None:
    columns = np.random.default_rng(0).integers(0, 9, (8, 3))
    for models in (None, 2):
        network = gn.Network(
            [gn.Embedding(9, 4), gn.Flatten(), gn.Dense(3)], 3, device=backend, dtype="float64", models=models
        )  # fmt: skip
        y = np.arange(8) % 3
        assert check_gradients(network, columns, y, gn.CrossEntropy()) <= 1e-7
        branches = gn.Branch([[gn.Embedding(9, 2), gn.Flatten()], gn.Dense(2)])
        mixed = gn.Network([branches, gn.Dense(3)], 3, device=backend, dtype="float64", models=models)
        assert check_gradients(mixed, columns.astype(float), y, gn.CrossEntropy()) <= 1e-7


def test_gradients_of_a_population_with_inputs_for_each_model_are_exact(backend: Any) -> None:
    own = np.random.default_rng(2).normal(size=(2, 5, 3))
    y = np.random.default_rng(3).integers(0, 3, (2, 5))
    network = gn.Network([gn.Dense(4, "relu"), gn.Dense(3)], 3, device=backend, dtype="float64", models=2)
    values, gradients = network.gradients(own, y, gn.CrossEntropy())
    for k in range(2):
        assert_close(
            (values[k], {n: g[k] for n, g in gradients.items()}),
            network.member(k).gradients(own[k], y[k], gn.CrossEntropy()),
            1e-12,
        )


def test_check_gradients_sees_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    network = zoo.network(gn.Dense(4, "tanh"), gn.SquaredError(), device="cpu", dtype="float64")
    honest = gn.Network.gradients

    def off(self: gn.Network, *arguments: Any, **options: Any) -> Any:
        value, gradients = honest(self, *arguments, **options)
        gradients["1.W"][2, 1] *= 1 + 1e-9
        return value, gradients

    monkeypatch.setattr(gn.Network, "gradients", off)
    with pytest.raises(AssertionError, match=r"gradient of 1\.W\[2, 1\] is .* the complex step give .* allowed 1e-12"):
        check_gradients(network, X, zoo.targets(gn.SquaredError(), 6, 3), gn.SquaredError())
