"""One training step: the gradient of a batch, the update, and the counters.

A step runs the same operations on the same arrays every time, so it can be recorded once and replayed. All that changes
from step to step (random counter, place in the epoch, rate, number of the update) is read from device memory. Nothing
in a step waits for the host.
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
def after_batch(xp: Any, step: Any, cursor: Any, increment: Any, rows: Any) -> Any:
    """Move on the random counter and the place in the epoch."""
    return step + increment, cursor + rows


@elementwise
def after_update(xp: Any, step: Any, cursor: Any, update: Any, count: Any, increment: Any, rows: Any) -> Any:
    """Move on both, the update's number in the epoch, and the number of all updates: after an update's last batch."""
    return *after_batch(xp, step, cursor, increment, rows), update + 1, count + 1.0


class Gradient:
    """Computes the gradient of one batch, or of several as if they were one, into the network's gradient vector."""

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
        """The loss and metrics of the epoch's first `done` updates."""
        return self.measures.read(done, self.source)

    @property
    def is_recordable(self) -> bool:
        """Whether it may be recorded, as far as can be said without a trial."""
        return self.source.by_operations and is_own(*self.measures.metrics.values())

    def make_trials(self, *others: Any) -> list[Trial]:
        """A trial for each batch size, if users have written a layer, the loss, or one of the others; else none."""
        if is_own(self.network.network, self.loss, *others):
            return []
        return [Trial(self.network, batch_pass, self.source.y[:n]) for n, batch_pass in self.passes.items()]

    def __call__(self, sizes: Sizes, probes: Sequence[FlowProbe] = (), increment: int = 1) -> None:
        """Compute it for the next batches, which have these sizes. The cursor stays at the last of them.

        `increment` is how far the random counter moves after each batch but the last.
        """
        total, place = sum(sizes), (self.network.step, self.source.cursor)
        for i, n in enumerate(sizes):
            batch, batch_pass, is_last = self.source.loader(n), self.passes[n], i == len(sizes) - 1
            batch.load()
            A = batch_pass.forward(batch.X)
            value = batch_pass.value(A, batch.y, batch.weight)  # it also computes dA, for backward
            self.scorers[n].add(A, value, batch.y, self.measures.update)
            for probe in probes if is_last else ():
                probe.measure_activations()
            batch_pass.backward()
            if self.loss_scale is not None:
                self.loss_scale.unscale_gradients()
            for probe in probes if is_last else ():
                probe.measure_gradients()
            if len(sizes) > 1:
                self._add_to_sum(i, n / total if self.loss.reduction == "mean" else 1.0)
            if not is_last:
                self.ops.elementwise(after_batch, (*place, increment, n), place)
        if len(sizes) > 1:
            self.ops.copy(self.sum, out=self.network.gradient_vector)

    def _add_to_sum(self, i: int, share: float) -> None:
        g = self.network.gradient_vector
        if i == 0:
            self.ops.elementwise(formulas.multiply, (g, share), (self.sum,))
        else:
            self.ops.elementwise(formulas.add_scaled, (self.sum, g, share), (self.sum,))


class TrainingStep:
    """One step: gradient, update, counters."""

    end_reason = ""  # why the optimizer has nothing left to do; "" while it goes on

    def __init__(self, gradient: Gradient, constraints: Constraints, optimizer: Optimizer) -> None:
        self.ops, self.network, self.source = gradient.ops, gradient.network, gradient.source
        self.gradient, self.measures, self.loss_scale = gradient, gradient.measures, gradient.loss_scale
        self.optimizer, self.constraints = optimizer, constraints
        self.frame = OptimizerFrame(self.ops, self.network.store, optimizer, self.loss_scale)
        self.rates = Rates(self.network, self.frame, self.measures.update)
        self.probes: list[FlowProbe] = []
        self.probed_update = -1  # the update in the epoch in which the probes measure
        self.programs: dict[Hashable, Program] = {}

    def __call__(self, sizes: Sizes, probes: Sequence[FlowProbe] = ()) -> None:
        """Make one update from batches of these sizes."""
        self.gradient(sizes, probes)
        self.apply()
        self.advance(sizes[-1])

    def apply(self) -> None:
        """Apply penalties, clipping, the optimizer's formula, and limits on the weights."""
        if self.loss_scale is not None:
            self.loss_scale.check_and_adapt()
            self.measures.count_updates(self.loss_scale.finite)
        self.constraints.before()
        self.measures.measure_gradient_norm()
        self.rates.load()
        self.optimizer.update(self.frame)
        self.constraints.after()
        self.network.store.refresh()

    def advance(self, rows: int) -> None:
        """Move on to the next batch and the next update."""
        place, update, count = (self.network.step, self.source.cursor), self.measures.update, self.frame.count
        if self.loss_scale is None:
            self.ops.elementwise(after_update, (*place, update, count, 1, rows), (*place, update, count))
        else:  # each model counts its own updates, without those that were skipped
            self.ops.elementwise(after_batch, (*place, 1, rows), place)
            self.ops.elementwise(formulas.add, (update, 1), (update,))
            self.frame.ops.elementwise(formulas.add, (count, 1.0), (count,))

    # How a training runs it

    def begin(self, rates: np.ndarray[Any, Any], first_update: int = 0) -> None:
        """Prepare the updates of an epoch from `first_update` on; the source has begun the epoch already."""
        self.network.store.refresh()
        self.measures.begin(first_update)
        self.rates.begin(rates)
        size = self.gradient.last_pass.rows
        self.probed_update = max((i for i in range(len(rates)) if self.source.updates[i][-1] == size), default=-1)

    def program(self, update: int, most: int = 1) -> tuple[Program, int]:
        """The program for this update of the epoch, and how many times in a row to run it, at most `most`: it also fits
        the updates that follow and have the same key."""
        most = min(self.source.load_rows(update, most), len(self.source.updates) - update)
        key, count = self._program_key(update), 1
        while count < most and self._program_key(update + count) == key:
            count += 1
        if key not in self.programs:
            step = partial(self, self.source.updates[update], self.probes if update == self.probed_update else ())
            self.programs[key] = self.ops.program(step, recordable=self.is_recordable, models=self.network.models)
        return self.programs[key], count

    def _program_key(self, update: int) -> Hashable:
        """Updates with the same key share a program: same batch sizes, probes or none, same memory to read from."""
        return self.source.updates[update], bool(self.probes) and update == self.probed_update, self.source.key

    def close(self) -> None:
        """Drop the programs. They refer to this step, so its arrays would otherwise be freed late."""
        self.programs.clear()

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        """The loss and metrics of the epoch's first `done` updates."""
        return self.gradient.read(done)

    # Whether it may be recorded

    @property
    def is_recordable(self) -> bool:
        return self.gradient.is_recordable and self.trials.recordable

    @cached_property
    def trials(self) -> Trials:
        """Trials of the parts of this step that users have written."""
        trials = self.gradient.make_trials(self.optimizer, *(frame.regularization for frame in self.constraints.frames))
        for trial in trials:
            trial.also(self.optimizer, self.frame, self.optimizer.update)
            for frame in self.constraints.frames:
                trial.also(rule := frame.regularization, frame, rule.add_gradient, rule.after_update)
        return Trials(trials)

    def recheck(self) -> None:
        """Call it after callbacks: if they changed a user's layer, the following steps run without a record."""
        if self.trials.recheck():
            self.programs.clear()
