"""A training within another, as a callback starts it: a signal is for both."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpunn as gn
from gpunn.training import signals
from tests.training.test_signals import (
    EPOCHS,
    ROOT,
    Look,
    bits,
    columns,
    fit,
    handlers,
    is_best,
    network,
    weights,
)

INNER = 23  # the update of the innermost training after which the signal comes


class Within(Look):
    """Starts another training after one of its epochs, once."""

    def __init__(self, start: Callable[[], Any], epoch: int = 4) -> None:
        super().__init__()
        self.start, self.epoch = start, epoch

    def on_epoch(self, run: Any, record: Any) -> None:
        super().on_epoch(run, record)
        if run.epoch == self.epoch:
            self.start()


class Nest:
    """So many trainings, each of them started by the one before; `reaction` is called within the last one."""

    def __init__(self, depth: int, reaction: Callable[[Any], Any], folder: Path | None = None) -> None:
        self.networks = [network(seed=i) for i in range(depth)]
        self.paths = [None if folder is None else folder / f"{i}.gpunn" for i in range(depth)]
        self.looks: list[Look] = [Look(INNER, reaction)]
        for i in reversed(range(1, depth)):
            self.looks.insert(0, Within(lambda i=i: self.begin(i)))  # type: ignore[misc]
        self.histories: dict[int, gn.History] = {}

    def begin(self, i: int = 0) -> None:
        self.histories[i] = fit(self.networks[i], callbacks=self.looks[i], checkpoint=self.paths[i])

    def ends(self) -> list[str]:
        return [look.run.history.stopped for look in self.looks]


def interrupt(run: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def terminate(run: Any) -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def plain() -> Any:
    """What runs the tests may have Ctrl-C ignored; afterwards nothing is left behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    assert signals._active == []


@pytest.mark.parametrize("depth", [2, 3])
def test_ctrl_c_ends_every_training_with_its_best_weights(depth: int) -> None:
    nest, before = Nest(depth, interrupt), handlers()
    nest.begin()
    assert nest.ends() == ["interrupted"] * depth
    assert [look.run.at.done for look in nest.looks] == [20] * (depth - 1) + [INNER]  # no step after the signal
    assert all(is_best(look) for look in nest.looks)
    assert len(nest.histories) == depth and handlers() == before


def test_a_second_ctrl_c_ends_all_at_once_and_with_the_best_weights() -> None:
    nest = Nest(3, lambda run: [interrupt(run), interrupt(run)])
    with pytest.raises(KeyboardInterrupt):
        nest.begin()
    assert not nest.histories and nest.ends() == ["interrupted"] * 3
    assert all(is_best(look) for look in nest.looks)


def test_a_second_ctrl_c_after_the_inner_training_has_ended() -> None:
    """It is the second one of the outer training."""
    nest = Nest(2, interrupt)
    outer = nest.looks[0]
    assert isinstance(outer, Within)
    start = outer.start
    outer.start = lambda: [start(), interrupt(None)]
    with pytest.raises(KeyboardInterrupt):
        nest.begin()
    assert list(nest.histories) == [1] and nest.ends() == ["interrupted"] * 2 and is_best(outer)


@pytest.mark.parametrize("depth", [2, 3])
def test_termination_writes_the_checkpoint_of_each(tmp_path: Path, depth: int) -> None:
    nest, before = Nest(depth, terminate, tmp_path), handlers()
    with pytest.raises(SystemExit) as error:
        nest.begin()
    assert error.value.code == 143 and handlers() == before
    assert sorted(nest.histories) == list(range(1, depth))  # only the outermost ends the process
    assert nest.ends() == ["terminated"] * depth
    for i, path in enumerate(nest.paths):
        assert weights(gn.load(path, "cpu")) == weights(nest.networks[i])
        alone, resumed = network(seed=i), network(seed=i)
        expected, history = fit(alone), fit(resumed, resume=path)
        assert (bits(resumed), columns(history)) == (bits(alone), columns(expected))


@pytest.mark.parametrize(("react", "reason"), [(interrupt, "interrupted"), (terminate, "terminated")])
def test_what_begins_after_the_signal_ends_before_its_first_step(react: Any, reason: str) -> None:
    later: list[Any] = []

    def start() -> None:
        for _ in range(3):
            net, look = network(), Look(3, react)
            before = bits(net)
            history = fit(net, callbacks=look)
            later.append((history.stopped, look.run.at.done, bits(net) == before))

    outer = Within(start)
    if react is terminate:
        with pytest.raises(SystemExit):
            fit(network(), callbacks=outer)
    else:
        fit(network(), callbacks=outer)
    assert later == [(reason, 3, False), (reason, 0, True), (reason, 0, True)]
    assert outer.run.history.stopped == reason


@pytest.mark.parametrize("event", ["on_start", "on_step", "on_end"])
def test_a_training_within_any_event(event: str) -> None:
    inner, ran = Look(3, interrupt), []

    class Starts(Look):
        pass

    def start(self: Any, run: Any) -> None:
        self.run = run
        if not ran and (event != "on_step" or run.at.done == 7):
            ran.append(True)
            fit(network(), callbacks=inner)

    setattr(Starts, event, start)
    outer = Starts()
    history = fit(network(), callbacks=outer)
    assert inner.run.history.stopped == "interrupted" and inner.run.at.done == 3
    done = {"on_start": 0, "on_step": 7, "on_end": EPOCHS * 5}[event]
    reason = f"finished {EPOCHS} epochs" if event == "on_end" else "interrupted"
    assert outer.run.at.done == done and history.stopped == reason


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_a_training_in_another_thread_goes_on_and_the_one_of_the_main_thread_ends() -> None:
    """Of a thread nobody knows who waits for it."""
    inner: list[Any] = []
    arrived = threading.Event()

    def work() -> None:
        net = network()
        inner.append((fit(net, callbacks=Look(INNER, lambda run: arrived.wait(60))), bits(net)))

    def start() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        interrupt(None)
        arrived.set()
        thread.join(60)

    outer, alone = Within(start), network()
    expected = fit(alone)
    assert fit(network(), callbacks=outer).stopped == "interrupted" and is_best(outer)
    assert inner[0][0].stopped == expected.stopped and inner[0][1] == bits(alone)


def test_trainings_within_one_another_in_another_thread() -> None:
    nest, before = Nest(3, lambda run: None), handlers()
    in_a_thread(nest.begin)
    assert nest.ends() == [f"finished {EPOCHS} epochs"] * 3 and handlers() == before
    alone = network(seed=2)
    fit(alone)
    assert bits(nest.networks[2]) == bits(alone)


def test_one_of_the_main_thread_beside_one_of_another_thread() -> None:
    """That ends first or last: each takes only its own away."""
    begun, goes_on = threading.Event(), threading.Event()
    ends: list[Any] = []

    def work() -> None:
        def wait(run: Any) -> None:
            begun.set()
            goes_on.wait(60)

        ends.append(fit(network(), callbacks=Look(3, wait)).stopped)

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(60)
    ends.append(fit(network(), callbacks=Look(3, interrupt)).stopped)
    goes_on.set()
    thread.join(60)
    assert ends == ["interrupted", f"finished {EPOCHS} epochs"] and handlers() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ends_by_itself() -> None:
    """In it, the training of the parent is no training around its own: SIGTERM ends the child."""
    program = """
import os
from tests.training.test_nested import Within, fit, network, terminate
from tests.training.test_signals import Look
def start():
    child = os.fork()
    if child == 0:
        try:
            fit(network(), callbacks=Look(3, terminate))
        except SystemExit as error:
            os._exit(error.code)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(fit(network(), callbacks=Within(start)).stopped)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.stdout.splitlines() == ["143", f"finished {EPOCHS} epochs"], run.stderr
