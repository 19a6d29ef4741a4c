"""Ctrl-C and SIGTERM while training: a flag each, acted upon between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_ON_TERMINATION = 128 + signal.SIGTERM


class Signals:
    """While active, the first Ctrl-C sets `interrupted` and a second one raises; SIGTERM sets `terminated`.

    Python runs handlers in the main thread only; elsewhere nothing is installed and signals do what they did. One that
    is ignored, as Ctrl-C is in what a shell script runs in the background, stays so.
    """

    def __init__(self) -> None:
        self.interrupted = self.terminated = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGINT: self._interrupt, signal.SIGTERM: self._terminate}
            handlers = {n: h for n, h in handlers.items() if signal.getsignal(n) not in (signal.SIG_IGN, None)}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def raised(self) -> bool:
        return self.interrupted or self.terminated

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self.terminated = True
