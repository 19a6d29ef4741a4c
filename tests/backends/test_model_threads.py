"""Steps of a population split among threads: every model gets the results of one thread, and errors are raised."""

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.model_threads import ModelThreads, ThreadedRecord
from gpunn.backends.cpu.recording import Record
from gpunn.backends.formula import formulas
from gpunn.training import threads
from tests.backends.calls import FAMILIES, Placed, calls, reverse
from tests.backends.shared_steps import run_steps
from tests.training.networks import OPTIMIZERS, X, Y, everything, network


@pytest.mark.parametrize("shape", [(3, 33, 10), (4, 700, 5), (2, 40, 900)], ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, "means"])
def test_an_operation_replayed_by_two_threads_covers_all_models(family: str, shape: tuple[int, ...]) -> None:
    for call in calls(family, shape):
        backend, alone = NumpyBackend(), NumpyBackend()
        placed, expected = Placed(backend, call, "float64"), Placed(alone, call, "float64")
        with backend.threads_by_model(shape[0], 2):
            record = ThreadedRecord(backend.recorder.model_threads)
            with backend.recorder.for_threads(record):
                placed.run()
            record.lower(backend)
            assert [bool(each.calls) for each in record.records] == [True, True]
            for (_, array), (_, other) in zip(placed.inputs, expected.inputs):
                reverse(array)
                reverse(other)
            for out in placed.outputs:
                out[...] = 77
            record.replay(1)
        expected.run()
        for got, wanted in zip(placed.results(), expected.results()):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12, err_msg=call.name)


def test_each_thread_counts_steps_in_a_copy_of_its_own() -> None:
    """Each model adds the counter, which then grows by 1, twice in a step."""
    place, sums = np.zeros(1), np.zeros((6, 1))

    def step(ops: NumpyBackend) -> None:
        for _ in range(2):
            ops.elementwise(formulas.add, (sums, place), (sums,))
            ops.elementwise(formulas.add, (place, 1.0), (place,))

    assert len(run_steps(step, 6, 10, 3).records) == 3
    assert place[0] == 40
    np.testing.assert_array_equal(sums, sum(range(40)))


def test_a_thread_that_is_steps_ahead_does_not_disturb_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelThreads, "run", lambda shares, works: [work() for work in works])  # one after the other
    place, sums = np.zeros(1), np.zeros((6, 1))
    backend = NumpyBackend()

    def step() -> None:
        backend.elementwise(formulas.add, (place, 1.0), (place,))
        backend.elementwise(formulas.add, (sums, place), (sums,))

    with backend.threads_by_model(6, 3):
        program = backend.program(step, models=6)
        program(2)
        place[...] = 100  # as the next epoch begins elsewhere
        program(5)
    np.testing.assert_array_equal(sums, 1 + 2 + 101 + 102 + 103 + 104 + 105)
    assert place[0] == 105


def test_each_thread_looks_up_the_rates_of_its_own_models() -> None:
    """The rates are a row for each update, with one for each model."""
    rates, tick = np.arange(80.0).reshape(20, 4), np.zeros(1, np.int64)
    rate, out = np.zeros((4, 1)), np.zeros((4, 3))

    def step(ops: NumpyBackend) -> None:
        ops.gather(rates, tick, out=rate.reshape(1, -1))
        ops.elementwise(formulas.add, (out, rate), (out,))
        ops.elementwise(formulas.add, (tick, 1), (tick,))

    copies = run_steps(step, 4, 10).copies
    assert [copy.original.size for copy in copies] == [4, 1]
    np.testing.assert_array_equal(out, rates.sum(axis=0)[:, None] + np.zeros(3))


def total_of_all(ops: NumpyBackend, values: Any, total: Any) -> None:
    ops.total(values.reshape(-1, 1), 1.0, out=total[:1].reshape(()))


def one_of_all(ops: NumpyBackend, values: Any, total: Any) -> None:
    ops.elementwise(formulas.add, (values[2:3], 0.0), (total[:1, None],))


def part_of_common(ops: NumpyBackend, values: Any, total: Any) -> None:
    ops.elementwise(formulas.add, (total, 1.0), (total,))
    ops.elementwise(formulas.add, (total[:1], 1.0), (total[:1],))


def common_of_models(ops: NumpyBackend, values: Any, total: Any) -> None:
    ops.matmul(values[None, :, 0], values, out=total[:1, None])


@pytest.mark.parametrize(
    ("step", "wanted"), [(total_of_all, 24), (one_of_all, 6), (part_of_common, 12), (common_of_models, 144)]
)
def test_a_step_in_which_models_depend_on_each_other_is_not_split_among_threads(
    step: Callable[..., None], wanted: float
) -> None:
    values, total = np.zeros((4, 1)), np.zeros(2)

    def all_of_it(ops: NumpyBackend) -> None:
        ops.elementwise(formulas.add, (values, 1.0), (values,))
        step(ops, values, total)

    assert len(run_steps(all_of_it, 4, 3).records) == 1
    np.testing.assert_array_equal(values, 6)
    assert total[0] == wanted


def test_two_threads_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread waits until the other has begun."""
    begun, seen = threading.Barrier(2, timeout=20), []
    shares = ModelThreads(8, 2)

    def work() -> None:
        begun.wait()
        seen.append(threading.current_thread().name)

    shares.run([work, work])
    shares.close()
    assert len(set(seen)) == 2


@pytest.mark.parametrize("workers", [3, 2, 1])
def test_fewer_threads_do_the_work_of_all_groups_of_models(workers: int) -> None:
    shares = ModelThreads(9, 3)
    shares.use(workers)
    begun, seen = threading.Barrier(workers, timeout=20), dict[int, int]()

    def work(share: int) -> None:
        if share < workers:  # the first one of each thread: all that may work do
            begun.wait()
        seen[share] = threading.get_ident()

    shares.run([partial(work, share) for share in range(3)])
    shares.close()
    assert set(seen) == {0, 1, 2} and len(set(seen.values())) == workers


def test_fewer_threads_train_a_population_to_the_same_bits(replays: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, made, start = [], ModelThreads.__init__, {"threads": 2}

    def make(shares: ModelThreads, *counts: int) -> None:
        made(shares, *counts)
        shares.use(start["threads"])

    monkeypatch.setattr(threads, "MODELS", 1)
    monkeypatch.setattr(ModelThreads, "__init__", make)
    for start["threads"] in (2, 1):
        net = network("cpu", 5)
        net.fit(X, Y, **everything(gn.Adam(0.01)))
        vectors.append(net.vector.copy())
    assert replays and np.array_equal(*vectors)


def test_a_busy_helper_thread_is_not_waited_for() -> None:
    shares, held, seen = ModelThreads(8, 2), threading.Event(), []
    shares.helpers[0].submit(held.wait, 20)
    shares.run([lambda: seen.append(1), lambda: seen.append(2)])
    assert seen == [1, 2] and not held.is_set()
    held.set()
    shares.close()


@pytest.mark.parametrize("who", [0, 1])
def test_an_error_in_any_thread_is_raised_in_the_calling_thread(who: int) -> None:
    shares, done = ModelThreads(8, 2), []

    def fail() -> None:
        raise FloatingPointError("from a share")

    works = [lambda: done.append(0), lambda: done.append(0)]
    works[who] = fail
    with pytest.raises(FloatingPointError, match="from a share"):
        shares.run(works)
    assert done == [0]  # the other one's work is done all the same
    shares.close()


def test_helper_threads_are_reused_by_later_trainings() -> None:
    """Two trainings at the same time never share a helper thread."""
    first = ModelThreads(8, 3)
    second = ModelThreads(8, 2)
    assert len({*first.helpers, *second.helpers}) == 3
    seen: list[int] = []
    first.helpers[1].submit(lambda: (time.sleep(0.05), seen.append(1)))
    first.close()
    assert seen == [1], "at work no longer"
    third = ModelThreads(8, 3)
    assert set(third.helpers) == set(first.helpers)
    second.close()
    third.close()


def test_a_forked_process_starts_its_own_helper_threads() -> None:
    """A forked process has no copy of the threads of its parent, so a kept helper would never begin to work."""
    program = """
import os, sys
from gpunn.backends.formula import formulas
from tests.backends.shared_steps import run_steps
import numpy as np
def train():
    values = np.zeros((8, 1))
    run_steps(lambda ops: ops.elementwise(formulas.add, (values, 1.0), (values,)), 8, 5)
    return int(values.sum())
assert train() == 80
child = os.fork()
if child == 0:
    os._exit(train())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) - 80)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_helper_threads_give_no_warnings_where_the_caller_gives_none() -> None:
    huge = np.full((8, 4), 1e38, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend = NumpyBackend()
        with backend.quiet(), backend.threads_by_model(8, 2):
            program = backend.program(lambda: backend.elementwise(formulas.multiply, (huge, huge), (huge,)), models=8)
            for _ in range(4):
                program()
    assert np.isinf(huge).all()


@pytest.mark.parametrize("models", [8, 3])
def test_permutations_drawn_by_threads_are_those_drawn_by_one(models: int) -> None:
    backend, key, step = NumpyBackend(), np.arange(2 * models, dtype=np.uint64).reshape(-1, 2), np.ones(1, np.uint64)
    alone, shared = np.zeros((models, 70), np.int64), np.zeros((models, 70), np.int64)
    backend.permutation(key, step, out=alone)
    with backend.threads_by_model(8, 2):
        backend.permutation(key, step, out=shared)
    np.testing.assert_array_equal(shared, alone)


def test_a_program_for_another_number_of_models_is_not_split_among_threads() -> None:
    backend, count, asked = NumpyBackend(), np.zeros((8, 1)), []

    def step() -> None:
        asked.append(threading.current_thread().name)
        backend.elementwise(formulas.add, (count, 1.0), (count,))

    with backend.threads_by_model(9, 2):
        program = backend.program(step, models=8)
        for _ in range(4):
            program()
        assert isinstance(program.record, Record)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(count, 4)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each replay of a record split among threads; steps of any size are split, for two threads."""
    seen: list[str] = []
    original = ThreadedRecord.replay
    monkeypatch.setattr(
        ThreadedRecord, "replay", lambda record, times: (seen.append("replay"), original(record, times))[1]
    )
    monkeypatch.setattr(threads, "SMALL", 0.0)
    monkeypatch.setattr(threads, "blas_threads", lambda: 2)
    return seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_training_split_among_threads_agrees_with_one_that_is_not(
    optimizer: Any, replays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, losses = [], []
    for shared in (False, True):
        monkeypatch.setattr(threads, "MODELS", 1 if shared else 99)
        net = network("cpu", 5)
        history = net.fit(X, Y, **everything(optimizer))
        vectors.append(net.vector.copy())
        losses.append(history["validation_loss"])
        assert bool(replays) == shared
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_training_with_embeddings_split_among_threads_agrees_with_one_that_is_not(
    replays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (45, 3))
    layers = [
        gn.Embedding(4, 5),
        gn.Flatten(),
        gn.LayerNorm(),
        gn.Branch([gn.Dense(4, "softmax"), gn.RMSNorm()]),
        gn.Dense(3),
    ]
    vectors = []
    for count in (99, 1):
        monkeypatch.setattr(threads, "MODELS", count)
        net = gn.Network(layers, 3, device="cpu", models=4)
        net.fit(
            codes,
            Y,
            loss=gn.CrossEntropy(smoothing=0.1),
            optimizer=gn.Adam(1e-2),
            epochs=4,
            batch_size=10,
            progress=False,
        )
        vectors.append(net.vector.copy())
        assert bool(replays) == (count == 1)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-6)
