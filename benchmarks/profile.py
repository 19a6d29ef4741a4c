"""Where does the time of one step of gpunn go: matrix products, each other operation, Python?

    python -m benchmarks.profile

On the CPU a step is a record of calls. Each is timed under the name of the operation that it is a part of, over many
steps; what the clock itself costs is measured and taken off. What is left of a step timed with no clock inside it is
Python going from call to call. On a GPU a step is one graph, which no clock on the host sees into.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any
from unittest.mock import patch

from benchmarks.cases import GRID
from benchmarks.command import alone
from benchmarks.harness import LEFT_OUT, MissingPeerError, Row, Setting, say, steps_for, stretch
from benchmarks.peers import competing, ours
from gpunn.backends.cpu.recording import Call
from gpunn.backends.operation import OPERATIONS
from gpunn.backends.reference.backend import Backend
from gpunn.training.threads import threads_for

STEP, PRODUCTS, PYTHON = "whole step", "matrix products", "Python"
NAMES = {"matmul": PRODUCTS, "affine": PRODUCTS}  # of the table, where they are not those of the operations
TIME, SHARE = "time", "share"
LEAST = 0.005  # of a step: what takes less is told together


Labelled = list[tuple[str, Call]]  # calls, each with the operation or formula that it is a part of


def labelled(ops: Backend, step: Callable[[], None]) -> Labelled:
    """The record of a step."""
    kind, calls, labels = type(ops), [], []  # type: ignore[var-annotated]
    around: list[str] = []  # the operations that are under way, each inside the one before

    def tell() -> None:
        """The calls without a label are of the innermost operation."""
        labels.extend(around[-1:] * (len(calls) - len(labels)))

    def watched(name: str, method: Any) -> Any:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            tell()
            around.append(str(arguments[1]).partition("(")[0] if name == "elementwise" else name)  # the formula's name
            result = method(*arguments, **options)
            tell()
            around.pop()
            return result

        return call

    with ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(patch.object(kind, name, watched(name, getattr(kind, name))))
        with ops.recorder.into(calls):  # type: ignore[attr-defined]
            step()
    assert len(labels) == len(calls)
    return list(zip(labels, calls))


def timed_calls(record: Labelled, steps: int) -> dict[str, float]:
    """Seconds of so many steps by label."""
    seconds, now = [0.0] * len(record), time.perf_counter
    calls = [(i, function, arguments) for i, (_, (function, arguments)) in enumerate(record)]
    for _ in range(steps):
        for i, function, arguments in calls:
            start = now()
            function(*arguments)
            seconds[i] += now() - start
    found: dict[str, float] = defaultdict(float)
    for (label, _), taken in zip(record, seconds):
        found[NAMES.get(label, label)] += taken
    return found


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
    count = min(steps_for(steps, setting.seconds, time.perf_counter)[0], steps.epoch - 1)
    whole: list[float] = []
    parts: dict[str, list[float]] = {}
    for turn in range(setting.turns):
        whole.append(1e6 * stretch(steps, count, time.perf_counter) / count)
        steps.begin()
        with ops.quiet(), threads_for(steps.network, steps.case.batch):
            record = labelled(ops, steps.update_once)
            taken = timed_calls(record, count)
        empty, calls = cost_of_a_clock(), Counter(NAMES.get(label, label) for label, _ in record)
        for name, seconds in taken.items():
            own = max(0.0, seconds - empty * calls[name] * count)
            parts.setdefault(name, [0.0] * turn).append(1e6 * own / count)
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


def cost_of_a_clock(calls: int = 1000) -> float:
    """Seconds that a call which does nothing is said to take."""
    return timed_calls([("nothing", (lambda: None, ()))], calls)["nothing"] / calls


if __name__ == "__main__":
    alone("profile")
