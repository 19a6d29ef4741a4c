"""Steps of a population that two threads share."""

from collections.abc import Callable

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cpu.model_threads import ThreadedRecord


def run_steps(step: Callable[[NumpyBackend], None], models: int, steps: int, count: int = 2) -> ThreadedRecord:
    """Run so many steps one by one, then as many more in one call."""
    backend = NumpyBackend()
    with backend.threads_by_model(models, count):
        program = backend.program(lambda: step(backend), models=models)
        for _ in range(steps):
            program()
        program(steps)
        record: ThreadedRecord = program.record  # type: ignore[attr-defined]
        return record
