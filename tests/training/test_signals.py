"""Ctrl-C, SIGTERM and kill -9 of a training, as real signals to real processes.

Run as `python -m tests.training.test_signals TASK FOLDER`, it is the process that gets them: it prints "ready" when it
waits for a signal, and at its end what it came to, as JSON.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn import files
from gpunn.training.signals import Signals

ROOT = Path(__file__).resolve().parents[2]
NAME = "training.gpunn"
KILLS = 20
EPOCHS = 8
BETWEEN = 23  # updates after which a signal is waited for: not at the end of an epoch of 5
X = np.random.default_rng(0).normal(size=(40, 4))
Y = np.random.default_rng(1).integers(0, 3, 40)


def network(**options: Any) -> gn.Network:
    layers = [gn.Dense(6), gn.BatchNorm(), gn.Tanh(), gn.Dropout(0.2), gn.Dense(3)]
    return gn.Network(layers, 4, **{"device": "cpu", "dtype": "float64", **options})


def fit(net: gn.Network, **changes: Any) -> gn.History:
    """A training whose best epoch is not its last one."""
    settings = {
        "X": X, "y": Y, "loss": gn.CrossEntropy(), "optimizer": gn.SGD(2.0, momentum=0.8), "epochs": EPOCHS,
        "batch_size": 8, "progress": False,
    }  # fmt: skip
    return net.fit(**{**settings, **changes})


def bits(net: gn.Network) -> str:
    return bytes(net.vector.tobytes() + net.store.state.tobytes() + net.step.tobytes()).hex()


def weights(net: gn.Network) -> str:
    return bytes(net.vector.tobytes() + net.store.state.tobytes()).hex()


class Look(gn.Callback):
    """Keeps the weights of every epoch, and calls a function after one of the updates."""

    def __init__(self, done: int = -1, function: Callable[[Any], Any] = lambda run: None) -> None:
        self.done, self.function, self.kept = done, function, {}

    def on_start(self, run: Any) -> None:
        self.run = run

    def on_step(self, run: Any) -> None:
        if run.at.done == self.done:
            self.function(run)

    def on_epoch(self, run: Any, record: Any) -> None:
        self.kept[run.epoch] = weights(run.network)


def is_best(look: Look) -> bool:
    """Whether the network holds the weights of the best epoch, and these are not those of the last one."""
    best = look.run.history.best_epoch
    return look.kept[best] == weights(look.run.network) != look.kept[max(look.kept)]


# In the child


def say(text: str) -> None:
    print(text, flush=True)


def wait(arrived: Callable[[], bool]) -> None:
    """Until a handler has run, at most a minute."""
    end = time.monotonic() + 60
    while not arrived() and time.monotonic() < end:
        time.sleep(0.001)


def handlers() -> list[Any]:
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]


def on_ctrl_c(run: Any) -> None:
    say("ready")
    wait(lambda: bool(run.signals.interrupted))


def on_two(run: Any) -> None:
    on_ctrl_c(run)
    say("ready")
    wait(lambda: False)


def on_termination(run: Any) -> None:
    say("ready")
    wait(lambda: bool(run.signals.terminated))


def child(folder: Path, reaction: Callable[[Any], None], *, checkpoint: bool = True) -> None:
    """Train, wait for what comes, and say how it ended before anything ends the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may have it ignored
    before, look, net, returned = handlers(), Look(BETWEEN, reaction), network(), False
    try:
        fit(net, callbacks=look, checkpoint=folder / NAME if checkpoint else None)
        returned = True
    finally:
        at = look.run.at
        report = {
            "returned": returned, "stopped": look.run.history.stopped, "best": is_best(look), "done": at.done,
            "epochs": look.run.history.epochs, "handlers": handlers() == before, "weights": weights(net),
        }  # fmt: skip
        say(json.dumps(report))


def kill(folder: Path) -> None:
    """Kill children that write a checkpoint in every step, at random times; each time, go on from what is there.

    They are forked from a process that has imported everything. One more dies in the middle of writing.
    """
    rng = random.Random(0)
    whole = network()
    started = time.perf_counter()
    fit(whole, checkpoint=folder / "whole.gpunn", every_steps=1)
    duration = time.perf_counter() - started
    different, stale, steps, left = 0, 0, [], 0
    for i in range(KILLS + 1):
        path = folder / f"{i}.gpunn"
        reader, writer = os.pipe()
        number = os.fork()
        if number == 0:
            try:
                first = Look(2, lambda run: os.write(writer, b"!"))  # noqa: B023  # runs in this very turn
                if i == KILLS:
                    first = Look(BETWEEN, die_in_writing)
                fit(network(), checkpoint=path, every_steps=1, callbacks=first)
                while True:
                    time.sleep(1)
            finally:
                os._exit(1)
        os.close(writer)
        if i < KILLS:
            assert os.read(reader, 1) == b"!"
            time.sleep(rng.uniform(0.0, duration))
            os.kill(number, signal.SIGKILL)
        os.close(reader)
        _, status = os.waitpid(number, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        left += len(list(folder.glob(".gpunn-*")))
        gn.load(path, "cpu")
        resumed, look = network(), Look()
        fit(resumed, resume=path, checkpoint=path, callbacks=look)
        steps.append(look.run.at.done - len(look.kept) * 5)  # before the epoch in which it was killed
        different += bits(resumed) != bits(whole)
        stale += len(list(folder.glob(".gpunn-*")))
    say(json.dumps({"different": different, "stale": stale, "steps": len(set(steps)), "left": left}))


def die_in_writing(run: Any) -> None:
    """Lets the next checkpoint be written and the process be killed before it gets its name."""
    files.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


TASKS: dict[str, Callable[[Path], None]] = {
    "ctrl-c": lambda folder: child(folder, on_ctrl_c),
    "two": lambda folder: child(folder, on_two),
    "termination": lambda folder: child(folder, on_termination),
    "no checkpoint": lambda folder: child(folder, on_termination, checkpoint=False),
    "kill": kill,
}


# The tests


class Child:
    """A process of this file, which is ended with the test."""

    def __init__(self, task: str, folder: Path) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.training.test_signals", task, str(folder)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def send(self, number: int) -> None:
        """A signal, as soon as the child waits for one."""
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


def columns(history: gn.History) -> dict[str, bytes]:
    return {n: history[n].tobytes() for n in history.names if n not in ("seconds", "examples_per_second")}


def goes_on(path: Path, whole: tuple[str, dict[str, bytes]]) -> None:
    """Resumed from the file, it ends as the uninterrupted one."""
    net = network()
    history = fit(net, resume=path)
    assert (bits(net), columns(history)) == whole
    assert history.stopped == f"finished {EPOCHS} epochs"


def test_ctrl_c_returns_the_best_network(
    start: Callable[[str], Child], tmp_path: Path, whole: tuple[str, dict[str, bytes]]
) -> None:
    run = start("ctrl-c")
    run.send(signal.SIGINT)
    code, report, errors = run.end()
    assert (code, errors) == (0, "")
    assert report.pop("weights") == weights(gn.load(tmp_path / NAME, "cpu"))
    assert report == {
        "returned": True, "stopped": "interrupted", "best": True, "done": BETWEEN, "epochs": 4, "handlers": True
    }  # fmt: skip
    goes_on(tmp_path / NAME, whole)


def test_a_second_ctrl_c_exits(start: Callable[[str], Child], tmp_path: Path) -> None:
    """At once, in the middle of what it does, and with the best weights all the same."""
    run = start("two")
    run.send(signal.SIGINT)
    run.send(signal.SIGINT)
    code, report, errors = run.end()
    assert code == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not report["returned"] and report["best"] and report["handlers"]
    assert report["stopped"] == "interrupted"
    assert weights(gn.load(tmp_path / NAME, "cpu")) == report["weights"]  # of the epoch before


def test_termination_writes_a_checkpoint(
    start: Callable[[str], Child], tmp_path: Path, whole: tuple[str, dict[str, bytes]]
) -> None:
    run = start("termination")
    run.send(signal.SIGTERM)
    code, report, errors = run.end()
    assert (code, errors) == (143, "")
    assert weights(gn.load(tmp_path / NAME, "cpu")) == report.pop("weights")
    assert report == {
        "returned": False, "stopped": "terminated", "best": True, "done": BETWEEN, "epochs": 4, "handlers": True
    }  # fmt: skip
    seen = Look()
    with pytest.raises(ZeroDivisionError):
        fit(network(), resume=tmp_path / NAME, callbacks=[seen, Look(BETWEEN + 1, lambda run: 1 / 0)])
    assert seen.run.at.done == BETWEEN + 1  # it went on at the very step
    goes_on(tmp_path / NAME, whole)


def test_termination_without_a_checkpoint(start: Callable[[str], Child], tmp_path: Path) -> None:
    run = start("no checkpoint")
    run.send(signal.SIGTERM)
    code, report, errors = run.end()
    assert (code, errors) == (143, "")
    assert report["stopped"] == "terminated" and report["best"]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_time_it_goes_on_from_a_whole_checkpoint(start: Callable[[str], Child]) -> None:
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
def test_handlers_come_back(error: type[Exception] | None, own: list[Any]) -> None:
    seen: list[Any] = []
    callbacks = [Look(3, lambda run: seen.append(handlers())), Look(4, fail if error else lambda run: None)]
    if error is None:
        fit(network(), callbacks=callbacks)
    else:
        with pytest.raises(error):
            fit(network(), callbacks=callbacks)
    assert handlers() == own
    assert len(seen) == 1 and not set(seen[0]) & set(own)


def test_handlers_come_back_after_an_error_at_the_start(own: list[Any]) -> None:
    class Start(gn.Callback):
        def on_start(self, run: Any) -> None:
            raise Ended

    with pytest.raises(Ended):
        fit(network(), callbacks=Start())
    assert handlers() == own


def test_the_exit_of_a_termination_restores_handlers(own: list[Any]) -> None:
    with pytest.raises(SystemExit) as error:
        fit(network(), callbacks=Look(3, lambda run: signal.raise_signal(signal.SIGTERM)))
    assert error.value.code == 143 and handlers() == own


def test_both_signals_and_a_second_termination(own: list[Any]) -> None:
    """SIGTERM is a flag however often it comes; with Ctrl-C it still ends the process."""
    numbers = (signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    look = Look(3, lambda run: [signal.raise_signal(number) for number in numbers])
    with pytest.raises(SystemExit) as error:
        fit(network(), callbacks=look)
    assert error.value.code == 143
    assert look.run.at.done == 3


def test_an_ignored_signal_stays_ignored(own: list[Any], whole: tuple[str, dict[str, bytes]]) -> None:
    """As Ctrl-C is for what a shell script has put into the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    net = network()
    history = fit(net, callbacks=Look(3, lambda run: signal.raise_signal(signal.SIGINT)))
    assert history.stopped == f"finished {EPOCHS} epochs" and bits(net) == whole[0]
    assert handlers() == [signal.SIG_IGN, own_termination]


def test_a_second_ctrl_c_raises_where_it_is() -> None:
    signals = Signals()
    before = handlers()
    with pytest.raises(KeyboardInterrupt), signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.interrupted and signals.raised and not signals.terminated
        signal.raise_signal(signal.SIGINT)
    assert handlers() == before


def test_in_another_thread_no_handlers_are_installed(own: list[Any], whole: tuple[str, dict[str, bytes]]) -> None:
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


if __name__ == "__main__":
    TASKS[sys.argv[1]](Path(sys.argv[2]))
