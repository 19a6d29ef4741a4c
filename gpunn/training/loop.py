"""A training as it runs: epochs of static steps, one look at the device an epoch, the best weights however it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn import schedules
from gpunn.engine import Engine
from gpunn.errors import DeviceLostError
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.best import Best
from gpunn.training.callbacks import Callback
from gpunn.training.evaluation import Evaluator
from gpunn.training.history import History
from gpunn.training.signals import EXIT_ON_TERMINATION, Signals
from gpunn.training.step import Trainer
from gpunn.training.stopping import Monitor, Stopping, in_words, state_of, told_to_stop
from gpunn.training.threads import Look, no_look, threads_for
from gpunn.types import Array

log = logging.getLogger("gpunn")
Record = dict[str, Array]
NOT_FINITE = "non-finite loss"
STRETCH = 0.01  # seconds of updates on end: threads of a population seldom wait for each other, and signals never long


@dataclass
class Progress:
    """Where a training stands: besides arrays and history, all that a checkpoint needs to go on from there."""

    epoch: int = 0  # finished ones
    update: int = 0  # within the epoch
    done: int = 0  # updates in all
    seconds: float = 0.0
    best: list[float | None] = field(default_factory=list)  # of the monitored figure, for each model
    stopped: list[str] = field(default_factory=list)  # why, for each model; "" while it goes on
    criteria: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, Any] | None = None
    factors: list[float] = field(default_factory=list)  # of the rate, for each model


@dataclass(frozen=True)
class Plan:
    """What `fit` was asked for, checked."""

    total: int  # updates
    validation: Evaluator | None
    stopping: tuple[Stopping, ...]
    callbacks: tuple[Callback, ...]
    monitor: Monitor
    keep_best: bool
    plateau: ReduceOnPlateau | None
    save: Callable[[Run], None] | None
    every: int  # epochs between two checkpoints
    every_steps: int | None
    deterministic: bool = False  # whether the number of threads stays as it is


class Run:
    """One training; what callbacks see of it is `network`, `epoch`, `history` and `stop`."""

    def __init__(self, network: Engine, trainer: Trainer, plan: Plan) -> None:
        self.network, self.trainer, self.plan = network, trainer, plan
        self.models = network.models or 1
        self.history = History(population=network.models is not None)
        # What is judged by a validation set is judged as it is; one model that keeps its last weights holds them.
        self.best = Best(
            network,
            latest=plan.keep_best or network.models is not None,
            before=plan.keep_best and plan.validation is None,
        )
        self.at = Progress(
            best=[None] * self.models,
            stopped=[""] * self.models,
            criteria=[state_of(criterion, self.models) for criterion in plan.stopping],
            plateau=plan.plateau.begin(self.models) if plan.plateau else None,
            factors=[1.0] * self.models,
        )
        self.signals = Signals()
        self._saved = False
        self._most = 1  # updates on end
        self._look: Look = no_look  # whether cores are taken
        self._stepwise = [callback for callback in plan.callbacks if callback.wants_steps]

    def stop(self, reason: str) -> None:
        """End the training after this epoch, or, from `on_step`, after this step."""
        why = in_words("run.stop", reason)
        self.at.stopped = [known or why for known in self.at.stopped]

    @property
    def epoch(self) -> int:
        """How many have ended."""
        return self.at.epoch

    @property
    def over(self) -> bool:
        return self.at.done >= self.plan.total or all(self.at.stopped)

    def go(self) -> History:
        rows = max(max(sizes) for sizes in self.trainer.updates)
        threads = threads_for(self.network, rows, fixed=self.plan.deterministic)
        with self.signals, closing(self.trainer), self.network.ops.quiet(), threads as self._look:
            try:
                self._tell(Callback.on_start.__name__)
                while not self.over and not self.signals.raised:
                    self._run_epoch()
                if self.plan.save and not self._saved:
                    self.plan.save(self)
            except DeviceLostError:  # nothing can be brought back
                self.history.stopped = ["device lost"] * self.models
                self._tell_end(self.plan.callbacks)
                raise
            except BaseException:
                self._end()
                raise
            self._end()
        if self.signals.exits:
            raise SystemExit(EXIT_ON_TERMINATION)
        return self.history

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.plan.callbacks:
            getattr(callback, event)(self, *arguments)

    def _tell_end(self, callbacks: Sequence[Callback]) -> None:
        """Each, even where one of them raises: another may have a file to close."""
        if callbacks:
            try:
                callbacks[0].on_end(self)
            finally:
                self._tell_end(callbacks[1:])

    def _run_epoch(self) -> None:
        at, trainer, plan = self.at, self.trainer, self.plan
        started, first = time.perf_counter(), at.update
        self.going = np.array([not reason for reason in at.stopped])
        count = min(len(trainer.updates), first + plan.total - at.done)
        rates = self._rates(at.done - first, count)
        trainer.begin(at.epoch, rates, first)
        while at.update < count and not self.signals.raised and not all(at.stopped):
            self._update(count)
            for callback in self._stepwise:
                callback.on_step(self)
            if self._stepwise:  # which may have written to the parameters
                self.network.store.refresh()
            if trainer.finished:
                self.stop(trainer.finished)
            elif plan.save and plan.every_steps and at.done % plan.every_steps == 0 and at.update < count:
                plan.save(self)
        if self.signals.raised and at.update < count:  # a resumed training finishes this epoch
            at.seconds += time.perf_counter() - started
            return
        if plan.save and self.over and at.update < len(trainer.updates):  # steps= ends within an epoch: so does this
            plan.save(self)
            self._saved = True
        record = self._read(started, first, rates[at.update - 1])
        at.epoch, at.update = at.epoch + 1, 0
        self._judge(record)
        self._tell(Callback.on_epoch.__name__, record)
        if not self.plan.keep_best:  # the others of a population go on; those that stop now keep what they hold now
            self.best.take(self.going & np.array([bool(reason) for reason in at.stopped]))
        if plan.save and at.epoch % plan.every == 0 and not self.over:
            plan.save(self)

    def _update(self, count: int) -> None:
        """Run the next updates before the epoch's `count`, but one where somebody looks at each."""
        at, plan = self.at, self.plan
        most = 1 if self._stepwise else min(self._most, count - at.update)
        if plan.save and plan.every_steps:
            most = min(most, plan.every_steps - at.done % plan.every_steps)
        started = time.perf_counter()
        done = self.trainer.update(at.update, most)
        if done == self._most and time.perf_counter() - started < STRETCH:
            self._most *= 2
        self._look()
        at.update, at.done = at.update + done, at.done + done

    @property
    def best_epochs(self) -> list[int | None]:
        """Of each model, from 1."""
        best = self.history.best_epoch
        return best if isinstance(best, list) and best else [None if isinstance(best, list) else best] * self.models

    def _rates(self, start: int, count: int) -> Array:
        """A row for each update of the epoch, a column for each model."""
        return schedules.table(self.trainer.optimizer.rate, start, count, self.network.models) * self.at.factors

    def _read(self, started: float, first: int, rates: Array) -> Record:
        """What the epoch came to: the host's only look at the device."""
        trainer, at, validation = self.trainer, self.at, self.plan.validation
        if validation is not None:
            validation.run()
        record = trainer.read(at.update)
        bad = record.pop("bad step")
        if validation is not None:
            record |= {f"validation_{name}": value for name, value in validation.read().items()}
        seconds = time.perf_counter() - started
        at.seconds += seconds
        rows = sum(sum(sizes) for sizes in trainer.updates[first : at.update])
        record["rate"] = np.array(rates)
        record["seconds"] = np.full(self.models, at.seconds)
        record["examples_per_second"] = np.full(self.models, rows / max(seconds, 1e-9))
        self.history.append(record)
        if validation is None:  # the epoch before was judged by losses that precede its last update
            first_loss = (bad == 0) & self.going
            self.best.revert(first_loss & np.array([epoch == self.history.epochs - 1 for epoch in self.best_epochs]))
        for k in np.flatnonzero((bad >= 0) & self.going):
            self.going[k] = False
            if not at.stopped[k]:
                at.stopped[k] = f"{NOT_FINITE} at epoch {at.epoch + 1}, step {int(bad[k]) + 1}"
                log.warning("training%s stops: %s", f" of model {k}" if self.network.models else "", at.stopped[k])
        return record

    def _judge(self, record: Record) -> None:
        """Keep what is best so far, lower rates that a plateau lowers, and stop the models that should stop."""
        at, monitor = self.at, self.plan.monitor
        value = record[monitor.name]
        best = np.array([monitor.worst if b is None else b for b in at.best])
        better = self.going & monitor.better(value, best)
        if self.plan.keep_best:
            self.best.take(better)
        at.best = [float(value[k]) if better[k] else at.best[k] for k in range(self.models)]
        self.history.mark_best(better)
        if self.plan.plateau is not None and at.plateau is not None:
            at.factors = self.plan.plateau.observe(at.plateau, value)
        for criterion, state in zip(self.plan.stopping, at.criteria):
            for k in np.flatnonzero(told_to_stop(criterion, state, record, self.models)):
                at.stopped[k] = at.stopped[k] or in_words(
                    f"{type(criterion).__name__} reason", criterion.reason_for(int(k), state, record)
                )

    def _end(self) -> None:
        """The best weights come back, and history says why it ended, whatever happened."""
        at, signals = self.at, self.signals
        if at.done >= self.plan.total:
            why = f"finished {at.epoch} epoch{'s' * (at.epoch != 1)}"
        else:
            why = "interrupted" if signals.interrupted else "terminated" if signals.terminated else "failed"
        self.history.stopped = [reason or why for reason in at.stopped]
        self.best.restore(self.outdone())
        self._tell_end(self.plan.callbacks)

    def outdone(self) -> Array:
        """Which models had better weights than they hold; without a best epoch, those that do not hold finite ones."""
        at, host, store = self.at, self.network.ops.to_host, self.network.store
        if not self.plan.keep_best:
            return np.array([bool(why) and not why.startswith(NOT_FINITE) for why in at.stopped])
        had = np.array([b is not None for b in at.best]) | [reason.startswith(NOT_FINITE) for reason in at.stopped]
        if not had.all():
            had |= host(self.trainer.meters.table)[self.trainer.meters.names.index("bad step")] >= 0
            for buffer in (store.values, store.state):
                had |= ~np.isfinite(host(buffer).reshape(self.models, -1)).all(axis=1)
        return had
