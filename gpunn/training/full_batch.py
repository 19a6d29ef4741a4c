"""Training on the whole set as one function of the parameters."""

from __future__ import annotations

from functools import cached_property

from gpunn.backends.program import Program
from gpunn.errors import ConfigurationError
from gpunn.optimizers.lbfgs import LBFGS
from gpunn.regularization import Penalty
from gpunn.training.step import Trainer


class FullBatchTrainer(Trainer):
    """One step of L-BFGS an epoch, on the whole set as one function: each evaluation sees the same random numbers."""

    optimizer: LBFGS

    def _prepare_source(self) -> None:
        super()._prepare_source()
        if self.network.precision.half:
            raise ConfigurationError(
                "LBFGS",
                expected="a network of float32 or float64, since its line search compares losses closely",
                got=f"dtype={self.network.precision.name!r}",
                fix="use another optimizer, or make the network with dtype='float32'",
            )
        if self.network.models is not None:
            self.optimizer.refuse_population(self.network.models)
        for frame in self.constraints.frames:
            if not isinstance(frame.regularization, Penalty):
                raise ConfigurationError(
                    "LBFGS",
                    expected="penalties such as L2, which are part of the loss",
                    got=repr(frame.regularization),
                    fix="leave it out, or use another optimizer",
                )

    def _cut(self) -> list[tuple[int, ...]]:
        return [tuple(n for sizes in super()._cut() for n in sizes)]

    def update(self, i: int, most: int = 1) -> int:
        self.ops.gather(self.table, self.tick, out=self.frame.rate.reshape(1, -1))
        outcome = self.optimizer.minimize_step(self.frame, self._evaluate)
        self.finished = f"LBFGS: {outcome.reason}" if outcome.reason else ""
        if self.squares is not None:
            self.meters.rows["gradient_norm"][...] = outcome.gradient_norm**2
        self._advance(0, draws=0)
        return 1

    def close(self) -> None:
        super().close()
        vars(self).pop("function", None)

    def _evaluate(self) -> float:
        """Loss and gradient, penalties included, at the network's present values."""
        self.function()
        rows = sum(self.updates[0]) if self.loss.reduction == "mean" else 1.0
        return float(self.meters.read()["loss"][0] / rows + float(self.ops.to_host(self.penalty)))

    @cached_property
    def function(self) -> Program:
        """The program of an evaluation."""
        self.penalty = self.ops.zeros((), self.network.dtype)

        def program() -> None:
            self.ops.fill(self.cursor, 0)
            self.meters.begin()
            self.ops.fill(self.penalty, 0)
            self._gradients(self.updates[0], self.probes, draws=0)
            self.constraints.before()
            self.constraints.penalty(self.penalty)

        return self.ops.program(program, own=self.own, models=self.network.models)
