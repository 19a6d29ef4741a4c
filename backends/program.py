"""Programs: a step of a training, prepared so that running it many times costs little."""

from __future__ import annotations

from collections.abc import Callable


class Program:
    """Runs the step as it is. The subclasses of backends record or capture it, and then run that in place of it."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = self.run = step

    def __call__(self, times: int = 1) -> None:
        for _ in range(times):
            self.run()
