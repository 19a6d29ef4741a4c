"""How many threads work while a network is trained on the CPU, and whose they are: BLAS's or gpunn's own.

The number of BLAS's threads belongs to the whole process (OpenBLAS's `openblas_set_num_threads_local` changes it for
all as well). So trainings that run in one process at a time share it, and what predicts beside them has it, too. Only
where BLAS takes its threads from OpenMP has each thread of the program a number of its own.
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

MODELS = 4  # for each thread, so that no share is much larger than another
SMALL = 1e8  # operations of a step, about a millisecond of one core
Look = Callable[[], None]  # what a training calls between its updates


def no_look() -> None:
    """Of a training whose number of threads stays as it is."""


def threads_for(
    network: Engine, rows: int, *, fixed: bool = False, recorded: bool = True
) -> AbstractContextManager[Look]:
    """One thread for steps of so many rows if they are small, else as many as BLAS has and cores can run at once.

    What is given should be called between two updates: with larger steps it takes fewer threads while cores are taken
    (see `Watch`), unless the number is to be `fixed`. A population of many models has threads of gpunn's own, each of
    which does all of a step for some of the models, if steps are `recorded`; where cores are taken, fewer of them do
    this for all.

    On idle cores a second thread would save a fraction of a second in all; where something else runs, threads that wait
    for each other at every product make such a training many times slower. A step multiplies each row three times with
    every parameter of every model: on, back, and for the gradient.
    """
    if network.ops.device != "cpu":
        return nullcontext(no_look)
    if 6 * network.store.values.size * rows <= SMALL:
        return one_thread(fixed=fixed)
    threads = blas_threads()
    if network.models and network.models >= MODELS * threads > MODELS and recorded:
        return by_model(network, network.models, threads, fixed)
    return _steady(threads, fixed=True) if fixed else _watched(threads)


@dataclass(eq=False)
class Claim:
    """What a training that runs wants."""

    threads: int
    fixed: bool


class Claims:
    """Of the trainings that run at a time, in whatever order they begin and end.

    BLAS has the least number that one of them wants, and after the last of them what it had before the first. While one
    has a fixed number nobody changes it; a second one with a fixed number takes that of the first.
    """

    def __init__(self, *, by_thread: bool = False) -> None:
        self.by_thread = by_thread
        self._lock = threading.Lock()
        self._claims: list[Claim] = []
        self._found: dict[Any, int] = {}  # threads of each library before the first of them

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
        """The threads that BLAS has where no training holds it back."""
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
    """Of the trainings that run within one another in this thread."""

    def __init__(self) -> None:
        self.claims = Claims(by_thread=True)


_process, _thread = Claims(), OwnClaims()


def _by_thread(library: Any) -> bool:
    """Whether its number belongs to the calling thread, as OpenMP's does, and not to the process."""
    return getattr(library, "threading_layer", None) == "openmp"


def _set_threads(library: Any, threads: int) -> None:
    # Since its version 3.8 threadpoolctl lets one thread at a time change what belongs to the process and silently
    # leaves out what others ask for. Here whoever trains may change it.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(threads)
    release(force=True)


@contextmanager
def claimed(claim: Claim) -> Iterator[Callable[[int], None]]:
    """BLAS has no more threads than this meanwhile; what is given changes how many."""
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
def _steady(threads: int, *, fixed: bool) -> Iterator[Look]:
    with claimed(Claim(threads, fixed)):
        yield no_look


def one_thread(*, fixed: bool = False) -> AbstractContextManager[Look]:
    """BLAS has one, whatever the machine does."""
    return _steady(1, fixed=fixed)


@contextmanager
def _watched(threads: int) -> Iterator[Look]:
    """As many as there are, and fewer while cores are taken."""
    with claimed(Claim(threads, False)) as change:
        yield Watch(threads, change).look if threads > 1 else no_look


@contextmanager
def by_model(network: Engine, models: int, threads: int, fixed: bool) -> Iterator[Look]:
    """Threads of gpunn's own in place of those of BLAS, if there are so many models that none has long to wait."""
    with one_thread(fixed=fixed) as look, network.ops.threads_by_model(models, threads) as change:
        yield look if fixed else Watch(threads, change).look


def blas_threads() -> int:
    """As many as a product may take: no more than can run at once."""
    return min(max(_process.most(), _thread.claims.most()), cores.most_threads())


@functools.cache
def _libraries() -> Any:
    """Those that are loaded when the first network is trained, NumPy's among them; looking for them takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
