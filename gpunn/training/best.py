"""The best weights so far of each model, kept on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.formula.tracing import elementwise
from gpunn.engine import Engine
from gpunn.types import Array


@elementwise
def choose(xp: Any, taken: Any, new: Any, old: Any) -> Any:
    return xp.where(taken > 0.0, new, old)


class Best:
    """Copies of parameters and state: `latest` from the best epoch, `before` from the best epoch before that one.

    At first both are the initial ones. Each takes as much memory as the parameters, and is left out where not needed.
    """

    def __init__(self, network: Engine, *, latest: bool = True, before: bool = True) -> None:
        self.ops, self.store = network.ops, network.store
        self.held = [buffer for buffer in (self.store.values, self.store.state) if buffer.size]
        self.latest, self.before = (
            [self._copy(buffer) for buffer in self.held] if wanted else [] for wanted in (latest, before)
        )

    def take(self, members: Array) -> None:
        """Copy the present weights of these models."""
        self._blend(members, self.before, self.latest)
        self._blend(members, self.latest, self.held)

    def revert(self, members: Array) -> None:
        """For these models, go back to the copy before the latest one."""
        self._blend(members, self.latest, self.before)

    def restore(self, members: Array) -> None:
        """Give these models their best weights back."""
        self._blend(members, self.held, self.latest)

    def arrays(self) -> dict[str, Array]:
        """The arrays for a checkpoint."""
        return dict(zip(("best values", "best state"), self.latest))

    def _copy(self, buffer: Array) -> Array:
        copy = self.ops.empty(buffer.shape, buffer.dtype)
        self.ops.copy(buffer, out=copy)
        return copy

    def _blend(self, members: Array, targets: list[Array], sources: list[Array]) -> None:
        """Copy sources to targets for some of the models."""
        if members.all():
            for target, source in zip(targets, sources):
                self.ops.copy(source, out=target)
        elif members.any():
            taken = self.ops.from_host(members.astype(np.float64)[:, None], self.store.dtype)
            for target, source in zip(targets, sources):
                self.ops.elementwise(choose, (taken, source, target), (target,))
