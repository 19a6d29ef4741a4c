"""The device that the stand-in pretends to have: counters, streams, capture, and the rule for issuing work."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

Work = Callable[[], None]
STATUS = {
    "cudaErrorInvalidValue": (1, "invalid argument"),
    "cudaErrorInvalidConfiguration": (9, "invalid configuration argument"),
    "cudaErrorDevicesUnavailable": (46, "CUDA-capable device(s) is/are busy or unavailable"),
    "cudaErrorNoDevice": (100, "no CUDA-capable device is detected"),
    "cudaErrorInvalidDevice": (101, "invalid device ordinal"),
    "cudaErrorIllegalState": (401, "the operation cannot be performed in the present state"),
    "cudaErrorLaunchFailure": (719, "unspecified launch failure"),
    "cudaErrorStreamCaptureUnsupported": (900, "operation not permitted when stream is capturing"),
    "cudaErrorStreamCaptureInvalidated": (901, "operation failed due to a previous error during capture"),
}


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`: a name and a text, and `status`, the number."""

    def __init__(self, name: str, detail: str = "") -> None:
        self.status, text = STATUS[name]
        super().__init__(f"{name}: {text}" + (f" ({detail})" if detail else ""))


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""


@dataclass
class Counters:
    """What a program cost: work issued, host transfers, waits of the host, and new device arrays (views are none)."""

    launches: int = 0
    transfers: int = 0
    synchronisations: int = 0
    allocations: int = 0

    def reset(self) -> None:
        """Start again from zero."""
        for field in fields(self):
            setattr(self, field.name, 0)

    def snapshot(self) -> dict[str, int]:
        """The present counts, as a value to compare with."""
        return asdict(self)


class Machine:
    """One device. Work goes through `issue`, which runs it, or records it while the current stream captures."""

    def __init__(self, devices: int, memory: int) -> None:
        self.counters = Counters()
        self.devices = devices
        self.device = 0
        self.memory = memory
        self.live_bytes = self.peak_bytes = 0
        self.homes: dict[int, int] = {}  # the devices of memory that other libraries took, by address; others are on 0
        self.allocator: Callable[[int], Any] | None = None
        self.lost = ""  # the error that everything gives once the device is lost
        self.fiber_order = os.environ.get("GPUNN_STRICT_ORDER", "forward")
        self.null = Stream(self, null=True)
        self.current = self.null
        self._fused = 0

    @property
    def capturing(self) -> bool:
        """Whether work issued now is recorded instead of run."""
        return self.current.works is not None

    def issue(self, work: Work) -> None:
        """Send one piece of work to the current stream."""
        self.answer()
        if not self._fused:
            self.counters.launches += 1
        if self.current.works is not None:
            self.current.works.append(work)
        else:
            run(work)

    @contextmanager
    def fused(self) -> Iterator[None]:
        """What is issued inside counts as one launch."""
        if not self._fused:
            self.counters.launches += 1
        self._fused += 1
        try:
            yield
        finally:
            self._fused -= 1

    def transfer(self, direction: str, *, wait: bool, stream: "Stream | None" = None) -> None:
        """Count a copy between host and device ("H2D", "D2H"); refused while its stream, the current one unless given,
        is capturing, as in CuPy."""
        if (stream or self.current).works is not None:
            raise RuntimeError(f"the current stream is capturing, so {direction} transfers are disallowed")
        self.answer()
        self.counters.transfers += 1
        self.counters.synchronisations += wait

    def wait(self) -> None:
        """The host waits; during a capture CUDA refuses and the capture is lost."""
        self.answer()
        if self.capturing:
            self.invalidate()
        self.counters.synchronisations += 1

    def invalidate(self) -> None:
        """Refuse an operation that CUDA, and not CuPy, forbids in a capture."""
        self.current.invalid = True
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")

    def answer(self) -> None:
        """What every call does first."""
        if self.lost:
            raise CUDARuntimeError(self.lost)

    def refuse_library(self, name: str) -> None:
        """CuPy calls no library of this kind in a capture."""
        if self.capturing:
            raise NotImplementedError(f"calling {name} API during stream capture is currently unsupported")

    def allocate(self, nbytes: int) -> None:
        """Count a new device array, or fail as the pool does when the device is full; ask the allocator set, if any."""
        self.answer()
        if self.allocator is not None:
            self.allocator(nbytes)
        if self.live_bytes + nbytes > self.memory:
            raise OutOfMemoryError(
                f"Out of memory allocating {nbytes:,} bytes (allocated so far: {self.live_bytes:,} bytes)."
            )
        self.counters.allocations += 1
        self.live_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    @contextmanager
    def using_allocator(self, allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
        """As `cupy.cuda.using_allocator`, for allocators that only refuse."""
        previous, self.allocator = self.allocator, allocator
        try:
            yield
        finally:
            self.allocator = previous

    def release(self, nbytes: int) -> None:
        """Give back the memory of an array that is gone."""
        self.live_bytes -= nbytes


def run(work: Work) -> None:
    """A device gives infinities and NaNs, never warnings."""
    with np.errstate(all="ignore"):
        work()


class Stream:
    """As `cupy.cuda.Stream`. Streams run in the order of issue, so they differ only in what they capture."""

    _handles = iter(range(0x1000, 1 << 62, 16))

    def __init__(self, machine: Machine, null: bool = False, non_blocking: bool = False) -> None:
        self.machine = machine
        self.ptr = 0 if null else next(self._handles)
        self.is_non_blocking = non_blocking
        self.works: list[Work] | None = None
        self.invalid = False
        self._previous: list[Stream] = []

    def __enter__(self) -> Self:
        self._previous.append(self.machine.current)
        self.machine.current = self
        return self

    def __exit__(self, *error: object) -> None:
        self.machine.current = self._previous.pop()

    def use(self) -> "Stream":
        """Make this the current stream."""
        self.machine.current = self
        return self

    def synchronize(self) -> None:
        """Wait for the stream."""
        if self.works is not None:
            self.invalid = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self.machine.counters.synchronisations += 1

    def record(self, event: Any = None) -> Any:
        """Put an event into the stream."""
        return event if event is not None else Event(self.machine)

    def wait_event(self, event: Any) -> None:
        """Let the stream, not the host, wait for an event."""

    def begin_capture(self, mode: int | None = None) -> None:
        """Record what is issued from here on instead of running it."""
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.works is not None:
            raise CUDARuntimeError("cudaErrorIllegalState")
        self.works, self.invalid = [], False

    def end_capture(self) -> "Graph":
        """Stop recording and give the graph."""
        if self.works is None:
            raise CUDARuntimeError("cudaErrorIllegalState")
        works, self.works = self.works, None
        if self.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return Graph(self.machine, works)

    def is_capturing(self) -> bool:
        """Whether a capture is under way; raises once the capture is invalid."""
        if self.works is not None and self.invalid:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self.works is not None


class Event:
    """As `cupy.cuda.Event`; everything is done the moment it is issued."""

    def __init__(self, machine: Machine, block: bool = False, disable_timing: bool = False) -> None:
        self.machine = machine
        self.done = True

    def record(self, stream: Stream | None = None) -> None:
        """Mark the stream's present place."""

    def synchronize(self) -> None:
        """Wait for the event."""
        self.machine.wait()


class Graph:
    """Captured work. A launch runs it in order; scalars are those of the capture, buffers are read now."""

    def __init__(self, machine: Machine, works: list[Work]) -> None:
        self.machine = machine
        self.works = works

    def launch(self, stream: Stream | None = None) -> None:
        """Replay on a stream, the current one by default; one launch."""
        target = self.machine.current if stream is None else stream
        if target.works is not None:
            raise NotImplementedError("the stand-in nests no graphs")
        self.machine.answer()
        self.machine.counters.launches += 1
        for work in self.works:
            run(work)

    def upload(self, stream: Stream | None = None) -> None:
        """Prepare the launch; nothing to do here."""
