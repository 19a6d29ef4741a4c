"""Products of many models, shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count

import numpy as np

from gpunn.types import Array

LEAST = 8_000_000  # multiplications, about 0.2 ms: calling helpers costs a quarter of that
PARTS = 4  # for each thread, so that a helper that comes late or is held up has done less, and nobody waits


class Team:
    """Threads that help the one which asks. BLAS should have one thread meanwhile."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self.pool = ThreadPoolExecutor(helpers, "gpunn")

    def close(self) -> None:
        self.pool.shutdown()

    def matmul(self, A: Array, B: Array, out: Array) -> Array:
        """Every model's product is one thread's work: the same bits whoever does it."""
        models = len(out)
        size = -(-models // (PARTS * (self.helpers + 1)))

        def product(start: int) -> None:
            part = slice(start, start + size)
            mine = [X[part] if X.ndim == 3 else X for X in (A, B)]
            np.matmul(mine[0], mine[1], out[part])

        self._share(product, range(0, models, size))
        return out

    def _share(self, work: Callable[[int], None], parts: range) -> None:
        turn = count().__next__

        def take_turns() -> None:
            while (i := turn()) < len(parts):
                work(parts[i])

        # The context has NumPy's choice of what to do about infinities. Who has not begun yet is not waited for.
        calls = [self.pool.submit(copy_context().run, take_turns) for _ in range(self.helpers)]
        try:
            take_turns()
        finally:
            for call in calls:
                if not call.cancel():
                    call.result()
