"""Who uses a network now: any number of readers, or one training; and which of them uses which pass.

A pass is a set of buffers. Two threads that used the same one would overwrite each other's numbers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpunn.errors import ConcurrencyError

if TYPE_CHECKING:
    from gpunn.passes import Pass

KEPT_PASSES = 4  # unused passes that are kept, and one more for each open block
Key = tuple[Any, ...]
FIX = "wait until that has ended, or read a copy that was made before it began: copy.deepcopy(network)"


class Uses:
    """Readers and trainings by thread, and passes that are free or in use.

    A use is a `with` block of `reading` or `training`. Blocks of one thread may be nested, as when a callback of a
    training predicts. A pass that a block takes belongs to it until it ends. Outside of blocks a pass counts as free
    even while it is used: that is safe with one thread only.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[Block]] = {}  # the open blocks of each thread
        self._trainer: int | None = None  # the thread that trains
        self._free: list[tuple[Key, Pass]] = []  # the one used last is at the end
        self._begin()

    def _begin(self) -> None:
        """Begin, also in a forked process, which has only one of the parent's threads."""
        me = threading.get_ident()
        self._lock, self._process = threading.Lock(), os.getpid()
        self._blocks = {me: self._blocks[me]} if me in self._blocks else {}
        self._trainer = me if self._trainer == me else None

    def __len__(self) -> int:
        """The number of free passes."""
        return len(self._free)

    def reading(self, what: str) -> Block:
        """A block that reads the parameters; an error while another thread trains."""
        return Block(self, what, trains=False)

    def training(self, what: str) -> Block:
        """A block that changes parameters; an error during any other use, even by the same thread."""
        return Block(self, what, trains=True)

    def require_writing(self, what: str) -> None:
        """Raise an error if another thread uses the parameters; a training's own thread may write, as in a callback."""
        with self._lock:
            self._require_alone(what, threading.get_ident())

    def enter(self, block: Block) -> None:
        if self._process != os.getpid():
            self._begin()
        me = threading.get_ident()
        with self._lock:
            if block.trains:
                self._require_alone(block.what, None)
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

    def _require_alone(self, what: str, me: int | None) -> None:
        readers = sum(not block.trains for thread, blocks in self._blocks.items() if thread != me for block in blocks)
        trained = self._trainer is not None and self._trainer != me
        if readers or trained:
            raise ConcurrencyError(
                f"Network.{what}", expected="a network that is not used meanwhile",
                got="a training of it that is going on" if trained else f"calls that read it, {readers} at the moment",
                fix=FIX,
            )  # fmt: skip

    def take(self, key: Key, make: Callable[[], Pass]) -> Pass:
        """The pass with this key that the innermost block of this thread has; else a free one, or a new one."""
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
        """Whether `take` would find a pass with this key and not make one."""
        blocks = self._blocks.get(threading.get_ident())
        with self._lock:
            return bool(blocks and key in blocks[-1].passes) or any(known == key for known, _ in self._free)

    def forget(self) -> None:
        """Drop the free passes."""
        with self._lock:
            self._free.clear()

    def _pop(self, key: Key) -> Pass | None:
        for i in reversed(range(len(self._free))):
            if self._free[i][0] == key:
                return self._free.pop(i)[1]
        return None

    def _keep(self, key: Key, made: Pass) -> None:
        self._free.append((key, made))
        most = KEPT_PASSES + sum(map(len, self._blocks.values()))  # so that each open block finds its pass again
        del self._free[:-most]


class Block:
    """One use of a network by one thread, and the passes that it has taken."""

    __slots__ = ("passes", "trains", "uses", "what")

    def __init__(self, uses: Uses, what: str, trains: bool) -> None:
        self.uses, self.what, self.trains = uses, what, trains
        self.passes: dict[Key, Pass] = {}

    def __enter__(self) -> None:
        self.uses.enter(self)

    def __exit__(self, *error: object) -> None:
        self.uses.leave(self)
