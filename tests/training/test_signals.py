"""Ctrl-C, SIGTERM and kill -9 of a training, as real signals to real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpunn as gn
from gpunn.training.signals import Signals
from tests.training.interruption import EPOCHS, ROOT, Look, bits, columns, fit, handlers, network, weights
from tests.training.signalled import BETWEEN, NAME


class Child:
    """A process that trains and waits for signals; it is ended with the test."""

    def __init__(self, task: str, folder: Path) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.training.signalled", task, str(folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def send(self, number: int) -> None:
        """Send a signal as soon as the child waits for one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", line + self.process.communicate(timeout=60)[1]
        self.process.send_signal(number)

    def end(self) -> tuple[int, dict[str, Any], str]:
        out, errors = self.process.communicate(timeout=120)
        assert out, errors
        return self.process.returncode, json.loads(out), errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    started: list[Child] = []

    def begin(task: str) -> Child:
        started.append(Child(task, tmp_path))
        return started[-1]

    yield begin
    for made in started:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


@pytest.fixture(scope="module")
def whole() -> tuple[str, dict[str, bytes]]:
    """The bits of the training that nothing interrupts."""
    net = network()
    history = fit(net)
    assert history.best_epoch < EPOCHS
    return bits(net), columns(history)


def goes_on(path: Path, whole: tuple[str, dict[str, bytes]]) -> None:
    """Check that the training resumed from the file ends as the uninterrupted one."""
    net = network()
    history = fit(net, resume=path)
    assert (bits(net), columns(history)) == whole
    assert history.stopped == f"finished {EPOCHS} epochs"


@pytest.mark.parametrize(
    ("task", "number", "exit_code", "stopped"),
    [("ctrl-c", signal.SIGINT, 0, "interrupted"), ("termination", signal.SIGTERM, 143, "terminated")],
    ids=["ctrl-c", "sigterm"],
)
def test_ctrl_c_and_sigterm_leave_the_best_weights_and_a_checkpoint_that_resumes(
    start: Callable[[str], Child], tmp_path: Path, whole: tuple[str, dict[str, bytes]],
    task: str, number: int, exit_code: int, stopped: str,
) -> None:  # fmt: skip
    run = start(task)
    run.send(number)
    code, report, errors = run.end()
    assert (code, errors) == (exit_code, "")
    assert report.pop("weights") == weights(gn.load(tmp_path / NAME, "cpu"))
    assert report == {
        "returned": exit_code == 0, "stopped": stopped, "best": True, "done": BETWEEN, "epochs": 4, "handlers": True
    }  # fmt: skip
    seen = Look()
    with pytest.raises(ZeroDivisionError):
        fit(network(), resume=tmp_path / NAME, callbacks=[seen, Look(BETWEEN + 1, lambda run: 1 / 0)])
    assert seen.run.standing.done == BETWEEN + 1  # it went on at the very step
    goes_on(tmp_path / NAME, whole)


def test_a_second_ctrl_c_ends_the_process_with_the_best_weights(start: Callable[[str], Child], tmp_path: Path) -> None:
    """The process ends at once, in the middle of its work."""
    run = start("two")
    run.send(signal.SIGINT)
    run.send(signal.SIGINT)
    code, report, errors = run.end()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not report["returned"] and report["best"] and report["handlers"]
    assert report["stopped"] == "interrupted"
    assert weights(gn.load(tmp_path / NAME, "cpu")) == report["weights"]  # of the epoch before


def test_sigterm_without_a_checkpoint_exits_with_143(start: Callable[[str], Child], tmp_path: Path) -> None:
    run = start("no checkpoint")
    run.send(signal.SIGTERM)
    code, report, errors = run.end()
    assert (code, errors) == (143, "")
    assert report["stopped"] == "terminated" and report["best"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_training_killed_at_any_time_resumes_from_a_whole_checkpoint(start: Callable[[str], Child]) -> None:
    code, report, errors = start("kill").end()
    assert (code, errors) == (0, "")
    assert report["different"] == 0 and report["stale"] == 0
    assert report["left"] >= 1  # the one that was killed in writing left a temporary file, which the next start swept
    assert report["steps"] >= 3  # killed in different epochs


class Ended(Exception):
    pass


def fail(run: Any) -> None:
    raise Ended


def own_interrupt(number: int, frame: Any) -> None:
    raise AssertionError("called after or before training only")


def own_termination(number: int, frame: Any) -> None:
    raise AssertionError("called after or before training only")


@pytest.fixture
def own() -> Iterator[list[Any]]:
    """Handlers that are neither Python's nor gpunn's."""
    before = handlers()
    signal.signal(signal.SIGINT, own_interrupt)
    signal.signal(signal.SIGTERM, own_termination)
    yield handlers()
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.parametrize("error", [None, Ended])
def test_fit_restores_the_signal_handlers(error: type[Exception] | None, own: list[Any]) -> None:
    seen: list[Any] = []
    callbacks = [Look(3, lambda run: seen.append(handlers())), Look(4, fail if error else lambda run: None)]
    if error is None:
        fit(network(), callbacks=callbacks)
    else:
        with pytest.raises(error):
            fit(network(), callbacks=callbacks)
    assert handlers() == own
    assert len(seen) == 1 and not set(seen[0]) & set(own)


def test_fit_restores_the_signal_handlers_after_an_error_at_the_start(own: list[Any]) -> None:
    class Start(gn.Callback):
        def on_start(self, run: Any) -> None:
            raise Ended

    with pytest.raises(Ended):
        fit(network(), callbacks=Start())
    assert handlers() == own


def test_the_exit_after_sigterm_restores_the_signal_handlers(own: list[Any]) -> None:
    with pytest.raises(SystemExit) as error:
        fit(network(), callbacks=Look(3, lambda run: signal.raise_signal(signal.SIGTERM)))
    assert error.value.code == 143 and handlers() == own


def test_sigterm_twice_and_ctrl_c_once_exit_with_143(own: list[Any]) -> None:
    """SIGTERM only sets a flag, however often it comes; the process ends after the step."""
    numbers = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    look = Look(3, lambda run: [signal.raise_signal(number) for number in numbers])
    with pytest.raises(SystemExit) as error:
        fit(network(), callbacks=look)
    assert error.value.code == 143
    assert look.run.standing.done == 3


def test_an_ignored_signal_stays_ignored_in_a_training(own: list[Any], whole: tuple[str, dict[str, bytes]]) -> None:
    """A shell script ignores Ctrl-C for its background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    net = network()
    history = fit(net, callbacks=Look(3, lambda run: signal.raise_signal(signal.SIGINT)))
    assert history.stopped == f"finished {EPOCHS} epochs" and bits(net) == whole[0]
    assert handlers() == [signal.SIG_IGN, own_termination]


def test_a_second_ctrl_c_raises_keyboard_interrupt_at_once() -> None:
    signals = Signals()
    before = handlers()
    with pytest.raises(KeyboardInterrupt), signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.interrupted and signals.raised and not signals.terminated
        signal.raise_signal(signal.SIGINT)
    assert handlers() == before


def test_a_training_in_another_thread_installs_no_signal_handlers(
    own: list[Any], whole: tuple[str, dict[str, bytes]]
) -> None:
    ends: list[Any] = []
    seen: list[Any] = []

    def work() -> None:
        net = network()
        ends.append((net, fit(net, callbacks=Look(3, lambda run: seen.append(handlers())))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    net, history = ends[0]
    assert seen == [own] and handlers() == own
    assert (bits(net), columns(history)) == whole
