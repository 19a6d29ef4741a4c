"""An estimator's training: gpunn's loop and steps, with scikit-learn's objective, order of examples and rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
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
from gpunn.training.full_batch import FullBatchTrainer
from gpunn.training.loop import Plan, Record, Run
from gpunn.training.probe import FlowProbe
from gpunn.training.step import Recipe, Trainer
from gpunn.types import ROWS, Array

TINY = 1e-37
BLOCK = 1 << 16  # rows of a full batch that are computed at once


@elementwise
def to_mean_one(xp: Any, weight: Any, mass: Any, rows: Any) -> Any:
    return weight * (rows / xp.maximum(mass, TINY))


@elementwise
def per_mass(xp: Any, mass: Any, alpha: Any) -> Any:
    """A batch of no weight says nothing, and so does its penalty."""
    return xp.where(mass > 0.0, alpha / xp.maximum(mass, TINY), 0.0 * mass)


@elementwise
def add_half_square(xp: Any, total: Any, square: Any, strength: Any, factor: Any) -> Any:
    return total + (0.5 * factor) * strength * square


class BatchLoader(Loader):
    """Batches whose weights have mean 1, so that the mean of a loss is its weighted average; of sparse inputs, dense.

    `strength` is α / Σw: what scikit-learn multiplies the weights of the network by in the gradient.
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

    def _load_inputs(self) -> None:
        if isinstance(self.data.X, np.ndarray) or self.ops.owns(self.data.X):
            super()._load_inputs()
        else:
            start = int(self.cursor[0])
            self.data.X[self.order[start : start + self.rows]].toarray(out=self.X)


class BatchTrainer(Trainer):
    """Steps on batches of (Σ w ℓ + ½ α ‖W‖²) / Σ w, drawn in the order that `shuffle` makes of the last one.

    The loss it reads has the penalty in it, of the weights before each update; the penalty counts `outputs` times,
    for losses that are reported as the mean over these.
    """

    def __init__(
        self, network: Engine, data: Examples, loss: Loss, optimizer: Optimizer, batch_size: int,
        *, alpha: float, outputs: int, shuffle: Callable[[Array], None] | None,
    ) -> None:  # fmt: skip
        self.alpha, self.counts, self.shuffle = alpha, outputs, shuffle
        self.rows = np.arange(data.size)
        super().__init__(
            network, data, loss, optimizer, Recipe(batch_size, "sequential", 1, False),
            constraints=Constraints(network.ops, network.store), metrics={}, measure_gradient=False,
        )  # fmt: skip
        decaying = slice(0, network.store.decaying)
        self.W, self.dW = network.store.values[decaying], network.store.gradients[decaying]
        self.square = network.ops.zeros((1, 1), network.dtype)

    def _prepare_source(self) -> None:
        self.order = Order(self.network, self.data, "sequential")
        loaders = {n: BatchLoader(self.network, self.order, n, self.cursor, self.alpha) for n in self.parts}
        self.loaders = {**loaders}
        self.strengths = {n: loader.strength for n, loader in loaders.items()}

    def _begin_source(self, epoch: int) -> None:
        if self.shuffle is not None:
            places = np.arange(self.data.size)
            self.shuffle(places)
            self.rows = self.rows[places]
            rows = self.rows if isinstance(self.order.rows, np.ndarray) else self.ops.from_host(self.rows)
            self.ops.copy(rows, out=self.order.rows)

    def _apply(self) -> None:
        if self.alpha:
            self._penalise()
        super()._apply()

    @cached_property
    def own(self) -> bool:
        """Sparse inputs are made dense by their own library."""
        return super().own and (isinstance(self.data.X, np.ndarray) or self.ops.owns(self.data.X))

    def _gradients(self, sizes: tuple[int, ...], probes: list[FlowProbe], draws: int = 1) -> None:
        self.size = sizes[0]  # each has a penalty of its own
        super()._gradients(sizes, probes, draws)

    def _penalise(self) -> None:
        strength = self.strengths[self.size]
        self.ops.elementwise(half_l2_gradient, (self.W, self.dW, strength), (self.dW,))
        self.ops.sum_product(self.W[None], self.W[None], ROWS, out=self.square)
        total, square = self.meters.rows["loss"], self.square.reshape(-1)
        factor = float(self.size * self.counts)
        self.ops.elementwise(add_half_square, (total, square, strength, factor), (total,))


class FullTrainer(FullBatchTrainer):
    """The whole set as one function of the weights, Σ w ℓ / Σ w + ½ α ‖W‖² / Σ w; `data.weight` has mean 1."""

    def __init__(
        self, network: Engine, data: Examples, loss: Loss, optimizer: Optimizer, *, strength: float, outputs: int
    ) -> None:
        self.counts = outputs
        batch = min(data.size, BLOCK)
        super().__init__(
            network, data, loss, optimizer,
            Recipe(batch, "sequential", math.ceil(data.size / batch), False),
            constraints=Constraints(network.ops, network.store, HalfL2(strength)), metrics={}, measure_gradient=False,
        )  # fmt: skip

    def value(self) -> float:
        """Loss and penalty at the network's present values, whose gradient is then in its gradient_vector."""
        return self._evaluate()

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        record = super().read(done)
        record["loss"] = record["loss"] + self.counts * self.ops.to_host(self.penalty)
        return record


class Validation:
    """The loss and the score of a held-out set after each epoch; `score` is given the outputs on the host."""

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
            part = self.X[rows] if ops.owns(self.X) else self.X[rows].toarray()
            run = network.compile(part.shape[0], self.loss, training=False, backward=False)
            A = run.forward(network.on_device(part))
            weight = None if self.weight is None else self.weight[rows]
            self.total += run.value(A, self.y[rows], weight) * float(part.shape[0])
            self.outputs[rows] = ops.to_host(A)

    def read(self) -> dict[str, Any]:
        loss = self.network.ops.to_host(self.total) / self.mass
        return {"loss": loss, "score": np.array([self.score(self.outputs)])}


class EstimatorRun(Run):
    """A training that `Rules` judge; with early stopping the weights of the best score come back at its end."""

    def __init__(
        self, network: Engine, trainer: Trainer, plan: Plan, rules: Rules, *, outputs: int, best: Best | None,
        restores: bool,
    ) -> None:  # fmt: skip
        super().__init__(network, trainer, plan)
        self.rules, self.counts, self.restores = rules, outputs, restores
        self.best = best or self.best
        self.at.factors = [rules.factor]

    def _judge(self, record: Record) -> None:
        if any(self.at.stopped):  # the loss is not finite
            return
        loss, *held_out = (
            float(record[name][0]) if name in record else None
            for name in ("loss", "validation_score", "validation_loss")
        )
        assert loss is not None
        validation_loss = None if held_out[1] is None else held_out[1] / self.counts
        better = self.rules.judge(self.trainer.data.size, loss / self.counts, held_out[0], validation_loss)
        self.at.factors = [self.rules.factor]
        if self.rules.early_stopping:
            self.best.take(np.array([better]))
            self.history.mark_best(np.array([better]))
        if self.rules.ended:
            self.stop(self.rules.reason)

    def outdone(self) -> Array:
        known = self.rules.early_stopping and math.isfinite(self.rules.best_score)
        return np.array([known and (self.restores or self.rules.ended)])
