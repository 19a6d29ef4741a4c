"""Training on sets that are too large for the device: two chunks lie there, one to train on and one being loaded.

Rows are shuffled within each chunk, and the chunks are shuffled: an epoch reads the source once, in long stretches.
All targets and weights lie on the device.
"""

from __future__ import annotations

import mmap
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunn.backends.reference.backend import Backend
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError
from gpunn.inputs import Checked, as_array, check_inputs, checked_targets
from gpunn.losses import Loss
from gpunn.randomness import Purpose, stream_key
from gpunn.training.batches import Examples, Loader, Order, checked_weights
from gpunn.training.source import Cut, Source, rows_of
from gpunn.types import Array

MAPPED_BUDGET = 256 * 1024 * 1024  # bytes that a memory-mapped set may take unless the caller says otherwise


@dataclass(frozen=True)
class CheckedStream:
    """A checked set of whose inputs at most `budget` bytes at a time may lie on the device."""

    X: Any  # (N, *shape), NumPy
    y: Checked
    weight: Checked | None
    budget: float

    @property
    def size(self) -> int:
        return len(self.X)

    def weighted(self, where: str, weight: Array | None, network: Engine) -> CheckedStream:
        """The same set with these weights, which `weights_on_host` has made; None changes nothing."""
        return self if weight is None else replace(self, weight=checked_weights(where, weight, self.size, network))

    def rows(self, batch_size: int) -> int:
        """The rows of a chunk: whole batches, two chunks within the budget."""
        row = self.X.nbytes // max(len(self.X), 1)
        return max(1, int(self.budget / 2 / max(row, 1)) // batch_size) * batch_size

    def to(self, ops: Backend, batch_size: int) -> Stream:
        weight = None if self.weight is None else self.weight.to(ops)
        return Stream(self.X, self.y.to(ops), weight, self.rows(batch_size))


@dataclass(frozen=True)
class Stream:
    """A set whose inputs stay on the host, in memory or in a mapped file."""

    X: Any  # (N, *shape), NumPy
    y: Array
    weight: Array | None
    rows: int  # of a chunk

    @property
    def size(self) -> int:
        return len(self.X)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Start and end (exclusive) of each chunk, in rows."""
        return [(start, min(start + self.rows, self.size)) for start in range(0, self.size, self.rows)]


def budget_of(network: Engine, X: Any, memory: int | None) -> float:
    """The bytes that the inputs may take on the device."""
    if memory is not None:
        return memory
    if isinstance(X, np.memmap):
        return MAPPED_BUDGET
    return 0.8 * network.ops.free_memory()


def stream(network: Engine, X: Any, y: Any, loss: Loss, budget: float) -> CheckedStream:
    """Check a set chunk by chunk, before the first step."""
    row = X.nbytes // max(len(X), 1)
    rows = max(1, int(budget / 2 / max(row, 1)))
    if not network.is_built:
        network.build(tuple(X.shape[1:]) or (1,))
    for start in range(0, max(len(X), 1), rows):
        chunk = as_array("X", X[start : start + rows], network.ops)
        check_inputs(chunk, network.inputs, network.tables, network.ops, None, network.precision.range)
        forget(X)
    target = checked_targets(y, loss, (len(X),), network.outputs, network.ops, network.dtype)
    return CheckedStream(X, target, None, budget)


def forget(X: Any) -> None:
    """Let the system free the pages of a mapped file that were read; until then they count as memory in use."""
    base = X
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)


class Slot:
    """Memory for one chunk on the device, and the loaders of its batches."""

    def __init__(self, network: Engine, data: Stream, cursor: Array, cut: Cut, sampling: str) -> None:
        ops = self.ops = network.ops
        self.data = data
        room = min(data.rows, data.size)
        self.X = ops.empty((room, *data.X.shape[1:]), data.X.dtype)
        self.staging = ops.staging(self.X)
        self.y = ops.empty((room, *data.y.shape[1:]), data.y.dtype)
        self.weight = None if data.weight is None else ops.empty((room, 1), data.weight.dtype)
        self.orders: dict[int, Order] = {}  # by the number of rows in a chunk
        self.loaders: dict[tuple[int, int], Loader] = {}  # by the number of rows in a chunk and in a batch
        for size in {stop - start for start, stop in data.chunks}:
            weight = None if self.weight is None else self.weight[:size]
            chunk = Examples(self.X[:size], self.y[:size], weight, None, size)
            self.orders[size] = Order(network, chunk, sampling)
            for n in {n for sizes in cut(size) for n in sizes}:
                self.loaders[size, n] = Loader(network, self.orders[size], n, cursor)

    def read(self, rows: tuple[int, int], after: Any) -> None:
        """Bring inputs to the device once it has passed the mark `after`; runs in another thread than the training."""
        start, stop = rows
        np.copyto(self.staging[: stop - start], self.data.X[start:stop])
        forget(self.data.X)
        self.ops.upload(self.staging[: stop - start], out=self.X[: stop - start], after=after)

    def label(self, rows: tuple[int, int]) -> None:
        """Copy the targets and weights of the same rows; they lie on the device already."""
        start, stop = rows
        self.ops.copy(self.data.y[start:stop], out=self.y[: stop - start])
        if self.weight is not None and self.data.weight is not None:
            self.ops.copy(self.data.weight[start:stop], out=self.weight[: stop - start])


class StreamedSet(Source):
    """A set that is loaded chunk by chunk; while one is trained on, a thread reads the next."""

    key: tuple[int, int]  # the number of the slot, and the rows of its chunk

    def __init__(self, network: Engine, data: Stream, cut: Cut, sampling: str) -> None:
        if sampling == "replacement":
            raise ConfigurationError(
                "fit sampling",
                expected='"shuffle" or "sequential" for a set that is streamed',
                got="'replacement'",
                fix="raise memory= so that the set fits",
            )
        super().__init__(network)
        self.stream, self.cut, self.sampling, self.seed = data, cut, sampling, network.seeds[0]
        self.size, self.y = data.size, data.y
        self._lay_out(0)
        self.slots = [Slot(network, data, self.cursor, cut, sampling) for _ in range(2)]
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="gpunn-reader")
        self.pending: tuple[int, Future[None]] | None = None

    def _lay_out(self, epoch: int) -> None:
        """Make the list of the epoch's updates, in the order of its chunks."""
        self.epoch, self.order_of_chunks = epoch, self._shuffled(epoch)
        self.current = -1  # the place in the epoch of the chunk that is loaded
        self.updates = []
        self.places: list[tuple[int, int]] = []  # for each update: the place of its chunk, and its own in the chunk
        for place, chunk in enumerate(self.order_of_chunks):
            start, stop = self.stream.chunks[chunk]
            updates = self.cut(stop - start)
            self.places += [(place, i) for i in range(len(updates))]
            self.updates += updates

    def _shuffled(self, epoch: int) -> list[int]:
        count = len(self.stream.chunks)
        if self.sampling == "sequential":
            return list(range(count))
        key = stream_key(self.seed, Purpose.SHUFFLE, 1)
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, epoch, 0, 0]))
        return [int(chunk) for chunk in rng.permutation(count)]

    def begin(self, epoch: int, first_update: int = 0) -> None:
        self._lay_out(epoch)

    def load_rows(self, update: int, most: int) -> int:
        place, inside = self.places[update]
        if place != self.current:
            self._arrive(place, inside)
        return [other for other, _ in self.places[update : update + most]].count(place)

    def _arrive(self, place: int, inside: int) -> None:
        """Make the chunk at this place of the epoch the current one, and begin to read the next one."""
        self._fetched(place)
        chunk = self.order_of_chunks[place]
        rows = self.stream.chunks[chunk]
        slot, size = self.slots[place % 2], rows[1] - rows[0]
        slot.label(rows)
        slot.orders[size].begin(self.epoch * len(self.stream.chunks) + chunk)  # every chunk gets another order
        self.cursor[...] = rows_of(self.cut(size)[:inside])
        self.current, self.key = place, (place % 2, size)
        if place + 1 < len(self.order_of_chunks):
            self._read_ahead(place + 1)

    def _read_ahead(self, place: int) -> None:
        slot, rows = self.slots[place % 2], self.stream.chunks[self.order_of_chunks[place]]
        self.pending = place, self.reader.submit(slot.read, rows, self.ops.mark())

    def _fetched(self, place: int) -> None:
        """Wait until the chunk has been read, or read it now."""
        if self.pending is not None:
            known, future = self.pending
            self.pending = None
            try:
                future.result()
            finally:
                del future  # its error refers to this call, and this call to it: that would keep the set in memory
            if known == place:
                return
        self.slots[place % 2].read(self.stream.chunks[self.order_of_chunks[place]], self.ops.mark())

    def loader(self, rows: int) -> Loader:
        slot, size = self.key
        return self.slots[slot].loaders[size, rows]

    def close(self) -> None:
        """Wait until the chunk that is being read is in its slot, then end the reader."""
        self.reader.shutdown(cancel_futures=True)
        self.pending = None
