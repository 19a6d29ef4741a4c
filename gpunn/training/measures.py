"""What an epoch measures on the training set: sums on the device, read once at the end of the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.engine import Engine
from gpunn.losses import Loss
from gpunn.metrics import Metric
from gpunn.passes import Pass
from gpunn.training.evaluation import Scorer
from gpunn.training.meters import Meters
from gpunn.training.source import Source, rows_of
from gpunn.types import ROWS, Array

# Beside loss, metrics and gradient_norm: the first update whose loss is not finite; the sum of all parameters, which is
# not finite if one of them is not; and how many updates were made.
BAD_STEP, SUM_OF_VALUES, MADE = "bad step", "sum of values", "updates made"


class Measures:
    """Loss, metrics, and, where wanted, the norm of the gradient and how many updates were made."""

    def __init__(self, network: Engine, loss: Loss, metrics: Mapping[str, Metric], *, gradient_norm: bool) -> None:
        ops = self.ops = network.ops
        self.network, self.loss, self.metrics = network, loss, metrics
        more = ["gradient_norm"] * gradient_norm + [MADE] * (network.loss_scale is not None)
        self.meters = Meters(ops, ("loss", BAD_STEP, SUM_OF_VALUES, *metrics, *more), network.models or 1)
        self.update = ops.zeros((1,), np.int64)  # its number in the epoch
        self.squares = ops.empty((*network.model_axes, 1, 1), network.dtype) if gradient_norm else None
        self.total = ops.empty(network.model_axes, network.dtype)

    def begin(self, first_update: int) -> None:
        self.update[...] = first_update
        if first_update == 0:
            self.meters.begin()

    def scorer(self, batch_pass: Pass) -> Scorer:
        """The scorer that adds the loss and metrics of this pass's batches."""
        return Scorer(self.network, batch_pass, self.loss, self.metrics, self.meters)

    def measure_gradient_norm(self) -> None:
        """Measure the gradient after penalties and clipping; the value of an epoch's last update stays."""
        if self.squares is not None:
            g = self.network.gradient_vector[..., None, :]
            self.ops.sum_product(g, g, ROWS, out=self.squares)
            self.ops.copy(self.squares.reshape(-1), out=self.meters.rows["gradient_norm"])

    def count_updates(self, made: Array) -> None:
        """`made` is 1 for models whose update is made, and 0 for those whose gradient overflowed."""
        self.meters.add(MADE, made.reshape(-1), 1.0)

    def has_bad_step(self) -> Array:
        """Which models had a loss that was not finite in this epoch."""
        table = self.ops.to_host(self.meters.table)
        bad: Array = table[self.meters.names.index(BAD_STEP)] >= 0
        return bad

    def read(self, done: int, source: Source) -> dict[str, np.ndarray[Any, Any]]:
        """All measurements of the epoch's first `done` updates, one number for each model, in one transfer."""
        self.ops.total(self.network.vector[..., None, :], 1.0, out=self.total)
        self.ops.copy(self.total.reshape(-1), out=self.meters.rows[SUM_OF_VALUES])
        sums, rows = self.meters.read(), rows_of(source.updates[:done])
        record = {"loss": sums["loss"] / (rows if self.loss.reduction == "mean" else 1.0)}
        for name, metric in self.metrics.items():
            targets: Any = source.targets if metric.needs_targets else None
            record[name] = metric.finish(sums[name] / rows, targets, len(self.network.outputs))
        if MADE in sums:
            record["skipped"] = done - sums[MADE]
        if "gradient_norm" in sums:
            record["gradient_norm"] = np.sqrt(sums["gradient_norm"])
        # Each loss is from before its update: if the last update went wrong, only the parameters show it.
        spoilt = (sums[BAD_STEP] < 0) & ~np.isfinite(sums[SUM_OF_VALUES])
        record[BAD_STEP] = np.where(spoilt, done - 1, sums[BAD_STEP])
        return record
