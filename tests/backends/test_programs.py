"""`Backend.program`: a step runs, is captured and replayed, or runs without a graph if it cannot be captured."""

import gc
import logging
import weakref
from typing import Any

import numpy as np
import pytest

from gpunn.backends.cuda import backend as cupy_backend
from gpunn.backends.cuda.backend import CupyBackend
from gpunn.backends.formula import formulas
from tests.strict.cublaslt import make_cublaslt
from tests.strict.standin import make_cupy


class Steps:
    """A step that adds 1 to a counter on the device."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.calls = backend, 0
        self.count = backend.zeros((3,), np.float64)

    def step(self) -> None:
        self.calls += 1
        self.backend.elementwise(formulas.add, (self.count, 1.0), (self.count,))

    def value(self) -> float:
        return float(self.backend.to_host(self.count)[0])


def test_each_call_of_a_program_runs_its_step(backend: Any) -> None:
    steps = Steps(backend)
    program = backend.program(steps.step)
    for i in range(5):
        program()
        assert steps.value() == i + 1


def test_the_second_run_of_a_program_is_captured_and_later_ones_launch_the_graph(strict: Any) -> None:
    steps = Steps(strict)
    program = strict.program(steps.step)
    costs = []
    for _ in range(4):
        strict.xp.counters.reset()
        program()
        costs.append(strict.xp.counters.launches)
    assert steps.calls == 2  # as Python: once for real and once for the graph
    assert steps.value() == 4
    assert costs == [1, 2, 1, 1]  # the stand-in counts what is captured too


def test_gpunn_capture_0_turns_capturing_off(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNN_CAPTURE", "0")
    steps = Steps(strict)
    program = strict.program(steps.step)
    for _ in range(4):
        program()
    assert (steps.calls, steps.value()) == (4, 4)


FORBIDDEN = {
    "a transfer": lambda strict, steps: strict.to_host(steps.count),
    "a wait": lambda strict, steps: strict.synchronize(),
    "memory": lambda strict, steps: strict.empty((4,), np.float32),
    "a library": lambda strict, steps: strict.xp.matmul(steps.matrix, steps.matrix, out=steps.product),
}


@pytest.mark.parametrize("forbidden", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_step_that_cannot_be_captured_runs_without_a_graph_and_logs_why_once(
    strict: Any, forbidden: Any, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps(strict)
    steps.matrix, steps.product = (strict.zeros((2, 2), np.float32) for _ in range(2))

    def step() -> None:
        steps.step()
        forbidden(strict, steps)

    with caplog.at_level(logging.WARNING, "gpunn"):
        programs = [strict.program(step), strict.program(step)]
        for _ in range(3):
            for program in programs:
                program()
    assert steps.value() == 6  # nothing twice, nothing left out
    assert len([r for r in caplog.records if "not as one graph" in r.getMessage()]) == 1
    assert_usable(strict)


def assert_usable(strict: Any) -> None:
    """No capture is open, the stream is the same as before, and memory and the next capture work."""
    assert strict.xp.cuda.get_current_stream().ptr == 0
    assert not strict.xp.cuda.get_current_stream().is_capturing()
    steps = Steps(strict)
    program = strict.program(steps.step)
    for _ in range(3):
        program()
    assert (steps.calls, steps.value()) == (2, 3)


def test_an_interrupt_during_a_capture_leaves_the_stream_usable(strict: Any) -> None:
    steps = Steps(strict)

    def step() -> None:
        steps.step()
        if steps.calls == 2:
            raise KeyboardInterrupt

    program = strict.program(step)
    program()
    with pytest.raises(KeyboardInterrupt):
        program()
    assert steps.value() == 1
    assert_usable(strict)
    program()
    assert steps.value() == 2  # the program is none the worse for it


def test_an_error_in_a_captured_step_is_raised(strict: Any, caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(strict)

    def step() -> None:
        steps.step()
        if steps.calls > 1:
            raise ArithmeticError("of the step")

    program = strict.program(step)
    program()
    with pytest.raises(ArithmeticError, match="of the step"):
        program()
    assert_usable(strict)


def test_without_cublaslt_programs_are_not_captured_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    ops = CupyBackend(0, make_cupy())
    with caplog.at_level(logging.WARNING, "gpunn"):
        for _ in range(2):
            steps = Steps(ops)
            program = ops.program(steps.step)
            for _ in range(3):
                program()
            assert (steps.calls, steps.value()) == (3, 3)
    assert [r.getMessage() for r in caplog.records if "nvmath" in r.getMessage()] == [
        "training steps on cuda:0 run kernel by kernel, not as one graph: CuPy's own matrix products cannot be "
        "captured; pip install nvmath-python"
    ]


def test_a_captured_graph_keeps_its_arrays_alive_as_long_as_itself() -> None:
    cupy = make_cupy()
    ops = CupyBackend(0, cupy, make_cublaslt(cupy))
    steps = Steps(ops)
    program = ops.program(steps.step)
    program()
    program()
    array, graph = weakref.ref(steps.count), weakref.ref(program.graph)
    del steps
    gc.collect()
    assert array() is not None  # the graph writes to it
    program()
    del program
    gc.collect()
    assert array() is None
    assert graph() is None


def test_no_garbage_is_collected_while_a_graph_is_captured(strict: Any) -> None:
    """The garbage may hold an older graph, whose destruction would make the capture fail."""
    X = strict.zeros((3,), np.float32)
    collected: list[bool] = []

    def step() -> None:
        collected.append(gc.isenabled())
        strict.fill(X, 1.0)

    program = strict.program(step)
    for _ in range(3):
        program()
        assert gc.isenabled()
    assert collected == [True, False]
