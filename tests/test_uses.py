"""One network in several threads: readers get the results that they would get alone; a training refuses others."""

import copy
import gc
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cuda.turns import Turns
from gpunn.errors import ConcurrencyError
from gpunn.uses import KEPT_PASSES, Uses

THREADS = 8
rng = np.random.default_rng(0)
X = rng.normal(size=(400, 7)).astype(np.float32)
Y = rng.integers(0, 3, 400)
LOSS = gn.CrossEntropy()
LAYERS = [gn.Dense(16, "relu"), gn.BatchNorm(activation="tanh"), gn.Dropout(0.5), gn.Dense(3)]


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Make threads alternate between almost any two lines."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def make(backend: Any, models: int | None = None) -> gn.Network:
    network = gn.Network(LAYERS, 7, device=backend, models=models)
    network.loss = LOSS
    return network


def in_threads(jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda job: job(), jobs))


def requests(rows: int, count: int) -> list[slice]:
    starts = np.random.default_rng(1).integers(0, len(X) - rows + 1, count)
    return [slice(start, start + rows) for start in starts]


READERS: dict[str, Callable[[gn.Network, slice], Any]] = {
    "predict": lambda network, rows: network.predict(X[rows]),
    "predict in chunks": lambda network, rows: network.predict(X[rows], batch_size=30),
    "predict_probability": lambda network, rows: network.predict_probability(X[rows]),
    "evaluate": lambda network, rows: network.evaluate(X[rows], Y[rows], metrics=["accuracy"]),
    "loss_of": lambda network, rows: network.loss_of(X[rows], Y[rows], LOSS),
    "loss of a training pass": lambda network, rows: network.loss_of(X[rows], Y[rows], LOSS, training=True),
    "gradients": lambda network, rows: network.gradients(X[rows], Y[rows], LOSS),
    "member": lambda network, rows: network.member(0).predict(X[rows]) if network.models else network.predict(X[rows]),
    "copy": lambda network, rows: copy.deepcopy(network).predict(X[rows]),
}


def assert_same(here: Any, there: Any) -> None:
    if isinstance(here, dict):
        assert here.keys() == there.keys()
        for name in here:
            assert_same(here[name], there[name])
    elif isinstance(here, tuple):
        for a, b in zip(here, there, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("rows", [1, 100])
def test_predictions_by_many_threads_equal_those_by_one(backend: Any, rows: int, models: int | None) -> None:
    network = make(backend, models)
    wanted = requests(rows, 1600 if backend.name == "cpu" else 80)
    alone = [network.predict(X[rows]) for rows in wanted]
    together = in_threads([lambda rows=rows: network.predict(X[rows]) for rows in wanted])  # type: ignore[misc]
    wrong = sum(not np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not wrong


@pytest.mark.parametrize("models", [None, 2])
def test_all_reading_methods_work_in_several_threads_at_once(backend: Any, models: int | None) -> None:
    network = make(backend, models)
    many = 12 if backend.name == "cpu" else 2
    names = [name for name in READERS if name != "copy" or backend.name == "cpu"]  # copies go by the device's name
    jobs = [(name, rows) for size in (2, 50) for rows in requests(size, many) for name in names]
    alone = [READERS[name](network, rows) for name, rows in jobs]
    together = in_threads([lambda job=job: READERS[job[0]](network, job[1]) for job in jobs])  # type: ignore[misc]
    for job, here, there in zip(jobs, together, alone, strict=True):
        try:
            assert_same(here, there)
        except AssertionError as error:
            raise AssertionError(f"{job[0]} of rows {job[1]}") from error


def test_a_network_may_be_built_by_inputs_from_several_threads(backend: Any) -> None:
    for _ in range(10):
        network = gn.Network(LAYERS, device=backend)
        outputs = in_threads([lambda: network.predict(X[:5])] * THREADS)  # noqa: B023
        again = network.predict(X[:5])
        assert all(np.array_equal(output, again) for output in outputs)


def test_two_networks_on_one_device_work_in_two_threads(backend: Any) -> None:
    """They share scratch memory and products of the device; one trains, and both give the results they give alone."""

    def train() -> Any:
        network = gn.Network(LAYERS, 7, device=backend)
        network.fit(X[:96], Y[:96], loss=LOSS, optimizer=gn.Adam(1e-2), epochs=3, batch_size=32)
        return backend.to_host(network.vector)

    reader, wanted = make(backend), requests(9, 60)
    trained, alone = train(), [reader.predict(X[rows]) for rows in wanted]
    jobs: list[Callable[[], Any]] = [train, *(lambda rows=rows: reader.predict(X[rows]) for rows in wanted)]  # type: ignore[misc]
    first, *together = in_threads(jobs)
    np.testing.assert_array_equal(first, trained)
    assert_same(tuple(together), tuple(alone))


# What cannot be at the same time


@dataclass(frozen=True)
class Meanwhile(gn.Callback):
    """Calls a function after the first epoch, in another thread or in that of the training, and keeps its result."""

    job: Callable[[gn.Network], Any]
    own_thread: bool
    came: list[Any]

    def on_epoch(self, run: Any, record: Any) -> None:
        if run.epoch > 1:
            return
        with ThreadPoolExecutor(1) as pool:
            try:
                job = self.job
                self.came.append(job(run.network) if self.own_thread else pool.submit(job, run.network).result())
            except Exception as error:
                self.came.append(error)


def train_with(network: gn.Network, job: Callable[[gn.Network], Any], own_thread: bool) -> Any:
    came: list[Any] = []
    network.fit(
        X[:64], Y[:64], loss=LOSS, optimizer=gn.SGD(0.1), epochs=2, callbacks=[Meanwhile(job, own_thread, came)]
    )
    return came[0]


OTHERS: dict[str, Callable[[gn.Network], Any]] = {
    **{name: lambda network, read=read: read(network, slice(5)) for name, read in READERS.items()},  # type: ignore[misc]
    "save": lambda network: network.save("nowhere/at/all"),
    "load_parameters": lambda network: network.load_parameters({**network.parameters, **network.state}),
    "build": lambda network: network.build((4,)),
    "fit": lambda network: network.fit(X[:64], Y[:64], loss=LOSS, optimizer=gn.SGD(0.1), epochs=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_network_in_training_refuses_other_threads(name: str) -> None:
    network, alone = make("cpu", 2), make("cpu", 2)
    error = train_with(network, OTHERS[name], own_thread=False)
    assert isinstance(error, ConcurrencyError)
    assert str(error).startswith("Network.")
    assert error.got in ("a training of it that is going on", "a training in another thread")
    train_with(alone, lambda network: None, own_thread=False)
    assert_same(network.vector, alone.vector)
    OTHERS["predict"](network)  # nothing is left behind


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("member", "copy")] + ["load_parameters"])
def test_a_callback_may_predict_with_the_network_in_training(backend: Any, name: str) -> None:
    network, alone = make(backend), make(backend)
    came = train_with(network, OTHERS[name], own_thread=True)
    assert not isinstance(came, Exception), came
    train_with(alone, lambda network: None, own_thread=True)
    assert_same(backend.to_host(network.vector), backend.to_host(alone.vector))


@pytest.mark.parametrize("name", ["fit", "build"])
def test_a_callback_may_not_train_the_network_in_training(name: str) -> None:
    network = make("cpu")
    error = train_with(network, OTHERS[name], own_thread=True)
    with pytest.raises(
        ConcurrencyError, match=rf"^Network\.{name}: .*got a training of it that is going on; wait until"
    ):
        raise error


@contextmanager
def read_by_another_thread(network: gn.Network) -> Iterator[None]:
    """Within the block another thread reads the network."""
    entered, leave = threading.Event(), threading.Event()

    def read() -> None:
        with network.uses.reading("predict"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=read)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize("name", ["fit", "load_parameters"])
def test_a_network_cannot_be_changed_while_another_thread_reads_it(name: str) -> None:
    network = make("cpu")
    before = network.vector.copy()
    message = rf"^Network\.{name}: .*got calls that read it, 1 at the moment; wait until"
    with read_by_another_thread(network), pytest.raises(ConcurrencyError, match=message):
        OTHERS[name](network)
    assert_same(network.vector, before)
    OTHERS[name](network)


def test_an_estimator_predicts_in_many_threads_as_in_one() -> None:
    estimators = pytest.importorskip("gpunn.estimators")
    model = estimators.MLPClassifier((16,), max_iter=5, random_state=0, tol=0.0, n_iter_no_change=99)
    with pytest.warns(Warning, match="not enough"):
        model.fit(X, Y)
    wanted = requests(1, 400) + requests(100, 100)
    alone = [model.predict_proba(X[rows]) for rows in wanted]
    together = in_threads([lambda rows=rows: model.predict_proba(X[rows]) for rows in wanted])  # type: ignore[misc]
    assert_same(tuple(together), tuple(alone))


def test_permutation_importance_by_threads_equals_that_by_one() -> None:
    """scikit-learn asks one estimator from several threads."""
    estimators, joblib = pytest.importorskip("gpunn.estimators"), pytest.importorskip("joblib")
    from sklearn.inspection import permutation_importance

    model = estimators.MLPRegressor(hidden_layer_sizes=(16,), random_state=0, max_iter=50, tol=0.0)
    with pytest.warns(Warning, match="not enough"):
        model.fit(X, X[:, 0] * X[:, 1])
    alone = permutation_importance(model, X, X[:, 0] * X[:, 1], n_repeats=6, random_state=0)
    with joblib.parallel_config(backend="threading", n_jobs=4):
        together = permutation_importance(model, X, X[:, 0] * X[:, 1], n_repeats=6, random_state=0, n_jobs=4)
    np.testing.assert_array_equal(together.importances, alone.importances)
    assert alone.importances_mean.argmax() < 2


def test_an_estimator_never_predicts_from_weights_of_an_unfinished_fit() -> None:
    """While it is fitted again, other threads get the old predictions, the new ones, or an error."""
    estimators = pytest.importorskip("gpunn.estimators")
    model = estimators.MLPClassifier((16,), max_iter=30, random_state=0, tol=0.0, n_iter_no_change=99)
    with pytest.warns(Warning, match="not enough"):
        model.fit(X, Y)
    right, answers, stop = model.predict_proba(X[:9]), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with suppress(ConcurrencyError, RuntimeError):  # scikit-learn looks at attributes that fit is just setting
                answers.append(model.predict_proba(X[:9]))

    with ThreadPoolExecutor(3) as pool, warnings.catch_warnings(action="ignore"):
        jobs = [pool.submit(ask) for _ in range(3)]
        try:
            for _ in range(5):
                model.fit(X, Y)
        finally:
            stop.set()
        for job in jobs:
            job.result()
    assert answers and all(np.array_equal(answer, right) for answer in answers)


def test_an_estimator_refuses_to_predict_while_it_learns_on() -> None:
    estimators = pytest.importorskip("gpunn.estimators")
    came: list[Any] = []
    model = estimators.MLPClassifier((16,), random_state=0)
    model.partial_fit(X, Y, classes=np.unique(Y))
    model.set_params(callbacks=[Meanwhile(lambda _: model.predict(X[:3]), False, came)]).partial_fit(X, Y)
    assert isinstance(came[0], ConcurrencyError)
    assert model.predict(X[:3]).shape == (3,)


# Passes


class Made(SimpleNamespace):
    """Stands for a pass."""

    def forget_inputs(self) -> None:
        pass


def take(uses: Uses, key: int) -> Any:
    return uses.take((key,), Made)  # type: ignore[arg-type]


def test_a_reading_block_has_its_compiled_passes_for_itself() -> None:
    uses = Uses()
    with uses.reading("predict"):
        outer = take(uses, 1)
        assert take(uses, 1) is outer
        with uses.reading("predict"):
            inner = take(uses, 1)
            assert inner is not outer
        assert take(uses, 1) is outer
        with uses.reading("predict"):
            assert take(uses, 1) is inner  # nobody used it
    assert len(uses) == 2


def test_only_a_few_unused_compiled_passes_are_kept() -> None:
    uses = Uses()
    for key in range(3 * KEPT_PASSES):
        with uses.reading("predict"):
            take(uses, key)
    assert len(uses) == KEPT_PASSES
    begun, ended = threading.Barrier(THREADS), threading.Barrier(THREADS + 1)

    def read() -> None:
        with uses.reading("predict"):
            take(uses, 0)
            begun.wait()
        with uses.reading("predict"):  # those of threads that go on are not given up
            ended.wait()

    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(read) for _ in range(THREADS)]
        while sum(key == (0,) for key, _ in uses._free) < THREADS - KEPT_PASSES:
            pass
        ended.wait()
        for job in jobs:
            job.result()
    with uses.reading("predict"):
        take(uses, 0)
    assert len(uses) == KEPT_PASSES
    uses.forget()
    assert not len(uses)


def test_a_forked_process_does_not_count_the_readers_of_its_parent() -> None:
    network = make("cpu")
    with read_by_another_thread(network):
        with warnings.catch_warnings(action="ignore"):  # Python 3.12 warns of threads
            child = os.fork()
        if not child:
            try:
                OTHERS["fit"](network)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("name", ["predict", "evaluate", "loss_of", "gradients"])
def test_a_kept_compiled_pass_keeps_no_inputs_alive(name: str) -> None:
    network = gn.Network([gn.Residual([gn.Dense(7)]), gn.Dense(3)], 7, device="cpu")
    network.loss = LOSS
    given = X[:20].copy()
    lives = weakref.ref(given)
    more: dict[str, tuple[Any, ...]] = {"predict": (), "evaluate": (Y[:20],)}
    gc.disable()
    try:
        getattr(network, name)(given, *more.get(name, (Y[:20], LOSS)))
        del given
        assert lives() is None and len(network.uses) == 1
    finally:
        gc.enable()


# Turns on a GPU


class Stream:
    """Remembers what it was told to wait for."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr
        self.waits: list[str] = []

    def record(self) -> str:
        return f"all of {self.ptr}"

    def wait_event(self, event: str) -> None:
        self.waits.append(event)


def test_work_on_another_stream_waits_for_that_on_the_stream_before() -> None:
    first, second = Stream(0), Stream(16)
    current = [first]
    turns = Turns(SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: current[0])), lambda: None)
    with turns, turns:
        pass
    assert not first.waits
    current[0] = second
    with turns:
        with turns:
            pass
        assert second.waits == ["all of 0"]
    with turns:
        pass
    assert second.waits == ["all of 0"]
    current[0] = first
    with turns:
        assert first.waits == ["all of 16"]
        turns.capturing = True
        current[0] = second
    with turns:
        assert second.waits == ["all of 0"]  # a capture waits for nothing outside of it
