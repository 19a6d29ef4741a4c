"""The nets that are timed, their data, and what every competitor is given of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

RATES = {"SGD": 0.01, "Adam": 1e-3}
DROPOUT = 0.1
MOST_BATCHES, FEWEST_BATCHES = 200, 8
MOST_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}  # of X, where the fewest batches take no more


@dataclass(frozen=True)
class Case:
    """A multi-layer perceptron with ReLU, its batch and its optimizer; a single output is a regression.

    `norm` puts batch normalisation before each hidden layer's ReLU, `dropout` comes after it.
    """

    widths: tuple[int, ...]
    batch: int
    optimizer: str = "Adam"
    norm: bool = False
    dropout: float = 0.0
    dtype: str = "float32"

    def __str__(self) -> str:
        parts = ["-".join(map(str, self.widths)), f"b{self.batch}", self.optimizer]
        parts += ["BatchNorm"] * self.norm + [f"Dropout {self.dropout:g}"] * (self.dropout > 0)
        return " ".join(parts + [self.dtype] * (self.dtype != "float32"))

    @property
    def regression(self) -> bool:
        return self.widths[-1] == 1

    @property
    def rate(self) -> float:
        return RATES[self.optimizer]

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """The (m, k, n) of a step's matrix products: A = X W, dW = X' dA, and, but for the first layer, dX = dA W'."""
        b = self.batch
        pairs = list(zip(self.widths, self.widths[1:]))
        return [
            shape
            for i, (into, out) in enumerate(pairs)
            for shape in [(b, into, out), (into, b, out), (b, out, into)][: 2 if i == 0 else 3]
        ]

    @property
    def flops(self) -> int:
        """Operations of a step's matrix products."""
        return sum(2 * m * k * n for m, k, n in self.products)

    def without_dropout(self) -> Case:
        return replace(self, dropout=0.0)

    def extended(self) -> Case:
        """With batch normalisation and dropout."""
        return replace(self, norm=True, dropout=DROPOUT)


GRID = (
    Case((64, 64, 10), 32),
    Case((784, 256, 10), 128),
    Case((784, 512, 512, 10), 128),
    Case((784, 512, 512, 10), 1024),
    Case((128, 256, 256, 256, 1), 256),
    Case((1024, 2048, 2048, 1000), 512),
)
SMALL_ON_CUDA = Case((784, 128, 10), 128)
LARGE_ON_CUDA = Case((4096, 4096, 4096, 4096, 1000), 8192, dtype="bfloat16")


def cases(kind: str, quick: bool, selection: bool) -> list[Case]:
    """The grid with both optimizers, plain and extended, the most telling cases first.

    The large net in half precision has only its plain form.
    """
    nets = [SMALL_ON_CUDA, *GRID] if kind == "cuda" else list(GRID)
    if quick:
        return [nets[0].extended(), replace(nets[1], optimizer="SGD")]
    large = [LARGE_ON_CUDA] if kind == "cuda" else []
    adam = [nets[0], *large, *nets[1:], *(net.extended() for net in nets)]
    return adam if selection else adam + [replace(case, optimizer="SGD") for case in adam]


def data(case: Case, kind: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Whole batches of normal numbers with random targets.

    Every input occurs twice, with targets of its own, so that no net can bring the loss to 0: gradients of a loss
    that vanishes are subnormal numbers, which slow everything.
    """
    row = 4 * case.widths[0] * case.batch
    batches = 2 * math.ceil(min(MOST_BATCHES, max(FEWEST_BATCHES, MOST_BYTES[kind] // row)) / 2)
    rng = np.random.default_rng(0)
    half = rng.standard_normal((batches * case.batch // 2, case.widths[0]), np.float32)
    X = np.concatenate([half, half])
    if case.regression:
        return X, rng.standard_normal((len(X), 1), np.float32)
    return X, rng.integers(0, case.widths[-1], len(X))


@dataclass(frozen=True)
class Problem:
    """What a competitor is given: all of it on the host, to be brought to its device before anything is timed."""

    case: Case
    X: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    order: np.ndarray[Any, Any]  # rows of X as they are drawn, batch after batch
    weights: list[dict[str, np.ndarray[Any, Any]]]  # of each layer: W (in, out) and b (1, out), or G and B instead of b

    @property
    def batches(self) -> int:
        return len(self.order) // self.case.batch


@dataclass(frozen=True)
class Training:
    """A whole training with Adam of a classifier, from NumPy arrays to the mean loss of every epoch.

    Everybody starts with gpunn's weights for the seed, which it draws itself. `after` is called at the end of each
    epoch with the function that tells the classes of inputs.
    """

    case: Case
    X: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    epochs: int
    weights: list[dict[str, np.ndarray[Any, Any]]]
    shuffle: bool = True
    seed: int = 0
    after: Callable[[Callable[[Any], Any]], None] | None = None

    def ended(self, classes: Callable[[Any], Any]) -> None:
        if self.after is not None:
            self.after(classes)
