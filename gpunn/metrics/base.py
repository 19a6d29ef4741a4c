"""A metric is the mean of a score for each example, computed on the device, or a number for a whole set.

Weights of examples do not change metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.fields import CheckedFields
from gpunn.losses import Loss
from gpunn.types import Array, Shape

Rows: TypeAlias = Callable[[Array, Array, Array], None]
EXCLUSIVE = ("classes", "one_hot")  # targets of losses with one class for each example


@dataclass(frozen=True)
class Metric(CheckedFields):
    """`rows(ops, A, y, decision, out)` writes the score of each example to `out` (..., n, 1)."""

    named: ClassVar[dict[str, Metric]] = {}
    needs_targets: ClassVar[bool] = False  # whether `finish` needs the targets of the whole set
    whole: ClassVar[bool] = False  # whether it is computed from the whole set: see `WholeSet`
    maximise: ClassVar[bool] = False  # whether larger values are better
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        name = vars(cls).get("name")  # only its own name: a base class keeps its name
        if name and isinstance(name, str):
            Metric.named[name] = cls()

    def prepared(self, ops: Backend, shape: Shape, dtype: Any, loss: Loss) -> Rows:
        """A function of A, y and `out` that scores batches of this output shape; it allocates all its arrays here."""
        return lambda A, y, out: self.rows(ops, A, y, loss.decision, out)

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs a rows method")

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        """Raise an error unless it can score these targets, for outputs with `rank` axes."""

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        """Raise an error unless it makes sense with this loss, output shape and targets; `given` returns the targets
        as they were handed in."""

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        """The metric from the mean score; `y` are all targets of the set, `rank` counts the axes of one output."""
        return mean


@dataclass(frozen=True)
class WholeSet(Metric):
    """A metric of a whole set at once, computed on the host: `figure(y, P, exclusive)` gets NumPy arrays of one model.

    y are the targets as they were handed in. P is the result of `predict_probability`, or the outputs if the loss has
    no probabilities. `exclusive`: y holds one class for each example.
    """

    whole = True

    def figure(self, y: np.ndarray[Any, Any], P: np.ndarray[Any, Any], exclusive: bool) -> float:
        raise NotImplementedError(f"{type(self).__name__} needs a figure method")


def check_vector(name: str, rank: int) -> None:
    if rank != 1:
        raise ConfigurationError(
            f"metrics {name}",
            expected="outputs that are one vector for each example",
            got=f"outputs of {rank} axes",
            fix="end the network in Flatten()",
        )


def check_certain(name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
    """Raise an error unless the targets are classes, or zeros and ones."""
    y = given()
    rows = loss.target not in EXCLUSIVE or (y.ndim > 1 and y.shape[-1] == outputs[0])
    wrong = rows and not np.isin(y, (0, 1)).all()
    if wrong or (rows and loss.target in EXCLUSIVE and bool((y.sum(axis=-1) != 1).any())):
        raise ConfigurationError(
            f"metrics {name}",
            expected="classes, or zeros and ones",
            got=f"targets from {y.min():g} to {y.max():g}" if wrong else "rows with several ones, or none",
            fix="leave it out: it needs to know what is true",
        )
