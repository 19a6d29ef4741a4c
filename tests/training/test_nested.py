"""A training started by a callback of another one: a signal ends both."""

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
from tests.training.interruption import (
    EPOCHS,
    INNER,
    ROOT,
    Look,
    Nest,
    Within,
    bits,
    columns,
    fit,
    handlers,
    interrupt,
    is_best,
    network,
    terminate,
    weights,
)


@pytest.fixture(autouse=True)
def plain() -> Any:
    """Handle Ctrl-C as usual, which the runner of the tests may ignore; afterwards no training may be registered."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    assert signals._active == []


@pytest.mark.parametrize("depth", [2, 3])
def test_ctrl_c_ends_all_nested_trainings_with_their_best_weights(depth: int) -> None:
    nest, before = Nest(depth, interrupt), handlers()
    nest.begin()
    assert nest.ends() == ["interrupted"] * depth
    assert [look.run.standing.done for look in nest.looks] == [20] * (depth - 1) + [INNER]  # no step after the signal
    assert all(is_best(look) for look in nest.looks)
    assert len(nest.histories) == depth and handlers() == before


def test_a_second_ctrl_c_ends_all_nested_trainings_at_once() -> None:
    nest = Nest(3, lambda run: [interrupt(run), interrupt(run)])
    with pytest.raises(KeyboardInterrupt):
        nest.begin()
    assert not nest.histories and nest.ends() == ["interrupted"] * 3
    assert all(is_best(look) for look in nest.looks)


def test_a_second_ctrl_c_after_the_inner_training_ends_the_outer_at_once() -> None:
    """The outer training has then got two."""
    nest = Nest(2, interrupt)
    outer = nest.looks[0]
    assert isinstance(outer, Within)
    start = outer.start
    outer.start = lambda: [start(), interrupt(None)]
    with pytest.raises(KeyboardInterrupt):
        nest.begin()
    assert list(nest.histories) == [1] and nest.ends() == ["interrupted"] * 2 and is_best(outer)


@pytest.mark.parametrize("depth", [2, 3])
def test_sigterm_writes_the_checkpoint_of_each_nested_training(tmp_path: Path, depth: int) -> None:
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
def test_a_nested_training_that_begins_after_the_signal_makes_no_step(react: Any, reason: str) -> None:
    later: list[Any] = []

    def start() -> None:
        for _ in range(3):
            net, look = network(), Look(3, react)
            before = bits(net)
            history = fit(net, callbacks=look)
            later.append((history.stopped, look.run.standing.done, bits(net) == before))

    outer = Within(start)
    if react is terminate:
        with pytest.raises(SystemExit):
            fit(network(), callbacks=outer)
    else:
        fit(network(), callbacks=outer)
    assert later == [(reason, 3, False), (reason, 0, True), (reason, 0, True)]
    assert outer.run.history.stopped == reason


@pytest.mark.parametrize("event", ["on_start", "on_step", "on_end"])
def test_a_nested_training_may_be_started_in_any_event(event: str) -> None:
    inner, ran = Look(3, interrupt), []

    class Starts(Look):
        pass

    def start(self: Any, run: Any) -> None:
        self.run = run
        if not ran and (event != "on_step" or run.standing.done == 7):
            ran.append(True)
            fit(network(), callbacks=inner)

    setattr(Starts, event, start)
    outer = Starts()
    history = fit(network(), callbacks=outer)
    assert inner.run.history.stopped == "interrupted" and inner.run.standing.done == 3
    done = {"on_start": 0, "on_step": 7, "on_end": EPOCHS * 5}[event]
    reason = f"finished {EPOCHS} epochs" if event == "on_end" else "interrupted"
    assert outer.run.standing.done == done and history.stopped == reason


def in_a_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_ctrl_c_ends_the_training_of_the_main_thread_and_not_of_another() -> None:
    """Nobody knows who waits for a thread."""
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


def test_nested_trainings_in_another_thread_run_to_their_end() -> None:
    nest, before = Nest(3, lambda run: None), handlers()
    in_a_thread(nest.begin)
    assert nest.ends() == [f"finished {EPOCHS} epochs"] * 3 and handlers() == before
    alone = network(seed=2)
    fit(alone)
    assert bits(nest.networks[2]) == bits(alone)


def test_a_training_in_another_thread_does_not_disturb_the_signals_of_the_main_thread() -> None:
    """Whichever ends first: each removes only its own registration."""
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
def test_sigterm_in_a_process_forked_by_a_callback_ends_that_process() -> None:
    """The training of the parent does not count as one around that of the forked process."""
    program = """
import os
from tests.training.interruption import Look, Within, fit, network, terminate
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
