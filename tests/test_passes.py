"""A compiled pass allocates, transfers and waits for nothing, and can be captured."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.passes import fuse
from tests import zoo

NETWORKS = {
    name: layer("relu") for name, layer in zoo.LAYERS.items() if name not in ("batch norm, not affine", "reshape")
}  # fmt: skip


def steps(network: gn.Network, loss: Any, training: bool) -> Any:
    """A function that runs one forward and backward pass over data that is on the device already."""
    rng = np.random.default_rng(0)
    X = network.ops.from_host(rng.normal(size=(6, 3)), network.dtype)
    y = zoo.targets(loss, 6, 3)
    target = network.ops.from_host(y, None if y.dtype.kind == "i" else network.dtype)
    run = network.compile(6, loss, training=training)

    def step() -> Any:
        value = run.value(run.forward(X), target)
        run.backward()
        return value

    return step


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_pass_neither_transfers_nor_waits_nor_allocates(
    strict: Any, name: str, training: bool, models: Any
) -> None:
    for loss in (gn.CrossEntropy(), gn.SquaredError(), gn.BinaryCrossEntropy()):
        step = steps(zoo.network(NETWORKS[name], loss, device=strict, models=models), loss, training)
        step()
        strict.xp.counters.reset()
        step()
        counted = strict.xp.counters.snapshot()
        assert counted["launches"] > 5
        assert (counted["transfers"], counted["synchronisations"], counted["allocations"]) == (0, 0, 0)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_captured_pass_replays_with_the_current_values(strict: Any, name: str, models: Any) -> None:
    loss = gn.CrossEntropy()
    network = zoo.network(NETWORKS[name], loss, device=strict, models=models)
    step = steps(network, loss, training=True)
    step()
    expected_state = {n: strict.to_host(view) for n, view in network.state.items()}
    stream = strict.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        value = step()
        graph = stream.end_capture()
        network.vector[...] *= 0.5
        network.step[...] = 3
        network.gradient_vector[...] = np.nan
        graph.launch(stream)
        stream.synchronize()
        replayed = strict.to_host(value), strict.to_host(network.gradient_vector)
    network.load_parameters({
        **{n: strict.to_host(view) for n, view in network.parameters.items()}, **expected_state
    })  # fmt: skip
    np.testing.assert_array_equal(replayed[0], strict.to_host(step()))
    for view, copy in ((network.gradient_vector, replayed[1]),):
        padding = np.isnan(copy)
        np.testing.assert_array_equal(strict.to_host(view)[~padding], copy[~padding])
        assert not padding.all()


@pytest.mark.parametrize(
    ("ending", "loss", "fused"),
    [
        ([gn.Dense(3, "softmax")], gn.NLLM(), gn.CrossEntropy()),
        ([gn.Dense(3), gn.Softmax()], gn.NLLM(reduction="sum"), gn.CrossEntropy(reduction="sum")),
        ([gn.Sequential([gn.Dense(3), gn.Activation("softmax")])], gn.NLLM(), gn.CrossEntropy()),
        ([gn.Dense(1), gn.LayerNorm(activation=gn.Sigmoid())], gn.NLL(), gn.BinaryCrossEntropy()),
        ([gn.Dense(1, "sigmoid")], gn.NLL(), gn.BinaryCrossEntropy()),
        ([gn.Dense(1, "sigmoid")], gn.SquaredError(), None),
        ([gn.Dense(3, "softmax"), gn.Dropout(0.1)], gn.NLLM(), None),
        ([gn.Dense(3, "sigmoid")], gn.NLLM(), None),
        ([gn.Softmax()], gn.NLLM(), gn.CrossEntropy()),
        ([gn.Dense(3), gn.Sequential([gn.Softmax()])], gn.NLLM(), gn.CrossEntropy()),
    ],
)
def test_the_last_activation_is_fused_with_a_fitting_loss(ending: Any, loss: Any, fused: Any) -> None:
    network = gn.Sequential(ending)
    stripped, on_logits = fuse(network, loss)
    assert on_logits == (fused or loss)
    assert (stripped is network) == (fused is None)


def test_metrics_are_those_of_an_output_fused_with_the_loss() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), rng.integers(0, 2, (20, 1))
    network = gn.Network([gn.Dense(1, "sigmoid")], 3, device="cpu", dtype="float64")
    scores = network.evaluate(X, y, loss=gn.NLL(), metrics=["accuracy", "mse", "mae"])
    probability = network.predict(X)
    np.testing.assert_allclose(scores["mse"], np.mean((probability - y) ** 2), rtol=1e-12)
    np.testing.assert_allclose(scores["mae"], np.mean(abs(probability - y)), rtol=1e-12)
    assert scores["accuracy"] == np.mean((probability > 0.5) == y)


def test_compiled_passes_are_kept_and_the_oldest_is_dropped() -> None:
    network = gn.Network([gn.Dense(2)], 3, device="cpu")
    first = network.compile(1)
    assert network.compile(1) is first
    for rows in range(2, 8):
        network.compile(rows)
    assert network.compile(1) is not first


def test_a_population_in_which_no_layer_has_parameters_has_an_output_for_each_model() -> None:
    network = gn.Network([gn.Flatten()], (2, 2), device="cpu", models=3)
    X = np.arange(8.0, dtype=np.float32).reshape(2, 2, 2)
    A = network.compile(2, training=False, backward=False).forward(X)
    np.testing.assert_array_equal(A, np.broadcast_to(X.reshape(2, 4), (3, 2, 4)))
