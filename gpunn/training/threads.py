"""How many threads work while a network is trained on the CPU: threads of BLAS or of gpunn.

The number of BLAS's threads belongs to the whole process (even OpenBLAS's `openblas_set_num_threads_local` changes it
for all). So all trainings and predictions that run at the same time in a process share it. Only if BLAS takes its
threads from OpenMP does each thread of the program have its own number.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from gpunn import cores
from gpunn.engine import Engine
from gpunn.training.watch import Watch

MODELS = 4  # the fewest models for each thread, so that all threads have about the same work
SMALL = 1e8  # operations in a step: about a millisecond on one core
CheckCores = Callable[[], None]  # a training calls it between updates


def check_nothing() -> None:
    """For a training whose number of threads never changes."""


def threads_for(
    network: Engine, rows: int, *, fixed: bool = False, recorded: bool = True
) -> AbstractContextManager[CheckCores]:
    """One thread if steps of so many rows are small; else as many as BLAS has and the cores can run at once.

    The block gets a function to call between two updates. For larger steps it uses fewer threads while other programs
    need the cores (see `Watch`), unless the number is `fixed`. If steps are `recorded`, a population of many models
    has threads of gpunn instead, each of which computes whole steps for some of the models.

    Small steps gain almost nothing from a second thread. While something else runs, they would become many times
    slower, because threads wait for each other at every product. A step multiplies each row three times with every
    parameter of every model: forward, backward, and for the gradient.
    """
    if network.ops.device != "cpu":
        return nullcontext(check_nothing)
    if 6 * network.store.values.size * rows <= SMALL:
        return one_thread(fixed=fixed)
    threads = blas_threads()
    if network.models and network.models >= MODELS * threads > MODELS and recorded:
        return by_model(network, network.models, threads, fixed)
    return _steady(threads, fixed=True) if fixed else _watched(threads)


@dataclass(eq=False)
class Claim:
    """How many threads one training wants."""

    threads: int
    fixed: bool


class Claims:
    """The claims of all trainings that run at the same time; they may begin and end in any order.

    BLAS gets the smallest number that any of them wants, and after the last one ends its old number. While one claim
    is fixed, its number holds; a second fixed claim takes the number of the first.
    """

    def __init__(self, *, by_thread: bool = False) -> None:
        self.by_thread = by_thread
        self._lock = threading.Lock()
        self._claims: list[Claim] = []
        self._found: dict[Any, int] = {}  # threads of each library before the first claim

    def begin(self, claim: Claim) -> None:
        with self._lock:
            if not self._claims:
                self._found = self._counts()
            if claim.fixed and (first := self._first_fixed()) is not None:
                claim.threads = first.threads
            self._claims.append(claim)
            self._apply()

    def end(self, claim: Claim) -> None:
        with self._lock:
            self._claims.remove(claim)
            self._apply()

    def change(self, claim: Claim, threads: int) -> None:
        with self._lock:
            claim.threads = threads
            self._apply()

    def most(self) -> int:
        """The threads that BLAS has without any claim."""
        with self._lock:
            return max((self._found if self._claims else self._counts()).values(), default=1)

    def _counts(self) -> dict[Any, int]:
        libraries = _libraries().lib_controllers
        return {library: library.num_threads for library in libraries if _by_thread(library) == self.by_thread}

    def _first_fixed(self) -> Claim | None:
        return next((claim for claim in self._claims if claim.fixed), None)

    def _apply(self) -> None:
        first = self._first_fixed()
        claims = [first] if first else self._claims
        for library, found in self._found.items():
            threads = min((found, *(claim.threads for claim in claims)))
            if library.num_threads != threads:
                _set_threads(library, threads)


class OwnClaims(threading.local):
    """The claims of trainings that run inside one another in this thread."""

    def __init__(self) -> None:
        self.claims = Claims(by_thread=True)


_process, _thread = Claims(), OwnClaims()


def _by_thread(library: Any) -> bool:
    """Whether each thread has its own number of BLAS threads, as with OpenMP; else the process has one."""
    return getattr(library, "threading_layer", None) == "openmp"


def _set_threads(library: Any, threads: int) -> None:
    # Since version 3.8 threadpoolctl lets only one thread at a time change the number of the process, and silently
    # ignores others. Here every training may change it.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


@contextmanager
def claimed(claim: Claim) -> Iterator[Callable[[int], None]]:
    """BLAS has at most this many threads in the block, which gets a function that changes the number."""
    scopes = _process, _thread.claims

    def change(threads: int) -> None:
        for scope in scopes:
            scope.change(claim, threads)

    with ExitStack() as stack:
        for scope in scopes:
            scope.begin(claim)
            stack.callback(scope.end, claim)
        yield change


@contextmanager
def _steady(threads: int, *, fixed: bool) -> Iterator[CheckCores]:
    with claimed(Claim(threads, fixed)):
        yield check_nothing


def one_thread(*, fixed: bool = False) -> AbstractContextManager[CheckCores]:
    """BLAS has one thread in the block, whatever other programs do."""
    return _steady(1, fixed=fixed)


@contextmanager
def _watched(threads: int) -> Iterator[CheckCores]:
    """This many threads, and fewer while other programs need the cores."""
    with claimed(Claim(threads, False)) as change:
        yield Watch(threads, change).check if threads > 1 else check_nothing


@contextmanager
def by_model(network: Engine, models: int, threads: int, fixed: bool) -> Iterator[CheckCores]:
    """Threads of gpunn in place of BLAS's, each for some of the models."""
    with one_thread(fixed=fixed) as check, network.ops.threads_by_model(models, threads) as change:
        yield check if fixed else Watch(threads, change).check


def blas_threads() -> int:
    """The threads that a product may use: no more than can run at once."""
    return min(max(_process.most(), _thread.claims.most()), cores.most_threads())


@functools.cache
def _libraries() -> Any:
    """The BLAS libraries that are loaded when the first network is trained; kept, because the search is slow."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
