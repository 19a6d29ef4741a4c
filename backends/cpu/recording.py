"""Records a step on the CPU: while the step runs once, its calls of NumPy are written to a list, and later steps replay
the list.

Layers, losses and optimizers call the same operations on the same arrays in every step. A replay saves these calls and
the search for kernels and scratch, as a CUDA graph does on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from gpunn.backends.operation import Operation
from gpunn.backends.program import Program

if TYPE_CHECKING:
    from gpunn.backends.cpu.model_threads import ModelThreads, ThreadedRecord

Method = TypeVar("Method", bound=Callable[..., Any])
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


class Record:
    """The calls of a step, one after another."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def replay(self, times: int) -> None:
        for _ in range(times):
            for function, arguments in self.calls:
                function(*arguments)


class Recorder(threading.local):
    """Makes the calls of NumPy for a backend, and records them while a step is recorded; each thread has its own."""

    def __init__(self) -> None:
        self.thread_token = object()  # another one in each thread: a record uses the scratch of its thread
        self.calls: list[Call] | None = None  # of the record that is being made
        self.model_threads: ModelThreads | None = None  # the threads that share the models of a population
        self.threaded: ThreadedRecord | None = None  # the record that is being made for them

    def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function, and add the call to the record that is being made, if there is one."""
        function(*arguments)
        if self.calls is not None:
            self.calls.append((function, arguments))

    def do_as_one_call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `do`; calls of `do` within the function are not recorded, only the function as one call."""
        with self.into(None):
            result = function(*arguments)
        if self.calls is not None:
            self.calls.append((function, arguments))
        return result

    @contextmanager
    def into(self, calls: list[Call] | None) -> Iterator[None]:
        """Within this context, calls are added to this list; with None they are not recorded."""
        before, self.calls = self.calls, calls
        try:
            yield
        finally:
            self.calls = before

    @contextmanager
    def for_threads(self, record: ThreadedRecord | None) -> Iterator[None]:
        """Within this context, operations are added to this record and not done yet; with None they are done."""
        before, self.threaded = self.threaded, record
        try:
            yield
        finally:
            self.threaded = before


def recorded_in_parts(function: Method) -> Method:
    """Mark an operation whose work is all done by `do` and by other operations: a record gets these calls.

    An operation without the mark is one call of the record. It reads numbers of arrays between its calls of NumPy, or
    is too rare to be worth it.
    """
    function.recorded_in_parts = True  # type: ignore[attr-defined]
    return function


def recorded(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an operation of the CPU so that it is recorded while a record is being made."""
    if function is operation.function and operation.composed:
        return function  # the operations that it calls are recorded
    as_one_call = not hasattr(function, "recorded_in_parts")

    @wraps(function)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        recorder = ops.recorder
        if recorder.threaded is not None:
            return recorder.threaded.add(operation, call, operation.named(arguments, options))
        if recorder.calls is None or not as_one_call:
            return function(ops, *arguments, **options)
        return recorder.do_as_one_call(partial(function, **options), ops, *arguments)

    return call


class RecordedStep(Program):
    """Runs a step as it is, then records it, then replays the record; records it anew when `recorded_with` changes."""

    def __init__(self, ops: Any, step: Callable[[], None], models: int | None = None) -> None:
        super().__init__(step)
        self.ops, self.models = ops, models
        self.record: Record | ThreadedRecord = Record()
        self.made_with: object = None
        self.warm = False  # the first run is not recorded: scratch may still grow, and a record holds its arrays

    def __call__(self, times: int = 1) -> None:
        for done in range(times):
            if self.made_with == self.ops.recorded_with:
                self.record.replay(times - done)
                return
            if self.warm:
                self._record()
            else:
                self.step()
                self.warm = True

    def _record(self) -> None:
        """Run the step once and record it."""
        made_with, recorder = self.ops.recorded_with, self.ops.recorder
        if recorder.model_threads is not None and recorder.model_threads.models == self.models:
            from gpunn.backends.cpu.model_threads import ThreadedRecord

            threaded = ThreadedRecord(recorder.model_threads)
            with recorder.for_threads(threaded):
                self.step()
            threaded.lower(self.ops)
            self.record = threaded
        else:
            record = Record()
            with recorder.into(record.calls):
                self.step()
            self.record = record
        self.made_with = made_with
