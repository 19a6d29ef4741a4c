"""How many threads BLAS multiplies with while a network is trained on the CPU."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gpunn.engine import Engine

SMALL = 1e8  # operations of a step, about a millisecond of one core


def threads_for(network: Engine, rows: int) -> AbstractContextManager[None]:
    """One thread for steps of so many rows if they are small, else as many as there are.

    On idle cores a second thread would save a fraction of a second in all; where something else runs, threads that wait
    for each other at every product make such a training many times slower. A step multiplies each row three times with
    every parameter of every model: on, back, and for the gradient.
    """
    small = 6 * network.store.values.size * rows <= SMALL
    return one_thread() if small and network.ops.device == "cpu" else nullcontext()


_turn = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """The number belongs to the whole process, so of trainings beside or within one another only the first changes it,
    and brings back what it found; the others take what there is."""
    if not _turn.acquire(blocking=False):
        yield
        return
    try:
        with _libraries().limit(limits=1):
            yield
    finally:
        _turn.release()


@functools.cache
def _libraries() -> Any:
    """Those that are loaded when the first network is trained, NumPy's among them; looking for them takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
