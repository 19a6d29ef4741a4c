"""A watch on the cores while a network is trained: fewer threads where others take them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gpunn import cores

log = logging.getLogger("gpunn")
LOOK = 0.4  # seconds between two looks
COST = 500  # or so many times what a look takes of a core, which is more where there are many threads
LOST = 0.25  # of a core: threads that wait for one so long are too many; on idle cores it is a hundredth at most
IN_A_ROW = 3  # such looks, so that what others do for a moment changes nothing
FREE = 0.75  # of the cores that more threads would take
CALM = 4.0  # seconds for which cores must be free before more threads are tried, twice as long after each try


class Watch:
    """How many of `most` threads pay: half as many where they wait for cores, twice as many where cores stay idle.

    BLAS's threads wait for each other at every product, so one that waits for a core holds up all. The system counts
    for each thread how long it could have run and had no core. This count is next to nothing on an idle machine,
    whatever a training does, and about half the time where two share a core; nothing must be known of how fast the
    training is when it is alone. Cores are idle again where the system says so of them. A system that counts neither
    (see `cores`) never changes the number.
    """

    def __init__(self, most: int, change: Callable[[int], None]) -> None:
        self.most = self.threads = most
        self._change = change
        self._next = time.perf_counter() + LOOK
        self._busy, self._calm, self._patience = 0, 0.0, CALM
        self._read()

    def look(self) -> None:
        """Costs nothing to speak of before the time of the next look has come."""
        now = time.perf_counter()
        if now < self._next:
            return
        before, waits, idle, used = self._at, self._waits, self._idle, time.thread_time()
        self._read()
        self._next = now + max(LOOK, COST * (time.thread_time() - used))
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
