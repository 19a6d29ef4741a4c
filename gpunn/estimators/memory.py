"""What an estimator keeps from one training for the next, with warm_start or partial_fit, even after pickling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpunn.backends.reference.backend import Backend
from gpunn.engine import Engine
from gpunn.estimators.rules import Rules
from gpunn.optimizers.base import OptimizerFrame
from gpunn.training.best import Best
from gpunn.types import Array


@dataclass
class Memory:
    """The rules and their state; the optimizer's moments and count; the best weights; a held-out set."""

    rules: Rules
    steps: int = 0  # updates since the optimizer was new
    moments: Mapping[str, Array] = field(default_factory=dict)
    best: Mapping[str, Array] = field(default_factory=dict)
    held_out: tuple[Any, ...] | None = None

    def forget_steps(self) -> None:
        """Let the next training start with a new optimizer."""
        self.steps, self.moments, self.rules.factor, self.rules.ended = 0, {}, 1.0, False

    def continue_with(self, frame: OptimizerFrame) -> None:
        """Give an optimizer the state of the last one, if that has the same arrays; keep the new one's arrays."""
        state = frame.state()
        if {n: a.shape for n, a in state.items()} == {n: a.shape for n, a in self.moments.items()}:
            _write(frame.ops, self.moments, state)
        self.moments = state

    def best_of(self, network: Engine) -> Best:
        """The store of the best weights, with those of earlier calls in it."""
        best = Best(network, before=False)
        _write(network.ops, self.best, best.arrays())
        self.best = best.arrays()
        return best

    def on_host(self, ops: Backend) -> Memory:
        """The same with all arrays on the host."""

        def host(array: Any) -> Any:
            return ops.to_host(array) if ops.owns(array) else array

        moments, best = ({name: host(array) for name, array in kept.items()} for kept in (self.moments, self.best))
        return Memory(self.rules, self.steps, moments, best, self.held_out and tuple(map(host, self.held_out)))


def _write(ops: Backend, source: Mapping[str, Array], target: Mapping[str, Array]) -> None:
    for name, array in source.items():
        ops.copy(array if ops.owns(array) else ops.from_host(array), out=target[name])
