"""Training where each step uses the whole set: the loss as a function of all parameters."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np

from gpunn.backends.program import Program
from gpunn.errors import ConfigurationError
from gpunn.opaque import Opaque
from gpunn.optimizers.base import OptimizerFrame
from gpunn.optimizers.lbfgs import LBFGS
from gpunn.recordable import Trials
from gpunn.regularization import Constraints, Penalty
from gpunn.training.probe import FlowProbe
from gpunn.training.rates import Rates
from gpunn.training.step import Gradient, after_update


class Objective:
    """Loss and penalties of the whole set, with the same random numbers in every evaluation.

    `read` adds the penalties to the loss, times `penalty_factor`; `fit` has 0 here, so that its loss has none.
    """

    def __init__(self, gradient: Gradient, constraints: Constraints, penalty_factor: float = 0.0) -> None:
        network = gradient.network
        self.gradient, self.constraints, self.penalty_factor = gradient, constraints, penalty_factor
        self._check()
        self.ops, self.meters = network.ops, gradient.measures.meters
        (self.sizes,) = gradient.source.updates
        self.penalty = self.ops.zeros((), network.dtype)
        self.probes: list[FlowProbe] = []
        self.program: Program | None = None

    def _check(self) -> None:
        network = self.gradient.network
        if network.precision.half:
            raise ConfigurationError(
                "LBFGS",
                expected="a network of float32 or float64, since its line search compares losses closely",
                got=f"dtype={network.precision.name!r}",
                fix="use another optimizer, or make the network with dtype='float32'",
            )
        for frame in self.constraints.frames:
            if not isinstance(frame.regularization, Penalty):
                raise ConfigurationError(
                    "LBFGS",
                    expected="penalties such as L2, which are part of the loss",
                    got=repr(frame.regularization),
                    fix="leave it out, or use another optimizer",
                )

    def _evaluate(self) -> None:
        self.ops.fill(self.gradient.source.cursor, 0)
        self.meters.begin()
        self.ops.fill(self.penalty, 0)
        self.gradient(self.sizes, self.probes, increment=0)
        self.constraints.before()
        self.constraints.penalty(self.penalty)

    @property
    def is_recordable(self) -> bool:
        return self.gradient.is_recordable and self.trials.recordable

    @cached_property
    def trials(self) -> Trials:
        """Trials of the parts of it that users have written."""
        trials = self.gradient.make_trials(*(frame.regularization for frame in self.constraints.frames))
        for trial in trials:
            for frame in self.constraints.frames:
                penalty = partial(frame.regularization.penalty, out=Opaque(self.penalty))
                trial.also(frame.regularization, frame, frame.regularization.add_gradient, penalty)
        return Trials(trials)

    def recheck(self) -> None:
        if self.trials.recheck():
            self.program = None

    def value(self) -> float:
        """Return the loss at the network's present parameters; its gradient is then in the gradient vector."""
        if self.program is None:
            recorded, models = self.is_recordable, self.gradient.network.models
            self.program = self.ops.program(self._evaluate, recordable=recorded, models=models)
        self.program()
        rows = sum(self.sizes) if self.gradient.loss.reduction == "mean" else 1.0
        return float(self.meters.read()["loss"][0] / rows + float(self.ops.to_host(self.penalty)))

    def read(self) -> dict[str, np.ndarray[Any, Any]]:
        """The loss and metrics of the last evaluation."""
        record = self.gradient.read(1)
        if self.penalty_factor:
            record["loss"] = record["loss"] + self.penalty_factor * self.ops.to_host(self.penalty)
        return record

    def close(self) -> None:
        """Drop the program. It refers to this objective, so its arrays would otherwise be freed late."""
        self.program = None


class FullBatchStep:
    """One step of L-BFGS in each epoch. It has the methods of `TrainingStep`, which are described there."""

    def __init__(self, objective: Objective, optimizer: LBFGS) -> None:
        gradient = objective.gradient
        if gradient.network.models is not None:
            optimizer.refuse_population(gradient.network.models)
        self.gradient, self.measures, self.source = gradient, gradient.measures, gradient.source
        self.objective, self.constraints, self.optimizer = objective, objective.constraints, optimizer
        self.frame = OptimizerFrame(gradient.ops, gradient.network.store, optimizer)
        self.rates = Rates(gradient.network, self.frame, self.measures.update)
        self.end_reason = ""

    @property
    def probes(self) -> list[FlowProbe]:
        return self.objective.probes

    @probes.setter
    def probes(self, probes: list[FlowProbe]) -> None:
        self.objective.probes = probes

    def begin(self, rates: np.ndarray[Any, Any], first_update: int = 0) -> None:
        self.gradient.network.store.refresh()
        self.measures.begin(first_update)
        self.rates.begin(rates)

    def program(self, update: int, most: int = 1) -> tuple[Program, int]:
        return Program(self._minimize), 1

    @property
    def is_recordable(self) -> bool:
        return self.objective.is_recordable

    @property
    def trials(self) -> Trials:
        return self.objective.trials

    def recheck(self) -> None:
        self.objective.recheck()

    def _minimize(self) -> None:
        self.rates.load()
        outcome = self.optimizer.minimize_step(self.frame, self.objective.value)
        self.end_reason = f"LBFGS: {outcome.reason}" if outcome.reason else ""
        if "gradient_norm" in self.measures.meters.rows:
            self.measures.meters.rows["gradient_norm"][...] = outcome.gradient_norm**2
        step, cursor, update, count = (
            self.gradient.network.step, self.source.cursor, self.measures.update, self.frame.count
        )  # fmt: skip
        # The random counter and the cursor stay: every evaluation uses the same random numbers and the whole set.
        self.gradient.ops.elementwise(after_update, (step, cursor, update, count, 0, 0), (step, cursor, update, count))

    def read(self, done: int) -> dict[str, np.ndarray[Any, Any]]:
        return self.objective.read()

    def close(self) -> None:
        self.objective.close()
