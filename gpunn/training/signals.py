"""Ctrl-C and SIGTERM while training: a flag each, acted upon between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_ON_TERMINATION = 128 + signal.SIGTERM

_active: list[Signals] = []  # of the main thread, the innermost one last
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_active.clear)  # what the parent trains is not the child's


class Signals:
    """While active, the first Ctrl-C sets `interrupted` and a second one raises; SIGTERM sets `terminated`.

    Where a training runs within another, as from a callback, a signal is for both: each ends at its next step, and
    what is begun after the signal ends before its first one.

    Python runs handlers in the main thread only; elsewhere nothing is installed and signals do what they did. One that
    is ignored, as Ctrl-C is in what a shell script runs in the background, stays so.
    """

    def __init__(self) -> None:
        self.interrupted = self.terminated = False
        self.outer: Signals | None = None  # of the training around this one
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.outer = _active[-1] if _active else None
            _active.append(self)
            handlers = {signal.SIGINT: self._interrupt, signal.SIGTERM: self._terminate}
            handlers = {n: h for n, h in handlers.items() if signal.getsignal(n) not in (signal.SIG_IGN, None)}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
            if self.outer is not None:  # only now: a signal that comes before is the outer one's
                self.interrupted |= self.outer.interrupted
                self.terminated |= self.outer.terminated
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self in _active:
            _active.remove(self)

    @property
    def raised(self) -> bool:
        return self.interrupted or self.terminated

    @property
    def exits(self) -> bool:
        """Whether the process is to end with this training: the outer one, if there is one, has to end before."""
        return self.terminated and self.outer is None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        for signals in self._and_around():
            signals.interrupted = True

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        for signals in self._and_around():
            signals.terminated = True

    def _and_around(self) -> list[Signals]:
        around, outer = [self], self.outer
        while outer is not None:
            around, outer = [*around, outer], outer.outer
        return around
