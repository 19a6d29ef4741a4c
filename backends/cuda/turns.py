"""Turns: only one thread at a time gives work to a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Turns:
    """`with turns:` admits one thread at a time, and the device does its work after all work given before.

    All threads use the same scratch, the same workspace of products and the same descriptors. So the launches of two
    operations must not mix, neither on the host nor, if threads use separate streams, on the device.
    """

    def __init__(self, cupy: Any, activate: Callable[[], None]) -> None:
        self._cuda, self._activate = cupy.cuda, activate
        self._lock = threading.RLock()
        self._depth = 0
        self._last: Any = None  # the stream that got work last
        self.capturing = False  # while True, no stream waits for another: a capture must not wait for work outside it

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1 and not self.capturing:
            self._follow()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        self._lock.release()

    def _follow(self) -> None:
        """Let the current stream wait for the one that got work before, if it is another."""
        self._activate()  # the current stream is that of the current device
        stream = self._cuda.get_current_stream()
        if self._last is not None and stream.ptr != self._last.ptr:
            stream.wait_event(self._last.record())
        self._last = stream
