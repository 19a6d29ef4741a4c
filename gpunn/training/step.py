"""One training step as a static program: gather, forward, loss, backward, update, all on arrays made before.

Whatever changes from step to step (random counter, place in the epoch, rate, number of the update) is read from device
memory, so that a captured program finds its own. Nothing in a step waits for the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpunn.backends.formula import formulas
from gpunn.backends.formula.tracing import elementwise
from gpunn.backends.program import Program
from gpunn.engine import Engine
from gpunn.errors import DataError
from gpunn.losses import Loss
from gpunn.metrics import Metric
from gpunn.optimizers.base import Optimizer, OptimizerFrame
from gpunn.passes import Pass
from gpunn.regularization import Constraints
from gpunn.training.batches import Examples, Loader
from gpunn.training.evaluation import Scorer
from gpunn.training.meters import Meters
from gpunn.training.parts import order_of
from gpunn.training.probe import FlowProbe
from gpunn.types import ROWS, Array
from gpunn.value import is_own


@dataclass(frozen=True)
class Recipe:
    """How an epoch is cut into updates: all that a resumed training must share with the one it continues."""

    batch_size: int
    sampling: str
    accumulate: int
    drop_last: bool

    def groups(self, size: int, smallest: int) -> list[tuple[int, ...]]:
        """The batch sizes of each update. A last batch too small for some layer is left out of the epoch."""
        batch = min(self.batch_size, size)
        sizes = [batch] * (size // batch)
        rest = size % batch
        if rest >= smallest and not self.drop_last:
            sizes += [rest] * (rest > 0)
        return [tuple(sizes[i : i + self.accumulate]) for i in range(0, len(sizes), self.accumulate)]


@elementwise
def after_batch(xp: Any, step: Any, cursor: Any, draws: Any, rows: Any) -> Any:
    """The random counter and the place in the epoch move on."""
    return step + draws, cursor + rows


@elementwise
def after_update(xp: Any, step: Any, cursor: Any, tick: Any, count: Any, draws: Any, rows: Any) -> Any:
    """So do they after an update's last batch, with its number in the epoch and of all."""
    return *after_batch(xp, step, cursor, draws, rows), tick + 1, count + 1.0


class Trainer:
    """The programs of an epoch and the device-side state they share."""

    def __init__(
        self,
        network: Engine,
        data: Examples,
        loss: Loss,
        optimizer: Optimizer,
        recipe: Recipe,
        *,
        constraints: Constraints,
        metrics: Mapping[str, Metric],
        measure_gradient: bool,
    ) -> None:
        ops = self.ops = network.ops
        self.network, self.data, self.loss, self.optimizer, self.metrics = network, data, loss, optimizer, metrics
        self.constraints, self.recipe = constraints, recipe
        self.models = network.models or 1
        self.smallest = network.smallest_batch
        self.updates = self._cut()
        self.finished = ""  # why there is nothing left to do, where the optimizer can tell
        self.cursor, self.tick = ops.zeros((1,), np.int64), ops.zeros((1,), np.int64)
        self.scale = network.loss_scale
        self.frame = OptimizerFrame(ops, network.store, optimizer, self.scale)
        measured = ["gradient_norm"] * measure_gradient + ["sound"] * (self.scale is not None)
        self.meters = Meters(ops, ("loss", "bad step", "weights", *metrics, *measured), self.models)
        self.squares = ops.empty((*network.lead, 1, 1), network.dtype) if measure_gradient else None
        self.weights = ops.empty(network.lead, network.dtype)
        self.table: Array | None = None
        self.parts: dict[int, tuple[Pass, Scorer]] = {}
        several = any(len(sizes) > 1 for sizes in self.updates)
        self.sum = ops.zeros(network.gradient_vector.shape, network.dtype) if several else None
        for n in {n for sizes in self.updates for n in sizes}:
            run = network.compile(n, loss)
            self.parts[n] = run, Scorer(network, run, loss, metrics, self.meters)
        self.probes: list[FlowProbe] = []
        self.measured = -1  # the update in which they measure
        self.programs: dict[tuple[Any, ...], Program] = {}
        self._prepare_source()

    def _prepare_source(self) -> None:
        """Where batches come from: the whole set, on the device."""
        self.order = order_of(self.network, self.data, self.recipe.sampling)
        self.loaders = {n: Loader(self.network, self.order, n, self.cursor) for n in self.parts}

    def _loader(self, n: int) -> Loader:
        return self.loaders[n]

    def _begin_source(self, epoch: int) -> None:
        self.order.begin(epoch)

    def _cut(self) -> list[tuple[int, ...]]:
        updates = self.recipe.groups(self.data.size, self.smallest)
        if not updates:
            raise DataError(
                "fit X",
                expected=f"at least {self.smallest} examples for a batch",
                got=f"{self.data.size}",
                fix="use more data, or LayerNorm or RMSNorm, which do not look across the batch",
            )
        return updates

    @cached_property
    def last_pass(self) -> Pass:
        """The pass of the first epoch's last batch, which probes look at; later epochs may end in a shorter one."""
        return self.parts[self.updates[-1][-1]][0]

    def begin(self, epoch: int, rates: np.ndarray[Any, Any], first_update: int = 0) -> None:
        """Stand before an update of an epoch; `rates` has a row for each update and a column for each model, or one."""
        self.network.store.refresh()
        self._begin_source(epoch)
        self.cursor[...] = sum(sum(sizes) for sizes in self.updates[:first_update])
        self.tick[...] = first_update
        rows = self.ops.from_host(rates, self.network.dtype)
        if self.table is None:
            self.table = rows
        else:  # captured programs read the table they were captured with
            self.ops.copy(rows, out=self.table[: len(rates)])
        size = self.last_pass.rows
        self.measured = max((i for i in range(len(rates)) if self.updates[i][-1] == size), default=-1)
        if first_update == 0:
            self.meters.begin()

    def update(self, i: int, most: int = 1) -> int:
        """Run the i-th update of the epoch, and those after it that are alike, but `most` in all; how many it were.

        In the last one of the probes' batch size they measure.
        """
        kind, count = self._kind(i), 1
        while count < min(most, len(self.updates) - i) and self._kind(i + count) == kind:
            count += 1
        if kind not in self.programs:
            self.programs[kind] = self._program(*kind[:2])
        self.programs[kind](count)
        return count

    def close(self) -> None:
        """Give up the programs, which refer to this trainer: what it holds goes with it, not at some later time."""
        self.programs.clear()

    def _kind(self, i: int) -> tuple[Any, ...]:
        """What tells one update's program from another's: its batches, whether it is the last, where it reads from."""
        return self.updates[i], bool(self.probes) and i == self.measured

    def _program(self, sizes: tuple[int, ...], last: bool) -> Program:
        def program() -> None:
            self._gradients(sizes, self.probes if last else [])
            self._apply()
            self._advance(sizes[-1])

        return self.ops.program(program, own=self.own, models=self.network.models)

    @cached_property
    def own(self) -> bool:
        """Whether a step consists of nothing but gpunn's own code."""
        constraints = (frame.regularization for frame in self.constraints.frames)
        return is_own(self.network.network, self.loss, self.optimizer, *self.metrics.values(), *constraints)

    def _gradients(self, sizes: tuple[int, ...], probes: list[FlowProbe], draws: int = 1) -> None:
        """The gradient over one batch, or over several as if they were one; the last one's place is not left yet."""
        total = sum(sizes)
        for i, n in enumerate(sizes):
            last = i == len(sizes) - 1
            self._gradient(n, probes if last else [])
            if len(sizes) > 1:
                self._collect(i, n / total if self.loss.reduction == "mean" else 1.0)
            if not last:
                place = self.network.step, self.cursor
                self.ops.elementwise(after_batch, (*place, draws, n), place)
        if len(sizes) > 1:
            self.ops.copy(self.sum, out=self.network.gradient_vector)

    def _gradient(self, n: int, probes: list[FlowProbe]) -> None:
        """The gradient of the batch at the cursor."""
        (run, scorer), loader = self.parts[n], self._loader(n)
        loader.load()
        A = run.forward(loader.X)
        value = run.value(A, loader.y, loader.weight)
        scorer.add(A, value, loader.y, self.tick)
        for probe in probes:
            probe.measure_activations()
        run.backward()
        if self.scale is not None:
            self.scale.remove()
        for probe in probes:
            probe.measure_gradients()

    def _collect(self, i: int, weight: float) -> None:
        """Gradients of several batches before one update, weighted by their share."""
        g = self.network.gradient_vector
        if i == 0:
            self.ops.elementwise(formulas.multiply, (g, weight), (self.sum,))
        else:
            self.ops.elementwise(formulas.add_scaled, (self.sum, g, weight), (self.sum,))

    def _apply(self) -> None:
        """Penalties, clipping, the optimizer's formula, and what must hold after it."""
        t = self.frame
        if self.scale is not None:
            self.scale.judge()
            self.meters.add("sound", self.scale.sound.reshape(-1), 1.0)
        self.constraints.before()
        if self.squares is not None:
            g = self.network.gradient_vector
            g = g[..., None, :]
            self.ops.sum_product(g, g, ROWS, out=self.squares)
            self.ops.copy(self.squares.reshape(-1), out=self.meters.rows["gradient_norm"])
        self.ops.gather(self.table, self.tick, out=t.rate.reshape(1, -1))
        self.optimizer.update(t)
        self.constraints.after()
        self.network.store.refresh()

    def _advance(self, rows: int, draws: int = 1) -> None:
        place, tick, count = (self.network.step, self.cursor), self.tick, self.frame.count
        if self.scale is None:
            self.ops.elementwise(after_update, (*place, tick, count, draws, rows), (*place, tick, count))
        else:  # each model has a count of its own, of updates that were not skipped
            self.ops.elementwise(after_batch, (*place, draws, rows), place)
            self.ops.elementwise(formulas.add, (tick, 1), (tick,))
            self.frame.ops.elementwise(formulas.add, (count, 1.0), (count,))

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        """Loss and metrics over the epoch's first `done` updates, one number for each model, in one transfer."""
        self.ops.total(self.network.vector[..., None, :], 1.0, out=self.weights)
        self.ops.copy(self.weights.reshape(-1), out=self.meters.rows["weights"])
        sums = self.meters.read()
        rows = sum(sum(sizes) for sizes in self.updates[:done])
        record = {"loss": sums["loss"] / (rows if self.loss.reduction == "mean" else 1.0)}
        for name, metric in self.metrics.items():
            record[name] = metric.finish(sums[name] / rows, self.targets, len(self.network.outputs))
        if "sound" in sums:
            record["skipped"] = done - sums["sound"]
        if "gradient_norm" in sums:
            record["gradient_norm"] = np.sqrt(sums["gradient_norm"])
        # The loss is that before an update, so the last update's harm shows in the weights alone.
        spoilt = (sums["bad step"] < 0) & ~np.isfinite(sums["weights"])
        record["bad step"] = np.where(spoilt, done - 1, sums["bad step"])
        return record

    @cached_property
    def targets(self) -> Any:
        """The whole set's targets on the host, for metrics that need their spread."""
        if any(metric.needs_targets for metric in self.metrics.values()):
            return self.ops.to_host(self.data.y)
        return None
