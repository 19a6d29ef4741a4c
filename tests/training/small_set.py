"""A small set of examples, networks for it, and a layer that notes the batches which they are trained on."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.frame import Frame, Plan

ROWS, FEATURES, CLASSES = 50, 3, 3
LOSS = gn.CrossEntropy()
ALWAYS = {"loss", "rate", "seconds", "examples_per_second"}

rng = np.random.default_rng(0)
X = np.hstack([np.arange(ROWS)[:, None], rng.normal(size=(ROWS, FEATURES - 1))])  # the first column numbers the rows
Y = rng.normal(size=(ROWS, 2))
LABELS = (X[:, 1:] @ rng.normal(size=(FEATURES - 1, CLASSES))).argmax(axis=1)
WEIGHT = rng.uniform(0.1, 3.0, ROWS)
INPUTS = X * [0.01, 1.0, 1.0]  # for networks without a spy: no number is large

RICH = (gn.Dense(5, bias=False), gn.BatchNorm(activation="relu"), gn.Dropout(0.3), gn.GaussianNoise(0.1))

hosts = pytest.mark.parametrize("backend", ["cpu", "reference"], indirect=True)

SEEN: list[Any] = []


@dataclass(frozen=True)
class Spy(gn.Layer):
    """Notes the inputs of each training batch and passes them on, the numbers of rows made small."""

    def plan(self, shape: Any) -> Plan:
        return Plan(output=shape, buffers={"A": shape})

    def forward(self, t: Frame, X: Any) -> Any:
        if t.training:
            SEEN.append(X.copy())
        t.A[...] = X
        t.A[..., 0] *= 0.01
        return t.A

    def backward(self, t: Frame, dA: Any) -> Any:
        return dA


def network(backend: Any = "cpu", *layers: gn.Layer, outputs: int = CLASSES, **options: Any) -> gn.Network:
    SEEN.clear()
    every = [Spy(), *(layers or (gn.Dense(5, "tanh"),)), gn.Dense(outputs)]
    return gn.Network(every, FEATURES, device=backend, **({"dtype": "float64"} | options))


def train(net: gn.Network, X: Any = X, y: Any = LABELS, **options: Any) -> gn.History:
    return net.fit(X, y, **({"loss": LOSS, "optimizer": gn.SGD(0.1), "epochs": 2, "keep": "last"} | options))


def batches() -> list[list[int]]:
    """The row numbers of each training batch that was seen, in order."""
    return [batch[:, 0].astype(int).tolist() for batch in SEEN]


def flat(several: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(several))


def vector(net: gn.Network) -> Any:
    return net.ops.to_host(net.vector)


def values(net: gn.Network) -> dict[str, Any]:
    return {name: net.ops.to_host(view) for name, view in net.parameters.items()}


def plain(backend: Any, *layers: gn.Layer, outputs: int = CLASSES, **options: Any) -> gn.Network:
    """A network without a spy, for backends on which a spy cannot read the arrays."""
    every = [*(layers or (gn.Dense(5, "tanh"),)), gn.Dense(outputs)]
    return gn.Network(every, FEATURES, device=backend, **({"dtype": "float64"} | options))


class Steps(gn.Callback):
    """Counts updates."""

    def __init__(self, stop: int = 0) -> None:
        self.count, self.stop = 0, stop

    def on_step(self, run: Any) -> None:
        self.count += 1
        if self.count == self.stop:
            run.stop("counted enough")
