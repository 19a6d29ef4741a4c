"""NumPy on the CPU. The reference defines what the operations compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpunn.backends.cpu import elements, indexing, normalization, products, random, reductions, rows
from gpunn.backends.cpu.model_threads import ModelThreads
from gpunn.backends.cpu.recording import RecordedStep, Recorder, recorded
from gpunn.backends.cpu.scratch import Scratch
from gpunn.backends.cpu.tiles import TiledFormulas
from gpunn.backends.operation import operations_from
from gpunn.backends.program import Program
from gpunn.backends.reference.backend import Backend


@operations_from(elements, products, reductions, rows, normalization, indexing, random, wrap=recorded)
class NumpyBackend(Backend):
    """Formulas in tiles, and reductions and row operations with `out=`, so that a step allocates next to nothing.

    Operations call NumPy through `do`, so that a step can be recorded as a list of calls.
    """

    name = "cpu"
    precisions = ("float32", "float64")

    def __init__(self, formulas: TiledFormulas | None = None) -> None:
        super().__init__()
        self.formulas = formulas or TiledFormulas()
        self.scratch = Scratch()
        self.recorder = Recorder()
        self.do = self.recorder.do

    # Programs

    @property
    def recorded_with(self) -> tuple[object, ...]:
        """A record is replayed only while this stays equal: thread, version of the kernels, and model threads."""
        return self.recorder.thread_token, self.formulas.version, self.recorder.model_threads

    def program(self, step: Callable[[], None], *, recordable: bool = True, models: int | None = None) -> Program:
        if not recordable or os.environ.get("GPUNN_CAPTURE", "1") == "0":
            return Program(step)
        return RecordedStep(self, step, models)

    @contextmanager
    def threads_by_model(self, models: int, threads: int) -> Iterator[Callable[[int], None]]:
        before = self.recorder.model_threads
        self.recorder.model_threads = made = ModelThreads(models, threads)
        try:
            yield made.use
        finally:
            self.recorder.model_threads = before
            made.close()
