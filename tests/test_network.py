"""Network: what it predicts and evaluates, its members, and its copies."""

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError
from tests.faults import contents, exactly
from tests.small_network import CROSS, LABELS, SQUARED, X, Y, make, rng

# What comes out


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("chunk", [1, 3, 10, 100])
def test_predicting_in_batches_equals_predicting_at_once(backend: Any, chunk: int, models: int | None) -> None:
    network = make(backend, dtype="float64", models=models)
    for own in (False, True) if models else (False,):
        data = rng.normal(size=(3, 10, 3)) if own else X
        whole = network.predict(data)
        assert whole.shape == ((10, 2) if models is None else (3, 10, 2))
        np.testing.assert_allclose(network.predict(data, batch_size=chunk), whole, rtol=1e-12, atol=1e-14)
        probability = network.predict_probability(data, loss=CROSS)
        np.testing.assert_allclose(probability.sum(axis=-1), 1, rtol=1e-12)
        np.testing.assert_allclose(
            network.predict_probability(data, loss=CROSS, batch_size=chunk), probability, rtol=1e-12
        )  # fmt: skip


def test_predicting_many_rows_is_split_by_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(dtype="float64")
    whole = network.predict(X)
    monkeypatch.setattr("gpunn.engine.CHUNK_BYTES", 1000)
    asked = []
    compiled = network.compile
    monkeypatch.setattr(network, "compile", lambda rows, *a, **k: asked.append(rows) or compiled(rows, *a, **k))
    np.testing.assert_allclose(network.predict(X), whole, rtol=1e-12)
    assert len(asked) > 1
    assert sum(asked) == 10


def test_numpy_inputs_give_numpy_results(backend: Any) -> None:
    network = make(backend)
    for given in (X, X.astype("float32"), X.tolist()):
        assert type(network.predict(given)) is np.ndarray
        assert type(network.predict_probability(given, loss=CROSS)) is np.ndarray
        value, gradients = network.gradients(given, Y, SQUARED)
        assert type(value) is float
        assert {type(g) for g in gradients.values()} == {np.ndarray}


def test_device_inputs_give_device_results(backend: Any) -> None:
    network, given = make(backend), backend.from_host(X)
    expected = network.predict(X)
    for result in (network.predict(given), network.predict(given, batch_size=3)):
        assert backend.owns(result)
        np.testing.assert_allclose(backend.to_host(result), expected, rtol=1e-5, atol=1e-6)
    value, gradients = network.gradients(given, backend.from_host(Y), SQUARED)
    assert type(value) is float
    assert all(backend.owns(g) for g in gradients.values())


@pytest.mark.parametrize(
    ("use", "checks"),
    [
        (lambda network, X, y, labels: network.predict(X), 2),
        (lambda network, X, y, labels: network.predict(X, batch_size=3), 2),
        (lambda network, X, y, labels: network.predict_probability(X, loss=CROSS), 2),
        (lambda network, X, y, labels: network.gradients(X, y, SQUARED), 5),
        (lambda network, X, y, labels: network.gradients(X, labels, CROSS), 5),
        (lambda network, X, y, labels: network.predict(labels.reshape(-1, 1)[:, (0,) * 3].copy()), 0),
    ],
    ids=["predict", "in chunks", "probability", "gradients", "gradients of classes", "integers"],
)
def test_predicting_for_device_arrays_copies_no_data_to_the_host(
    strict: Any, use: Callable[..., Any], checks: int
) -> None:
    """Only five numbers are copied: the smallest and largest of X and of y, and the loss."""
    network = make(strict)
    given = [strict.from_host(array) for array in (X, Y, LABELS)]
    if checks == 0:
        given[0], use = strict.from_host(np.ones((10, 3), np.int64)), lambda network, X, y, labels: network.predict(X)
    use(network, *given)
    counters = strict.xp.counters
    counters.reset()
    use(network, *given)
    assert counters.transfers == counters.synchronisations == checks


def test_evaluating_in_batches_equals_evaluating_at_once(backend: Any) -> None:
    for loss, y in ((SQUARED, Y), (CROSS, LABELS), (gn.SquaredError(reduction="sum"), Y)):
        network, name = make(backend, dtype="float64"), "accuracy" if loss is CROSS else "mse"
        whole = network.evaluate(X, y, loss=loss, metrics=[name])
        np.testing.assert_allclose(whole["loss"], network.loss_of(X, y, loss), rtol=1e-12)
        for size in (1, 3, 7):
            parts = network.evaluate(X, y, loss=loss, metrics=[name], batch_size=size)
            assert list(parts) == ["loss", name]
            np.testing.assert_allclose(list(parts.values()), list(whole.values()), rtol=1e-12)
            assert {type(value) for value in parts.values()} == {float}


@pytest.mark.parametrize("size", [None, 3])
def test_evaluating_a_population_equals_evaluating_each_model(backend: Any, size: int | None) -> None:
    network = make(backend, dtype="float64", models=3)
    own_X, own_y, own_labels = rng.normal(size=(3, 10, 3)), rng.normal(size=(3, 10, 2)), rng.integers(0, 2, (3, 10))
    cases: list[tuple[Any, Any, Any]] = [
        (X, Y, SQUARED), (X, LABELS, CROSS), (own_X, Y, SQUARED), (own_X, own_y, SQUARED), (own_X, LABELS, CROSS),
        (own_X, own_labels, CROSS),
    ]  # fmt: skip
    for data, y, loss in cases:
        names = ["accuracy"] if loss is CROSS else ["mse", "mae", "r2"]
        results = network.evaluate(data, y, loss=loss, metrics=names, batch_size=size)
        for k in range(3):
            part = data[k] if data is own_X else data
            target = y[k] if y is own_y or y is own_labels else y
            alone = network.member(k).evaluate(part, target, loss=loss, metrics=names)
            for name, value in alone.items():
                np.testing.assert_allclose(results[name][k], value, rtol=1e-10, err_msg=name)


def test_predicting_and_evaluating_change_no_running_statistics(backend: Any) -> None:
    network = make(backend)
    before = contents(network)
    network.predict(X)
    network.evaluate(X, Y, loss=SQUARED)
    network.loss_of(X, Y, SQUARED, training=True)
    assert contents(network) == before


def test_only_the_latest_compiled_passes_are_kept() -> None:
    network = make()
    first = network.compile(4)
    assert network.compile(4) is first
    for rows in range(5, 10):
        network.compile(rows)
    assert network.compile(4) is not first


def test_the_number_of_kept_compiled_formulas_is_limited() -> None:
    net = gn.Network([gn.Dense(2, "relu")], 1, device="cpu")
    tiles = net.ops.formulas
    for rows in range(1, 1200):
        net.gradients(np.ones((rows, 1)), np.ones((rows, 2)), gn.SquaredError())
    assert len(tiles._kernels) <= 2048
    assert all(len(key[0]._traces) <= 256 for key in tiles._kernels)


# Populations


@pytest.mark.parametrize("seed", [7, [3, 11, 5]], ids=["one seed", "a seed each"])
def test_a_member_of_a_population_is_the_single_network_of_its_seed(backend: Any, seed: Any) -> None:
    population = make(backend, models=3, seed=seed)
    for k in range(3):
        alone = make(backend, seed=seed[k] if isinstance(seed, list) else seed + k)
        member = population.member(k)
        assert member.models is None
        assert member.seeds == alone.seeds
        assert contents(member) == contents(alone)
        assert backend.to_host(population.vector[k]).tobytes() == backend.to_host(alone.vector).tobytes()
        assert member.to_json() == alone.to_json()
        value, gradients = population.gradients(X, Y, SQUARED)
        expected_value, expected = alone.gradients(X, Y, SQUARED)
        np.testing.assert_allclose(value[k], expected_value, rtol=1e-5)
        for name in expected:
            np.testing.assert_allclose(gradients[name][k], expected[name], rtol=2e-4, atol=1e-6, err_msg=name)


def test_members_of_a_population_have_their_own_hyper_parameters() -> None:
    population = gn.Network([gn.Dropout([0.1, 0.2]), gn.Dense(2)], 3, device="cpu", models=2)
    assert population.member(1).network.layers[0] == gn.Dropout(0.2)
    assert population.member(-1).seeds == (1,)


def test_a_member_is_a_copy_of_its_model(backend: Any) -> None:
    population = make(backend, models=2)
    before = contents(population)
    member = population.member(1)
    member.vector[...] = 0
    member.state["1.mean"][...] = 5
    assert contents(population) == before


def test_results_of_a_population_of_one_keep_the_population_axis(backend: Any) -> None:
    network = make(backend, models=1)
    assert network.predict(X).shape == (1, 10, 2)
    assert network.loss_of(X, Y, SQUARED).shape == (1,)


@pytest.mark.parametrize("k", [3, -4, 1.5, 1.0, "1", None, True])
def test_member_refuses_a_number_that_is_no_model(k: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Network\.member: expected .*, got {re.escape(repr(k))}; \S"):
        make(models=3).member(k)


def test_member_refuses_a_single_network() -> None:
    message = "Network.member: expected a population, got a single network; make the network with models=K"
    with pytest.raises(ConfigurationError, match=exactly(message)):
        make().member(0)


# Copies


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_copied_network_predicts_the_same_and_shares_no_memory(way: Any, models: int | None) -> None:
    net = gn.Network([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)], 3, device="cpu", models=models)
    X = np.random.default_rng(0).normal(size=(8, 3))
    net.fit(X, np.arange(8) % 2, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=2)
    other = way(net)
    np.testing.assert_array_equal(other.predict_probability(X), net.predict_probability(X))
    assert other.step[0] == net.step[0]
    other.vector[...] += 1.0
    np.testing.assert_array_equal(other.parameters["0.W"], net.parameters["0.W"] + 1.0)


def test_a_network_without_arrays_can_be_copied() -> None:
    assert copy.deepcopy(gn.Network([gn.Dense(2)], device="cpu")).predict([[1.0]]).shape == (1, 2)


def test_gpunn_data_is_imported_at_its_first_use() -> None:
    program = """
import sys, gpunn as gn
assert "gpunn.data" not in sys.modules and "data" in dir(gn)
try:
    gn.nothing
except AttributeError as error:
    assert "'nothing'" in str(error)
else:
    raise SystemExit("gn.nothing is something")
assert gn.data is sys.modules["gpunn.data"] and "digits" in gn.data.BUILT_IN
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(gn.__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_architecture_can_be_copied() -> None:
    network = make()
    again = gn.Network(copy.deepcopy(network.network), 3, device="cpu")
    assert contents(again) == contents(network)
