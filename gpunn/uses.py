"""Who uses a network now: any number of readers, or one training; and its passes, which they take for themselves.

A pass is a set of buffers. Two threads that computed in the same one would get each other's numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpunn.errors import ConcurrencyError

if TYPE_CHECKING:
    from gpunn.passes import Pass

KEPT_PASSES = 4  # that nobody uses, and one more for each use that goes on
Key = tuple[Any, ...]
FIX = "wait until that has ended, or read a copy that was made before it began: copy.deepcopy(network)"


class Uses:
    """Readers and trainings by thread, and passes that are free or in use.

    A use lasts for a `with` block of `reading` or `training`; blocks of one thread may lie within one another, as where
    a callback of a training predicts. Passes that a block takes are its alone until it ends. Outside of any block a
    pass stays among the free ones while it is used: that is for programs with one thread.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[Block]] = {}  # that are open, of each thread
        self._trainer: int | None = None  # the thread that trains
        self._free: list[tuple[Key, Pass]] = []  # the one used last stands last
        self._begin()

    def _begin(self) -> None:
        """In a process that was forked, where the other threads of the first one are not."""
        me = threading.get_ident()
        self._lock, self._process = threading.Lock(), os.getpid()
        self._blocks = {me: self._blocks[me]} if me in self._blocks else {}
        self._trainer = me if self._trainer == me else None

    def __len__(self) -> int:
        """How many passes nobody uses."""
        return len(self._free)

    def reading(self, what: str) -> Block:
        """A block that computes with the parameters and changes none; refused beside a training of another thread."""
        return Block(self, what, trains=False)

    def training(self, what: str) -> Block:
        """A block that changes parameters; refused beside any other use, also of its own thread."""
        return Block(self, what, trains=True)

    def require_writing(self, what: str) -> None:
        """Refuse to change parameters that another thread uses; a training's own thread may, as in a callback."""
        with self._lock:
            self._refuse_others(what, threading.get_ident())

    def enter(self, block: Block) -> None:
        if self._process != os.getpid():
            self._begin()
        me = threading.get_ident()
        with self._lock:
            if block.trains:
                self._refuse_others(block.what, None)
                self._trainer = me
            elif self._trainer is not None and self._trainer != me:
                raise ConcurrencyError(
                    f"Network.{block.what}", expected="a network that is not trained meanwhile",
                    got="a training in another thread", fix=FIX,
                )  # fmt: skip
            self._blocks.setdefault(me, []).append(block)

    def leave(self, block: Block) -> None:
        for made in block.passes.values():
            made.forget_inputs()
        me = threading.get_ident()
        with self._lock:
            blocks = self._blocks[me]
            blocks.remove(block)
            if not blocks:
                del self._blocks[me]
            if block.trains:
                self._trainer = None
            for key, made in block.passes.items():
                self._keep(key, made)

    def _refuse_others(self, what: str, me: int | None) -> None:
        readers = sum(not block.trains for thread, blocks in self._blocks.items() if thread != me for block in blocks)
        trained = self._trainer is not None and self._trainer != me
        if readers or trained:
            raise ConcurrencyError(
                f"Network.{what}", expected="a network that is not used meanwhile",
                got="a training of it that is going on" if trained else f"calls that read it, {readers} at the moment",
                fix=FIX,
            )  # fmt: skip

    def take(self, key: Key, make: Callable[[], Pass]) -> Pass:
        """The pass of this kind that the innermost block of this thread has; else a free one, or a new one."""
        blocks = self._blocks.get(threading.get_ident())
        if blocks and key in blocks[-1].passes:
            return blocks[-1].passes[key]
        with self._lock:
            found = self._pop(key)
        found = found or make()
        if blocks:
            blocks[-1].passes[key] = found
        else:
            with self._lock:
                self._keep(key, found)
        return found

    def has(self, key: Key) -> bool:
        """Whether `take` would find such a pass and not make one."""
        blocks = self._blocks.get(threading.get_ident())
        with self._lock:
            return bool(blocks and key in blocks[-1].passes) or any(known == key for known, _ in self._free)

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
        most = KEPT_PASSES + sum(map(len, self._blocks.values()))  # threads that go on asking find theirs again
        del self._free[:-most]


class Block:
    """One use of a network by one thread, with the passes that it has taken."""

    __slots__ = ("passes", "trains", "uses", "what")

    def __init__(self, uses: Uses, what: str, trains: bool) -> None:
        self.uses, self.what, self.trains = uses, what, trains
        self.passes: dict[Key, Pass] = {}

    def __enter__(self) -> None:
        self.uses.enter(self)

    def __exit__(self, *error: object) -> None:
        self.uses.leave(self)
