"""A step of a training in whatever form runs again and again at the least cost."""

from __future__ import annotations

from collections.abc import Callable


class Program:
    """The step itself; backends have other forms, which take its place in `run`."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = self.run = step

    def __call__(self, times: int = 1) -> None:
        for _ in range(times):
            self.run()
