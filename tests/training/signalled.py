"""A process that gets Ctrl-C, SIGTERM or kill -9 while it trains; `python -m tests.training.signalled TASK FOLDER`.

It prints "ready" when it waits for a signal, and at its end what it came to, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpunn as gn
from gpunn import files
from tests.training.interruption import Look, bits, fit, handlers, is_best, network, weights

NAME = "training.gpunn"
KILLS = 20
BETWEEN = 23  # updates after which a signal is waited for: not at the end of an epoch of 5


def say(text: str) -> None:
    print(text, flush=True)


def wait(arrived: Callable[[], bool]) -> None:
    """Until a handler has run, at most a minute."""
    end = time.monotonic() + 60
    while not arrived() and time.monotonic() < end:
        time.sleep(0.001)


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
    """Train, wait for a signal, and report how the training ended before the process does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may have it ignored
    before, look, net, returned = handlers(), Look(BETWEEN, reaction), network(), False
    try:
        fit(net, callbacks=look, checkpoint=folder / NAME if checkpoint else None)
        returned = True
    finally:
        at = look.run.standing
        report = {
            "returned": returned, "stopped": look.run.history.stopped, "best": is_best(look), "done": at.done,
            "epochs": look.run.history.epochs, "handlers": handlers() == before, "weights": weights(net),
        }  # fmt: skip
        say(json.dumps(report))


def kill(folder: Path) -> None:
    """Kill children that write a checkpoint in every step, at random times; resume each from its checkpoint.

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
        steps.append(look.run.standing.done - len(look.kept) * 5)  # before the epoch in which it was killed
        different += bits(resumed) != bits(whole)
        stale += len(list(folder.glob(".gpunn-*")))
    say(json.dumps({"different": different, "stale": stale, "steps": len(set(steps)), "left": left}))


def die_in_writing(run: Any) -> None:
    """The next checkpoint is written, and the process is killed before the file gets its name."""
    files.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


TASKS: dict[str, Callable[[Path], None]] = {
    "ctrl-c": lambda folder: child(folder, on_ctrl_c),
    "two": lambda folder: child(folder, on_two),
    "termination": lambda folder: child(folder, on_termination),
    "no checkpoint": lambda folder: child(folder, on_termination, checkpoint=False),
    "kill": kill,
}


if __name__ == "__main__":
    TASKS[sys.argv[1]](Path(sys.argv[2]))
