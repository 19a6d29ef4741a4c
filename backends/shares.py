"""Steps of a population among threads: models never look at each other, so each thread does several steps for a share
of them before it meets the others."""

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

from gpunn.backends.recording import Record
from gpunn.types import Array

Work = Callable[[], None]
Arguments = dict[str, Any]  # of an operation, by name
Bounds = tuple[int, int]  # of an array's memory


def _alike(a: Arguments) -> int:
    """Of an elementwise operation, all whose arrays are broadcast to the first output."""
    out = a["outputs"][0] if "outputs" in a else a["out"]
    return int(out.ndim - 1)


def _looked_up(a: Arguments) -> int:
    """Of the rows that stand for numbers: what a row of a table has, and what the numbers have."""
    return int(a["out"].ndim - (a["table"].ndim - 2) if "table" in a else a["d"].ndim - (a["out"].ndim - 2))


def _scored(a: Arguments) -> int:
    return int(a["A"].ndim - a["out"].ndim + 2)


def _drawn(a: Arguments) -> int:
    return int(a["out"].ndim - a["key"].ndim + 1)


# How many axes the arrays of an operation have in a single model; in a population they have one more, in front. What
# is not named is the same for all models.
AXES: dict[str, dict[str, int | Callable[[Arguments], int]]] = {
    "elementwise": {"inputs": _alike, "outputs": _alike},
    "copy": {"source": _alike, "out": _alike},
    "fill": {"out": _alike},
    "matmul": {"A": 2, "B": 2, "out": 2},
    "sum": {"X": 2, "out": 2},
    "sum_product": {"X": 2, "Y": 2, "out": 2},
    "total": {"X": 2, "out": 0},
    "_row_means": {"dZ": 2, "Xhat": 2, "G": 2, "first": 2, "second": 2},
    "softmax": {"Z": 2, "out": 2},
    "softmax_gradient": {"dA": 2, "A": 2, "out": 2},
    "log_softmax": {"Z": 2, "out": 2},
    "log_softmax_gradient": {"dA": 2, "A": 2, "out": 2},
    "softmax_cross_entropy": {
        "Z": 2, "target": lambda a: 2 if a["target"].dtype.kind == "f" else 1, "weight": 2, "loss": 2, "dZ": 2,
    },
    "correct": {"A": 2, "y": lambda a: 1 if a["y"].dtype.kind in "iu" else 2, "out": 2},
    "row_error": {"A": _scored, "y": _scored, "out": 2},
    "gather": {"indices": 1, "out": lambda a: a["source"].ndim},
    "batch": {"order": 1, "out": lambda a: a["source"].ndim},
    "lookup": {"table": 2, "indices": lambda a: _looked_up(a) - 1, "out": _looked_up},
    "lookup_gradient": {"d": _looked_up, "indices": lambda a: _looked_up(a) - 1, "out": 2},
    "random_words": {"key": 1, "out": _drawn},
    "random_bits": {"key": 1, "out": _drawn},
    "random_uniform": {"key": 1, "out": _drawn},
    "random_normal": {"key": 1, "out": _drawn},
}  # fmt: skip
WRITTEN = {"outputs", "out", "first", "second", "loss", "dZ"}  # arguments; a given dZ is taken for one, to no harm

_idle: list[ThreadPoolExecutor] = []  # of one thread each, with its kernels and scratch, for the next training
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_idle.clear)  # the threads stay with the parent


def _helper() -> ThreadPoolExecutor:
    try:
        return _idle.pop()
    except IndexError:
        return ThreadPoolExecutor(1, "gpunn")


class Shares:
    """The models of each thread: of that which asks, and of others that help it. BLAS should have one meanwhile."""

    def __init__(self, models: int, threads: int) -> None:
        self.models = models
        ends = [models * i // threads for i in range(threads + 1)]
        self.parts = [slice(*part) for part in pairwise(ends)]
        self.helpers = [_helper() for _ in self.parts[1:]]
        self.threads = threads  # that work, of those that there are

    def use(self, threads: int) -> None:
        """Let so many do the work of all."""
        self.threads = threads

    def close(self) -> None:
        wait([helper.submit(int) for helper in self.helpers])  # after an error one may still be at work
        _idle.extend(self.helpers)

    def run(self, works: Sequence[Work]) -> None:
        """One for each share. What a helper has not begun when the caller is done with its own, the caller does."""
        groups = [partial(_do_all, works[i :: self.threads]) for i in range(min(self.threads, len(works)))]
        # The context has NumPy's choice of what to do about infinities.
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
class Operation:
    """One of a step's, with its arguments by name."""

    function: Callable[..., Any]
    arguments: Arguments
    models: int

    @cached_property
    def ranks(self) -> dict[str, int]:
        axes = AXES[self.function.__name__]
        return {name: rank(self.arguments) if callable(rank) else rank for name, rank in axes.items()}

    def by_model(self, name: str, array: Array) -> bool:
        """Whether this argument has a part for each model."""
        return name in self.ranks and array.ndim == self.ranks[name] + 1 and len(array) == self.models

    def arrays(self) -> Iterator[tuple[str, Array]]:
        for name, value in self.arguments.items():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, np.ndarray):
                    yield name, item

    def do(self, ops: Any, part: slice, copies: Sequence[Copy]) -> None:
        """For some of the models, with copies in place of what they are copies of."""
        known: dict[int, Array] = {}  # an array that comes twice stays one

        def own(name: str, value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(own(name, item) for item in value)
            if not isinstance(value, np.ndarray):
                return value
            if id(value) not in known:
                array = next((copy.view(value) for copy in copies if copy.bounds == byte_bounds(value)), value)
                known[id(value)] = array[part] if self.by_model(name, value) else array
            return known[id(value)]

        self.function(ops, **{name: own(name, value) for name, value in self.arguments.items()})


class Copy:
    """A share's own copy of some memory."""

    def __init__(self, original: Array) -> None:
        self.original, self.bounds = original, byte_bounds(original)
        self.memory = np.empty(self.bounds[1] - self.bounds[0], np.uint8)
        self.mine = self.view(original)

    def view(self, array: Array) -> Array:
        """The copy, as this array sees the original."""
        start = array.ctypes.data - self.bounds[0]
        return np.ndarray(array.shape, array.dtype, self.memory, start, array.strides)

    def renew(self) -> None:
        np.copyto(self.mine, self.original)


class SharedRecord:
    """A step as each share's thread does it.

    What no model has for itself, such as the place in the epoch, moves on with every step, and a thread may be steps
    ahead of another. So the first share moves it, and each of the others moves a copy, which is renewed when they meet.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.operations: list[Operation] = []
        self.records: list[Record] = []
        self.copies: list[Copy] = []

    def add(self, function: Callable[..., Any], arguments: Arguments) -> Any:
        self.operations.append(Operation(function, arguments, self.shares.models))
        return arguments.get("out", arguments.get("dZ"))

    def lower(self, ops: Any) -> None:
        """Do the step, each share in the thread whose scratch it will use, and record the calls."""
        common = self._common()
        parts = self.shares.parts if common is not None else [slice(None)]
        copies = [[Copy(array) for array in common or ()] for _ in parts[1:]]
        self.copies = [copy for own in copies for copy in own]
        self._meet()
        for part, own, helper in zip(parts, [(), *copies], [None, *self.shares.helpers]):
            record = Record()
            work = partial(self._record, ops, record, part, own)
            work() if helper is None else helper.submit(copy_context().run, work).result()
            self.records.append(record)

    def _record(self, ops: Any, record: Record, part: slice, copies: Sequence[Copy]) -> None:
        with ops.recorder.sharing(None), ops.recorder.into(record.calls):
            for operation in self.operations:
                operation.do(ops, part, copies)

    def _common(self) -> list[Array] | None:
        """What is written and is no model's; None where that cannot be told from what is, so that nothing is shared."""
        common: dict[Bounds, Array] = {}
        seen: set[Bounds] = set()
        models: set[Bounds] = set()  # written for each model by its share
        others: set[Bounds] = set()
        for operation in self.operations:
            for name, array in operation.arrays():
                place = byte_bounds(array)
                seen.add(place)
                if not operation.by_model(name, array):
                    others.add(place)
                    if name in WRITTEN:
                        common[place] = array
                elif name in WRITTEN:
                    models.add(place)
        crossing = any(_overlap(a, b) for a in others for b in models)
        if crossing or any(a != b and _overlap(a, b) for a in common for b in seen):
            return None
        return list(common.values())

    def replay(self, times: int) -> None:
        self._meet()
        self.shares.run([partial(record.replay, times) for record in self.records])

    def _meet(self) -> None:
        for copy in self.copies:
            copy.renew()


def _overlap(a: Bounds, b: Bounds) -> bool:
    return a[0] < b[1] and b[0] < a[1]
