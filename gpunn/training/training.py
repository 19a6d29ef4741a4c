"""A training as it runs: epochs of static steps, one look at the device an epoch, the best weights however it ends."""

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
from gpunn.training.step import Step
from gpunn.training.stopping import in_words
from gpunn.training.threads import Look, no_look, threads_for
from gpunn.types import Array

log = logging.getLogger("gpunn")
STRETCH = 0.01  # seconds of updates on end: threads of a population seldom wait for each other, and signals never long


@dataclass(frozen=True)
class Saving:
    """What writes a training to its checkpoint, and after how many epochs and updates."""

    save: Callable[[Training], None]
    every: int
    every_steps: int | None


class Training:
    """Of `total` updates at most, each a step; the judge decides what was best and whether it ends before.

    What callbacks see of it is `network`, `epoch`, `history` and `stop`.
    """

    def __init__(
        self, network: Engine, step: Step | FullBatchStep, judge: Judge, *, total: int,
        validation: HeldOut | None = None, callbacks: Sequence[Callback] = (), saving: Saving | None = None,
        deterministic: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.source, self.step, self.judge = network, step.source, step, judge
        self.total, self.validation, self.callbacks, self.saving = total, validation, callbacks, saving
        self.deterministic = deterministic  # then the number of threads stays as it is
        self.models = network.models or 1
        self.history = History(population=network.models is not None)
        self.at = judge.begin()
        self.signals = Signals()
        step.probes = probes_of(callbacks, step.gradient.last_pass)
        self._stepwise = [callback for callback in callbacks if callback.wants_steps]
        # What callbacks do between epochs may change what a user's layer does.
        self._changes_layers = any(not isinstance(callback, Progress) for callback in callbacks)
        self._saved = False
        self._most = 1  # updates on end
        self._look: Look = no_look  # whether cores are taken

    @property
    def epoch(self) -> int:
        """How many have ended."""
        return self.at.epoch

    @property
    def over(self) -> bool:
        return self.at.done >= self.total or all(self.at.stopped)

    def stop(self, reason: str) -> None:
        """End the training after this epoch, or, from `on_step`, after this step."""
        self.at.stop(in_words("run.stop", reason))

    def run(self) -> History:
        """Train until it is over, or somebody ends it."""
        rows, recorded = max(self.source.batch_sizes), self.step.is_recordable
        threads = threads_for(self.network, rows, fixed=self.deterministic, recorded=recorded)
        with self.signals, closing(self.source), closing(self.step), self.network.ops.quiet(), threads as self._look:
            try:
                self._tell(Callback.on_start.__name__)
                while not self.over and not self.signals.raised:
                    self._epoch()
                self.step.trials.check(now=True)
                if self.saving and not self._saved:
                    self.saving.save(self)
            except DeviceLostError:  # nothing can be brought back
                self.history.stopped = ["device lost"] * self.models
                self._tell_end(self.callbacks)
                raise
            except BaseException:
                self._end()
                raise
            self._end()
        if self.signals.exits:
            raise SystemExit(EXIT_ON_TERMINATION)
        return self.history

    def _epoch(self) -> None:
        """The updates of an epoch, or those that are left of it, and what follows from them."""
        at, source, step = self.at, self.source, self.step
        started, first, going = time.perf_counter(), at.update, at.going
        count = min(len(source.updates), first + self.total - at.done)
        rates = schedules.table(step.optimizer.rate, at.done - first, count, self.network.models) * at.factors
        if self._changes_layers:
            step.look_again()
        source.begin(at.epoch, first)
        step.begin(rates, first)
        while at.update < count and not self.signals.raised and not all(at.stopped):
            begun = time.perf_counter()
            program, times = step.program(at.update, self._at_most(count))
            program(times)
            self._move_on(times, time.perf_counter() - begun, count)
        step.trials.check()
        if self.signals.raised and at.update < count:  # a resumed training finishes this epoch
            at.seconds += time.perf_counter() - started
            return
        if self.saving and self.over and at.update < len(source.updates):  # steps= ends within an epoch: so does this
            self.saving.save(self)
            self._saved = True
        record = self._read(started, first, rates[at.update - 1])
        self._finish_epoch(record, going)

    def _at_most(self, count: int) -> int:
        """How many updates are run on end, before the epoch's `count`: one where somebody looks at each."""
        most = 1 if self._stepwise else min(self._most, count - self.at.update)
        if self.saving and self.saving.every_steps:
            most = min(most, self.saving.every_steps - self.at.done % self.saving.every_steps)
        return most

    def _move_on(self, times: int, seconds: float, count: int) -> None:
        """After updates that took so long: callbacks, and what they or the step ask for."""
        at, saving = self.at, self.saving
        if times == self._most and seconds < STRETCH:
            self._most *= 2
        self._look()
        at.update, at.done = at.update + times, at.done + times
        for callback in self._stepwise:
            callback.on_step(self)
        if self._stepwise:  # which may have written to the parameters
            self.network.store.refresh()
            self.step.look_again()
        if self.step.finished:
            self.stop(self.step.finished)
        elif saving and saving.every_steps and at.done % saving.every_steps == 0 and at.update < count:
            saving.save(self)

    def _read(self, started: float, first: int, rates: Array) -> dict[str, Array]:
        """What the epoch came to: the host's only look at the device."""
        at, validation = self.at, self.validation
        if validation is not None:
            validation.run()
        record = self.step.read(at.update)
        if validation is not None:
            record |= {f"validation_{name}": value for name, value in validation.read().items()}
        seconds = time.perf_counter() - started
        at.seconds += seconds
        rows = rows_of(self.source.updates[first : at.update])
        record["rate"] = np.array(rates)
        record["seconds"] = np.full(self.models, at.seconds)
        record["examples_per_second"] = np.full(self.models, rows / max(seconds, 1e-9))
        return record

    def _finish_epoch(self, record: dict[str, Array], going: Array) -> None:
        """Judge the epoch, tell callbacks, and write a checkpoint if it is time."""
        at, bad = self.at, record.pop(BAD_STEP)
        at.epoch, at.update = at.epoch + 1, 0
        self.history.append(record)
        lost = going & (bad >= 0)
        for k in np.flatnonzero(lost):
            self._stop_lost(int(k), int(bad[k]))
        self.judge.judge(at, record, self.history, going & ~lost, going & (bad == 0))
        self._tell(Callback.on_epoch.__name__, record)
        self.judge.keep_last(at, going & ~lost)
        if self.saving and at.epoch % self.saving.every == 0 and not self.over:
            self.saving.save(self)

    def _stop_lost(self, k: int, step: int) -> None:
        """A model whose loss is not finite."""
        at = self.at
        if not at.stopped[k]:
            at.stopped[k] = f"{NOT_FINITE} at epoch {at.epoch}, step {step + 1}"
            log.warning("training%s stops: %s", f" of model {k}" if self.network.models else "", at.stopped[k])

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _tell_end(self, callbacks: Sequence[Callback]) -> None:
        """Each, even where one of them raises: another may have a file to close."""
        if callbacks:
            try:
                callbacks[0].on_end(self)
            finally:
                self._tell_end(callbacks[1:])

    def _end(self) -> None:
        """The best weights come back, and history says why it ended, whatever happened."""
        at, signals = self.at, self.signals
        if at.done >= self.total:
            why = f"finished {at.epoch} epoch{'s' * (at.epoch != 1)}"
        else:
            why = "interrupted" if signals.interrupted else "terminated" if signals.terminated else "failed"
        self.history.stopped = [reason or why for reason in at.stopped]
        self.judge.best.restore(self.judge.had_better(at))
        self._tell_end(self.callbacks)
