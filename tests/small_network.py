"""A small network and its data, for tests of the network itself."""

from typing import Any

import numpy as np

import gpunn as gn
from tests.conftest import backend_named

rng = np.random.default_rng(0)
X = rng.normal(size=(10, 3))
Y = rng.normal(size=(10, 2))
LABELS = rng.integers(0, 2, 10)
SQUARED, CROSS = gn.SquaredError(), gn.CrossEntropy()


def layers() -> list[gn.Layer]:
    return [gn.Dense(5, "tanh"), gn.BatchNorm(), gn.Dropout(0.25), gn.Dense(2)]


def make(backend: Any = None, inputs: Any = 3, **options: Any) -> gn.Network:
    return gn.Network(layers(), inputs, device=backend or backend_named("cpu"), **options)


WHOLE = "expected a whole number >= 1, got {}; give such a number"
