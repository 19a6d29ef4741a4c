"""Sets where models have different numbers of rows, as folds of a cross-validation may: all models of a population
still train and are evaluated with one batch size."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.engine import Engine
from gpunn.training.batches import Examples, Loader, Order
from gpunn.types import Array


@elementwise
def continue_rows(xp: Any, place: Any, start: Any, length: Any) -> Any:
    """The places from `start` on; the first one follows the last."""
    return xp.where(place + start >= length, place + start - length, place + start)


@elementwise
def is_counted(xp: Any, place: Any, cursor: Any, length: Any) -> Any:
    """1 for the rows of a model, 0 for those after its last one."""
    return xp.where(place + cursor < length, 1.0, 0.0)


class UnequalOrder(Order):
    """In each epoch every model sees as many rows as the model with the fewest has.

    "shuffle" takes the first rows of a permutation of all rows of the model. "replacement" draws from all of them.
    "sequential" goes on where the last epoch ended, and starts again after the last row. So a model with more rows sees
    all of them over several epochs.
    """

    def __init__(self, network: Engine, data: Examples, sampling: str) -> None:
        super().__init__(network, data, sampling)
        assert data.lengths is not None
        ops, self.counts = self.ops, np.array(data.lengths)
        self.lengths = ops.from_host(self.counts[:, None])
        if sampling == "shuffle":
            groups = [np.flatnonzero(self.counts == count) for count in np.unique(self.counts)]
            self.permutations = [
                (
                    members,
                    ops.from_host(self.keys[members]),
                    ops.empty((len(members), self.counts[members[0]]), np.int64),
                )
                for members in groups
            ]
        elif sampling == "sequential":
            self.first = ops.from_host(np.arange(self.size))
            self.start = ops.zeros((len(self.counts), 1), np.int64)
        else:
            self.factors = ops.from_host(self.counts[:, None], np.float64)

    def _draw(self, epoch: int) -> None:
        ops = self.ops
        if self.sampling == "shuffle":
            for members, key, rows in self.permutations:
                ops.permutation(key, self.epoch, out=rows)
                for i, k in enumerate(members):
                    ops.copy(rows[i, : self.size], out=self.rows[k])
        elif self.sampling == "sequential":
            ops.copy(ops.from_host((epoch * self.size % self.counts)[:, None]), out=self.start)
            ops.elementwise(continue_rows, (self.first, self.start, self.lengths), (self.rows,))
        else:
            self._draw_freely(self.factors)


class UnequalLoader(Loader):
    """All rows of each model, batch by batch: after a model's last row come others of it with weight 0."""

    def __init__(self, network: Engine, order: Order, rows: int, cursor: Array, lengths: tuple[int, ...]) -> None:
        super().__init__(network, order, rows, cursor)
        self.places = self.ops.from_host(np.arange(rows)[:, None])
        self.lengths = self.ops.from_host(np.array(lengths)[:, None, None])
        self.counted = self.ops.empty((*order.model_axes, rows, 1), network.dtype)
        self.given, self.weight = self.weight, self.counted if self.weight is None else self.weight

    def load(self) -> None:
        super().load()
        self.ops.elementwise(is_counted, (self.places, self.cursor, self.lengths), (self.counted,))
        if self.given is not None:
            self.ops.elementwise(formulas.multiply, (self.given, self.counted), (self.given,))


def order_of(network: Engine, data: Examples, sampling: str) -> Order:
    """The order of a set's rows for all models, or of the rows of each."""
    return Order(network, data, sampling) if data.lengths is None else UnequalOrder(network, data, sampling)
