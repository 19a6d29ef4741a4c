"""gpunn again, with its elementwise formulas compiled to loops: what the extra `jit` makes of it."""

from __future__ import annotations

import functools

from benchmarks.cases import Problem, Training
from benchmarks.peers import ours
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.numba.loops import LoopFormulas


@functools.cache
def device() -> NumpyBackend:
    """The CPU, every loop compiled at its first call: none is waited for while the clock runs."""
    return NumpyBackend(LoopFormulas(patient=False))


class Steps(ours.Steps):
    """The steps of gpunn itself, which begins with the same weights in the same order."""

    def __init__(self, problem: Problem, kind: str) -> None:
        super().__init__(problem.case, device())


def fit(training: Training) -> list[float]:
    return ours.fit(training, device())
