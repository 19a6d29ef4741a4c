"""Sizes measured on the device, compared with those that NumPy computes from copies."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.training import probe as module
from gpunn.training.probe import FlowProbe
from tests import zoo
from tests.training.stage import ROWS, prepared, run


def rms(*arrays: Any, models: Any) -> Any:
    """Of all numbers of one model together."""
    flat = np.concatenate([np.asarray(a, np.float64).reshape(models or 1, -1) for a in arrays], axis=1)
    return np.sqrt((flat**2).mean(axis=1))


DEEP = [
    gn.Dense(5, "tanh"), gn.BatchNorm(), gn.Dropout(0.5), gn.Residual([gn.Dense(5, "relu")]), gn.Flatten(), gn.Dense(3),
]  # fmt: skip


@pytest.mark.parametrize("models", [None, 1, 3])
def test_a_probe_measures_the_sizes_of_activations_and_gradients(
    backend: Any, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 12)  # several chunks, the last one short
    network, run_pass, data = prepared(DEEP, backend, models)
    outputs = {}
    probe = FlowProbe(run_pass)
    A = run_pass.forward(data[0])
    for path in ("0", "1", "3", "3.body.0", "5"):
        frame = run_pass.frame
        for name in path.split("."):
            frame = frame.children[name]
        outputs[path] = network.ops.to_host(frame.A)
    probe.measure_activations()
    run_pass.value(A, data[1])
    run_pass.backward()
    probe.measure_gradients()
    sizes = probe.read()
    assert probe.kinds == {
        "0": "Dense", "1": "BatchNorm", "3": "Residual", "3.body.0": "Dense", "5": "Dense",
    }  # fmt: skip
    assert list(sizes["activations"]) == ["0", "1", "3", "3.body.0", "5"]
    assert list(sizes["gradients"]) == ["0", "1", "3.body.0", "5"]
    assert (probe.population, probe.models) == (models is not None, models or 1)
    for path, A in outputs.items():
        np.testing.assert_allclose(sizes["activations"][path], rms(A, models=models), rtol=1e-6)
    for path, size in sizes["gradients"].items():
        names = [name for name in network.parameters if name.rpartition(".")[0] == path]
        arrays = [network.ops.to_host(network.store.gradient_views[name]) for name in names]
        assert size.shape == (models or 1,) and len(names) == 2
        np.testing.assert_allclose(size, rms(*arrays, models=models), rtol=1e-6)


def test_a_probe_that_has_not_measured_gives_nan(backend: Any) -> None:
    _, run_pass, data = prepared([gn.Dense(4), gn.Dense(3)], backend, 2)
    probe = FlowProbe(run_pass)
    for paths in probe.read().values():
        for size in paths.values():
            np.testing.assert_array_equal(size, [np.nan, np.nan])
    run_pass.forward(data[0])
    probe.measure_activations()
    assert np.isfinite(probe.read()["activations"]["0"]).all()
    assert np.isnan(probe.read()["gradients"]["0"]).all()


def test_a_probe_measures_gradients_whose_squares_underflow_or_overflow(backend: Any) -> None:
    network, run_pass, _ = prepared([gn.Dense(4), gn.Dense(3)], backend, None, dtype="float32")
    probe = FlowProbe(run_pass)
    for number in (1e-30, 1e30):
        network.gradient_vector[...] = np.float32(number)
        probe.measure_gradients()
        np.testing.assert_allclose(probe.read()["gradients"]["0"], [number], rtol=1e-6)


def test_a_probe_reports_nan_and_infinity(backend: Any) -> None:
    network, run_pass, _ = prepared([gn.Dense(4), gn.Dense(3)], backend, 2)
    probe = FlowProbe(run_pass)
    network.gradient_vector[...] = np.inf
    network.gradient_vector[0] = np.nan
    probe.measure_gradients()
    np.testing.assert_array_equal(probe.read()["gradients"]["1"], [np.nan, np.inf])


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("name", zoo.LAYERS)
def test_a_probe_measures_every_kind_of_layer(name: str, models: Any) -> None:
    loss = gn.CrossEntropy()
    network = zoo.network(zoo.LAYERS[name]("tanh"), loss, device="cpu", models=models)
    run_pass = network.compile(ROWS, loss)
    probe = FlowProbe(run_pass)
    data = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32), zoo.targets(loss, ROWS, 3)
    run(run_pass, data, probe)
    for paths in probe.read().values():
        assert {"0", "2"} <= set(paths)
        assert all(np.isfinite(size).all() and (size > 0).all() for size in paths.values())


def test_a_probe_measures_embeddings_and_networks_without_parameters() -> None:
    network = gn.Network([gn.Embedding(5, 2), gn.Flatten(), gn.Dense(3)], (4,), device="cpu", dtype="float64")
    run_pass = network.compile(2, gn.CrossEntropy())
    probe = FlowProbe(run_pass)
    run(run_pass, (np.array([[0, 1, 2, 3], [4, 4, 4, 4]]), np.array([0, 1])), probe)
    E = network.parameters["0.E"]
    np.testing.assert_allclose(probe.read()["activations"]["0"], rms(E[:4], *[E[4:]] * 4, models=None))
    empty = FlowProbe(gn.Network([gn.Flatten()], 3, device="cpu").compile(2, training=False))
    empty.measure_activations()
    assert empty.read() == {"activations": {}, "gradients": {}}


def test_a_probe_measures_without_allocating_or_waiting_and_can_be_captured(strict: Any) -> None:
    network, run_pass, data = prepared(DEEP, strict, 3)
    probe = FlowProbe(run_pass)
    run(run_pass, data, probe)
    strict.xp.counters.reset()
    probe.measure_activations()
    probe.measure_gradients()
    counted = strict.xp.counters.snapshot()
    assert counted["launches"] >= 3 * 9
    assert (counted["transfers"], counted["synchronisations"], counted["allocations"]) == (0, 0, 0)
    strict.xp.counters.reset()
    probe.read()
    assert strict.xp.counters.snapshot()["transfers"] == 1
    stream = strict.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        run(run_pass, data, probe)
        graph = stream.end_capture()
        network.vector[...] *= 0.5
        network.step[...] = 3
        graph.launch(stream)
        stream.synchronize()
        replayed = probe.read()
    run(run_pass, data, probe)
    for kind, paths in probe.read().items():
        for path, size in paths.items():
            np.testing.assert_array_equal(replayed[kind][path], size)


def test_the_first_measurement_of_a_probe_allocates_nothing(strict: Any) -> None:
    """Sums of long columns would need scratch memory."""
    _, run_pass, data = prepared([gn.Dense(300, "relu"), gn.Dense(1), gn.Dense(3)], strict, 2, rows=9000)
    probe = FlowProbe(run_pass)
    run_pass.value(run_pass.forward(data[0]), data[1])
    run_pass.backward()
    strict.xp.counters.reset()
    probe.measure_gradients()
    probe.measure_activations()
    assert strict.xp.counters.snapshot()["allocations"] == 0


def test_the_memory_of_a_probe_is_limited() -> None:
    _, run_pass, _ = prepared([gn.Dense(1000), gn.Dense(1), gn.Dense(3)], "cpu", None, rows=10_000)
    probe = FlowProbe(run_pass)
    assert max(chunk.numbers.size for chunks in probe.chunks.values() for chunk in chunks) <= module.CHUNK
    assert max(chunk.rows.size for chunks in probe.chunks.values() for chunk in chunks) <= module.TALLEST
    starts = {chunk.numbers.ctypes.data for chunks in probe.chunks.values() for chunk in chunks}
    assert len(starts) == 1
