"""BLAS uses one thread for small steps and afterwards as many as before, however a training ends."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import gpunn as gn
from gpunn import cores
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.model_threads import ModelThreads
from gpunn.training import threads
from gpunn.training import watch as watching
from gpunn.training.threads import Claim, Claims
from tests.conftest import backend_named


def counts() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """BLAS has two threads, on a machine that lets both run."""
    monkeypatch.setattr(cores, "most_threads", lambda: 2)
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
def test_a_training_of_small_steps_uses_one_blas_thread(optimizer: Any) -> None:
    fit(watch := Watch(), optimizer=optimizer)
    assert watch.seen == [{1}] * 2 and counts() == {2}


def test_a_training_of_large_steps_uses_all_blas_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gn.Network([gn.Dense(3, "relu"), gn.Dense(3)], inputs=2, device="cpu")
    monkeypatch.setattr(threads, "SMALL", 6.0 * net.store.values.size * 8)
    fit(alone := Watch())
    fit(population := Watch(), models=2)
    monkeypatch.setattr(threads, "SMALL", 6.0 * net.store.values.size * 8 - 1)
    fit(larger := Watch())
    assert (alone.seen, population.seen, larger.seen) == ([{1}] * 2, [{2}] * 2, [{2}] * 2)


@pytest.mark.parametrize(("models", "shared"), [(None, False), (7, False), (8, True)])
def test_many_models_are_split_among_threads_of_gpunn(
    models: int | None, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SMALL", 0.0)
    asked, original = [], NumpyBackend.threads_by_model
    monkeypatch.setattr(
        NumpyBackend, "threads_by_model", lambda ops, *counts: (asked.append(counts), original(ops, *counts))[1]
    )
    fit(watch := Watch(), models=models)
    assert watch.seen == [{1 if shared else 2}] * 2 and counts() == {2}
    assert asked == [(models, 2)] * shared


def test_the_number_of_blas_threads_is_restored_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("from a callback")

    with pytest.raises(RuntimeError, match="from a callback"):
        fit(watch := Watch(fail))
    assert watch.seen == [{1}] and counts() == {2}


def test_one_blas_thread_stays_one() -> None:
    with threadpool_limits(1, user_api="blas"):
        fit(Watch())
        assert counts() == {1}


def test_a_nested_training_leaves_the_outer_one_its_thread() -> None:
    inner = Watch()
    fit(outer := Watch(lambda: fit(inner)))
    assert inner.seen == [{1}] * 4 and outer.seen == [{1}] * 2 and counts() == {2}


ORDERS = list(permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
def test_the_number_of_blas_threads_is_restored_in_whatever_order_trainings_end(order: tuple[int, ...]) -> None:
    """While several trainings run, the smallest number that one of them wants is used."""
    wanted = [2, 1, 2]
    stacks = [ExitStack() for _ in wanted]
    for stack, threads_wanted in zip(stacks, wanted):
        stack.enter_context(threads.claimed(Claim(threads_wanted, False)))
    assert counts() == {1}
    left = set(range(3))
    for i in order:
        stacks[i].close()
        left.remove(i)
        assert counts() == {1 if 1 in left else 2}


@pytest.mark.parametrize("order", ORDERS)
def test_a_fixed_number_of_threads_is_not_changed_by_other_trainings(order: tuple[int, ...]) -> None:
    """If two trainings fix the number, that of the first is used."""
    claims = Claims()
    made = [Claim(1, False), Claim(2, True), Claim(1, True)]
    for claim, expected in zip(made, ({1}, {2}, {2})):
        claims.begin(claim)
        assert counts() == expected
    left = set(range(3))
    for i in order:
        claims.end(made[i])
        left.remove(i)
        if 0 in left:
            claims.change(made[0], 1)
        assert counts() == {1 if left == {0} else 2}


def test_the_number_of_blas_threads_is_restored_after_overlapping_trainings() -> None:
    """The second begins within the first and ends after it."""
    begun, ended = threading.Event(), threading.Event()

    def second() -> None:
        with threads.one_thread():
            begun.set()
            ended.wait(10)

    other = threading.Thread(target=second)
    with threads.one_thread():
        other.start()
        assert begun.wait(10) and counts() == {1}
    assert counts() == {1}
    ended.set()
    other.join()
    assert counts() == {2}


def test_a_training_gets_all_threads_once_a_small_one_beside_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ExitStack()
    small.enter_context(threads.one_thread())
    monkeypatch.setattr(threads, "SMALL", 0.0)
    fit(watch := Watch(small.close))
    assert watch.seen == [{1}, {2}] and counts() == {2}


class Library:
    """Like OpenBLAS on OpenMP in threadpoolctl: each thread of the program has its own number of BLAS threads."""

    threading_layer = "openmp"

    def __init__(self) -> None:
        self._own = threading.local()

    @property
    def num_threads(self) -> int:
        return getattr(self._own, "threads", 4)

    def set_num_threads(self, threads: int) -> None:
        self._own.threads = threads


def test_a_number_of_blas_threads_kept_for_each_thread_is_restored_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    library, seen = Library(), []
    monkeypatch.setattr(threads, "_libraries", lambda: SimpleNamespace(lib_controllers=[library]))

    def second() -> None:
        with threads.claimed(Claim(2, False)) as change:
            seen.append(library.num_threads)
            change(1)
            seen.append(library.num_threads)
        seen.append(library.num_threads)

    with threads.one_thread():
        other = threading.Thread(target=second)
        other.start()
        other.join()
        assert library.num_threads == 1
    assert seen == [2, 1, 4] and library.num_threads == 4


# Cores that others take


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large steps on a machine where a thread always waits and the watch always looks."""
    readings = count()
    monkeypatch.setattr(threads, "SMALL", 0.0)
    monkeypatch.setattr(watching, "PERIOD", 0.0)
    monkeypatch.setattr(watching, "COST", 0.0)
    monkeypatch.setattr(cores, "waits", lambda: {"1": 1000.0 * next(readings)})
    monkeypatch.setattr(cores, "idle_seconds", lambda: 0.0)


def test_a_training_uses_fewer_threads_if_other_processes_take_cores(
    taken: None, caplog: pytest.LogCaptureFixture
) -> None:
    fit(watch := Watch())
    assert watch.seen == [{1}] * 2 and counts() == {2}
    assert [record.getMessage() for record in caplog.records] == [
        "cores are taken by others: training goes on with 1 of 2 threads"
    ]


def test_a_deterministic_training_never_changes_the_number_of_threads(
    taken: None, caplog: pytest.LogCaptureFixture
) -> None:
    fit(watch := Watch(), deterministic=True)
    assert watch.seen == [{2}] * 2 and counts() == {2} and not caplog.records


@pytest.mark.parametrize("deterministic", [False, True])
def test_models_are_split_among_fewer_threads_if_other_processes_take_cores(
    deterministic: bool, taken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr(ModelThreads, "use", lambda shares, threads: used.append(threads))
    fit(watch := Watch(), models=8, deterministic=deterministic)
    assert watch.seen == [{1}] * 2 and counts() == {2}
    assert used == ([] if deterministic else [1])


def test_models_are_split_among_no_more_threads_than_can_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL", 0.0)
    monkeypatch.setattr(cores, "most_threads", lambda: 1)
    fit(watch := Watch())
    fit(population := Watch(), models=8)
    assert watch.seen == population.seen == [{1}] * 2 and counts() == {2}


def test_a_training_on_a_gpu_does_not_change_the_number_of_blas_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backends._backend", lambda device: backend_named("strict"))
    fit(watch := Watch())
    assert watch.seen == [{2}] * 2
