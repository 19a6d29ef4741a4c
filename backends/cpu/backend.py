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
from gpunn.backends.operation import around_operations
from gpunn.backends.program import Program
from gpunn.backends.reference.backend import Backend


@around_operations(recorded)
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
        """What a record depends on: the thread and its scratch, the kernels of formulas, and who shares the models."""
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

    # Operations that NumPy does in a way of its own; the others are those of `Backend`

    elementwise = elements.elementwise
    copy = elements.copy
    fill = elements.fill

    matmul = products.matmul
    affine = products.affine

    sum = reductions.sum
    sum_product = reductions.sum_product
    total = reductions.total

    softmax = rows.softmax
    softmax_gradient = rows.softmax_gradient
    log_softmax = rows.log_softmax
    log_softmax_gradient = rows.log_softmax_gradient
    softmax_cross_entropy = rows.softmax_cross_entropy

    row_means = normalization.row_means

    gather = indexing.gather
    batch = indexing.batch
    lookup = indexing.lookup
    lookup_gradient = indexing.lookup_gradient

    random_words = random.random_words
    random_bits = random.random_bits
    random_uniform = random.random_uniform
    random_normal = random.random_normal
    permutation = random.permutation
