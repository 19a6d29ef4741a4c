"""Where the batches of a training come from, and how an epoch is cut into updates.

A new source is one class like `DeviceSet`: it overrides `begin` and `loader`, and sets `size`, `y` and `updates`.
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

Sizes: TypeAlias = tuple[int, ...]  # the sizes of the batches of one update
Cut: TypeAlias = Callable[[int], list[Sizes]]  # cuts a number of rows into updates


def updates_of(
    rows: int, *, batch_size: int, smallest: int = 1, accumulate: int = 1, drop_last: bool = False
) -> list[Sizes]:
    """The batch sizes of each update. A last batch with fewer rows than `smallest` is left out of the epoch."""
    batch = min(batch_size, rows)
    sizes = [batch] * (rows // batch)
    rest = rows % batch
    if rest >= smallest and not drop_last:
        sizes += [rest] * (rest > 0)
    return [tuple(sizes[i : i + accumulate]) for i in range(0, len(sizes), accumulate)]


def rows_of(updates: Sequence[Sizes]) -> int:
    """The number of rows in all batches of these updates."""
    return sum(sum(sizes) for sizes in updates)


class Source:
    """The batches of a set. `cursor`, on the device, is the place of the next batch; the step moves it on."""

    size: int  # rows that one model sees in an epoch
    y: Array  # all targets
    updates: list[Sizes]  # of the current epoch; other epochs have the same ones, perhaps in another order
    key: Hashable = ()  # names the memory that batches are read from now: another key needs another program
    by_operations = True  # whether loaders use the backend's operations only, so that a step may be recorded

    def __init__(self, network: Engine) -> None:
        self.ops = network.ops
        self.cursor = network.ops.zeros((1,), np.int64)

    def begin(self, epoch: int, first_update: int = 0) -> None:
        """Prepare the updates of an epoch from `first_update` on."""
        raise NotImplementedError(f"{type(self).__name__} needs a begin method")

    def loader(self, rows: int) -> Loader:
        """The loader of the next batch, which has this many rows."""
        raise NotImplementedError(f"{type(self).__name__} needs a loader method")

    def load_rows(self, update: int, most: int) -> int:
        """Load the rows of this update; return for how many updates from here, at most `most`, rows are loaded."""
        return most

    def close(self) -> None:
        """Stop what works for it, such as a thread that reads."""

    @cached_property
    def targets(self) -> np.ndarray[Any, Any]:
        """`y` on the host."""
        return self.ops.to_host(self.y)

    @property
    def batch_sizes(self) -> set[int]:
        return {n for sizes in self.updates for n in sizes}


class DeviceSet(Source):
    """A set that lies on the device; the order of each epoch is made there too."""

    def __init__(
        self, network: Engine, data: Examples, cut: Cut, sampling: str, loader_class: Callable[..., Loader] = Loader
    ) -> None:
        super().__init__(network)
        self.size, self.y, self.updates = data.size, data.y, cut(data.size)
        self.order = order_of(network, data, sampling)
        self.loaders = {n: loader_class(network, self.order, n, self.cursor) for n in self.batch_sizes}

    def begin(self, epoch: int, first_update: int = 0) -> None:
        self.order.begin(epoch)
        self.cursor[...] = rows_of(self.updates[:first_update])

    def loader(self, rows: int) -> Loader:
        return self.loaders[rows]
