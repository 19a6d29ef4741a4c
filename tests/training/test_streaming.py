"""Sets larger than the memory they may take are trained on chunk by chunk, with the same result."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError
from gpunn.training.streaming import Slot

ROWS = 203
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
Y = RNG.integers(0, 3, ROWS)
CHUNKS = 2 * 64 * X[0].nbytes  # bytes for two chunks of 64 rows: 64, 64, 64 and 11


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def network(backend: Any = "cpu", models: int | None = None) -> gn.Network:
    layers = [gn.Dense(8, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 6, device=backend, models=models, seed=3)


def options(**changes: Any) -> dict[str, Any]:
    return {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 3, "batch_size": 16, **changes}


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2, ROWS)], ids=["plain", "weighted"])
def test_a_sequential_streamed_training_equals_one_in_memory(
    backend: Any, mapped: Any, models: int | None, weights: Any
) -> None:
    streamed, whole = network(backend, models), network(backend, models)
    given = options(sampling="sequential", sample_weight=weights, metrics=["accuracy"])
    history = streamed.fit(mapped, Y, memory=CHUNKS, **given)
    expected = whole.fit(X, Y, **given)
    assert backend.to_host(streamed.vector).tobytes() == backend.to_host(whole.vector).tobytes()
    np.testing.assert_array_equal(history["loss"], expected["loss"])
    np.testing.assert_array_equal(history["accuracy"], expected["accuracy"])


def test_a_shuffled_stream_takes_every_row_once_in_an_epoch_in_another_order(mapped: Any) -> None:
    seen: list[Any] = []

    class Watch(gn.Callback):
        def on_step(self, run: Any) -> None:
            source = run.source
            seen.append(np.array(source.loader(source.updates[run.standing.update - 1][0]).X[:, 0]))

    network().fit(mapped, Y, memory=CHUNKS, callbacks=Watch(), **options())
    epochs = np.split(np.concatenate(seen), 3)
    for epoch in epochs:
        assert sorted(epoch) == sorted(X[:, 0])
    assert not (epochs[0] == epochs[1]).all()
    assert not (epochs[0] == X[:, 0]).all()


def test_gradient_flow_of_a_stream_is_measured_in_the_current_epoch(mapped: Any) -> None:
    net, flow = gn.Network([gn.Dense(8, "tanh"), gn.Dense(3)], 6, device="cpu"), gn.GradientFlow()
    places, sizes = [], []

    class Watch(gn.Callback):
        def on_step(self, run: Any) -> None:
            source, n = run.source, run.source.updates[run.standing.update - 1][0]
            places.append(n)
            A = np.tanh(source.loader(n).X @ net.parameters["0.W"])
            sizes.append(np.sqrt(np.mean(np.square(A, dtype=float))))

    net.fit(mapped, Y, memory=CHUNKS, callbacks=[Watch(), flow], **options(optimizer=gn.SGD(0.0), epochs=8))
    ends = np.split(np.array(places), 8)
    assert len({int(epoch[-1]) for epoch in ends}) == 2  # some epochs end in the short chunk
    for found, epoch in zip(flow.activations["0"][:, 0], np.split(np.array(sizes), 8), strict=True):
        assert np.isclose(epoch, found, rtol=1e-6).any()


def test_a_stream_from_a_file_and_one_from_memory_train_to_the_same_bits(mapped: Any) -> None:
    first, second = network(), network()
    first.fit(mapped, Y, memory=CHUNKS, **options())
    second.fit(X, Y, memory=CHUNKS, **options())
    assert first.vector.tobytes() == second.vector.tobytes()


@pytest.mark.parametrize("step", [1, 3, 4, 5, 12, 13, 14, 20])
def test_a_streamed_training_resumes_to_the_bit(tmp_path: Path, mapped: Any, step: int) -> None:
    class Interrupt(gn.Callback):
        def on_step(self, run: Any) -> None:
            run.signals.interrupted = run.standing.done == step

    expected, stopped, resumed = network(), network(), network()
    expected.fit(mapped, Y, memory=CHUNKS, **options())
    file = tmp_path / "training.gpunn"
    stopped.fit(mapped, Y, memory=CHUNKS, checkpoint=file, callbacks=Interrupt(), **options())
    history = resumed.fit(mapped, Y, memory=CHUNKS, resume=file, **options())
    assert history.epochs == 3
    assert resumed.vector.tobytes() == expected.vector.tobytes()


def test_chunks_of_a_stream_are_read_ahead_by_another_thread(mapped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    plain = Slot.read

    def read(self: Slot, rows: tuple[int, int], after: Any) -> None:
        import threading

        threads.append(threading.current_thread().name)
        plain(self, rows, after)

    monkeypatch.setattr(Slot, "read", read)
    network().fit(mapped, Y, memory=CHUNKS, **options(epochs=1))
    assert len(threads) == 4
    assert all(name.startswith("gpunn-reader") for name in threads[1:])


def test_bad_numbers_in_a_stream_are_found_before_the_first_step(tmp_path: Path) -> None:
    bad = X.copy()
    bad[150, 2] = np.nan
    net = network()
    before = net.vector.tobytes()
    with pytest.raises(DataError, match=r"X: expected finite numbers, got nan"):
        net.fit(bad, Y, memory=CHUNKS, **options())
    assert net.vector.tobytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": "replacement"}, "fit sampling: expected .*streamed, got 'replacement'; raise memory="),
        ({"validation": 0.2}, r"fit memory: expected validation=\(Xv, yv\) or none.*; raise memory="),
        ({"optimizer": gn.LBFGS()}, "fit memory: .* no LBFGS .*; raise memory="),
        ({"memory": 0}, "fit memory: expected a whole number >= 1, got 0; "),
    ],
)
def test_streaming_refuses_options_that_it_cannot_serve(changes: dict[str, Any], message: str) -> None:
    net = network()
    before = net.vector.tobytes()
    with pytest.raises(ConfigurationError, match=message):
        net.fit(X, Y, **options(**{"memory": CHUNKS, **changes}))
    assert net.vector.tobytes() == before


def test_a_streamed_training_does_not_hold_a_mapped_file_in_memory(tmp_path: Path) -> None:
    """96 MiB train within 48 MiB more than what the process had, two chunks of 8 MiB among them."""
    program = """
import sys, numpy as np, gpunn as gn
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
X = np.load(sys.argv[1], mmap_mode="r")
y = np.arange(len(X)) % 10
def train(rows, memory):
    net = gn.Network([gn.Dense(16, "relu"), gn.Dense(10)], 256, device="cpu")
    net.fit(X[:rows], y[:rows], loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=1, batch_size=256, memory=memory)
train(1024, 2**19)
before = peak()
train(len(X), 2**24)
print(peak() - before)
"""
    file = tmp_path / "X.npy"
    table = np.lib.format.open_memmap(file, "w+", np.float32, (96 * 1024, 256))
    table[...] = 1.0
    del table
    run = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 48
