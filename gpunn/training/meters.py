"""Sums over an epoch, kept on the device and read once at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.backends.reference.backend import Backend
from gpunn.types import Array

LARGEST = 1e300  # a larger loss counts as not finite; float32 becomes infinite long before


@elementwise
def first_bad(xp: Any, known: Any, value: Any, tick: Any) -> Any:
    """The first update whose loss is not finite, or -1. `known` is float64, and so is the comparison."""
    return xp.where(known >= 0.0, known, xp.where(xp.absolute(wide(value, known)) <= LARGEST, -1.0, tick))


def wide(value: Any, known: Any) -> Any:
    """The value as float64."""
    return value + 0.0 * known


@elementwise
def tally(xp: Any, total: Any, known: Any, value: Any, factor: Any, tick: Any) -> Any:
    """Adds a batch's loss to the sum and notes the first update where it is not finite, in one launch."""
    return formulas.add_scaled(xp, total, wide(value, known), factor), first_bad(xp, known, value, tick)


class Meters:
    """One row of float64 sums for each name, one column for each model."""

    def __init__(self, ops: Backend, names: tuple[str, ...], models: int) -> None:
        self.ops, self.names, self.models = ops, names, models
        self.group = [self]
        self._lay(ops.zeros((len(names), models), np.float64), 0)

    def join(self, other: Meters) -> None:
        """From now on both are read in one transfer. To be done before anything is measured."""
        self.group = other.group = [self, other]
        whole = self.ops.zeros((len(self.names) + len(other.names), self.models), np.float64)
        self._lay(whole, 0)
        other._lay(whole, len(self.names))

    def _lay(self, whole: Array, first: int) -> None:
        self.whole, self.place = whole, slice(first, first + len(self.names))
        self.table = whole[self.place]
        self.rows = {name: self.table[i] for i, name in enumerate(self.names)}
        self.fetched: Array | None = None

    def begin(self) -> None:
        self.ops.fill(self.table, 0.0)
        if "bad step" in self.rows:
            self.ops.fill(self.rows["bad step"], -1.0)

    def add(self, name: str, value: Array, factor: float) -> None:
        row = self.rows[name]
        self.ops.elementwise(formulas.add_scaled, (row, value, factor), (row,))

    def add_loss(self, value: Array, factor: float, tick: Array) -> None:
        """As `add`, and remember the update `tick` if it is the first whose loss is not finite."""
        total, known = self.rows["loss"], self.rows["bad step"]
        self.ops.elementwise(tally, (total, known, value, factor, tick), (total, known))

    def read(self) -> dict[str, np.ndarray[Any, Any]]:
        """All sums, in the one transfer of an epoch: whichever is read first fetches for the others too."""
        if self.fetched is None:
            host = self.ops.to_host(self.whole)
            for meters in self.group:
                meters.fetched = host[meters.place]
        sums, self.fetched = self.fetched, None
        assert sums is not None
        return {name: sums[i] for i, name in enumerate(self.names)}
