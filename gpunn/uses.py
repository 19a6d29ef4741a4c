"""Who uses a network now: any number of readers, or one training; and its passes, which they take for themselves.

A pass is a set of buffers. Two threads that computed in the same one would get each other's numbers.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from gpunn.errors import ConcurrencyError

if TYPE_CHECKING:
    from gpunn.passes import Pass

KEPT_PASSES = 4  # that nobody uses, unless more were in use at once
Key = tuple[Any, ...]
Method = TypeVar("Method", bound=Callable[..., Any])
FIX = "wait until it has ended, or use a copy that was made before: copy.deepcopy(network)"


class Uses:
    """Readers and trainings by thread, and passes that are free or in use.

    A use lasts for a `with` block of `reading` or `training`; blocks of one thread may lie within one another, as where
    a callback of a training predicts. Passes that a block takes are its alone until it ends. Outside of any block a
    pass stays among the free ones while it is used: that is for programs with one thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[int] = Counter()  # open blocks of each thread
        self._trainer: int | None = None  # the thread that trains
        self._free: list[tuple[Key, Pass]] = []  # the one used last stands last
        self._most = KEPT_PASSES
        self._own = threading.local()  # `blocks`: the passes of this thread's open blocks

    def __len__(self) -> int:
        """How many passes nobody uses."""
        return len(self._free)

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """A block that computes with the parameters and changes none; refused beside a training of another thread."""
        me = threading.get_ident()
        with self._lock:
            if self._trainer not in (None, me):
                raise ConcurrencyError(
                    f"Network.{what}", expected="a network that is not trained meanwhile",
                    got="a training in another thread", fix=FIX,
                )  # fmt: skip
            self._readers[me] += 1
            self._most = max(self._most, self._readers.total())
        try:
            with self._block():
                yield
        finally:
            with self._lock:
                self._readers[me] -= 1
                if not self._readers[me]:
                    del self._readers[me]

    @contextmanager
    def training(self, what: str) -> Iterator[None]:
        """A block that changes parameters; refused beside any other use, also of its own thread."""
        me = threading.get_ident()
        with self._lock:
            self._refuse_others(what, None)
            self._trainer = me
        try:
            with self._block():
                yield
        finally:
            with self._lock:
                self._trainer = None

    def require_writing(self, what: str) -> None:
        """Refuse to change parameters that another thread uses; a training's own thread may, as in a callback."""
        with self._lock:
            self._refuse_others(what, threading.get_ident())

    def _refuse_others(self, what: str, me: int | None) -> None:
        readers = sum(blocks for thread, blocks in self._readers.items() if thread != me)
        if readers or self._trainer not in (None, me):
            raise ConcurrencyError(
                f"Network.{what}",
                expected="a network that is not used meanwhile",
                got="a training of it that is going on" if self._trainer else f"{readers} predictions or the like",
                fix=FIX,
            )

    @contextmanager
    def _block(self) -> Iterator[None]:
        blocks: list[dict[Key, Pass]] = self._own.__dict__.setdefault("blocks", [])
        blocks.append({})
        try:
            yield
        finally:
            taken = blocks.pop()
            for made in taken.values():
                made.forget_inputs()
            with self._lock:
                for key, made in taken.items():
                    self._keep(key, made)

    def take(self, key: Key, make: Callable[[], Pass]) -> Pass:
        """The pass of this kind that the innermost block of this thread has; else a free one, or a new one."""
        blocks: list[dict[Key, Pass]] = self._own.__dict__.get("blocks", [])
        if blocks and key in blocks[-1]:
            return blocks[-1][key]
        with self._lock:
            found = self._pop(key)
        found = found or make()
        if blocks:
            blocks[-1][key] = found
        else:
            with self._lock:
                self._keep(key, found)
        return found

    def has(self, key: Key) -> bool:
        """Whether `take` would find such a pass and not make one."""
        blocks: list[dict[Key, Pass]] = self._own.__dict__.get("blocks", [])
        with self._lock:
            return (bool(blocks) and key in blocks[-1]) or any(known == key for known, _ in self._free)

    def forget(self) -> None:
        """Give up the passes that nobody uses."""
        with self._lock:
            self._free.clear()

    def _pop(self, key: Key) -> Pass | None:
        for i in reversed(range(len(self._free))):
            if self._free[i][0] == key:
                return self._free.pop(i)[1]
        return None

    def _keep(self, key: Key, made: Pass) -> None:
        self._free.append((key, made))
        del self._free[: -self._most]


def reads(method: Method) -> Method:
    """A method of a network that is a block of reading."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with self.uses.reading(method.__name__):
            return method(self, *arguments, **options)

    return call  # type: ignore[return-value]


def trains(method: Method) -> Method:
    """A method of a network that is a block of training."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with self.uses.training(method.__name__):
            return method(self, *arguments, **options)

    return call  # type: ignore[return-value]
