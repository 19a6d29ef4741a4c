"""Steps of a population among threads: models never look at each other, so each thread does all of a step for a share
of them, and only meets the others at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import pairwise
from typing import Any

import numpy as np

from gpunn.backends.recording import Call

Work = Callable[[], None]
Arguments = dict[str, Any]  # of an operation, by name


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


class Shares:
    """The models of each thread: of that which asks, and of others that help it. BLAS should have one meanwhile."""

    def __init__(self, models: int, threads: int) -> None:
        self.models = models
        ends = [models * i // threads for i in range(threads + 1)]
        self.parts = [slice(*part) for part in pairwise(ends)]
        self.helpers = [ThreadPoolExecutor(1, "gpunn") for _ in self.parts[1:]]  # each with scratch of its own

    def close(self) -> None:
        for helper in self.helpers:
            helper.shutdown()

    def run(self, works: Sequence[Work]) -> None:
        """One for each thread. What a helper has not begun when the caller is done with its own, the caller does."""
        # The context has NumPy's choice of what to do about infinities.
        calls = [helper.submit(copy_context().run, work) for helper, work in zip(self.helpers, works[1:])]
        try:
            works[0]()
        finally:
            for call, work in zip(calls, works[1:]):
                _finish(call, work)


def _finish(call: Future[None], work: Work) -> None:
    if call.cancel():
        work()
    else:
        call.result()


class SharedRecord:
    """A step's calls in sections: those of each share's thread, then those which wait for all of them."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.sections: list[tuple[list[list[Call]], list[Call]]] = []
        self._begin()

    def _begin(self) -> None:
        self.sections.append(([[] for _ in self.shares.parts], []))

    def replay(self) -> None:
        for each, together in self.sections:
            self.shares.run([_Calls(calls) for calls in each])
            _Calls(together)()

    def add(self, ops: Any, operation: Callable[..., Any], arguments: Arguments) -> Any:
        """Do an operation, and write down what is done.

        What has nothing of a single model, such as the rate, every share writes, with the same result; but what moves
        on from its own last value, such as the place in the epoch, is done once, after all shares.
        """
        axes = AXES[operation.__name__]
        ranks = {name: rank(arguments) if callable(rank) else rank for name, rank in axes.items()}
        cuts = [_cut(arguments, ranks, part, self.shares.models) for part in self.shares.parts]
        if cuts[0] is arguments and _moves(arguments):
            self._record(ops, operation, arguments, self.sections[-1][1])
        else:
            if self.sections[-1][1]:
                self._begin()
            for i, (cut, calls) in enumerate(zip(cuts, self.sections[-1][0])):
                if i == 0:
                    self._record(ops, operation, cut, calls)
                else:
                    context = copy_context()
                    helper = self.shares.helpers[i - 1]
                    helper.submit(context.run, self._record, ops, operation, cut, calls).result()
        return arguments.get("out", arguments.get("dZ"))

    def _record(self, ops: Any, operation: Callable[..., Any], arguments: Arguments, calls: list[Call]) -> None:
        """In the thread whose scratch the calls will use."""
        recorder = ops.recorder
        with recorder.sharing(None), recorder.into(calls):
            operation(ops, **arguments)


class _Calls:
    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls

    def __call__(self) -> None:
        for function, arguments in self.calls:
            function(*arguments)


def _cut(arguments: Arguments, ranks: dict[str, int], part: slice, models: int) -> Arguments:
    """The arguments of an operation for some of the models; an array that comes twice stays one."""
    known: dict[int, Any] = {}

    def cut(value: Any, rank: int) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(item, rank) for item in value)
        if isinstance(value, np.ndarray) and value.ndim == rank + 1 and len(value) == models:
            return known.setdefault(id(value), value[part])
        return value

    found = {name: cut(value, ranks[name]) if name in ranks else value for name, value in arguments.items()}
    return found if known else arguments


def _moves(arguments: Arguments) -> bool:
    """Whether an output is an input too."""
    return any(out is given for out in arguments.get("outputs", ()) for given in arguments["inputs"])
