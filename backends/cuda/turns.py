"""Threads take turns at giving work to a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Turns:
    """`with turns:` one thread at a time, whose work the device does after all that was given before.

    Scratch, the workspace of products and their descriptors serve all threads: what one operation launches must not
    mix with what another launches, neither on the host nor, where threads have streams of their own, on the device.
    """

    def __init__(self, cupy: Any, activate: Callable[[], None]) -> None:
        self._cuda, self._activate = cupy.cuda, activate
        self._lock = threading.RLock()
        self._depth = 0
        self._last: Any = None  # the stream that was given work last
        self.capturing = False  # then streams stay as they are: a capture may not wait for what lies outside of it

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1 and not self.capturing:
            self._follow()

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        self._lock.release()

    def _follow(self) -> None:
        """Let the current stream wait for the one before, if that is another."""
        self._activate()  # each device has a current stream
        stream = self._cuda.get_current_stream()
        if self._last is not None and stream.ptr != self._last.ptr:
            stream.wait_event(self._last.record())
        self._last = stream
