"""What does one forward and backward pass cost, beside its matrix products alone and a bare NumPy sketch of it?

    python -m benchmarks.passes

float32, ReLU layers, softmax cross-entropy, no update, on the CPU: as a training does it, recorded, and as a program
that calls `forward` and `backward` does it, operation by operation. Beside the times stand how far the losses of both
programs are apart, and what tracemalloc sees held after 1,000 further passes.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.command import alone
from benchmarks.harness import Calls, Row, Setting, say, timed

CASES = (((64, 64, 10), 32), ((784, 512, 512, 10), 1024))
Step = Callable[[], Any]


def data(widths: tuple[int, ...], rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, widths[0])).astype(np.float32), rng.integers(0, widths[-1], rows)


def ours(widths: tuple[int, ...], rows: int, recorded: bool) -> Step:
    layers = [*(gn.Dense(width, "relu") for width in widths[1:-1]), gn.Dense(widths[-1])]
    network = gn.Network(layers, widths[0], device="cpu")
    X, y = data(widths, rows)
    run = network.compile(rows, gn.CrossEntropy())
    value = run.value(run.forward(X), y)  # where it will always be

    def passes() -> None:
        run.value(run.forward(X), y)
        run.backward()

    program = network.ops.program(passes) if recorded else passes

    def step() -> Any:
        program()
        return float(value)

    return step


def sketch(widths: tuple[int, ...], rows: int) -> Step:
    """The same arithmetic written out with preallocated arrays and nothing around it."""
    layers = [*(gn.Dense(width, "relu") for width in widths[1:-1]), gn.Dense(widths[-1])]
    network = gn.Network(layers, widths[0], device="cpu")
    depth = len(widths) - 1
    W = [network.parameters[f"{i}.W"] for i in range(depth)]
    b = [network.parameters[f"{i}.b"] for i in range(depth)]
    A = [np.empty((rows, w), np.float32) for w in widths[1:]]
    dX = [np.empty((rows, w), np.float32) for w in widths[1:]]
    mask = [np.empty((rows, w), bool) for w in widths[1:]]
    dW, db = [np.empty_like(w) for w in W], [np.empty_like(v) for v in b]
    X, y = data(widths, rows)
    every, column = np.arange(rows), np.empty((rows, 1), np.float32)

    def step() -> Any:
        below = X
        for i in range(depth):
            np.matmul(below, W[i], A[i])
            np.add(A[i], b[i], A[i])
            if i < depth - 1:
                np.maximum(A[i], 0, out=A[i])
            below = A[i]
        Z = A[-1]
        np.maximum.reduce(Z, axis=1, keepdims=True, out=column)
        np.subtract(Z, column, Z)
        picked = Z[every, y]
        np.exp(Z, Z)
        np.add.reduce(Z, axis=1, keepdims=True, out=column)
        value = (np.log(column[:, 0]) - picked).mean()
        np.divide(Z, column, Z)
        Z[every, y] -= 1
        np.divide(Z, rows, Z)
        dZ = Z
        for i in range(depth - 1, -1, -1):
            np.matmul((A[i - 1] if i else X).T, dZ, dW[i])
            np.add.reduce(dZ, axis=0, keepdims=True, out=db[i])
            if i:
                np.matmul(dZ, W[i].T, dX[i - 1])
                np.greater(A[i - 1], 0, mask[i - 1])
                np.multiply(dX[i - 1], mask[i - 1], dX[i - 1])
                dZ = dX[i - 1]
        return float(value)

    return step


def products(widths: tuple[int, ...], rows: int) -> Step:
    """The matrix products alone: what no implementation on this BLAS can go below."""
    rng = np.random.default_rng(0)
    A = [rng.normal(size=(rows, w)).astype(np.float32) for w in widths]
    dA = [np.empty_like(a) for a in A]
    W = [rng.normal(size=pair).astype(np.float32) for pair in pairwise(widths)]
    dW = [np.empty_like(w) for w in W]

    def step() -> None:
        for i, w in enumerate(W):
            np.matmul(A[i], w, dA[i + 1])
            np.matmul(A[i].T, A[i + 1], dW[i])
            if i:
                np.matmul(A[i + 1], w.T, dA[i])

    return step


def held(step: Step, passes: int) -> tuple[int, int]:
    """Blocks and bytes that NumPy and gpunn hold after further passes and did not before."""
    watched = [tracemalloc.Filter(True, pattern) for pattern in ("*/gpunn/*", "*/numpy/*", "<string>")]
    step()
    tracemalloc.start()
    for _ in range(20):
        step()
    gc.collect()
    before = tracemalloc.take_snapshot().filter_traces(watched)
    for _ in range(passes):
        step()
    gc.collect()
    growth = tracemalloc.take_snapshot().filter_traces(watched).compare_to(before, "lineno")
    tracemalloc.stop()
    return sum(g.count_diff for g in growth), sum(g.size_diff for g in growth)


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for widths, batch in CASES:
        case = f"{'-'.join(map(str, widths))} b{batch}"
        say(f"passes: {case}")
        steps = {
            "gpunn": ours(widths, batch, recorded=True),
            "sketch": sketch(widths, batch),
            "products alone": products(widths, batch),
            "gpunn, call by call": ours(widths, batch, recorded=False),
        }
        apart = abs(steps["gpunn"]() - steps["sketch"]())
        own, *others = timed("passes", case, {name: Calls(step) for name, step in steps.items()}, setting)
        further = 100 if setting.quick or batch >= 1000 else 1000
        blocks, size = held(steps["gpunn"], further)
        own.details = {
            "times the sketch's time": own.median / others[0].median,
            f"held after {further} further passes:": f"{blocks} blocks, {size} bytes",
            "losses apart by": f"{apart:.1e}",
        }
        rows += [own, *others]
    return rows


if __name__ == "__main__":
    alone("passes")
