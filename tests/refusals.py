"""Examples, a network and the losses for tests of what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np

import gpunn as gn

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 1, 1, 0])
NOT_NUMBERS = "encode categories as integers, leave out or fill missing values, and pass numbers"
EVERY = "give every example the shape (3,)"
ONE_EACH = "give y one row for each example of X and one column for each output"
COUNT = "give the last layer one unit for each class, and count classes from 0"
SQUARED, CROSS, BINARY = gn.SquaredError(), gn.CrossEntropy(), gn.BinaryCrossEntropy()
CLASSES = (gn.CrossEntropy(), gn.NLLM())
PROBABILITIES = (gn.BinaryCrossEntropy(), gn.NLL())
NUMBERS = (gn.SquaredError(), gn.AbsoluteError(), gn.Huber())
ENDS = {gn.NLL: "sigmoid", gn.NLLM: "softmax"}

Y_USES: dict[str, Callable[[gn.Network, Any, Any, Any], Any]] = {
    "gradients": lambda network, X, y, loss: network.gradients(X, y, loss),
    "loss_of": lambda network, X, y, loss: network.loss_of(X, y, loss),
    "evaluate": lambda network, X, y, loss: network.evaluate(X, y, loss=loss, batch_size=2),
}


def network_on(backend: Any, end: str | None = None, **options: Any) -> gn.Network:
    """A network whose vectors, gradients and state are all other than 0."""
    network = gn.Network([gn.Dense(4, "tanh"), gn.BatchNorm(), gn.Dense(2, end)], 3, device=backend, **options)
    network.gradients(X, np.eye(2)[LABELS], gn.SquaredError())
    return network


def with_bad(value: float, *places: tuple[int, int]) -> np.ndarray:
    """X with some values replaced."""
    bad = X.copy()
    for place in places:
        bad[place] = value
    return bad
