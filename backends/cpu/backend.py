"""NumPy on the CPU; see `Backend` for what every operation means."""

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


@operations_from(elements, products, reductions, rows, normalization, indexing, random, around=recorded)
class NumpyBackend(Backend):
    """Tiled formulas, reductions and row operations with `out=`; nothing is allocated that is held.

    Operations do their work through `do`, so that a step can be written down as the calls that it makes.
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
        """What a record depends on: the thread with its scratch, the kernels of formulas, the model threads."""
        return self.recorder.thread, self.formulas.edition, self.recorder.model_threads

    def program(self, step: Callable[[], None], *, recorded: bool = True, models: int | None = None) -> Program:
        if not recorded or os.environ.get("GPUNN_CAPTURE", "1") == "0":
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
