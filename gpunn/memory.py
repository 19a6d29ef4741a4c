"""What arrays will take is known before they are made, and what is taken comes back when there is no more."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from gpunn.backends.operation import Operation, operations_from
from gpunn.backends.reference.backend import Backend
from gpunn.errors import DeviceMemoryError, readable
from gpunn.types import Array, Shape

TRIES = 50


class Hollow(np.ndarray[Any, Any]):
    """An array of one number that has any shape: all elements lie at one address."""


def hollow(shape: Shape, dtype: Any) -> Array:
    one: Array = np.zeros((), dtype)
    size = math.prod(shape) * one.itemsize
    if size >= 2**63:
        raise DeviceMemoryError(
            "memory", expected="room for every array", got="more than 2**63 bytes asked for",
            fix="use a smaller batch or network",
        )  # fmt: skip
    return np.lib.stride_tricks.as_strided(one, shape, (0,) * len(shape)).view(Hollow)


def _not_done(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that does nothing."""

    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        return None if operation.returns is None else operation.named(arguments, options).get(operation.returns)

    return call


@operations_from(around=_not_done)
class Rehearsal(Backend):
    """Stands in for a backend in whatever makes arrays, to learn what it will take: `bytes`.

    Its own arrays are hollow, those that exist already are taken as they are, and operations do nothing. So what is
    counted is what the same lines of code allocate on the device itself.
    """

    def __init__(self, ops: Backend) -> None:
        self.ops, self.bytes = ops, 0
        self.name, self.device = ops.name, ops.device

    def empty(self, shape: Shape, dtype: Any) -> Array:
        array = hollow(shape, dtype)
        self.bytes += array.nbytes
        return array

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        return self.empty(shape, dtype)

    def from_host(self, array: np.ndarray[Any, Any], dtype: Any = None) -> Array:
        return self.empty(array.shape, dtype or array.dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = hollow(array.shape, array.dtype)
        return host

    def staging(self, out: Array) -> np.ndarray[Any, Any]:
        return self.to_host(out)

    def owns(self, array: Any) -> bool:
        return isinstance(array, Hollow) or self.ops.owns(array)

    def free_memory(self) -> float:
        return math.inf


class Need:
    """The bytes that something takes with a batch of `batch` rows, found by making it of hollow arrays.

    `hollow` gives a network for that, with what counts its bytes; `rehearse` makes the thing for that network.
    """

    def __init__(self, hollow: Callable[[], tuple[Any, Rehearsal]], rehearse: Callable[[Any, int], Any]) -> None:
        self.hollow, self.rehearse = hollow, rehearse
        self.known: dict[int, int] = {}

    def __call__(self, batch: int) -> int:
        if batch not in self.known:
            network, rehearsal = self.hollow()
            self.rehearse(network, batch)
            self.known[batch] = rehearsal.bytes
        return self.known[batch]


def cut(rows: int, size: int) -> set[int]:
    """The sizes of the batches that so many rows are cut into."""
    return {min(size, rows), rows % size} - {0}


def require_room(
    where: str, named: str, network: Any, need: Need, batch: int, rows: int, *, least: int = 1, whole: bool = False,
    hint: Callable[[], str] = lambda: "use a smaller network",
) -> None:  # fmt: skip
    """Refuse a batch that the device has no room for, before any of its arrays is made.

    `named` makes words of a batch size, `hint` says what to do where no batch is small enough. For the rest see
    `largest_batch`.
    """
    free = network.ops.free_memory()
    if math.isinf(free) or need(batch) <= free:
        return
    network.forget_passes()
    free = network.ops.free_memory()
    if need(batch) <= free:
        return
    fits = largest_batch(need, free, min(batch, rows), rows, least=least, whole=whole)
    raise DeviceMemoryError(
        where,
        expected=f"at most {readable(free)}",
        got=f"{named.format(batch)}: {readable(need(batch))} wanted, {readable(free)} free",
        fix=f"{named.format(fits)} fits" if fits else hint(),
    )


def largest_batch(need: Need, free: float, batch: int, rows: int, *, least: int = 1, whole: bool = False) -> int:
    """The largest batch size below `batch` for which `free` bytes are enough, or 0.

    An epoch over `rows` has batches of one size and a last, short one, unless that has less than `least` rows or only
    whole ones are wanted. Bytes are linear in how many sizes there are and in their rows together: a few rehearsals
    give the three coefficients, and a last one confirms what they say.
    """
    sizes = np.arange(least, batch)
    if not sizes.size:
        return 0
    rest = rows % sizes
    rest[(rest < least) | whole] = 0
    terms = np.stack([np.ones(len(sizes)), rest > 0, sizes + rest], axis=1)
    tried = sorted({max(least, (batch >> k) - j) for k in range(1, batch.bit_length() + 1) for j in (0, 1)})
    tried = [size for size in tried if size < batch]
    known = np.array([need(size) for size in tried], np.float64)
    coefficients = np.linalg.lstsq(terms[np.array(tried) - least], known, rcond=None)[0]
    promising = sizes[terms @ coefficients <= free * (1 + 1e-9) + 1]
    confirmed = next((int(size) for size in promising[::-1][:TRIES] if need(int(size)) <= free), 0)
    return max([confirmed, *(size for size in tried if need(size) <= free)])


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """Where memory runs out in this block, or in a function that this decorates, the error is a DeviceMemoryError."""
    try:
        yield
    except MemoryError as error:
        _raise_own(where, error)


def _raise_own(where: str, error: MemoryError) -> NoReturn:
    """A traceback, which an interactive session keeps, would hold the arrays of the functions it came through."""
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, DeviceMemoryError):
        raise error
    raise DeviceMemoryError(
        where,
        expected="room for every array",
        got=str(error) or type(error).__name__,
        fix="use a smaller batch or network",
    ) from None


def give_back(network: Any, error: MemoryError) -> NoReturn:
    """Raise the error, of a method of a network, once the passes that nobody uses are given back."""
    network.forget_passes()
    _raise_own(f"memory of {network.ops.device}", error)
