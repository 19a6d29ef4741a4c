"""A training as it runs: epochs of steps, one transfer from the device per epoch, the best weights at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn import schedules
from gpunn.engine import Engine
from gpunn.errors import DeviceLostError
from gpunn.training.callbacks import Callback, probes_of
from gpunn.training.evaluation import HeldOut
from gpunn.training.full_batch import FullBatchStep
from gpunn.training.history import History
from gpunn.training.judge import Judge
from gpunn.training.measures import BAD_STEP
from gpunn.training.progress import Progress
from gpunn.training.signals import EXIT_ON_TERMINATION, Signals
from gpunn.training.source import rows_of
from gpunn.training.standing import NOT_FINITE
from gpunn.training.step import TrainingStep
from gpunn.training.stopping import in_words
from gpunn.training.threads import CheckCores, check_nothing, threads_for
from gpunn.types import Array

log = logging.getLogger("gpunn")
STRETCH = 0.01  # seconds of updates in one call: long enough for threads to wait seldom, short enough for signals


@dataclass(frozen=True)
class Saving:
    """How to write a checkpoint, and after how many epochs and updates."""

    save: Callable[[Training], None]
    every: int
    every_steps: int | None


class Training:
    """At most `total` updates; after each epoch the judge decides which weights are the best and whether to stop.

    Callbacks may use `network`, `epoch`, `history` and `stop`.
    """

    def __init__(
        self, network: Engine, step: TrainingStep | FullBatchStep, judge: Judge, *, total: int,
        validation: HeldOut | None = None, callbacks: Sequence[Callback] = (), saving: Saving | None = None,
        deterministic: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.source, self.step, self.judge = network, step.source, step, judge
        self.total, self.validation, self.callbacks, self.saving = total, validation, callbacks, saving
        self.deterministic = deterministic  # then the number of threads never changes
        self.models = network.models or 1
        self.history = History(population=network.models is not None)
        self.standing = judge.begin()
        self.signals = Signals()
        step.probes = probes_of(callbacks, step.gradient.last_pass)
        self._stepwise = [callback for callback in callbacks if callback.wants_steps]
        # Callbacks may change a user's layer between epochs.
        self._changes_layers = any(not isinstance(callback, Progress) for callback in callbacks)
        self._saved = False
        self._most_in_a_call = 1  # updates that one call of a program makes
        self._check_cores: CheckCores = check_nothing  # called after updates; may change the number of threads

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return self.standing.epoch

    @property
    def over(self) -> bool:
        return self.standing.done >= self.total or all(self.standing.stopped)

    def stop(self, reason: str) -> None:
        """End the training after this epoch, or, from `on_step`, after this step."""
        self.standing.stop(in_words("run.stop", reason))

    def run(self) -> History:
        """Train until the end, or until a criterion, a callback or a signal stops it."""
        rows, recorded = max(self.source.batch_sizes), self.step.is_recordable
        threads = threads_for(self.network, rows, fixed=self.deterministic, recorded=recorded)
        quiet = self.network.ops.quiet()
        with self.signals, closing(self.source), closing(self.step), quiet, threads as self._check_cores:
            try:
                self._call_callbacks(Callback.on_start.__name__)
                while not self.over and not self.signals.raised:
                    self._epoch()
                self.step.trials.require_unchanged(now=True)
                if self.saving and not self._saved:
                    self.saving.save(self)
            except DeviceLostError:  # its arrays are gone, the best weights too
                self.history.stopped = ["device lost"] * self.models
                self._call_on_end(self.callbacks)
                raise
            except BaseException:
                self._end()
                raise
            self._end()
        if self.signals.exits:
            raise SystemExit(EXIT_ON_TERMINATION)
        return self.history

    def _epoch(self) -> None:
        """Run the updates of an epoch, or the rest of them, then judge the epoch."""
        standing, source, step = self.standing, self.source, self.step
        started, first, going = time.perf_counter(), standing.update, standing.going
        count = min(len(source.updates), first + self.total - standing.done)
        rates = schedules.table(step.optimizer.rate, standing.done - first, count, self.network.models)
        rates = rates * standing.factors
        if self._changes_layers:
            step.recheck()
        source.begin(standing.epoch, first)
        step.begin(rates, first)
        while standing.update < count and not self.signals.raised and not all(standing.stopped):
            begun = time.perf_counter()
            program, times = step.program(standing.update, self._at_most(count))
            program(times)
            self._move_on(times, time.perf_counter() - begun, count)
        step.trials.require_unchanged()
        if self.signals.raised and standing.update < count:  # a resumed training finishes this epoch
            standing.seconds += time.perf_counter() - started
            return
        if self.saving and self.over and standing.update < len(source.updates):  # steps= ended it within an epoch
            self.saving.save(self)
            self._saved = True
        record = self._read(started, first, rates[standing.update - 1])
        self._finish_epoch(record, going)

    def _at_most(self, count: int) -> int:
        """How many updates to run in one call, within the epoch's `count`: one if a callback wants every step."""
        most = 1 if self._stepwise else min(self._most_in_a_call, count - self.standing.update)
        if self.saving and self.saving.every_steps:
            most = min(most, self.saving.every_steps - self.standing.done % self.saving.every_steps)
        return most

    def _move_on(self, times: int, seconds: float, count: int) -> None:
        """Count the `times` updates that took `seconds`, call callbacks, and stop or save if it is time."""
        standing, saving = self.standing, self.saving
        if times == self._most_in_a_call and seconds < STRETCH:
            self._most_in_a_call *= 2
        self._check_cores()
        standing.update, standing.done = standing.update + times, standing.done + times
        for callback in self._stepwise:
            callback.on_step(self)
        if self._stepwise:  # they may have written to the parameters
            self.network.store.refresh()
            self.step.recheck()
        if self.step.end_reason:
            self.stop(self.step.end_reason)
        elif saving and saving.every_steps and standing.done % saving.every_steps == 0 and standing.update < count:
            saving.save(self)

    def _read(self, started: float, first: int, rates: Array) -> dict[str, Array]:
        """The record of the epoch; only here the host waits for the device."""
        standing, validation = self.standing, self.validation
        if validation is not None:
            validation.run()
        record = self.step.read(standing.update)
        if validation is not None:
            record |= {f"validation_{name}": value for name, value in validation.read().items()}
        seconds = time.perf_counter() - started
        standing.seconds += seconds
        rows = rows_of(self.source.updates[first : standing.update])
        record["rate"] = np.array(rates)
        record["seconds"] = np.full(self.models, standing.seconds)
        record["examples_per_second"] = np.full(self.models, rows / max(seconds, 1e-9))
        return record

    def _finish_epoch(self, record: dict[str, Array], going: Array) -> None:
        """Judge the epoch, tell callbacks, and write a checkpoint if it is time."""
        standing, bad = self.standing, record.pop(BAD_STEP)
        standing.epoch, standing.update = standing.epoch + 1, 0
        self.history.append(record)
        lost = going & (bad >= 0)
        for k in np.flatnonzero(lost):
            self._stop_lost(int(k), int(bad[k]))
        self.judge.judge(standing, record, self.history, going & ~lost, going & (bad == 0))
        self._call_callbacks(Callback.on_epoch.__name__, record)
        self.judge.keep_last(standing, going & ~lost)
        if self.saving and standing.epoch % self.saving.every == 0 and not self.over:
            self.saving.save(self)

    def _stop_lost(self, k: int, update: int) -> None:
        """Stop model k, whose loss was not finite in this update of the epoch."""
        standing = self.standing
        if not standing.stopped[k]:
            standing.stopped[k] = f"{NOT_FINITE} at epoch {standing.epoch}, step {update + 1}"
            log.warning("training%s stops: %s", f" of model {k}" if self.network.models else "", standing.stopped[k])

    def _call_callbacks(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _call_on_end(self, callbacks: Sequence[Callback]) -> None:
        """Call `on_end` of every callback, even if one raises an error: another may have a file to close."""
        if callbacks:
            try:
                callbacks[0].on_end(self)
            finally:
                self._call_on_end(callbacks[1:])

    def _end(self) -> None:
        """Restore the best weights, and write to the history why the training ended."""
        standing, signals = self.standing, self.signals
        if standing.done >= self.total:
            why = f"finished {standing.epoch} epoch{'s' * (standing.epoch != 1)}"
        else:
            why = "interrupted" if signals.interrupted else "terminated" if signals.terminated else "failed"
        self.history.stopped = [reason or why for reason in standing.stopped]
        self.judge.best.restore(self.judge.to_restore(standing))
        self._call_on_end(self.callbacks)
