"""However a training ends, its threads end and its files are closed, without a garbage collection."""

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu import model_threads as shares
from gpunn.errors import CheckpointError, ConfigurationError, DataError
from gpunn.training.streaming import Slot

FILES = Path("/proc/self/fd")
ROWS = 203
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
Y = RNG.integers(0, 3, ROWS)
CHUNKS = 2 * 64 * X[0].nbytes  # bytes for two chunks of 64 rows


@pytest.fixture(autouse=True)
def without_collection() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may have it ignored
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def network(models: int | None = None) -> gn.Network:
    layers = [gn.Dense(8, "relu"), gn.BatchNorm(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 6, device="cpu", models=models)


def fit(net: gn.Network, X: Any, **changes: Any) -> gn.History:
    settings = {"loss": gn.CrossEntropy(), "optimizer": gn.Adam(1e-2), "epochs": 3, "batch_size": 16, "memory": CHUNKS}
    return net.fit(X, Y, **{**settings, **changes})


def held() -> tuple[int, list[str]]:
    """Open files, and threads."""
    return len(os.listdir(FILES)), sorted(thread.name for thread in threading.enumerate())


class Fails(Exception):
    pass


def fail(run: Any, *record: Any) -> None:
    raise Fails


class At(gn.Callback):
    """Calls a function after an update in the middle of an epoch, while a chunk is being read."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def on_step(self, run: Any) -> None:
        if run.standing.done == 5:
            assert any(thread.name.startswith("gpunn-reader") for thread in threading.enumerate())
            self.function(run)


def interrupt(run: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt_twice(run: Any) -> None:
    interrupt(run)
    interrupt(run)


def terminate(run: Any) -> None:
    signal.raise_signal(signal.SIGTERM)


class AtEnd(gn.Callback):
    on_end = fail  # type: ignore[assignment]


class AtStart(gn.Callback):
    on_start = fail  # type: ignore[assignment]


ENDS: dict[str, tuple[dict[str, Any], type[BaseException] | None]] = {
    "finished": ({}, None),
    "of a population": ({"models": 3}, None),
    "with a validation set": ({"validated": True}, None),
    "stopped": ({"callbacks": At(lambda run: run.stop("enough"))}, None),
    "ctrl-c": ({"callbacks": At(interrupt)}, None),
    "ctrl-c twice": ({"callbacks": At(interrupt_twice)}, KeyboardInterrupt),
    "termination": ({"callbacks": At(terminate)}, SystemExit),
    "callback in a step": ({"callbacks": At(fail)}, Fails),
    "callback after an epoch": ({"callbacks": lambda epoch, record: fail(None)}, Fails),
    "callback at the start": ({"callbacks": AtStart()}, Fails),
    "callback at the end": ({"callbacks": AtEnd()}, Fails),
    "not streamed": ({"memory": None, "validated": True}, None),
    "not streamed, full batch": ({"memory": None, "optimizer": gn.LBFGS()}, None),
    "refused: sampling": ({"sampling": "replacement"}, ConfigurationError),
    "refused: criterion": ({"stopping": gn.EarlyStopping(monitor="r2")}, ConfigurationError),
    "refused: nothing to resume": ({"resume": "none.gpunn"}, CheckpointError),
    "refused: bad numbers": ({"bad": True}, DataError),
}


def train(path: Path, error: type[BaseException] | None, *, models: Any = None, validated: bool = False,
          bad: bool = False, **options: Any) -> Any:  # fmt: skip
    """Train and return the threads that exist while the error is still held, and a reference to the mapped set."""
    if bad:
        table = X.copy()
        table[150, 2] = np.nan
        np.save(path, table)
    mapped = np.load(path, mmap_mode="r")
    if validated:
        options["validation"] = (mapped[:50], Y[:50])
    threads, caught = [], None
    try:
        fit(network(models), mapped, **options)
    except BaseException as raised:  # whatever it is, it is looked at below
        threads, caught = held()[1], type(raised)
    assert caught is error
    return threads or held()[1], weakref.ref(mapped)


@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
@pytest.mark.parametrize("case", ENDS)
def test_a_training_that_ends_or_fails_ends_its_threads_and_closes_its_files(tmp_path: Path, case: str) -> None:
    options, error = ENDS[case]
    path = tmp_path / "X.npy"
    np.save(path, X)
    fit(network(), X, memory=None)  # what the first training imports and opens for good
    before = held()
    threads, mapped = train(path, error, **options)
    assert threads == before[1]
    assert mapped() is None and held() == before


@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
@pytest.mark.parametrize("chunk", [0, 1, 2, 5])
def test_an_error_in_the_source_of_a_stream_is_raised_and_closes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """The first chunk is read by the training itself, others by the reader."""
    np.save(tmp_path / "X.npy", X)
    fit(network(), X, memory=None)
    before, reads, plain = held(), [0], Slot.read

    def read(self: Slot, rows: tuple[int, int], after: Any) -> None:
        reads[0] += 1
        if reads[0] == chunk + 1:
            raise Fails
        plain(self, rows, after)

    monkeypatch.setattr(Slot, "read", read)
    threads, mapped = train(tmp_path / "X.npy", Fails)
    assert threads == before[1]
    assert mapped() is None and held() == before


@pytest.mark.skipif(not FILES.exists(), reason="needs /proc")
def test_evaluate_closes_the_file_of_a_mapped_set(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    net = network()
    net.evaluate(X, Y, loss=gn.CrossEntropy())
    before = held()
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    net.evaluate(mapped, Y, loss=gn.CrossEntropy())
    del mapped
    assert held() == before


def test_an_error_in_a_chunk_no_longer_needed_does_not_hide_how_a_training_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training stops before it needs the chunk."""
    plain = Slot.read

    def read(self: Slot, rows: tuple[int, int], after: Any) -> None:
        if threading.current_thread().name.startswith("gpunn-reader"):
            raise Fails
        plain(self, rows, after)

    monkeypatch.setattr(Slot, "read", read)

    class Early(gn.Callback):
        def on_step(self, run: Any) -> None:
            run.stop("enough")

    assert fit(network(), X, callbacks=Early()).stopped == "enough"


def test_helper_threads_keep_neither_network_nor_data_alive() -> None:
    """They stay for the next training with their kernels and scratch only."""
    net = gn.Network([gn.Dense(8, "relu"), gn.Dropout(0.1), gn.Dense(3)], 6, device="cpu", dtype="float64", models=8)
    table = X.astype(np.float64)
    with net.ops.threads_by_model(8, 2):
        history = fit(net, table, memory=None, validation=(table[:50], Y[:50]))
        assert history.epochs == 3
    gone = [weakref.ref(thing) for thing in (net, net.vector, net.gradient_vector, net.planned, table)]
    assert shares._idle
    del net, table
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    assert shares._idle
