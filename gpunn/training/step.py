"""One training step: the gradient of a batch, the update, and the counters that move on.

A step is a static program on arrays that are made before. Whatever changes from step to step (random counter, place in
the epoch, rate, number of the update) is read from device memory, so that a captured program finds its own. Nothing in
a step waits for the host.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.backends.program import Program
from gpunn.engine import Engine
from gpunn.losses import Loss
from gpunn.metrics import Metric
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from gpunn.recordable import Trial, Trials
from gpunn.regularization import Constraints
from gpunn.training.measures import Measures
from gpunn.training.probe import FlowProbe
from gpunn.training.rates import Rates
from gpunn.training.source import Sizes, Source
from gpunn.value import is_own


@elementwise
def after_batch(xp: Any, step: Any, cursor: Any, draws: Any, rows: Any) -> Any:
    """The random counter and the place in the epoch move on."""
    return step + draws, cursor + rows


@elementwise
def after_update(xp: Any, step: Any, cursor: Any, update: Any, count: Any, draws: Any, rows: Any) -> Any:
    """So do they after an update's last batch, with its number in the epoch and of all."""
    return *after_batch(xp, step, cursor, draws, rows), update + 1, count + 1.0


class Gradient:
    """The gradient of the loss over one batch, or over several as if they were one; it lies in the network."""

    def __init__(
        self, network: Engine, source: Source, loss: Loss, metrics: Mapping[str, Metric], *, norm: bool = False
    ) -> None:
        self.ops, self.network, self.source, self.loss = network.ops, network, source, loss
        self.loss_scale = network.loss_scale
        self.measures = Measures(network, loss, metrics, gradient_norm=norm)
        self.passes = {n: network.compile(n, loss) for n in source.batch_sizes}
        self.scorers = {n: self.measures.scorer(batch_pass) for n, batch_pass in self.passes.items()}
        several = any(len(sizes) > 1 for sizes in source.updates)
        self.sum = network.ops.zeros(network.gradient_vector.shape, network.dtype) if several else None
        # Probes look at the pass of the first epoch's last batch; later epochs may end in a shorter one.
        self.last_pass = self.passes[source.updates[-1][-1]]

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        """What the epoch's first `done` updates have measured."""
        return self.measures.read(done, self.source)

    @property
    def is_recordable(self) -> bool:
        """Whether it may be recorded, as far as that is known without a trial."""
        return self.source.by_operations and is_own(*self.measures.metrics.values())

    def trials(self, *others: Any) -> list[Trial]:
        """One for each batch size, if users have written some layer, the loss, or one of the others."""
        if is_own(self.network.network, self.loss, *others):
            return []
        return [Trial(self.network, batch_pass, self.source.y[:n]) for n, batch_pass in self.passes.items()]

    def __call__(self, sizes: Sizes, probes: Sequence[FlowProbe] = (), draws: int = 1) -> None:
        """Of the next batches of these sizes; the last one's place is not left yet."""
        total, place = sum(sizes), (self.network.step, self.source.cursor)
        for i, n in enumerate(sizes):
            batch, batch_pass, is_last = self.source.loader(n), self.passes[n], i == len(sizes) - 1
            batch.load()
            A = batch_pass.forward(batch.X)
            value = batch_pass.value(A, batch.y, batch.weight)
            self.scorers[n].add(A, value, batch.y, self.measures.update)
            for probe in probes if is_last else ():
                probe.measure_activations()
            batch_pass.backward()
            if self.loss_scale is not None:
                self.loss_scale.remove()
            for probe in probes if is_last else ():
                probe.measure_gradients()
            if len(sizes) > 1:
                self._add_to_sum(i, n / total if self.loss.reduction == "mean" else 1.0)
            if not is_last:
                self.ops.elementwise(after_batch, (*place, draws, n), place)
        if len(sizes) > 1:
            self.ops.copy(self.sum, out=self.network.gradient_vector)

    def _add_to_sum(self, i: int, share: float) -> None:
        g = self.network.gradient_vector
        if i == 0:
            self.ops.elementwise(formulas.multiply, (g, share), (self.sum,))
        else:
            self.ops.elementwise(formulas.add_scaled, (self.sum, g, share), (self.sum,))


class Step:
    """What is done again and again: gradient, update, counters."""

    finished = ""  # why there is nothing left to do, where an optimizer can tell

    def __init__(self, gradient: Gradient, constraints: Constraints, optimizer: Optimizer) -> None:
        self.ops, self.network, self.source = gradient.ops, gradient.network, gradient.source
        self.gradient, self.measures, self.loss_scale = gradient, gradient.measures, gradient.loss_scale
        self.optimizer, self.constraints = optimizer, constraints
        self.frame = OptimizerFrame(self.ops, self.network.store, optimizer, self.loss_scale)
        self.rates = Rates(self.network, self.frame, self.measures.update)
        self.probes: list[FlowProbe] = []
        self.probed = -1  # the update in which they measure
        self.programs: dict[Hashable, Program] = {}

    def __call__(self, sizes: Sizes, probes: Sequence[FlowProbe] = ()) -> None:
        """An update from batches of these sizes."""
        self.gradient(sizes, probes)
        self.apply()
        self.advance(sizes[-1])

    def apply(self) -> None:
        """Penalties, clipping, the optimizer's formula, and what must hold after it."""
        if self.loss_scale is not None:
            self.loss_scale.judge()
            self.measures.count_made(self.loss_scale.finite)
        self.constraints.before()
        self.measures.take_norm()
        self.rates.load()
        self.optimizer.update(self.frame)
        self.constraints.after()
        self.network.store.refresh()

    def advance(self, rows: int) -> None:
        """On to the next batch and the next update."""
        place, update, count = (self.network.step, self.source.cursor), self.measures.update, self.frame.count
        if self.loss_scale is None:
            self.ops.elementwise(after_update, (*place, update, count, 1, rows), (*place, update, count))
        else:  # each model has a count of its own, of updates that were not skipped
            self.ops.elementwise(after_batch, (*place, 1, rows), place)
            self.ops.elementwise(formulas.add, (update, 1), (update,))
            self.frame.ops.elementwise(formulas.add, (count, 1.0), (count,))

    # What runs it

    def begin(self, rates: np.ndarray[Any, Any], first_update: int = 0) -> None:
        """Stand before an update of an epoch that the source has begun."""
        self.network.store.refresh()
        self.measures.begin(first_update)
        self.rates.begin(rates)
        size = self.gradient.last_pass.rows
        self.probed = max((i for i in range(len(rates)) if self.source.updates[i][-1] == size), default=-1)

    def program(self, update: int, most: int = 1) -> tuple[Program, int]:
        """The program of this update of the epoch, and how often it is to run: for this update and those after it that
        are alike, but `most` in all."""
        most = min(self.source.reach(update, most), len(self.source.updates) - update)
        kind, count = self._kind(update), 1
        while count < most and self._kind(update + count) == kind:
            count += 1
        if kind not in self.programs:
            step = partial(self, self.source.updates[update], self.probes if update == self.probed else ())
            self.programs[kind] = self.ops.program(step, recorded=self.is_recordable, models=self.network.models)
        return self.programs[kind], count

    def _kind(self, update: int) -> Hashable:
        """What tells one program from another: its batches, whether probes measure, where it reads from."""
        return self.source.updates[update], bool(self.probes) and update == self.probed, self.source.key

    def close(self) -> None:
        """Give up the programs, which refer to this step: what it holds goes with it, not at some later time."""
        self.programs.clear()

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        """What the epoch's first `done` updates have measured."""
        return self.gradient.read(done)

    # Whether it may be recorded

    @property
    def is_recordable(self) -> bool:
        return self.gradient.is_recordable and self.trials.recordable

    @cached_property
    def trials(self) -> Trials:
        """Those of what users have written of it."""
        trials = self.gradient.trials(self.optimizer, *(frame.regularization for frame in self.constraints.frames))
        for trial in trials:
            trial.also(self.optimizer, self.frame, self.optimizer.update)
            for frame in self.constraints.frames:
                trial.also(rule := frame.regularization, frame, rule.add_gradient, rule.after_update)
        return Trials(trials)

    def look_again(self) -> None:
        """After callbacks, which may have changed what a user's layer does: then its steps are recorded no more."""
        if self.trials.changed():
            self.programs.clear()
