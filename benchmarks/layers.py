"""What does a step cost that has a user's layer in it, beside the same step with the same layer inside gpunn?

    python -m benchmarks.layers

64-64-10 with ReLU, Adam and the README's `Gain` behind the hidden layer, batches of 32. The three have one forward and
one backward method; what differs is whose class it is, and, of the last, that it calls NumPy itself, so that its steps
run without a record. Trainings of five epochs, 1,000 steps, are whole calls of `fit`, with the trial of the layer
before them, which takes some milliseconds; their weights must be the same, bit for bit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import Case, data
from benchmarks.command import alone
from benchmarks.harness import REFUSED, Calls, DisagreementError, Row, Setting, compared, say
from gpunn.types import Array
from gpunn.value import Value

CASE, EPOCHS = Case((64, 64, 10), 32), 5
README = Path(__file__).resolve().parents[1] / "README.md"


@cache
def gain(module: str) -> Any:
    """The README's layer, as a class of this module."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    space: dict[str, Any] = {"gn": gn, "__name__": module}
    exec(next(block for block in blocks if "class Gain" in block), space)
    Value.known.pop((gn.Layer.family, "Gain"))  # no file names it, and others may have a layer of this name
    return space["Gain"]


def numpy_gain() -> Any:
    """A user's layer that calls NumPy."""

    @dataclass(frozen=True)
    class NumpyGain(gain("users")):  # type: ignore[misc]
        def forward(self, t: Any, X: Array) -> Array:
            t.X = X
            return np.multiply(X, t.G, out=t.A)

    return NumpyGain


KINDS = {
    "gpunn's own": partial(gain, "gpunn.layers"), "a user's": partial(gain, "users"),
    "a user's, with NumPy": numpy_gain,
}  # fmt: skip


def run(setting: Setting) -> list[Row]:
    say("layers: a user's beside gpunn's own")
    makers = {name: partial(trainings, make, setting) for name, make in KINDS.items()}
    return compared("layers", f"{CASE} with Gain, {EPOCHS} epochs", makers, setting)


def trained(kind: Any, setting: Setting) -> Array:
    """The weights after all epochs."""
    X, y = data(CASE, "cpu")
    X, y = (X[:640], y[:640]) if setting.quick else (X, y)
    net = gn.Network([gn.Dense(64, "relu"), kind(), gn.Dense(10)], 64, device=setting.device)
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(), epochs=EPOCHS, batch_size=CASE.batch, progress=False)
    return net.ops.to_host(net.vector)


def trainings(make: Any, setting: Setting) -> Calls:
    kind = make()
    if trained(kind, setting).tobytes() != trained(gain("gpunn.layers"), setting).tobytes():
        raise DisagreementError(f"{REFUSED}: its weights are not those of gpunn's own layer")
    return Calls(partial(trained, kind, setting))


if __name__ == "__main__":
    alone("layers")
