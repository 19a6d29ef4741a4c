"""Threads that share the models of a population. Models do not depend on each other, so each thread does several steps
for its models before it waits for the other threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from gpunn.backends.cpu.recording import Record
from gpunn.backends.operation import Operation
from gpunn.types import Array

Work = Callable[[], None]
Bounds = tuple[int, int]  # of an array's memory


_idle: list[ThreadPoolExecutor] = []  # each with one thread, which keeps its kernels and scratch for the next training
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_idle.clear)  # the threads stay with the parent


def _helper() -> ThreadPoolExecutor:
    try:
        return _idle.pop()
    except IndexError:
        return ThreadPoolExecutor(1, "gpunn")


class ModelThreads:
    """Threads that each run whole steps for some of the models: the calling thread and its helpers. BLAS should use one
    thread meanwhile."""

    def __init__(self, models: int, threads: int) -> None:
        self.models = models
        ends = [models * i // threads for i in range(threads + 1)]
        self.ranges = [slice(*ends) for ends in pairwise(ends)]  # the models of each thread
        self.helpers = [_helper() for _ in self.ranges[1:]]
        self.threads = threads  # the number that work; the others pause

    def use(self, threads: int) -> None:
        """Let only so many threads do all the work."""
        self.threads = threads

    def close(self) -> None:
        wait([helper.submit(int) for helper in self.helpers])  # after an error a helper may still work
        _idle.extend(self.helpers)

    def run(self, works: Sequence[Work]) -> None:
        """Run the works, one for each thread. When the caller is done, it also does what a helper has not begun yet."""
        groups = [partial(_do_all, works[i :: self.threads]) for i in range(min(self.threads, len(works)))]
        # The context carries NumPy's setting for floating-point warnings.
        calls = [helper.submit(copy_context().run, work) for helper, work in zip(self.helpers, groups[1:])]
        try:
            groups[0]()
        finally:
            for call, work in zip(calls, groups[1:]):
                _finish(call, work)


def _do_all(works: Sequence[Work]) -> None:
    for work in works:
        work()


def _finish(call: Future[None], work: Work) -> None:
    if call.cancel():
        work()
    else:
        call.result()


@dataclass
class OperationCall:
    """A call of an operation in a step, with its arguments by name."""

    operation: Operation
    function: Callable[..., Any]
    arguments: dict[str, Any]
    models: int

    @cached_property
    def axes(self) -> dict[str, int | None]:
        return {name: self.operation.axes_of(name, self.arguments) for name in self.arguments}

    def by_model(self, name: str, array: Array) -> bool:
        """Whether this argument has a part for each model."""
        axes = self.axes[name]
        return axes is not None and array.ndim == axes + 1 and len(array) == self.models

    def arrays(self) -> Iterator[tuple[str, Array]]:
        return ((name, array) for name, array in self.operation.arrays(self.arguments) if isinstance(array, np.ndarray))

    def do(self, ops: Any, models: slice, copies: Sequence[PrivateCopy]) -> None:
        """Do it for some of the models, with the thread's copies in place of their originals."""
        known: dict[int, Array] = {}  # an array that is passed twice stays the same object, so that aliasing is seen

        def part(name: str, value: Any) -> Any:
            """The part of an argument that belongs to these models."""
            if isinstance(value, tuple):
                return tuple(part(name, item) for item in value)
            if not isinstance(value, np.ndarray):
                return value
            if id(value) not in known:
                array = next((copy.view(value) for copy in copies if copy.bounds == byte_bounds(value)), value)
                known[id(value)] = array[models] if self.by_model(name, value) else array
            return known[id(value)]

        self.function(ops, **{name: part(name, value) for name, value in self.arguments.items()})


class PrivateCopy:
    """A copy of an array that one thread has for itself."""

    def __init__(self, original: Array) -> None:
        self.original, self.bounds = original, byte_bounds(original)
        self.memory = np.empty(self.bounds[1] - self.bounds[0], np.uint8)
        self.copy = self.view(original)

    def view(self, array: Array) -> Array:
        """The view of the copy that corresponds to this view of the original."""
        start = array.ctypes.data - self.bounds[0]
        return np.ndarray(array.shape, array.dtype, self.memory, start, array.strides)

    def renew(self) -> None:
        np.copyto(self.copy, self.original)


class ThreadedRecord:
    """The record of a step for several threads: each thread has the calls for its models.

    A step also changes arrays that all models share, such as the cursor in the epoch, and a thread may be some steps
    ahead of another. So the first thread changes the arrays themselves, and each other thread changes its own copies,
    which are copied anew from the originals before each replay.
    """

    def __init__(self, threads: ModelThreads) -> None:
        self.threads = threads
        self.calls: list[OperationCall] = []
        self.records: list[Record] = []
        self.copies: list[PrivateCopy] = []

    def add(self, operation: Operation, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        self.calls.append(OperationCall(operation, function, arguments, self.threads.models))
        return None if operation.returns is None else arguments[operation.returns]

    def lower(self, ops: Any) -> None:
        """Do the step once, each part in the thread that will replay it with its own scratch, and record the calls."""
        common = self._common()
        ranges = self.threads.ranges if common is not None else [slice(None)]
        copies = [[PrivateCopy(array) for array in common or ()] for _ in ranges[1:]]
        self.copies = [copy for of_thread in copies for copy in of_thread]
        self._renew_copies()
        for models, of_thread, helper in zip(ranges, [(), *copies], [None, *self.threads.helpers]):
            record = Record()
            work = partial(self._record, ops, record, models, of_thread)
            work() if helper is None else helper.submit(copy_context().run, work).result()
            self.records.append(record)

    def _record(self, ops: Any, record: Record, models: slice, copies: Sequence[PrivateCopy]) -> None:
        with ops.recorder.for_threads(None), ops.recorder.into(record.calls):
            for call in self.calls:
                call.do(ops, models, copies)

    def _common(self) -> list[Array] | None:
        """The arrays that the step writes and all models share; None if their memory overlaps with that of others, so
        that one thread must do everything."""
        common: dict[Bounds, Array] = {}
        seen: set[Bounds] = set()
        of_models: set[Bounds] = set()  # written by each thread for its models
        others: set[Bounds] = set()  # shared by all models, read or written
        for call in self.calls:
            for name, array in call.arrays():
                place = byte_bounds(array)
                seen.add(place)
                if not call.by_model(name, array):
                    others.add(place)
                    if name in call.operation.writes:
                        common[place] = array
                elif name in call.operation.writes:
                    of_models.add(place)
        crossing = any(_overlap(a, b) for a in others for b in of_models)
        if crossing or any(a != b and _overlap(a, b) for a in common for b in seen):
            return None
        return list(common.values())

    def replay(self, times: int) -> None:
        self._renew_copies()
        self.threads.run([partial(record.replay, times) for record in self.records])

    def _renew_copies(self) -> None:
        for copy in self.copies:
            copy.renew()


def _overlap(a: Bounds, b: Bounds) -> bool:
    return a[0] < b[1] and b[0] < a[1]
