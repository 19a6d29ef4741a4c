"""What a metric is: a score for each example, made on the device and averaged, or a figure of a whole set.

Weights of examples do not count in metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.fields import Checked
from gpunn.losses import Loss
from gpunn.types import Array, Shape

Rows: TypeAlias = Callable[[Array, Array, Array], None]
EXCLUSIVE = ("classes", "one_hot")  # targets of losses that know one class for each example


@dataclass(frozen=True)
class Metric(Checked):
    """`rows(ops, A, y, decision, out)` writes the score of each example to `out` (..., n, 1)."""

    named: ClassVar[dict[str, Metric]] = {}
    needs_targets: ClassVar[bool] = False  # whether `finish` looks at the whole set's target
    whole: ClassVar[bool] = False  # whether it is a figure of the whole set: see `WholeSet`
    maximise: ClassVar[bool] = False  # whether more of it is better
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        name = vars(cls).get("name")  # not that of one it is derived from, which keeps its name
        if name and isinstance(name, str):
            Metric.named[name] = cls()

    def prepared(self, ops: Backend, shape: Shape, dtype: Any, loss: Loss) -> Rows:
        """A function of A, y and `out` that scores batches of outputs of this shape; all its arrays are made here."""
        return lambda A, y, out: self.rows(ops, A, y, loss.decision, out)

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs a rows method")

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        """Refuse targets of outputs with `rank` axes that this cannot score."""

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        """Refuse a loss and outputs of a shape beside which it makes no sense, or targets, which `given`
        fetches as they were handed in."""

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        """The figure from the mean score; `y` is the whole set's target, `rank` that of one output."""
        return mean


@dataclass(frozen=True)
class WholeSet(Metric):
    """A figure of a whole set of one model: `figure(y, P, exclusive)` of NumPy arrays, made where the set is judged.

    y is the target as it was handed in and P what `predict_probability` gives, or the outputs where the loss has no
    probabilities; `exclusive` says that y holds one class for each example.
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
    """Refuse all targets but classes and zeros and ones."""
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
