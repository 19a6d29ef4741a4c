"""What does a step cost that has a user's layer in it, beside the same step with the same layer inside gpunn?

    python -m benchmarks.layers

64-64-10 with ReLU, Adam and the README's `Gain` behind the hidden layer, batches of 32. The three have one forward and
one backward method; what differs is whose class it is, and, of the last, that it calls NumPy itself, so that its steps
run without a record. Trainings of five epochs, 1,000 steps, are whole calls of `fit`, with the trial of the layer
before them, which takes some milliseconds; their weights must be the same, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import Case, data
from benchmarks.command import alone
from benchmarks.harness import REFUSED, Calls, DisagreementError, Row, Setting, compared, say
from gpunn.backends import formulas
from gpunn.frame import Plan
from gpunn.parameters import Parameter
from gpunn.types import COLUMNS, Array, Shape

CASE, EPOCHS = Case((64, 64, 10), 32), 5


@dataclass(frozen=True)
class UsersGain(gn.Layer):
    """A = X * G;  dG = Σ dA * X over the examples,  dX = dA * G."""

    def plan(self, shape: Shape) -> Plan:
        G = Parameter((1, *shape), gn.initializers.Constant(1.0), decay=False)
        return Plan(output=shape, parameters={"G": G}, buffers={"A": shape}, backward={"dX": shape})

    def forward(self, t: Any, X: Array) -> Array:
        t.X = X
        t.ops.elementwise(formulas.multiply, (X, t.G), (t.A,))
        return t.A

    def backward(self, t: Any, dA: Array) -> Array | None:
        t.ops.sum_product(dA, t.X, COLUMNS, out=t.dG)
        if t.wants_dX:
            t.ops.elementwise(formulas.multiply, (dA, t.G), (t.dX,))
        return t.dX if t.wants_dX else None


@dataclass(frozen=True)
class OwnGain(UsersGain):
    """The same as if it were gpunn's own."""

    __module__ = "gpunn.layers"


@dataclass(frozen=True)
class NumpyGain(UsersGain):
    """The same, but it calls NumPy."""

    def forward(self, t: Any, X: Array) -> Array:
        t.X = X
        return np.multiply(X, t.G, out=t.A)


KINDS = {"gpunn's own": OwnGain, "a user's": UsersGain, "a user's, with NumPy": NumpyGain}


def run(setting: Setting) -> list[Row]:
    say("layers: a user's beside gpunn's own")
    makers = {name: partial(trainings, kind, setting) for name, kind in KINDS.items()}
    return compared("layers", f"{CASE} with Gain, {EPOCHS} epochs", makers, setting)


def trained(kind: type[gn.Layer], setting: Setting) -> Array:
    """The weights after all epochs."""
    X, y = data(CASE, "cpu")
    X, y = (X[:640], y[:640]) if setting.quick else (X, y)
    net = gn.Network([gn.Dense(64, "relu"), kind(), gn.Dense(10)], 64, device=setting.device)
    net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(), epochs=EPOCHS, batch_size=CASE.batch, progress=False)
    return net.ops.to_host(net.vector)


def trainings(kind: type[gn.Layer], setting: Setting) -> Calls:
    if trained(kind, setting).tobytes() != trained(OwnGain, setting).tobytes():
        raise DisagreementError(f"{REFUSED}: its weights are not those of gpunn's own layer")
    return Calls(partial(trained, kind, setting))


if __name__ == "__main__":
    alone("layers")
