"""BLAS takes one thread for small steps, and then as many as before, however a training ends."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import gpunn as gn
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.training import threads
from tests.conftest import backend_named


def counts() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        if counts() != {2}:
            pytest.skip("threadpoolctl knows no BLAS library here that takes two threads")
        yield


class Watch(gn.Callback):
    """The threads at the end of each epoch, where it may also do something else."""

    def __init__(self, then: Any = None) -> None:
        self.seen: list[set[int]] = []
        self.then = then

    def on_epoch(self, run: Any, record: Any) -> None:
        self.seen.append(counts())
        if self.then:
            self.then()


def fit(watch: Watch, models: int | None = None, **settings: Any) -> None:
    """At most 8 rows a step."""
    net = gn.Network([gn.Dense(3, "relu"), gn.Dense(3)], inputs=2, models=models, device="cpu")
    X = np.ones((20, 2), "f4")
    net.fit(
        X,
        np.arange(20) % 3,
        loss=gn.CrossEntropy(),
        epochs=2,
        batch_size=8,
        callbacks=[watch],
        **{"optimizer": gn.SGD(0.1), **settings},
    )


@pytest.mark.parametrize("optimizer", [gn.Adam(), gn.LBFGS()], ids=["adam", "lbfgs"])
def test_small_steps_take_one_thread(optimizer: Any) -> None:
    fit(watch := Watch(), optimizer=optimizer)
    assert watch.seen == [{1}] * 2 and counts() == {2}


def test_large_steps_take_all_and_models_count(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gn.Network([gn.Dense(3, "relu"), gn.Dense(3)], inputs=2, device="cpu")
    monkeypatch.setattr(threads, "SMALL", 6.0 * net.store.values.size * 8)
    fit(alone := Watch())
    fit(population := Watch(), models=2)
    monkeypatch.setattr(threads, "SMALL", 6.0 * net.store.values.size * 8 - 1)
    fit(larger := Watch())
    assert (alone.seen, population.seen, larger.seen) == ([{1}] * 2, [{2}] * 2, [{2}] * 2)


@pytest.mark.parametrize(("models", "shared"), [(None, False), (7, False), (8, True)])
def test_many_models_are_shared_among_gpunns_own_threads(
    models: int | None, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SMALL", 0.0)
    asked, original = [], NumpyBackend.sharing_models
    monkeypatch.setattr(
        NumpyBackend, "sharing_models", lambda ops, *counts: (asked.append(counts), original(ops, *counts))[1]
    )
    fit(watch := Watch(), models=models)
    assert watch.seen == [{1 if shared else 2}] * 2 and counts() == {2}
    assert asked == [(models, 2)] * shared


def test_the_threads_come_back_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("from a callback")

    with pytest.raises(RuntimeError, match="from a callback"):
        fit(watch := Watch(fail))
    assert watch.seen == [{1}] and counts() == {2}


def test_one_thread_stays_one() -> None:
    with threadpool_limits(1, user_api="blas"):
        fit(Watch())
        assert counts() == {1}


def test_a_training_within_another_leaves_it_its_thread() -> None:
    inner = Watch()
    fit(outer := Watch(lambda: fit(inner)))
    assert inner.seen == [{1}] * 4 and outer.seen == [{1}] * 2 and counts() == {2}


def test_of_trainings_side_by_side_the_first_brings_the_threads_back() -> None:
    begun, ended = threading.Event(), threading.Event()

    def second() -> None:
        with threads.one_thread():
            begun.set()
            ended.wait(10)

    other = threading.Thread(target=second)
    with threads.one_thread():
        other.start()
        assert begun.wait(10) and counts() == {1}
    assert counts() == {2}
    ended.set()
    other.join()
    assert counts() == {2}
    with threads.one_thread():
        assert counts() == {1}


def test_a_gpu_does_not_touch_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backends._backend", lambda device: backend_named("strict"))
    fit(watch := Watch())
    assert watch.seen == [{2}] * 2
