"""Steps captured as CUDA graphs: what would be dozens of launches becomes one."""

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
    """Captures steps of one backend; `uncaptured` says why it does not, and is empty where it does."""

    def __init__(self, ops: CupyBackend, uncaptured: str) -> None:
        self.ops, self.uncaptured = ops, uncaptured
        self._stream: Any = None
        self._told: set[str] = set()

    def program(self, step: Callable[[], None]) -> Program:
        """The step itself at the first run, which compiles kernels, chooses the products' algorithms and takes scratch;
        captured before the second, and replayed from then on.

        A step that cannot be captured runs eagerly, and the log says why, once. So do all with GPUNN_CAPTURE=0.
        """
        if os.environ.get("GPUNN_CAPTURE", "1") == "0":
            return Program(step)
        if self.uncaptured:
            self.tell(self.uncaptured)
            return Program(step)
        return CapturedStep(self.ops, step)

    def capture(self, step: Callable[[], None]) -> Any:
        """What the step asks of the device, as a graph; nothing of it is done. However this ends, the current stream is
        as it was before.

        Memory is refused: what a step frees again would be handed to others while the graph still writes to it.
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
            # Of this thread alone: another one may be bringing the next chunk of the data meanwhile.
            stream.begin_capture(cuda.runtime.streamCaptureModeThreadLocal)
            try:
                step()
            except BaseException:
                with suppress(Exception):  # CUDA says again that the capture failed
                    stream.end_capture()
                raise
            return stream.end_capture()

    def tell(self, reason: str) -> None:
        """Say in the log, once, why steps are not captured."""
        if reason not in self._told:
            self._told.add(reason)
            log.warning("training steps on %s run kernel by kernel, not as one graph: %s", self.ops.device, reason)


class CapturedStep(Program):
    """A step on its way to being a graph. The graph knows addresses only, so `step` keeps its arrays alive here, and
    `ops` the kernels, scratch and workspace."""

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
            self.ops.graphs.tell(f"{type(error).__name__}: {error}")
            self.run = self.step
        else:
            self.run = self._replay
        self.run()

    def _replay(self) -> None:
        try:
            with self.ops.turns:
                self.ops.activate()
                self.graph.launch()
        except RuntimeError as error:
            raise_if_lost(error, self.ops.device)
            raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage may hold an older graph, and CUDA spoils a capture during which a graph is destroyed."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _refuse_memory(size: int) -> NoReturn:
    raise RuntimeError(f"the step takes {size} bytes of memory")
