"""A step on the CPU: its calls of NumPy are written down once, while it runs, and from then on only they are run.

Layers, losses and optimizers say which operations are done on which arrays, and say the same at every step. As a CUDA
graph does on a GPU, the record leaves out asking them again, and looking for kernels and scratch.
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
    """Through which a backend does its work; one for each thread."""

    def __init__(self) -> None:
        self.thread = object()
        self.calls: list[Call] | None = None  # of the step that is being recorded
        self.model_threads: ModelThreads | None = None  # which do the steps of a population
        self.threaded: ThreadedRecord | None = None  # the step that is being recorded for them

    def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function, now and at every replay of what is being recorded."""
        function(*arguments)
        if self.calls is not None:
            self.calls.append((function, arguments))

    def do_whole(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `do`, of a function that works through `do` itself: the record has it as one call all the same."""
        with self.into(None):
            result = function(*arguments)
        if self.calls is not None:
            self.calls.append((function, arguments))
        return result

    @contextmanager
    def into(self, calls: list[Call] | None) -> Iterator[None]:
        """Within it, calls are added to this list, or, with None, to none."""
        before, self.calls = self.calls, calls
        try:
            yield
        finally:
            self.calls = before

    @contextmanager
    def for_threads(self, record: ThreadedRecord | None) -> Iterator[None]:
        """Within it, operations are written down for all model threads, and not done yet."""
        before, self.threaded = self.threaded, record
        try:
            yield
        finally:
            self.threaded = before


def call_by_call(function: Method) -> Method:
    """Of an operation that works through `do` and through other operations: a record has the calls that it makes.

    Any other one is a single call of the record: it looks at numbers on its way, or is too rare to be taken apart.
    """
    function.call_by_call = True  # type: ignore[attr-defined]
    return function


def recorded(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the CPU, with what is to be done where a step is being recorded."""
    if function is operation.function and not operation.elementary:
        return function  # the operations that it is made of are recorded
    whole = not hasattr(function, "call_by_call")

    @wraps(function)
    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        recorder = ops.recorder
        if recorder.threaded is not None:
            return recorder.threaded.add(operation, call, operation.named(arguments, options))
        if recorder.calls is None or not whole:
            return function(ops, *arguments, **options)
        return recorder.do_whole(partial(function, **options), ops, *arguments)

    return call


class RecordedStep(Program):
    """A step on its way to being a record, which is good for the thread and the kernels it was made with."""

    def __init__(self, ops: Any, step: Callable[[], None], models: int | None = None) -> None:
        super().__init__(step)
        self.ops, self.models = ops, models
        self.record: Record | ThreadedRecord = Record()
        self.made_with: object = None
        self.warm = False  # the first run finds out how much scratch there must be

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
        """Run the step once, and write it down."""
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
