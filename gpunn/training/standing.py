"""How far a training has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.types import Array

NOT_FINITE = "non-finite loss"


@dataclass
class Standing:
    """How far a training has come: all that a checkpoint needs besides arrays and history."""

    epoch: int = 0  # finished epochs
    update: int = 0  # finished updates of the present epoch
    done: int = 0  # finished updates of all epochs
    seconds: float = 0.0
    best: list[float | None] = field(default_factory=list)  # the best value of the monitored figure, for each model
    stopped: list[str] = field(default_factory=list)  # why each model stopped; "" while it goes on
    criteria: list[dict[str, Any]] = field(default_factory=list)  # the state of each criterion
    plateau: dict[str, Any] | None = None
    factors: list[float] = field(default_factory=list)  # what the rate of each model is multiplied by

    @property
    def going(self) -> Array:
        """Which models have not stopped."""
        return np.array([not reason for reason in self.stopped])

    def stop(self, why: str) -> None:
        """Stop all models that go on."""
        self.stopped = [known or why for known in self.stopped]
