"""Where does the time of one step of gpunn go: matrix products, each other operation, Python?

    python -m benchmarks.profile

Every operation of the backend is timed without those that it calls, over many steps; what the clock itself costs is
measured and taken off. What is left of a step timed with no clock inside it is Python: layers, loss and trainer calling
operations, and looking up what to run. On a GPU a step is one graph, which no clock on the host sees into.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from benchmarks.cases import GRID
from benchmarks.command import alone
from benchmarks.harness import LEFT_OUT, MissingPeerError, Row, Setting, alternate, say, stretch
from benchmarks.peers import competing, ours
from gpunn.backends.base import Backend

STEP, PRODUCTS, PYTHON = "whole step", "matrix products", "Python"
TIME, SHARE = "time", "share"
NOT_TIMED = ("quiet", "program", "synchronize", "owns", "require")  # no work of a step's own
LEAST = 0.005  # of a step: what takes less is told together


class Clock:
    """Seconds that each operation took by itself, those it called not counted, and how many calls there were."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inside = [0.0]  # for each operation under way: seconds of those it called

    def around(self, name: str, method: Any) -> Any:
        now, inside, seconds, calls = time.perf_counter, self._inside, self.seconds, self.calls

        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            called = str(arguments[1]).partition("(")[0] if name == "elementwise" else name  # the formula's name
            inside.append(0.0)
            start = now()
            try:
                return method(*arguments, **options)
            finally:
                taken = now() - start
                seconds[called] += taken - inside.pop()
                calls[called] += 1
                inside[-1] += taken

        return call


@contextmanager
def clocked(ops: Backend) -> Iterator[Clock]:
    """Within it, the operations of this backend are timed."""
    clock, kind = Clock(), type(ops)
    names = [n for n in dir(Backend) if not n.startswith("_") and callable(getattr(kind, n)) and n not in NOT_TIMED]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch.object(kind, name, clock.around(name, getattr(kind, name))))
        yield clock


def run(setting: Setting) -> list[Row]:
    if ours.kind_of(setting.device) == "cuda":
        return [Row("profile", "", TIME, "µs", note=f"{LEFT_OUT}: on a GPU a step is one graph")]
    rows: list[Row] = []
    forms = {"": setting.device, ", jit": loops()}
    for case in (GRID[0],) if setting.quick else (GRID[0], GRID[2], GRID[3], GRID[3].extended(), GRID[5]):
        for form, device in forms.items():
            if device is not None:
                say(f"profile: {case}{form}")
                rows += measure(f"{case}{form}", ours.Steps(case, device), setting)
    return rows


def loops() -> Any:
    """The CPU with compiled formulas; None where the extra jit is not installed."""
    try:
        return competing("numba", "jit_peer").device()
    except MissingPeerError:
        return None


def measure(case: str, steps: Any, setting: Setting) -> list[Row]:
    """Time and share of a step for each part of it, in turns with and without the clocks."""
    ops = steps.network.ops
    figures, _ = alternate({STEP: steps}, setting.turns, setting.seconds)
    whole = [1e6 * figure for figure in figures[STEP]]
    count = max(1, min(steps.epoch, round(setting.seconds / figures[STEP][-1])))
    parts: dict[str, list[float]] = {}
    for turn in range(setting.turns):
        with clocked(ops) as clock:
            stretch(steps, count, time.perf_counter)
        empty = cost_of_a_clock()
        for name, seconds in named(clock, empty).items():
            parts.setdefault(name, [0.0] * turn).append(1e6 * seconds / count)
    middle = Row("profile", "", "", "µs", whole).median
    rows = [Row("profile", f"{case}: {STEP}", TIME, "µs", whole)]
    told, little = {}, 0.0
    for name, runs in sorted(parts.items(), key=lambda part: -sum(part[1])):
        value = Row("profile", "", "", "µs", runs).median
        if name == PRODUCTS or value >= LEAST * middle:
            told[name] = runs
        else:
            little += value
    told["other operations"] = [little]
    rest = middle - sum(Row("profile", "", "", "µs", runs).median for runs in told.values())
    told[PYTHON] = [max(0.0, rest)]
    for name, runs in told.items():
        row = Row("profile", f"{case}: {name}", TIME, "µs", runs)
        rows += [row, Row("profile", row.case, SHARE, "%", [100 * row.median / middle])]
    return rows


def named(clock: Clock, empty: float) -> dict[str, float]:
    """Seconds by the names of the table, less what the clock cost."""
    names = {"matmul": PRODUCTS}
    return {names.get(n, n): max(0.0, s - empty * clock.calls[n]) for n, s in clock.seconds.items()}


def cost_of_a_clock(calls: int = 1000) -> float:
    """Seconds that a call which does nothing is said to take."""
    clock = Clock()
    nothing = clock.around("nothing", lambda: None)
    for _ in range(calls):
        nothing()
    return clock.seconds["nothing"] / calls


if __name__ == "__main__":
    alone("profile")
