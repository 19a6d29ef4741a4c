"""How many threads work while a network is trained on the CPU, and whose they are: BLAS's or gpunn's own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gpunn.engine import Engine
from gpunn.value import is_own

MODELS = 4  # for each thread, so that no share is much larger than another
SMALL = 1e8  # operations of a step, about a millisecond of one core


def threads_for(network: Engine, rows: int) -> AbstractContextManager[None]:
    """One thread for steps of so many rows if they are small, else as many as BLAS has.

    A population of many models has threads of gpunn's own, each of which does all of a step for a share of the models.

    On idle cores a second thread would save a fraction of a second in all; where something else runs, threads that wait
    for each other at every product make such a training many times slower. A step multiplies each row three times with
    every parameter of every model: on, back, and for the gradient.
    """
    if network.ops.device != "cpu":
        return nullcontext()
    if 6 * network.store.values.size * rows <= SMALL:
        return one_thread()
    return by_model(network) if network.models else nullcontext()


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


@contextmanager
def by_model(network: Engine) -> Iterator[None]:
    """Threads of gpunn's own in place of those of BLAS, if there are so many models that none has long to wait."""
    threads = blas_threads()
    if threads < 2 or network.models is None or network.models < MODELS * threads or not is_own(network.network):
        yield
        return
    with one_thread(), network.ops.sharing_models(network.models, threads):
        yield


def blas_threads() -> int:
    """As many as a product may take now."""
    return max((library["num_threads"] for library in _libraries().info()), default=1)


@functools.cache
def _libraries() -> Any:
    """Those that are loaded when the first network is trained, NumPy's among them; looking for them takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
