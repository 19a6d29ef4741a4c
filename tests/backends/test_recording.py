"""Recorded steps on the CPU: a replay does what running the operations again would do."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.numba.loops import LoopFormulas
from gpunn.backends.cpu.recording import RecordedStep
from gpunn.backends.formula import formulas
from gpunn.frame import Frame, Plan
from gpunn.types import Array
from gpunn.value import is_own
from tests.backends.calls import FAMILIES, POPULATIONS, SHAPES, Placed, calls, reverse
from tests.training.networks import OPTIMIZERS, X, Y, everything, network


def replayed(backend: NumpyBackend, run: Callable[[], Any], inputs: list[Array], outputs: list[Array]) -> None:
    """Record a run, change its inputs, and compare a replay with another run, bit by bit."""
    record: list[Any] = []
    with backend.recorder.into(record):
        run()
    assert record
    for array in inputs:
        reverse(array)
    for out in outputs:
        out[...] = 77
    for function, arguments in record:
        function(*arguments)
    found = [out.copy() for out in outputs]
    for out in outputs:
        out[...] = 78
    run()
    for again, wanted in zip(found, outputs):
        np.testing.assert_array_equal(again, wanted)


@pytest.mark.parametrize("shape", [*SHAPES, (900, 80)], ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, "means"])
def test_a_replayed_operation_works_on_the_current_content_of_its_arrays(family: str, shape: tuple[int, ...]) -> None:
    check_replays(NumpyBackend(), family, shape)


@pytest.mark.parametrize("shape", [(33, 10), (3, 33, 10)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_replayed_compiled_loop_works_on_the_current_content_of_its_arrays(
    family: str, shape: tuple[int, ...]
) -> None:
    pytest.importorskip("numba")
    check_replays(NumpyBackend(LoopFormulas(patient=False)), family, shape)


def check_replays(backend: NumpyBackend, family: str, shape: tuple[int, ...]) -> None:
    for strided in (False, True)[: 1 + (shape in POPULATIONS)]:
        for call in calls(family, shape):
            placed = Placed(backend, call, "float32", strided)
            replayed(backend, placed.run, [array for _, array in placed.inputs], placed.outputs)


@pytest.mark.parametrize("name", ["random_words", "random_bits", "random_uniform", "random_normal", "permutation"])
def test_a_replayed_record_draws_random_numbers_of_the_current_step(name: str) -> None:
    backend = NumpyBackend()
    dtype = {"random_words": "uint64", "random_bits": "uint16", "permutation": "int64"}.get(name, "float32")
    key, step, out = np.array([[3, 4], [5, 6]], np.uint64), np.array([7], np.uint64), backend.zeros((2, 45), dtype)
    record: list[Any] = []
    with backend.recorder.into(record):
        getattr(backend, name)(key, step, out=out)
    step[0] = 8
    for function, arguments in record:
        function(*arguments)
    found = out.copy()
    getattr(backend, name)(key, step, out=out)
    np.testing.assert_array_equal(found, out)
    step[0] = 7
    getattr(backend, name)(key, step, out=out)
    assert (found != out).any()


class Steps:
    """A program whose step adds 1 to a counter; `asked` counts how often the step ran in Python."""

    def __init__(self, backend: NumpyBackend, recorded: bool = True) -> None:
        self.backend, self.asked, self.count = backend, 0, backend.zeros((3,), np.float64)
        self.program = backend.program(self.step, recordable=recorded)

    def step(self) -> None:
        self.asked += 1
        self.backend.elementwise(formulas.add, (self.count, 1.0), (self.count,))


def test_the_second_run_of_a_step_is_recorded_and_later_runs_are_replays() -> None:
    steps = Steps(NumpyBackend())
    for i in range(5):
        steps.program()
        assert steps.count[0] == i + 1
    assert steps.asked == 2


@pytest.mark.parametrize("why", ["GPUNN_CAPTURE=0", "the step does more than operations"])
def test_a_step_is_not_recorded_with_gpunn_capture_0_or_where_it_may_not_be(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "=" in why:
        monkeypatch.setenv(*why.split("="))
    steps = Steps(NumpyBackend(), recorded="=" in why)
    for _ in range(4):
        steps.program()
    assert steps.asked == steps.count[0] == 4


def test_another_thread_records_a_step_for_itself() -> None:
    """Each thread has its own scratch."""
    steps = Steps(NumpyBackend())
    for _ in range(3):
        steps.program()
    assert steps.asked == 2
    thread = threading.Thread(target=lambda: [steps.program() for _ in range(3)])
    thread.start()
    thread.join()
    assert (steps.asked, steps.count[0]) == (3, 6)


def test_a_step_that_fails_while_it_is_recorded_is_not_replayed() -> None:
    backend, count = NumpyBackend(), np.zeros(3)
    fails = True

    def step() -> None:
        backend.elementwise(formulas.add, (count, 1.0), (count,))
        if fails:
            raise KeyboardInterrupt
        backend.elementwise(formulas.add, (count, 1.0), (count,))

    program = backend.program(step)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            program()
    fails, count[...] = False, 0
    for i in range(4):
        program()
        assert count[0] == 2 * i + 2
    assert backend.recorder.calls is None


def test_a_step_is_recorded_again_once_a_loop_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    steps = Steps(NumpyBackend(LoopFormulas()))
    for _ in range(3):
        steps.program()
    assert steps.asked == 2
    monkeypatch.setattr(LoopFormulas, "version", LoopFormulas.version + 1)
    for _ in range(3):
        steps.program()
    assert (steps.asked, steps.count[0]) == (3, 6)


def test_a_compiled_loop_replaces_numpy_in_records(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    for name in ("LOOK", "COMPILING", "FETCHING", "LOADING"):  # look at every third call
        monkeypatch.setattr(f"gpunn.backends.cpu.numba.loops.{name}", 4.0)
    backend = NumpyBackend(LoopFormulas())
    X, out = np.ones((40, 40), np.float32), np.empty((40, 40), np.float32)
    program = RecordedStep(backend, lambda: backend.elementwise(formulas.scale_shift, (X, 2.0, 1.0), (out,)))
    names = []
    for _ in range(5):
        program()
        names.append(program.record.calls[0][0].__name__ if program.record.calls else "")
    assert names[-1] == "formula" != names[1]  # the compiled one's
    np.testing.assert_array_equal(out, 3.0)


@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_recorded_updates_give_the_same_weights(
    optimizer: Any, models: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets, histories = [], []
    for captured in "01":
        monkeypatch.setenv("GPUNN_CAPTURE", captured)
        nets.append(network("cpu", models))
        histories.append(nets[-1].fit(X, Y, **everything(optimizer)))
    assert nets[0].vector.tobytes() == nets[1].vector.tobytes()
    for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "gradient_norm"):
        np.testing.assert_array_equal(histories[0][name], histories[1][name])


@dataclass(frozen=True)
class Counted(gn.Layer):
    """A layer that calls NumPy itself."""

    def plan(self, shape: tuple[int, ...]) -> Plan:
        return Plan(output=shape, buffers={"A": shape})

    def forward(self, t: Frame, X: Array) -> Array:
        np.multiply(X, 1.5, out=t.A)
        return t.A

    def backward(self, t: Frame, dA: Array) -> Array | None:
        return np.multiply(dA, 1.5, out=t.A) if t.wants_dX else None


@pytest.mark.parametrize("wrapped", [False, True])
def test_layers_of_users_are_not_recorded_but_run_in_every_step(wrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: gn.Layer = gn.Residual([Counted()]) if wrapped else Counted()
    assert not is_own(layer)
    vectors = []
    for captured in "01":
        monkeypatch.setenv("GPUNN_CAPTURE", captured)
        net = gn.Network([gn.Dense(8, "relu"), layer, gn.Dense(3)], 6, device="cpu")
        net.fit(X, Y, loss=gn.CrossEntropy(), optimizer=gn.SGD(0.1), epochs=4, batch_size=10, progress=False)
        vectors.append(net.vector.tobytes())
    assert vectors[0] == vectors[1]


def test_is_own_knows_layers_of_gpunn_from_those_of_users() -> None:
    assert is_own(
        gn.Sequential([gn.Dense(3, gn.ReLU()), gn.Dropout((0.1, 0.2))]), gn.Adam(lambda i: 0.1), "accuracy", None
    )
    assert not is_own(gn.Dense(3), Counted())
