"""Layers that a record would not repeat, each in a way of its own, beside `Gain`, which works as a layer should."""

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.backends import formulas
from gpunn.frame import Plan
from gpunn.parameters import Parameter
from gpunn.types import COLUMNS


@dataclass(frozen=True)
class Gain(gn.Layer):
    """A = X * G, through `t.ops` only."""

    def plan(self, shape: Any) -> Plan:
        G = Parameter((1, *shape), gn.initializers.Constant(1.0), decay=False)
        return Plan(output=shape, parameters={"G": G}, buffers={"A": shape}, backward={"dX": shape})

    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.multiply, (X, t.G), (t.A,))
        return t.A

    def backward(self, t: Any, dA: Any) -> Any:
        t.ops.sum_product(dA, t.X, COLUMNS, out=t.dG)
        t.ops.elementwise(formulas.multiply, (dA, t.G), (t.dX,))
        return t.dX


@dataclass(frozen=True)
class CallsNumpy(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        return np.multiply(X, t.G, out=t.A)


@dataclass(frozen=True)
class CallsNumpyInBackward(Gain):
    def backward(self, t: Any, dA: Any) -> Any:
        np.einsum("nd,nd->d", dA, t.X, out=t.dG[0])
        t.ops.elementwise(formulas.multiply, (dA, t.G), (t.dX,))
        return t.dX


@dataclass(frozen=True)
class ReturnsANewArray(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        return X * t.G


@dataclass(frozen=True)
class WritesToItsWeights(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.G[...] = 2.0
        return super().forward(t, X)


@dataclass(frozen=True)
class LooksAtANumber(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        if float(X[0, 0]) > 1e9:
            return X
        return super().forward(t, X)


@dataclass(frozen=True)
class BranchesOnASum(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        return X if X.sum() > 1e9 else super().forward(t, X)


@dataclass(frozen=True)
class CompilesANumberIn(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.multiply, (X, X.max().item()), (t.A,))
        return t.A


@dataclass(frozen=True)
class CountsInItsFrame(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.count = getattr(t, "count", 0) + 1
        return super().forward(t, X)


@dataclass(frozen=True)
class CountsInAField(Gain):
    seen: list[int] = field(default_factory=list)

    def forward(self, t: Any, X: Any) -> Any:
        self.seen.append(1)
        return super().forward(t, X)


@dataclass(frozen=True)
class CountsInItsClass(Gain):
    counter = itertools.count()

    def forward(self, t: Any, X: Any) -> Any:
        if next(self.counter) == 1000:  # long after the trial
            return X
        return super().forward(t, X)


STEPS = {"done": 0}


@dataclass(frozen=True)
class CountsInItsModule(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        STEPS["done"] += 1
        return super().forward(t, X)


def counted() -> Any:
    steps = 0

    @dataclass(frozen=True)
    class CountsInAClosure(Gain):
        def forward(self, t: Any, X: Any) -> Any:
            nonlocal steps
            steps += 1
            return super().forward(t, X)

    return CountsInAClosure


@dataclass(frozen=True)
class DrawsInPython(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.multiply, (X, random.random()), (t.A,))
        return t.A


GENERATOR = np.random.default_rng(0)


@dataclass(frozen=True)
class BringsItsOwnNoise(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.add, (X, GENERATOR.normal(size=X.shape)), (t.A,))
        return t.A


@dataclass(frozen=True)
class DrawsAndSeldomUsesIt(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        return X if GENERATOR.random() < 1e-9 else super().forward(t, X)


@dataclass(frozen=True)
class TakesMemory(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X, A = X, t.ops.empty(X.shape, X.dtype)
        t.ops.elementwise(formulas.multiply, (X, t.G), (A,))
        return A


@dataclass(frozen=True)
class WorksThroughTheLibrary(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        return t.ops.xp.multiply(X, t.G, out=t.A)


@dataclass(frozen=True)
class HandsItToNumpyUnseen(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        A = np.asarray(t.A)
        A[...] = np.asarray(X)
        return t.A


@dataclass(frozen=True)
class ReshapesIntoACopy(Gain):
    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.multiply, (X.T.reshape(*X.shape), t.G), (t.A,))
        return t.A


# What is said of each.
OFFENDERS: dict[Any, str] = {
    CallsNumpy: "calls NumPy's multiply",
    CallsNumpyInBackward: "calls NumPy's einsum",
    ReturnsANewArray: "calculates with an array",
    WritesToItsWeights: "writes to an array",
    LooksAtANumber: "looks at a number",
    BranchesOnASum: "asks an array for its sum",
    CompilesANumberIn: "asks an array for its max",
    CountsInItsFrame: "does something else each time",
    CountsInAField: "keeps count in Python",
    CountsInItsClass: "keeps count in Python",
    CountsInItsModule: "keeps count in Python",
    counted(): "keeps count in Python",
    DrawsInPython: "does something else each time",
    BringsItsOwnNoise: "hands elementwise a ndarray of its own",
    DrawsAndSeldomUsesIt: "keeps count in Python",
    TakesMemory: "asks the backend for empty",
    WorksThroughTheLibrary: "asks the backend for xp",
    HandsItToNumpyUnseen: "hands an array to NumPy",
    ReshapesIntoACopy: "asks for a copy",
}


FACTOR = {"now": 2.0}


@dataclass(frozen=True)
class Tempered(Gain):
    """Its factor is a number of Python's, compiled into the step."""

    def forward(self, t: Any, X: Any) -> Any:
        t.X = X
        t.ops.elementwise(formulas.scaled_product, (X, t.G, FACTOR["now"]), (t.A,))
        return t.A

    def backward(self, t: Any, dA: Any) -> Any:
        dX = super().backward(t, dA)
        t.ops.elementwise(formulas.multiply, (dX, FACTOR["now"]), (dX,))
        return dX
