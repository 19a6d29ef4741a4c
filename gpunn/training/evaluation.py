"""Loss and metrics on a set, chunk by chunk, summed on the device and read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from gpunn.backends import formulas
from gpunn.backends.program import Program
from gpunn.engine import Engine
from gpunn.losses import Loss
from gpunn.metrics import Metric
from gpunn.passes import Pass
from gpunn.training.batches import Examples, Loader, Order
from gpunn.training.meters import Meters
from gpunn.training.parts import PartLoader
from gpunn.types import Array
from gpunn.value import is_own


class Scorer:
    """Adds one batch's loss and metrics to the meters; its arrays are made once for a batch size."""

    def __init__(self, network: Engine, run: Pass, loss: Loss, metrics: Mapping[str, Metric], meters: Meters) -> None:
        self.ops, self.run, self.metrics, self.meters = network.ops, run, metrics, meters
        lead, n = network.lead, run.rows
        self.weight = n if loss.reduction == "mean" else 1.0
        self.decision, self.n = loss.decision, n
        if metrics:
            self.rows = self.ops.empty((*lead, n, 1), network.dtype)
            self.value = self.ops.empty(lead, network.dtype)
        if metrics and run.fused is not None:
            self.activated = self.ops.empty((*lead, n, *network.outputs), network.dtype)

    def add(self, A: Array, value: Array, y: Array, tick: Array | None = None, counted: Array | None = None) -> None:
        """`tick` is the number of the update, where there is one and its loss is watched; `counted` is 0 for rows that
        do not count and 1 for the others."""
        if tick is None:
            self.meters.add("loss", value.reshape(-1), self.weight)
        else:
            self.meters.add_loss(value.reshape(-1), self.weight, tick)
        if self.metrics and self.run.fused is not None:
            self.run.fused.value(self.ops, A, None, out=self.activated)
            A = self.activated
        for name, metric in self.metrics.items():
            metric.rows(self.ops, A, y, self.decision, out=self.rows)
            if counted is not None:
                self.ops.elementwise(formulas.multiply, (self.rows, counted), (self.rows,))
            self.meters.add(name, self.ops.total(self.rows, 1.0, out=self.value).reshape(-1), 1.0)


class Evaluator:
    """A set that is evaluated again and again: `run` works on the device, `read` waits for the result."""

    def __init__(
        self, network: Engine, data: Examples, loss: Loss, metrics: Mapping[str, Metric], chunk: int
    ) -> None:  # fmt: skip
        self.network, self.data, self.loss, self.metrics = network, data, loss, metrics
        self.meters = Meters(network.ops, ("loss", *metrics), network.models or 1)
        self.y = network.ops.to_host(data.y) if any(metric.needs_targets for metric in metrics.values()) else None
        size = max(data.parts or (data.size,))
        self.order = Order(network, replace(data, size=size, parts=None), "sequential")
        self.order.begin(0)
        self.cursor = network.ops.zeros((1,), np.int64)
        chunk = min(chunk, size)
        sizes = [chunk] * (size // chunk) + [size % chunk] * (size % chunk > 0)
        self.chunks = sizes
        self.programs = {n: self._program(n) for n in set(sizes)}

    def _program(self, n: int) -> Program:
        """Measure the n examples at the cursor, which moves on."""
        network, cursor = self.network, self.cursor  # not `self`, which would keep itself and the set alive
        run = network.compile(n, self.loss, training=False, backward=False)
        loader = self._loader(n)
        counted = loader.own if isinstance(loader, PartLoader) else None
        scorer = Scorer(network, run, self.loss, self.metrics, self.meters)

        def program() -> None:
            loader.load()
            A = run.forward(loader.X)
            scorer.add(A, run.value(A, loader.y, loader.weight), loader.y, counted=counted)
            network.ops.elementwise(formulas.add, (cursor, n), (cursor,))

        own = is_own(network.network, self.loss, *self.metrics.values())
        return network.ops.program(program, own=own, models=network.models)

    def _loader(self, n: int) -> Loader:
        place = self.network, self.order, n, self.cursor
        return Loader(*place) if self.data.parts is None else PartLoader(*place, self.data.parts)

    def run(self) -> None:
        self.meters.begin()
        self.network.ops.fill(self.cursor, 0)
        for n, alike in groupby(self.chunks):
            self.programs[n](len(list(alike)))

    def read(self) -> dict[str, Any]:
        """Loss and metrics, arrays of one number for each model."""
        sums = self.meters.read()
        count = self.data.size if self.data.parts is None else np.array(self.data.parts)
        results = {"loss": sums["loss"] / (count if self.loss.reduction == "mean" else 1.0)}
        return results | {name: self._finish(metric, sums[name] / count) for name, metric in self.metrics.items()}

    def _finish(self, metric: Metric, mean: Array) -> Array:
        """The figure from the mean score, beside the targets that each model is judged by where it needs them."""
        rank, data = len(self.network.outputs), self.data
        if self.y is None or data.subsets is None:
            return metric.finish(mean, self.y, rank)  # type: ignore[arg-type]  # None where it needs none
        subsets = self.network.ops.to_host(data.subsets)
        if data.parts is None:
            return metric.finish(mean, self.y[subsets], rank)
        own = [self.y[rows[:length]] for rows, length in zip(subsets, data.parts)]
        return np.concatenate([metric.finish(mean[k : k + 1], y, rank) for k, y in enumerate(own)])
