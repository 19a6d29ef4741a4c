"""Who decides after each epoch which weights are the best and which models stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from gpunn.engine import Engine
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.best import Best
from gpunn.training.history import History
from gpunn.training.measures import Measures
from gpunn.training.standing import NOT_FINITE, Standing
from gpunn.training.stopping import Monitor, Stopping, in_words, state_of, told_to_stop
from gpunn.types import Array

Record = Mapping[str, Array]


class Judge(Protocol):
    """What a training asks. Models are told apart by arrays of K truth values."""

    best: Best  # copies of the best weights

    def begin(self) -> Standing:
        """Where a training stands that has not begun."""

    def judge(self, at: Standing, record: Record, history: History, going: Array, first_bad: Array) -> None:
        """Keep what is best so far, and stop the models that should stop.

        `going` are models that came through the epoch, `first_bad` those whose very first loss in it was not finite.
        """

    def keep_last(self, at: Standing, going: Array) -> None:
        """Of models that have just stopped and are to end with their last weights, when callbacks have been asked."""

    def had_better(self, at: Standing) -> Array:
        """Which models had better weights than they hold, and are to get them back in the end."""


class MonitorJudge:
    """The best epoch is that of the best monitored figure; criteria stop models, a plateau lowers their rates."""

    def __init__(
        self, network: Engine, measures: Measures, monitor: Monitor, *, stopping: tuple[Stopping, ...],
        plateau: ReduceOnPlateau | None, keep_best: bool, validates: bool,
    ) -> None:  # fmt: skip
        self.network, self.measures, self.models = network, measures, network.models or 1
        self.monitor, self.stopping, self.plateau, self.keep_best = monitor, stopping, plateau, keep_best
        # What is judged by a validation set is judged as it is; one model that keeps its last weights holds them.
        self.best = Best(network, latest=keep_best or network.models is not None, before=keep_best and not validates)
        self.validates = validates

    def begin(self) -> Standing:
        return Standing(
            best=[None] * self.models,
            stopped=[""] * self.models,
            criteria=[state_of(criterion, self.models) for criterion in self.stopping],
            plateau=self.plateau.begin(self.models) if self.plateau else None,
            factors=[1.0] * self.models,
        )

    def judge(self, at: Standing, record: Record, history: History, going: Array, first_bad: Array) -> None:
        if not self.validates:  # the epoch before was judged by losses that precede its last update
            was_best = np.array([epoch == history.epochs - 1 for epoch in self._best_epochs(history)])
            self.best.revert(first_bad & was_best)
        value = record[self.monitor.name]
        best = np.array([self.monitor.worst if b is None else b for b in at.best])
        better = going & self.monitor.better(value, best)
        if self.keep_best:
            self.best.take(better)
        at.best = [float(value[k]) if better[k] else at.best[k] for k in range(self.models)]
        history.mark_best(better)
        if self.plateau is not None and at.plateau is not None:
            at.factors = self.plateau.observe(at.plateau, value)
        self._stop(at, record)

    def _best_epochs(self, history: History) -> list[int | None]:
        """Of each model, from 1."""
        best = history.best_epoch
        return best if isinstance(best, list) and best else [None if isinstance(best, list) else best] * self.models

    def _stop(self, at: Standing, record: Record) -> None:
        for criterion, state in zip(self.stopping, at.criteria):
            for k in np.flatnonzero(told_to_stop(criterion, state, record, self.models)):
                at.stopped[k] = at.stopped[k] or in_words(
                    f"{type(criterion).__name__} reason", criterion.reason_for(int(k), state, record)
                )

    def keep_last(self, at: Standing, going: Array) -> None:
        if not self.keep_best:  # the others of a population go on
            self.best.take(going & ~at.going)

    def had_better(self, at: Standing) -> Array:
        """Without a best epoch, those that do not hold finite weights."""
        diverged = np.array([why.startswith(NOT_FINITE) for why in at.stopped])
        if not self.keep_best:
            return ~at.going & ~diverged
        had: Array = np.array([b is not None for b in at.best]) | diverged
        if not had.all():
            had |= self.measures.has_bad_step()
            for buffer in (self.network.store.values, self.network.store.state):
                had |= ~np.isfinite(self.network.ops.to_host(buffer).reshape(self.models, -1)).all(axis=1)
        return had
