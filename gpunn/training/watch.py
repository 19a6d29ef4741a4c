"""Fewer threads for a training while other programs need the cores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gpunn import cores

log = logging.getLogger("gpunn")
PERIOD = 0.4  # seconds between two checks
COST = 500  # but at least so many times as long as a check takes, which is longer with many threads
LOST = 0.25  # the share of time that threads may wait for a core; on idle cores it is at most 0.01
IN_A_ROW = 3  # checks with too much waiting before threads are taken away
FREE = 0.75  # the share of the cores for more threads that must be free
CALM = 4.0  # seconds that cores must be free before more threads are tried; doubled after each try


class Watch:
    """Halves the number of threads when they wait for cores, and doubles it, up to `most`, when cores are idle.

    BLAS's threads wait for each other at every product, so one that has no core holds up all. The operating system
    counts for each thread how long it was ready to run and had no core: almost nothing on an idle machine, about half
    the time if two threads share a core. It also counts how long cores are idle. Where it counts neither (see `cores`),
    the number of threads never changes.
    """

    def __init__(self, most: int, change: Callable[[int], None]) -> None:
        self.most = self.threads = most
        self._change = change
        self._next = time.perf_counter() + PERIOD
        self._busy, self._calm, self._patience = 0, 0.0, CALM
        self._read()

    def check(self) -> None:
        """Check the cores if it is time; else it costs almost nothing."""
        now = time.perf_counter()
        if now < self._next:
            return
        before, waits, idle, used = self._at, self._waits, self._idle, time.thread_time()
        self._read()
        self._next = now + max(PERIOD, COST * (time.thread_time() - used))
        seconds = self._at - before
        self._busy = self._busy + 1 if cores.waited(waits, self._waits) > LOST * seconds else 0
        if self._busy >= IN_A_ROW and self.threads > 1:
            self._fewer()
        elif self.threads < self.most:
            free = 0.0 if idle is None or self._idle is None else (self._idle - idle) / seconds
            wanted = min(2 * self.threads, self.most)
            self._calm = self._calm + seconds if free >= FREE * (wanted - self.threads) else 0.0
            if self._calm >= self._patience:
                self._more(wanted)

    def _read(self) -> None:
        self._at, self._waits, self._idle = time.perf_counter(), cores.waits(), cores.idle_seconds()

    def _fewer(self) -> None:
        log.warning("cores are taken by others: training goes on with %d of %d threads", self.threads // 2, self.most)
        self._set(self.threads // 2)

    def _more(self, wanted: int) -> None:
        log.info("cores are free: training goes on with %d of %d threads", wanted, self.most)
        self._patience *= 2
        self._set(wanted)

    def _set(self, threads: int) -> None:
        self.threads, self._busy, self._calm = threads, 0, 0.0
        self._change(threads)
