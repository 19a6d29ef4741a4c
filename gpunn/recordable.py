"""Finds out whether a step may be recorded: it must work through `t.ops` only, and in the same way every time.

A recorded step is replayed without calling the layers again. gpunn's own layers, losses, optimizers and
regularizations may be recorded. Those of users are tried before a training: they run three times on arrays that have a
shape but hide their numbers, and on a backend that lists the operations without doing them. If they look at numbers,
use arrays of their own, or do something else each time, steps run without a record. If a counter in Python changes the
step later, a check during the training finds it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from gpunn.engine import Engine
from gpunn.errors import ConfigurationError
from gpunn.memory import hollow
from gpunn.opaque import Call, NotRecordableError, Opaque, TrialOps, key_of, opaque
from gpunn.passes import Pass
from gpunn.python_state import PythonState, comparable
from gpunn.types import Array
from gpunn.value import of_users

log = logging.getLogger("gpunn")
RUNS = 3
SELDOM = 100  # checks take at most one part in so many of a training's time


class Trial:
    """A trial of the parts of a step that users have written, with the frames of a pass and targets for its rows."""

    def __init__(self, network: Engine, batch_pass: Pass, y: Array, *, backward: bool = True) -> None:
        self.ops, self.batch_pass, self.backward = TrialOps(network.ops), batch_pass, backward
        numbers = np.int64 if network.reads_indices else network.precision.compute
        X = hollow((batch_pass.rows, *network.inputs), numbers)
        self.batch = Opaque(X), Opaque(y), Opaque(hollow((batch_pass.rows, 1), network.dtype))
        self.others: list[Callable[[], None]] = []
        self.of_users = of_users(batch_pass.network, batch_pass.loss)
        self.first: list[Call] = []

    def also(self, value: Any, holder: Any, *methods: Callable[[Any], None]) -> None:
        """Try these methods of a value too, with its frame."""
        frame = opaque(holder, self.ops)
        self.others += [partial(method, frame) for method in methods]
        self.of_users += of_users(value)

    def fault(self) -> str | None:
        """Why the step may not be recorded; None if it may. What it has counted in Python is put back."""
        state = PythonState(self.of_users)
        try:
            return self._fault(state)
        finally:
            state.put_back()

    def _fault(self, state: PythonState) -> str | None:
        before: Any = None
        for run in range(RUNS):
            try:
                calls = self._calls()
            except Exception as error:  # a user's code may do anything with arrays that it does not expect
                return _description(error)
            if run == 0:
                self.first = calls
            elif calls != self.first:
                return f"{self.names} does something else each time"
            after = state.now()
            if run > 1 and after != before:
                return f"{self.names} keeps count in Python"
            before = after
        return None

    def is_same(self) -> bool:
        """Whether the step still does the same operations as in the first run."""
        state = PythonState(self.of_users)
        try:
            return self._calls() == self.first
        except Exception:
            return False
        finally:
            state.put_back()

    @property
    def names(self) -> str:
        return ", ".join(dict.fromkeys(type(value).__name__ for value in self.of_users))

    def _calls(self) -> list[Call]:
        """The operations that the step asks of its backend, and what its frames hold."""
        self.ops.calls = calls = []
        batch_pass, (X, y, weight) = self.batch_pass, self.batch
        frame = opaque(batch_pass.frame, self.ops)
        A = batch_pass.network.forward(frame, X)
        if batch_pass.loss is not None:
            dA = batch_pass.loss.evaluate(opaque(batch_pass.loss_frame, self.ops), A, y, weight)
            if self.backward:
                batch_pass.network.backward(frame, dA)
        for method in self.others:
            method()
        calls.append(("frames", *_frame_contents(self.ops.holders.values())))
        return calls


class Trials:
    """All trials of a training: whether its steps may be recorded, and whether they stay the same."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = [trial for trial in trials if trial.of_users]
        started = time.perf_counter()
        self.fault = next((fault for trial in self.trials if (fault := trial.fault())), None)
        self.cost = (time.perf_counter() - started) / RUNS
        self.checked = time.perf_counter()
        if self.fault:
            _warn(self.fault)

    @property
    def recordable(self) -> bool:
        return self.fault is None

    def recheck(self) -> bool:
        """Run the trials again, as after callbacks; if a step has changed, it is not recordable any more.

        Returns whether that happened.
        """
        if self.recordable and not all(trial.is_same() for trial in self.trials):
            self.fault = f"{self._names} does something else than before"
            _warn(self.fault)
            return True
        return False

    def require_unchanged(self, *, now: bool = False) -> None:
        """Raise an error if a step that is being replayed has changed; runs the trials now and then, or `now`."""
        if not self.trials or self.fault or not (now or time.perf_counter() > self.checked + SELDOM * self.cost):
            return
        self.checked = time.perf_counter()
        if not all(trial.is_same() for trial in self.trials):
            raise ConfigurationError(
                f"fit {self._names}",
                expected="the same operations in every step",
                got="others than in the first steps, which were recorded",
                fix="keep what changes in an array of the frame, or set GPUNN_CAPTURE=0 to have each step asked",
            )

    @property
    def _names(self) -> str:
        return ", ".join(dict.fromkeys(trial.names for trial in self.trials))


@cache
def _warn(fault: str) -> None:
    log.warning("steps run without a record, since %s; see gpunn/layers/base.py", fault)


def _frame_contents(holders: Any) -> Iterator[Any]:
    """What frames hold besides the arrays of the plan."""
    for holder in holders:
        for name, value in holder._known.items():
            yield name, key_of(value) if isinstance(value, Opaque) else comparable(value)


def _description(error: Exception) -> str:
    """What went wrong, with the line of the user's code."""
    what = str(error) if isinstance(error, NotRecordableError) else f"raises {type(error).__name__}: {error}"
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not str(frame.f_globals.get("__name__")).startswith("gpunn."):
            place = f"{frame.f_code.co_qualname}, line {line} of {frame.f_code.co_filename},"
    return f"{place} {what}" if place else what
