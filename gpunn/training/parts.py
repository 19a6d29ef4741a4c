"""Parts of a set that differ in length, as the folds of a cross-validation may: a population trains and is judged on
them in steps of one batch size for all models."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.engine import Engine
from gpunn.training.batches import Examples, Loader, Order
from gpunn.types import Array


@elementwise
def going_on(xp: Any, place: Any, start: Any, length: Any) -> Any:
    """The places from `start` on, after the last one the first again."""
    return xp.where(place + start >= length, place + start - length, place + start)


@elementwise
def own_rows(xp: Any, place: Any, cursor: Any, length: Any) -> Any:
    """1 for the rows of a model's own part, 0 for those beyond its end."""
    return xp.where(place + cursor < length, 1.0, 0.0)


class PartOrder(Order):
    """As many rows for each model as the shortest part has, drawn from all rows of the model's own part.

    "shuffle" takes the first ones of a permutation of the part. "replacement" draws each from the part. "sequential"
    goes on where the epoch before ended, and after a part's last row with its first. So what an epoch leaves out of a
    longer part comes in others.
    """

    def __init__(self, network: Engine, data: Examples, sampling: str) -> None:
        super().__init__(network, data, sampling)
        assert data.parts is not None
        ops, self.parts = self.ops, np.array(data.parts)
        self.lengths = ops.from_host(self.parts[:, None])
        if sampling == "shuffle":
            groups = [np.flatnonzero(self.parts == length) for length in np.unique(self.parts)]
            self.permutations = [
                (
                    members,
                    ops.from_host(self.keys[members]),
                    ops.empty((len(members), self.parts[members[0]]), np.int64),
                )
                for members in groups
            ]
        elif sampling == "sequential":
            self.first = ops.from_host(np.arange(self.size))
            self.start = ops.zeros((len(self.parts), 1), np.int64)
        else:
            self.factors = ops.from_host(self.parts[:, None], np.float64)

    def _draw(self, epoch: int) -> None:
        ops = self.ops
        if self.sampling == "shuffle":
            for members, key, rows in self.permutations:
                ops.permutation(key, self.epoch, out=rows)
                for i, k in enumerate(members):
                    ops.copy(rows[i, : self.size], out=self.rows[k])
        elif self.sampling == "sequential":
            ops.copy(ops.from_host((epoch * self.size % self.parts)[:, None]), out=self.start)
            ops.elementwise(going_on, (self.first, self.start, self.lengths), (self.rows,))
        else:
            self._draw_freely(self.factors)


class PartLoader(Loader):
    """All rows of each part, batch by batch: beyond the end of a shorter one come rows of it that weigh nothing."""

    def __init__(self, network: Engine, order: Order, rows: int, cursor: Array, parts: tuple[int, ...]) -> None:
        super().__init__(network, order, rows, cursor)
        self.places = self.ops.from_host(np.arange(rows)[:, None])
        self.lengths = self.ops.from_host(np.array(parts)[:, None, None])
        self.own = self.ops.empty((*order.lead, rows, 1), network.dtype)
        self.given, self.weight = self.weight, self.own if self.weight is None else self.weight

    def load(self) -> None:
        super().load()
        self.ops.elementwise(own_rows, (self.places, self.cursor, self.lengths), (self.own,))
        if self.given is not None:
            self.ops.elementwise(formulas.multiply, (self.given, self.own), (self.given,))


def order_of(network: Engine, data: Examples, sampling: str) -> Order:
    """The order in which models see a set, or each its part of it."""
    return Order(network, data, sampling) if data.parts is None else PartOrder(network, data, sampling)
