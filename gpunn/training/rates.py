"""The rates of an epoch's updates, uploaded before the epoch begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import schedules
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from gpunn.types import Array


class Rates:
    """A table of rates with a row for each update, and one column or one for each model; `update` is the next row."""

    def __init__(self, network: Engine, frame: OptimizerFrame, update: Array) -> None:
        self.ops, self.dtype, self.update = network.ops, network.dtype, update
        self.rate = frame.rate.reshape(1, -1)
        self.table: Array | None = None

    def begin(self, rates: np.ndarray[Any, Any]) -> None:
        """Upload the rates of the next epoch."""
        rows = self.ops.from_host(rates, self.dtype)
        if self.table is None:
            self.table = rows
        else:  # recorded programs read the first table
            self.ops.copy(rows, out=self.table[: len(rates)])

    def load(self) -> None:
        """Give the optimizer the rate of the present update."""
        self.ops.gather(self.table, self.update, out=self.rate)


def check_rates(optimizer: Optimizer, total: int, network: Engine) -> None:
    """Raise an error if a schedule ends before the training does or leaves the dtype's range."""
    if isinstance(optimizer.rate, tuple) and len(optimizer.rate) != network.models:
        return  # the optimizer's frame raises this error, for all its numbers
    for step in (0, total - 1):
        rates = schedules.table(optimizer.rate, step, 1, network.models)
        if rates.max() > np.finfo(network.dtype).max:
            raise ConfigurationError(
                f"{type(optimizer).__name__} rate",
                expected=f"a {network.dtype.name} number",
                got=f"{rates.max():g} at step {step}",
                fix="choose a smaller one",
            )
