"""Ctrl-C and SIGTERM while training: each sets a flag, which the training reads between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_ON_TERMINATION = 128 + signal.SIGTERM

_active: list[Signals] = []  # in the main thread, the innermost training last
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_active.clear)  # the parent process trains, the child does not


class Signals:
    """While active, the first Ctrl-C sets `interrupted` and a second one raises; SIGTERM sets `terminated`.

    If a training runs inside another, as from a callback, a signal ends both: each at its next step. A training that
    begins after the signal ends before its first step.

    Python runs handlers in the main thread only; in other threads nothing is installed. An ignored signal stays
    ignored, such as Ctrl-C in a program that a shell script runs in the background.
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
            if self.outer is not None:  # read now: a signal that came before set the outer flags
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
        """Whether to end the process after this training; an inner training leaves that to the outer one."""
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
