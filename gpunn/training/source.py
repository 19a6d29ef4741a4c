"""Where the batches of a training come from, and how an epoch is cut into updates.

A step asks its source for the loader of a batch and for nothing else, so a new source is one class like `WholeSet`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from gpunn.engine import Engine
from gpunn.training.batches import Examples, Loader
from gpunn.training.unequal import order_of
from gpunn.types import Array

Sizes: TypeAlias = tuple[int, ...]  # of the batches that make one update
Cut: TypeAlias = Callable[[int], list[Sizes]]  # what a number of rows makes


def updates_of(
    rows: int, *, batch_size: int, smallest: int = 1, accumulate: int = 1, drop_last: bool = False
) -> list[Sizes]:
    """The batch sizes of each update. A last batch of fewer rows than `smallest` is left out of the epoch."""
    batch = min(batch_size, rows)
    sizes = [batch] * (rows // batch)
    rest = rows % batch
    if rest >= smallest and not drop_last:
        sizes += [rest] * (rest > 0)
    return [tuple(sizes[i : i + accumulate]) for i in range(0, len(sizes), accumulate)]


def rows_of(updates: Sequence[Sizes]) -> int:
    """Of all their batches."""
    return sum(sum(sizes) for sizes in updates)


class Source:
    """Batches of a set; the place of the next one, `cursor`, lies on the device and is moved on by the step."""

    size: int  # rows that a model sees in an epoch
    y: Array  # all targets
    updates: list[Sizes]  # of the epoch that has begun; another one has the same ones, maybe in another order
    key: Hashable = ()  # where batches lie now: a program reads from where they lay when it was made
    by_operations = True  # whether batches are made by the backend's operations alone

    def __init__(self, network: Engine) -> None:
        self.ops = network.ops
        self.cursor = network.ops.zeros((1,), np.int64)

    def begin(self, epoch: int, first_update: int = 0) -> None:
        """Stand before an update of an epoch."""
        raise NotImplementedError(f"{type(self).__name__} needs a begin method")

    def loader(self, rows: int) -> Loader:
        """What loads the next batch, of so many rows."""
        raise NotImplementedError(f"{type(self).__name__} needs a loader method")

    def reach(self, update: int, most: int) -> int:
        """Bring the rows of this update; for how many updates from it on, at most `most`, the rows are there."""
        return most

    def close(self) -> None:
        """Give up whatever works for it."""

    @cached_property
    def targets(self) -> np.ndarray[Any, Any]:
        """`y` on the host."""
        return self.ops.to_host(self.y)

    @property
    def batch_sizes(self) -> set[int]:
        return {n for sizes in self.updates for n in sizes}


class WholeSet(Source):
    """A set that lies on the device, in an order that is made there for each epoch."""

    def __init__(
        self, network: Engine, data: Examples, cut: Cut, sampling: str, kind: Callable[..., Loader] = Loader
    ) -> None:
        super().__init__(network)
        self.size, self.y, self.updates = data.size, data.y, cut(data.size)
        self.order = order_of(network, data, sampling)
        self.loaders = {n: kind(network, self.order, n, self.cursor) for n in self.batch_sizes}

    def begin(self, epoch: int, first_update: int = 0) -> None:
        self.order.begin(epoch)
        self.cursor[...] = rows_of(self.updates[:first_update])

    def loader(self, rows: int) -> Loader:
        return self.loaders[rows]
