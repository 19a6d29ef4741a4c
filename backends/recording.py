"""A step on the CPU: its calls of NumPy are written down once, while it runs, and from then on only they are run.

Layers, losses and optimizers say which operations are done on which arrays, and say the same at every step. As a CUDA
graph does on a GPU, the record leaves out asking them again, and looking for kernels and scratch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


class Recorder(threading.local):
    """Through which a backend does its work; one for each thread."""

    def __init__(self) -> None:
        self.calls: list[Call] | None = None  # of the step that is being recorded

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


def one_call(operation: Method) -> Method:
    """An operation that is recorded as a whole: it looks at numbers on its way, or does not do all through `do`."""

    @wraps(operation)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        recorder = self.recorder
        if recorder.calls is None:
            return operation(self, *arguments, **options)
        with recorder.into(None):
            result = operation(self, *arguments, **options)
        recorder.calls.append((lambda: operation(self, *arguments, **options), ()))
        return result

    return call  # type: ignore[return-value]


class RecordedStep:
    """A step on its way to being a record, which is good for the thread and the kernels it was made with."""

    def __init__(self, ops: Any, step: Callable[[], None]) -> None:
        self.ops, self.step = ops, step
        self.calls: list[Call] = []
        self.made_with: object = None
        self.warm = False  # the first run finds out how much scratch there must be

    def __call__(self) -> None:
        if self.made_with is not self.ops.kernels:
            self._record()
            return
        for function, arguments in self.calls:
            function(*arguments)

    def _record(self) -> None:
        if not self.warm:
            self.step()
            self.warm = True
            return
        calls: list[Call] = []
        made_with = self.ops.kernels
        with self.ops.recorder.into(calls):
            self.step()
        self.calls, self.made_with = calls, made_with
