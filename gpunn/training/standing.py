"""Where a training stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.types import Array

NOT_FINITE = "non-finite loss"


@dataclass
class Standing:
    """Besides arrays and history, all that a checkpoint needs to go on from there."""

    epoch: int = 0  # finished ones
    update: int = 0  # within the epoch
    done: int = 0  # updates in all
    seconds: float = 0.0
    best: list[float | None] = field(default_factory=list)  # of the monitored figure, for each model
    stopped: list[str] = field(default_factory=list)  # why, for each model; "" while it goes on
    criteria: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, Any] | None = None
    factors: list[float] = field(default_factory=list)  # of the rate, for each model

    @property
    def going(self) -> Array:
        """Which models go on."""
        return np.array([not reason for reason in self.stopped])

    def stop(self, why: str) -> None:
        """All that go on."""
        self.stopped = [known or why for known in self.stopped]
