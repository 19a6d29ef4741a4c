"""The pieces in which an estimator's training differs: scikit-learn's objective, order of examples and rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import elementwise
from gpunn.engine import Engine
from gpunn.estimators.rules import Rules
from gpunn.losses import Loss
from gpunn.optimizers import Optimizer
from gpunn.regularization import Constraints, HalfL2, half_l2_gradient
from gpunn.training.batches import Examples, Loader, Order
from gpunn.training.best import Best
from gpunn.training.full_batch import Objective
from gpunn.training.history import History
from gpunn.training.judge import Record
from gpunn.training.source import DeviceSet, updates_of
from gpunn.training.standing import Standing
from gpunn.training.step import Gradient, TrainingStep
from gpunn.types import ROWS, Array

TINY = 1e-37
BLOCK = 1 << 16  # rows of a full batch that are computed at once


@elementwise
def to_mean_one(xp: Any, weight: Any, mass: Any, rows: Any) -> Any:
    return weight * (rows / xp.maximum(mass, TINY))


@elementwise
def per_mass(xp: Any, mass: Any, alpha: Any) -> Any:
    """A batch whose weights are all 0 changes nothing; its penalty is 0, too."""
    return xp.where(mass > 0.0, alpha / xp.maximum(mass, TINY), 0.0 * mass)


@elementwise
def add_half_square(xp: Any, total: Any, square: Any, strength: Any, factor: Any) -> Any:
    return total + (0.5 * factor) * strength * square


class BatchLoader(Loader):
    """Batches whose sample weights have mean 1, so that the mean of a loss is a weighted average; sparse rows are made
    dense.

    `strength` is α / Σw, by which scikit-learn multiplies the weights of the network in the gradient.
    """

    def __init__(self, network: Engine, order: Order, rows: int, cursor: Array, alpha: float) -> None:
        super().__init__(network, order, rows, cursor)
        self.rows, self.alpha = rows, alpha
        self.mass, self.strength = None, alpha / rows
        if self.weight is not None:
            self.mass, self.strength = (network.ops.zeros((1,), network.dtype) for _ in range(2))

    def load(self) -> None:
        super().load()
        if self.mass is not None:
            self.ops.total(self.weight, 1.0, out=self.mass.reshape(()))
            self.ops.elementwise(to_mean_one, (self.weight, self.mass, float(self.rows)), (self.weight,))
            self.ops.elementwise(per_mass, (self.mass, self.alpha), (self.strength,))

    def load_inputs(self) -> None:
        if isinstance(self.data.X, np.ndarray) or self.ops.owns(self.data.X):
            super().load_inputs()
        else:
            start = int(self.cursor[0])
            self.data.X[self.order[start : start + self.rows]].toarray(out=self.X)


class ShuffledSet(DeviceSet):
    """Batches in the order of the rows, or in that which `shuffle` makes of the last epoch's order.

    Sparse inputs stay on the host, and SciPy makes them dense batch by batch.
    """

    def __init__(
        self, network: Engine, data: Examples, batch_size: int, *, alpha: float, shuffle: Callable[[Array], None] | None
    ) -> None:
        cut = partial(updates_of, batch_size=batch_size, smallest=network.smallest_batch)
        super().__init__(network, data, cut, "sequential", partial(BatchLoader, alpha=alpha))
        self.by_operations = isinstance(data.X, np.ndarray) or network.ops.owns(data.X)
        self.shuffle, self.rows = shuffle, np.arange(data.size)

    def begin(self, epoch: int, first_update: int = 0) -> None:
        super().begin(epoch, first_update)
        if self.shuffle is not None:
            places = np.arange(self.size)
            self.shuffle(places)
            self.rows = self.rows[places]
            rows = self.rows if isinstance(self.order.rows, np.ndarray) else self.ops.from_host(self.rows)
            self.ops.copy(rows, out=self.order.rows)

    def loader(self, rows: int) -> Loader:
        self.last_loader = super().loader(rows)
        return self.last_loader


class BatchPenalty(Constraints):
    """½ α ‖W‖² / Σ w of the batch that was loaded last: adds its gradient, and its value to the reported loss.

    W are the weights before each update. The value counts `outputs` times, for losses that are reported as the mean
    over outputs.
    """

    def __init__(self, network: Engine, source: ShuffledSet, total: Array, alpha: float, outputs: int) -> None:
        super().__init__(network.ops, network.store)
        self.ops, self.source, self.total, self.alpha, self.outputs = network.ops, source, total, alpha, outputs
        decaying = slice(0, network.store.decaying)
        self.W, self.dW = network.store.values[decaying], network.store.gradients[decaying]
        self.square = network.ops.zeros((1, 1), network.dtype)

    def before(self, t: Any = None) -> None:
        if not self.alpha:
            return
        loader = self.source.last_loader
        assert isinstance(loader, BatchLoader)
        self.ops.elementwise(half_l2_gradient, (self.W, self.dW, loader.strength), (self.dW,))
        self.ops.sum_product(self.W[None], self.W[None], ROWS, out=self.square)
        square, factor = self.square.reshape(-1), float(loader.rows * self.outputs)
        self.ops.elementwise(add_half_square, (self.total, square, loader.strength, factor), (self.total,))


def step_by_batches(
    network: Engine, data: Examples, loss: Loss, optimizer: Optimizer, batch_size: int,
    *, alpha: float, outputs: int, shuffle: Callable[[Array], None] | None,
) -> TrainingStep:  # fmt: skip
    """Steps on batches of (Σ w ℓ + ½ α ‖W‖²) / Σ w."""
    source = ShuffledSet(network, data, batch_size, alpha=alpha, shuffle=shuffle)
    gradient = Gradient(network, source, loss, {})
    total = gradient.measures.meters.rows["loss"]
    return TrainingStep(gradient, BatchPenalty(network, source, total, alpha, outputs), optimizer)


def objective(network: Engine, data: Examples, loss: Loss, strength: float, *, outputs: int) -> Objective:
    """Σ w ℓ / Σ w + ½ α ‖W‖² / Σ w of the whole set; `data.weight` has mean 1, and `strength` is α / Σ w.

    In the loss that is told the penalty counts `outputs` times.
    """
    batch = min(data.size, BLOCK)
    cut = partial(updates_of, batch_size=batch, smallest=network.smallest_batch, accumulate=data.size)
    gradient = Gradient(network, DeviceSet(network, data, cut, "sequential"), loss, {})
    return Objective(gradient, Constraints(network.ops, network.store, HalfL2(strength)), penalty_factor=outputs)


class Validation:
    """The loss and the score of a held-out set after each epoch; `score` gets the outputs on the host."""

    def __init__(
        self, network: Engine, X: Any, y: Array, weight: Array | None, loss: Loss, score: Callable[[Array], float]
    ) -> None:
        self.network, self.X, self.y, self.weight, self.loss, self.score = network, X, y, weight, loss, score
        self.size = X.shape[0]
        chunk = min(network.chunk(None), self.size)
        self.chunks = [slice(start, min(start + chunk, self.size)) for start in range(0, self.size, chunk)]
        self.outputs = np.empty((self.size, *network.outputs), network.dtype)
        self.total = network.ops.zeros((1,), np.float64)
        self.mass = self.size if weight is None else float(network.ops.to_host(weight).sum())

    def run(self) -> None:
        network, ops = self.network, self.network.ops
        self.total[...] = 0.0
        for rows in self.chunks:
            X = self.X[rows] if ops.owns(self.X) else self.X[rows].toarray()
            batch_pass = network.compile(X.shape[0], self.loss, training=False, backward=False)
            A = batch_pass.forward(network.on_device(X))
            weight = None if self.weight is None else self.weight[rows]
            self.total += batch_pass.value(A, self.y[rows], weight) * float(X.shape[0])
            self.outputs[rows] = ops.to_host(A)

    def read(self) -> dict[str, Any]:
        loss = self.network.ops.to_host(self.total) / self.mass
        return {"loss": loss, "score": np.array([self.score(self.outputs)])}


class RulesJudge:
    """Judges epochs by `Rules`; with early stopping, the weights of the best score are restored at the end.

    `examples` is the size of an epoch. `restores`: do so even if the rules have not ended the training.
    """

    def __init__(
        self, network: Engine, rules: Rules, examples: int, *, outputs: int, best: Best | None, restores: bool
    ) -> None:
        self.rules, self.examples, self.outputs, self.restores = rules, examples, outputs, restores
        self.best = best or Best(network, latest=False, before=False)

    def begin(self) -> Standing:
        return Standing(best=[None], stopped=[""], factors=[self.rules.factor])

    def judge(self, standing: Standing, record: Record, history: History, going: Array, first_bad: Array) -> None:
        if any(standing.stopped):  # the loss is not finite
            return
        loss, score, validation_loss = (
            float(record[name][0]) if name in record else None
            for name in ("loss", "validation_score", "validation_loss")
        )
        assert loss is not None
        mean = None if validation_loss is None else validation_loss / self.outputs
        better = np.array([self.rules.judge(self.examples, loss / self.outputs, score, mean)])
        standing.factors = [self.rules.factor]
        if self.rules.early_stopping:
            self.best.take(better)
            history.mark_best(better)
        if self.rules.ended:
            standing.stop(self.rules.reason)

    def keep_last(self, standing: Standing, going: Array) -> None:
        """Do nothing: a single network keeps its last weights anyway."""

    def to_restore(self, standing: Standing) -> Array:
        known = self.rules.early_stopping and math.isfinite(self.rules.best_score)
        return np.array([known and (self.restores or self.rules.ended)])
