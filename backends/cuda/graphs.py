"""Captures steps as CUDA graphs, so that one launch runs a step instead of dozens."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from gpunn.backends.cuda.detection import raise_if_lost
from gpunn.backends.program import Program
from gpunn.errors import DeviceLostError

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend

log = logging.getLogger("gpunn")


class Graphs:
    """Captures steps of one backend; `obstacle` is the reason if no step can be captured, else empty."""

    def __init__(self, ops: CupyBackend, obstacle: str) -> None:
        self.ops, self.obstacle = ops, obstacle
        self._stream: Any = None
        self._told: set[str] = set()

    def program(self, step: Callable[[], None]) -> Program:
        """A program that runs the step as it is the first time, which compiles kernels, chooses the algorithms of
        products and allocates scratch; then captures it, and launches the graph from the second run on.

        A step that cannot be captured runs without a graph, and the log says why, once. With GPUNN_CAPTURE=0 all do.
        """
        if os.environ.get("GPUNN_CAPTURE", "1") == "0":
            return Program(step)
        if self.obstacle:
            self.log_once(self.obstacle)
            return Program(step)
        return CapturedStep(self.ops, step)

    def capture(self, step: Callable[[], None]) -> Any:
        """The graph of the step; the device does none of its work yet. Afterwards the current stream is the same as
        before, also after an error.

        The step must not allocate: others could get the memory once the step has freed it, while the graph still writes
        to it.
        """
        turns = self.ops.turns
        with turns:
            self.ops.activate()
            turns.capturing = True
            try:
                return self._captured(step)
            finally:
                turns.capturing = False

    def _captured(self, step: Callable[[], None]) -> Any:
        cuda = self.ops.xp.cuda
        if self._stream is None:
            self._stream = cuda.Stream(non_blocking=True)
        with self._stream as stream, cuda.using_allocator(_refuse_memory), _no_collection():
            # Of this thread only: another thread may upload the next chunk of data meanwhile.
            stream.begin_capture(cuda.runtime.streamCaptureModeThreadLocal)
            try:
                step()
            except BaseException:
                with suppress(Exception):  # CUDA raises an error again, because the capture has failed
                    stream.end_capture()
                raise
            return stream.end_capture()

    def log_once(self, reason: str) -> None:
        """Log, once, why steps are not captured."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning("training steps on %s run kernel by kernel, not as one graph: %s", self.ops.device, reason)


class CapturedStep(Program):
    """Runs a step as it is, then captures it, then launches the graph. A graph contains addresses only, so `step` keeps
    the arrays alive, and `ops` the kernels, scratch and workspace."""

    def __init__(self, ops: CupyBackend, step: Callable[[], None]) -> None:
        super().__init__(step)
        self.ops, self.run = ops, self._first

    def _first(self) -> None:
        self.step()
        self.run = self._second

    def _second(self) -> None:
        try:
            self.graph = self.ops.graphs.capture(self.step)
        except DeviceLostError:
            raise
        except Exception as error:
            self.ops.graphs.log_once(f"{type(error).__name__}: {error}")
            self.run = self.step
        else:
            self.run = self._launch
        self.run()

    def _launch(self) -> None:
        try:
            with self.ops.turns:
                self.ops.activate()
                self.graph.launch()
        except RuntimeError as error:
            raise_if_lost(error, self.ops.device)
            raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """Turn garbage collection off: it could destroy an older graph, which makes a capture fail."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _refuse_memory(size: int) -> NoReturn:
    raise RuntimeError(f"the step takes {size} bytes of memory")
