"""Judges decide after each epoch which weights are the best and which models stop."""

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
    """What a training asks of a judge. Arrays of K truth values select models."""

    best: Best  # copies of the best weights

    def begin(self) -> Standing:
        """The standing of a training that has not begun."""

    def judge(self, standing: Standing, record: Record, history: History, going: Array, first_bad: Array) -> None:
        """Keep what is best so far, and stop the models that should stop.

        `going` are the models that trained through the epoch with finite losses, `first_bad` those whose first loss in
        it was not finite.
        """

    def keep_last(self, standing: Standing, going: Array) -> None:
        """Copy the weights of models that have just stopped, if they are to end with their last weights."""

    def to_restore(self, standing: Standing) -> Array:
        """Which models get their best weights back at the end."""


class MonitorJudge:
    """The best epoch is that of the best monitored figure; criteria stop models, a plateau lowers their rates."""

    def __init__(
        self, network: Engine, measures: Measures, monitor: Monitor, *, stopping: tuple[Stopping, ...],
        plateau: ReduceOnPlateau | None, keep_best: bool, validates: bool,
    ) -> None:  # fmt: skip
        self.network, self.measures, self.models = network, measures, network.models or 1
        self.monitor, self.stopping, self.plateau, self.keep_best = monitor, stopping, plateau, keep_best
        # The validation loss belongs to the present weights, so it needs no `before`. A network of one model that ends
        # with its last weights needs no copy.
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

    def judge(self, standing: Standing, record: Record, history: History, going: Array, first_bad: Array) -> None:
        if not self.validates:  # the epoch before was judged by losses from before its last update
            was_best = np.array([epoch == history.epochs - 1 for epoch in self._best_epochs(history)])
            self.best.revert(first_bad & was_best)
        value = record[self.monitor.name]
        best = np.array([self.monitor.worst if b is None else b for b in standing.best])
        better = going & self.monitor.better(value, best)
        if self.keep_best:
            self.best.take(better)
        standing.best = [float(value[k]) if better[k] else standing.best[k] for k in range(self.models)]
        history.mark_best(better)
        if self.plateau is not None and standing.plateau is not None:
            standing.factors = self.plateau.observe(standing.plateau, value)
        self._stop(standing, record)

    def _best_epochs(self, history: History) -> list[int | None]:
        """The best epoch of each model, counted from 1."""
        best = history.best_epoch
        return best if isinstance(best, list) and best else [None if isinstance(best, list) else best] * self.models

    def _stop(self, standing: Standing, record: Record) -> None:
        for criterion, state in zip(self.stopping, standing.criteria):
            for k in np.flatnonzero(told_to_stop(criterion, state, record, self.models)):
                standing.stopped[k] = standing.stopped[k] or in_words(
                    f"{type(criterion).__name__} reason", criterion.reason_for(int(k), state, record)
                )

    def keep_last(self, standing: Standing, going: Array) -> None:
        if not self.keep_best:  # other models go on, and updates change all
            self.best.take(going & ~standing.going)

    def to_restore(self, standing: Standing) -> Array:
        """keep="last": models that stopped early. keep="best": those with a best epoch or with weights not finite."""
        diverged = np.array([why.startswith(NOT_FINITE) for why in standing.stopped])
        if not self.keep_best:
            return ~standing.going & ~diverged
        had: Array = np.array([b is not None for b in standing.best]) | diverged
        if not had.all():
            had |= self.measures.has_bad_step()
            for buffer in (self.network.store.values, self.network.store.state):
                had |= ~np.isfinite(self.network.ops.to_host(buffer).reshape(self.models, -1)).all(axis=1)
        return had
