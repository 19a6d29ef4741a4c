"""Metrics that are means of a score for each example; training measures them on the training set, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError
from gpunn.fields import whole
from gpunn.losses import Loss
from gpunn.metrics.base import EXCLUSIVE, Metric, Rows, check_certain, check_vector
from gpunn.types import ROWS, Array, Shape


@elementwise
def right_side(xp: Any, A: Any, y: Any, decision: Any) -> Any:
    """1 where output > decision says the same as target > 0.5, else 0."""
    return xp.where(xp.equal(A > decision, y > 0.5), 1.0, 0.0)


@dataclass(frozen=True)
class Accuracy(Metric):
    """The share of examples whose largest output is their class; for a single output, on the right side of `decision`.

    For several outputs that are each yes or no, as with `BinaryCrossEntropy`, the share of outputs on the right side.
    """

    name = "accuracy"
    maximise = True

    def prepared(self, ops: Backend, shape: Shape, dtype: Any, loss: Loss) -> Rows:
        if loss.target != "probabilities" or shape[-1] == 1:
            return super().prepared(ops, shape, dtype, loss)
        work, share = ops.empty(shape, dtype), 1.0 / shape[-1]

        def rows(A: Array, y: Array, out: Array) -> None:
            ops.elementwise(right_side, (A, y, loss.decision), (work,))
            ops.sum(work, ROWS, out=out)
            ops.elementwise(formulas.multiply, (out, share), (out,))

        return rows

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        """With a loss on numbers, targets must say what is true: a single 0 or 1, or one 1 in each row."""
        if loss.target != "numbers":
            return
        y = given()
        certain = bool(np.isin(y, (0, 1)).all())
        if not certain or (outputs[0] > 1 and bool((y.sum(axis=-1) != 1).any())):
            raise ConfigurationError(
                f"metrics {name}",
                expected=f"zeros and ones for {type(loss).__name__}"
                + ", with a single 1 in each row" * (outputs[0] > 1),
                got="rows with several ones, or none" if certain else f"targets from {y.min():g} to {y.max():g}",
                fix="use BinaryCrossEntropy() as the loss" if certain else "use r2 or rmse",
            )

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        check_vector(name, rank)

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.correct(A, y, decision, out=out)


@dataclass(frozen=True)
class RowError(Metric):
    """The mean of |a - y|, or of its square, over an example's outputs; targets need a number for each output."""

    power: ClassVar[int] = 2

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        if y.dtype != dtype or y.ndim <= rank:
            raise ConfigurationError(
                f"metrics {name}",
                expected="a target of one number for each output, of shape (n, ...)",
                got=f"{y.dtype} of shape {y.shape}",
                fix="use accuracy for classes",
            )

    def rows(self, ops: Backend, A: Array, y: Array, decision: float, out: Array) -> None:
        ops.row_error(A, y, self.power, out=out)


@dataclass(frozen=True)
class MeanSquaredError(RowError):
    """The mean of (a - y)²."""

    name = "mse"


@dataclass(frozen=True)
class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean of (a - y)², over all outputs together."""

    name = "rmse"

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        return np.sqrt(mean)


@dataclass(frozen=True)
class MeanAbsoluteError(RowError):
    """The mean of |a - y|."""

    name = "mae"
    power = 1


@dataclass(frozen=True)
class R2(RowError):
    """1 - Σ (a - y)² / Σ (y - mean y)², over all outputs together; 0 for a constant target that is not met."""

    name = "r2"
    maximise = True
    needs_targets = True

    def finish(self, mean: Array, y: np.ndarray[Any, Any], rank: int = 1) -> Array:
        examples, every = y.ndim - rank - 1, tuple(range(y.ndim - rank - 1, y.ndim))
        shifted = np.subtract(y, y.take([0], axis=examples), dtype=np.float64)  # exactly 0 where y is constant
        spread = np.square(shifted - shifted.mean(axis=examples, keepdims=True)).mean(axis=every)
        constant = spread == 0.0
        return np.where(constant, mean == 0.0, 1.0 - mean / np.where(constant, 1.0, spread))


@elementwise
def binary_log_loss(xp: Any, A: Any, y: Any, logits: Any, floor: Any) -> Any:
    """-(y log p + (1 - y) log(1 - p)) of one output, which is p or its log-odds."""
    if logits:
        return xp.maximum(A, 0.0) - A * y + xp.log1p(xp.exp(-xp.absolute(A)))
    return -(y * xp.log(xp.maximum(A, floor)) + (1.0 - y) * xp.log(xp.maximum(1.0 - A, floor)))


@elementwise
def floored_log(xp: Any, P: Any, floor: Any) -> Any:
    return xp.log(xp.maximum(P, floor))


@dataclass(frozen=True)
class LogLoss(Metric):
    """-log of the probability of the truth, the mean for several yes-or-no outputs; without label smoothing.

    Probabilities below the dtype's ε count as ε; from logits it is exact.
    """

    name = "log_loss"

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        if loss.target == "numbers":
            raise ConfigurationError(
                f"metrics {name}",
                expected="a loss that makes probabilities",
                got=type(loss).__name__,
                fix="use mse, or CrossEntropy() or BinaryCrossEntropy() as the loss",
            )

    def prepared(self, ops: Backend, shape: Shape, dtype: Any, loss: Loss) -> Rows:
        S, work, floor = ops.empty(shape, dtype), ops.empty(shape, dtype), float(np.finfo(dtype).eps)

        def classes(A: Array, y: Array, out: Array) -> None:
            ops.copy(A, out=S)
            if loss.link is None:
                ops.elementwise(floored_log, (S, floor), (S,))
            ops.softmax_cross_entropy(S, y, 0.0, None, 1.0, loss=out, dZ=work)

        def outputs(A: Array, y: Array, out: Array) -> None:
            ops.copy(A, out=S)
            ops.elementwise(binary_log_loss, (S, y, loss.link is not None, floor), (work,))
            ops.elementwise(formulas.multiply, (work, 1.0 / shape[-1]), (work,))
            ops.sum(work, ROWS, out=out)

        return classes if loss.target in EXCLUSIVE else outputs

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        check_vector(name, rank)


@elementwise
def ahead(xp: Any, A: Any, score: Any, column: Any, place: Any) -> Any:
    """1 for each class that ranks before the true one: it has a higher score, or the same score and a higher number."""
    tied = xp.logical_and(xp.equal(A, score), column > place)
    return xp.where(xp.logical_or(A > score, tied), 1.0, 0.0)


@elementwise
def within(xp: Any, count: Any, k: Any) -> Any:
    return xp.where(count < k, 1.0, 0.0)


@dataclass(frozen=True)
class TopK(Metric):
    """The share of examples whose class is among the k largest outputs: `TopK(5)` is "top_5"."""

    maximise = True
    field_rules = {"k": whole()}

    k: int

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"top_{self.k}"

    def check(self, name: str, y: Array, rank: int, dtype: Any) -> None:
        check_vector(name, rank)

    def fits(self, name: str, given: Callable[[], Array], loss: Loss, outputs: Shape) -> None:
        if loss.target not in EXCLUSIVE or self.k >= outputs[0]:
            raise ConfigurationError(
                f"metrics {name}",
                expected=f"CrossEntropy or NLLM on more than {self.k} classes",
                got=f"{type(loss).__name__} on {outputs[0]} outputs",
                fix="use accuracy, or a smaller k",
            )
        check_certain(name, given, loss, outputs)

    def prepared(self, ops: Backend, shape: Shape, dtype: Any, loss: Loss) -> Rows:
        S, work, T = (ops.empty(shape, dtype) for _ in range(3))
        score, place = (ops.empty((*shape[:-1], 1), dtype) for _ in range(2))
        shared = ops.empty(shape[-2:], dtype) if len(shape) > 2 else T  # for labels that all models share
        one_hot, column = ops.from_host(np.eye(shape[-1]), dtype), ops.from_host(np.arange(shape[-1])[None], dtype)

        def rows(A: Array, y: Array, out: Array) -> None:
            ops.copy(A, out=S)
            if y.dtype.kind in "iu" and y.ndim == len(shape) - 1:
                ops.gather(one_hot, y, out=T)
            else:
                ops.copy(ops.gather(one_hot, y, out=shared) if y.dtype.kind in "iu" else y, out=T)
            ops.sum_product(S, T, ROWS, out=score)
            ops.elementwise(formulas.multiply, (T, column), (work,))
            ops.sum(work, ROWS, out=place)
            ops.elementwise(ahead, (S, score, column, place), (work,))
            ops.sum(work, ROWS, out=out)
            ops.elementwise(within, (out, float(self.k)), (out,))

        return rows
