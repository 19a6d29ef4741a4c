"""Memory: the bytes of arrays are counted before they are made, and unused passes are freed when memory runs out.

To count, the same code runs on a hollow network: a copy of a network whose arrays take no memory.
"""

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
    """An array that takes no memory whatever its shape: all its elements are one number at one address."""


def hollow(shape: Shape, dtype: Any) -> Array:
    """A Hollow of this shape."""
    one: Array = np.zeros((), dtype)
    size = math.prod(shape) * one.itemsize
    if size >= 2**63:
        raise DeviceMemoryError(
            "memory", expected="room for every array", got="more than 2**63 bytes asked for",
            fix="use a smaller batch or network",
        )  # fmt: skip
    return np.lib.stride_tricks.as_strided(one, shape, (0,) * len(shape)).view(Hollow)


def _without_effect(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that does nothing and returns what the real one returns."""

    def call(ops: Any, *arguments: Any, **options: Any) -> Any:
        return None if operation.returns is None else operation.named(arguments, options).get(operation.returns)

    return call


@operations_from(wrap=_without_effect)
class Rehearsal(Backend):
    """Takes the place of a backend to count, in `bytes`, what code allocates.

    The arrays that it makes are hollow, arrays made before are used as they are, and operations do nothing. So the
    count is what the same code would allocate on the device.
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
    """The bytes that something takes for a batch of `batch` rows, for example a training, counted with hollow arrays.

    `hollow_network` makes a hollow network and the Rehearsal that counts its bytes; `rehearse(network, batch)` makes
    what is to be counted.
    """

    def __init__(
        self, hollow_network: Callable[[], tuple[Any, Rehearsal]], rehearse: Callable[[Any, int], Any]
    ) -> None:
        self.hollow_network, self.rehearse = hollow_network, rehearse
        self.known: dict[int, int] = {}

    def __call__(self, batch: int) -> int:
        if batch not in self.known:
            network, rehearsal = self.hollow_network()
            self.rehearse(network, batch)
            self.known[batch] = rehearsal.bytes
        return self.known[batch]


def cut(rows: int, size: int) -> set[int]:
    """The sizes of the batches if `rows` rows are cut into batches of `size`."""
    return {min(size, rows), rows % size} - {0}


def require_room(
    where: str, named: str, network: Any, need: Need, batch: int, rows: int, *, least: int = 1, whole: bool = False,
    hint: Callable[[], str] = lambda: "use a smaller network",
) -> None:  # fmt: skip
    """Raise an error, before any array is made, if the device has not enough memory for a batch.

    `named` is the text for a batch size in the message, with {} for the size; `hint` says what to do if no batch is
    small enough. `largest_batch` describes the other arguments.
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

    An epoch over `rows` has batches of one size and a last, shorter one; that is left out if it has less than `least`
    rows, or if `whole`. The bytes are linear in the number of sizes (one or two) and in the sum of the sizes: a few
    counts give the three coefficients, and a last count confirms the result.
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
    """Raise a DeviceMemoryError if memory runs out in this block, or in the function that this decorates."""
    try:
        yield
    except MemoryError as error:
        _raise_memory_error(where, error)


def _raise_memory_error(where: str, error: MemoryError) -> NoReturn:
    """Raise it as a DeviceMemoryError, and clear its traceback: interactive sessions keep tracebacks, and through them
    the arrays of all functions in them."""
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
    """Free the passes that nobody uses, then raise the error of a method of a network."""
    network.forget_passes()
    _raise_memory_error(f"memory of {network.ops.device}", error)
