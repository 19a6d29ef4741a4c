"""Loss and metrics on a set, chunk by chunk, summed on the device and read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.program import Program
from gpunn.engine import Engine
from gpunn.layers.activation import resolve
from gpunn.losses import Loss
from gpunn.metrics import EXCLUSIVE, Metric, WholeSet
from gpunn.passes import Pass
from gpunn.recordable import Trial, Trials
from gpunn.training.batches import Examples, Loader, Order
from gpunn.training.meters import Meters
from gpunn.training.unequal import UnequalLoader
from gpunn.types import Array
from gpunn.value import is_own


class Scorer:
    """Adds one batch's loss and metrics to the meters; its arrays are made once for a batch size."""

    def __init__(
        self, network: Engine, batch_pass: Pass, loss: Loss, metrics: Mapping[str, Metric], meters: Meters
    ) -> None:
        self.ops, self.meters = network.ops, meters
        model_axes, n = network.model_axes, batch_pass.rows
        self.factor = n if loss.reduction == "mean" else 1.0  # a batch's loss counts this often in the sum
        shape = (*model_axes, n, *network.outputs)
        by_row = {name: metric for name, metric in metrics.items() if not metric.whole}
        if by_row:
            self.rows = self.ops.empty((*model_axes, n, 1), network.dtype)
            self.value = self.ops.empty(model_axes, network.dtype)
        self.scores = {name: m.prepared(self.ops, shape, network.dtype, loss) for name, m in by_row.items()}
        self.fused = batch_pass.fused
        self.link = self.fused or resolve(loss.link, "link")
        self.predicts = len(by_row) < len(metrics) or bool(by_row and self.fused is not None)
        if self.predicts:
            self.prediction = self.ops.empty(shape, network.dtype)

    def add(self, A: Array, value: Array, y: Array, tick: Array | None = None, counted: Array | None = None) -> None:
        """Add a batch. `tick` is the number of the update, in training; `counted` is 1 for rows that count, else 0."""
        if tick is None:
            self.meters.add("loss", value.reshape(-1), self.factor)
        else:
            self.meters.add_loss(value.reshape(-1), self.factor, tick)
        if self.predicts and self.link is None:
            self.ops.copy(A, out=self.prediction)
        elif self.predicts and self.link is not None:
            self.link.value(self.ops, A, None, out=self.prediction)
        if self.predicts and self.fused is not None:  # metrics want the network's outputs; A are logits here
            A = self.prediction
        for name, score in self.scores.items():
            score(A, y, self.rows)
            if counted is not None:
                self.ops.elementwise(formulas.multiply, (self.rows, counted), (self.rows,))
            self.meters.add(name, self.ops.total(self.rows, 1.0, out=self.value).reshape(-1), 1.0)


class HeldOut(Protocol):
    """A validation set during a training: `run` evaluates it on the device, `read` waits for the result."""

    def run(self) -> None: ...

    def read(self) -> dict[str, Any]:
        """Loss and metrics by name, arrays of one number for each model."""


class Evaluator:
    """Evaluates one set, as often as wanted: `run` works on the device, `read` waits for the result."""

    def __init__(
        self, network: Engine, data: Examples, loss: Loss, metrics: Mapping[str, Metric], chunk: int
    ) -> None:  # fmt: skip
        self.network, self.data, self.loss, self.metrics = network, data, loss, metrics
        by_row = [name for name, metric in metrics.items() if not metric.whole]
        self.meters = Meters(network.ops, ("loss", *by_row), network.models or 1)
        size = max(data.lengths or (data.size,))
        self.predictions: Array | None = None  # of the whole set, for metrics that look at all of it
        if len(by_row) < len(metrics):
            self.predictions = network.ops.empty((*network.model_axes, size, *network.outputs), network.dtype)
        self.y = network.ops.to_host(data.y) if any(metric.needs_targets for metric in metrics.values()) else None
        self.order = Order(network, replace(data, size=size, lengths=None), "sequential")
        self.order.begin(0)
        self.cursor = network.ops.zeros((1,), np.int64)
        chunk = min(chunk, size)
        sizes = [chunk] * (size // chunk) + [size % chunk] * (size % chunk > 0)
        self.chunks = sizes
        self.passes = {n: network.compile(n, loss, training=False, backward=False) for n in set(sizes)}
        self.scorers = {n: Scorer(network, p, loss, metrics, self.meters) for n, p in self.passes.items()}
        self.loaders = {n: self._loader(n) for n in self.passes}
        self.programs: dict[int, Program] = {}

    @cached_property
    def trials(self) -> Trials:
        """Trials of the layers and the loss, if users have written some."""
        if is_own(self.network.network, self.loss):
            return Trials([])
        return Trials([Trial(self.network, p, self.data.y[:n], backward=False) for n, p in self.passes.items()])

    def _program(self, n: int) -> Program:
        """The program that measures the n examples at the cursor and moves it on."""
        if n not in self.programs:
            measure = partial(_measure, self.passes[n], self.loaders[n], self.scorers[n], self.cursor)
            recorded = is_own(*(m for m in self.metrics.values() if not m.whole)) and self.trials.recordable
            self.programs[n] = self.network.ops.program(measure, recordable=recorded, models=self.network.models)
        return self.programs[n]

    def _loader(self, n: int) -> Loader:
        place = self.network, self.order, n, self.cursor
        return Loader(*place) if self.data.lengths is None else UnequalLoader(*place, self.data.lengths)

    def run(self) -> None:
        if self.trials.recheck():
            self.programs.clear()
        self.meters.begin()
        self.network.ops.fill(self.cursor, 0)
        if self.predictions is not None:
            self._run_and_keep(self.predictions)
            return
        for n, alike in groupby(self.chunks):
            self._program(n)(len(list(alike)))

    def _run_and_keep(self, predictions: Array) -> None:
        """Measure chunk by chunk and copy the predictions of each; nothing waits for the device."""
        start, model_axes = 0, (slice(None),) * len(self.network.model_axes)
        for n in self.chunks:
            self._program(n)()
            self.network.ops.copy(self.scorers[n].prediction, out=predictions[(*model_axes, slice(start, start + n))])
            start += n

    def read(self) -> dict[str, Any]:
        """Loss and metrics, arrays of one number for each model."""
        sums = self.meters.read()
        count = self.data.size if self.data.lengths is None else np.array(self.data.lengths)
        results = {"loss": sums["loss"] / (count if self.loss.reduction == "mean" else 1.0)}
        P = None if self.predictions is None else self.network.ops.to_host(self.predictions)
        for name, metric in self.metrics.items():
            if isinstance(metric, WholeSet):
                results[name] = self._figures(metric, P)
            else:
                results[name] = self._finish(metric, sums[name] / count)
        return results

    def _finish(self, metric: Metric, mean: Array) -> Array:
        """The metric from the mean score, and from the targets of each model if it needs them."""
        rank, data = len(self.network.outputs), self.data
        if self.y is None or data.subsets is None:
            return metric.finish(mean, self.y, rank)  # type: ignore[arg-type]  # None where it needs none
        if data.lengths is None:
            return metric.finish(mean, self.y[self.network.ops.to_host(data.subsets)], rank)
        targets = [self.y[rows] for rows in self._rows_by_model]
        return np.concatenate([metric.finish(mean[k : k + 1], y, rank) for k, y in enumerate(targets)])

    def _figures(self, metric: WholeSet, P: Any) -> Array:
        """The metric of the whole set for each model."""
        lone = self.network.models is None
        exclusive = self.loss.target in EXCLUSIVE
        given = zip(self._given, P[None] if lone else P)
        return np.array([metric.figure(y, p[: len(y)], exclusive) for y, p in given])

    @cached_property
    def _given(self) -> list[np.ndarray[Any, Any]]:
        """The targets of each model, as they were handed in."""
        data = self.data
        assert data.target is not None
        y = data.target.given(self.network.ops)
        if data.subsets is None:
            return [y] * (self.network.models or 1)
        return [y[rows] for rows in self._rows_by_model]

    @cached_property
    def _rows_by_model(self) -> list[np.ndarray[Any, Any]]:
        """The row numbers of each model, if models have different rows."""
        rows = self.network.ops.to_host(self.data.subsets)
        return list(rows) if self.data.lengths is None else [places[:n] for places, n in zip(rows, self.data.lengths)]


def _measure(batch_pass: Pass, loader: Loader, scorer: Scorer, cursor: Array) -> None:
    """Measure the examples at the cursor. It is no method, so that programs do not keep the evaluator alive."""
    loader.load()
    A = batch_pass.forward(loader.X)
    counted = loader.counted if isinstance(loader, UnequalLoader) else None
    scorer.add(A, batch_pass.value(A, loader.y, loader.weight), loader.y, counted=counted)
    batch_pass.ops.elementwise(formulas.add, (cursor, batch_pass.rows), (cursor,))


def check_metrics(network: Engine, metrics: Mapping[str, Metric], loss: Loss, *sets: Any) -> None:
    """Raise an error unless every metric can be measured on these checked sets."""
    for name, metric in metrics.items():
        for data in sets:
            metric.check(name, data.y, len(network.outputs), network.dtype)
            metric.fits(name, partial(data.y.given, network.ops), loss, network.outputs)
