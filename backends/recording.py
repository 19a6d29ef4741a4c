"""A step on the CPU: its calls of NumPy are written down once, while it runs, and from then on only they are run.

Layers, losses and optimizers say which operations are done on which arrays, and say the same at every step. As a CUDA
graph does on a GPU, the record leaves out asking them again, and looking for kernels and scratch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from gpunn.backends.program import Program

if TYPE_CHECKING:
    from gpunn.backends.shares import SharedRecord, Shares

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
        self.shares: Shares | None = None  # among whom the models of a population's steps are shared
        self.shared: SharedRecord | None = None  # the step that is being recorded for them

    def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call the function, now and at every replay of what is being recorded."""
        function(*arguments)
        if self.calls is not None:
            self.calls.append((function, arguments))

    @contextmanager
    def into(self, calls: list[Call] | None) -> Iterator[None]:
        """Within it, calls are added to this list, or, with None, to none."""
        before, self.calls = self.calls, calls
        try:
            yield
        finally:
            self.calls = before

    @contextmanager
    def sharing(self, record: SharedRecord | None) -> Iterator[None]:
        """Within it, operations are written down for all shares of the models, and not done yet."""
        before, self.shared = self.shared, record
        try:
            yield
        finally:
            self.shared = before


def recorded(operation: Method) -> Method:
    """An operation that works through `do` and through other operations."""
    return _recorded(operation, whole=False)


def recorded_whole(operation: Method) -> Method:
    """An operation that is one call of the record: it looks at numbers on its way, or is too rare to be taken apart."""
    return _recorded(operation, whole=True)


def _recorded(operation: Method, whole: bool) -> Method:
    names = tuple(signature(operation).parameters)[1:]

    @wraps(operation)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        recorder = self.recorder
        if recorder.shared is not None:
            return recorder.shared.add(call, {**dict(zip(names, arguments)), **options})
        if recorder.calls is None or not whole:
            return operation(self, *arguments, **options)
        with recorder.into(None):
            result = operation(self, *arguments, **options)
        recorder.calls.append((lambda: operation(self, *arguments, **options), ()))
        return result

    return call  # type: ignore[return-value]


class RecordedStep(Program):
    """A step on its way to being a record, which is good for the thread and the kernels it was made with."""

    def __init__(self, ops: Any, step: Callable[[], None], models: int | None = None) -> None:
        super().__init__(step)
        self.ops, self.models = ops, models
        self.record: Record | SharedRecord = Record()
        self.made_with: object = None
        self.warm = False  # the first run finds out how much scratch there must be

    def __call__(self, times: int = 1) -> None:
        for done in range(times):
            if self.made_with == self.ops.recorded_with:
                self.record.replay(times - done)
                return
            self._record()

    def _record(self) -> None:
        """Run the step once; the second time, write it down."""
        if not self.warm:
            self.step()
            self.warm = True
            return
        made_with, recorder = self.ops.recorded_with, self.ops.recorder
        if recorder.shares is not None and recorder.shares.models == self.models:
            from gpunn.backends.shares import SharedRecord

            shared = SharedRecord(recorder.shares)
            with recorder.sharing(shared):
                self.step()
            shared.lower(self.ops)
            self.record = shared
        else:
            record = Record()
            with recorder.into(record.calls):
                self.step()
            self.record = record
        self.made_with = made_with
