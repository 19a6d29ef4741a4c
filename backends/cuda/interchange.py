"""Adopts arrays of other GPU libraries without a copy: with DLPack if the library has it (PyTorch, JAX), else with
CUDA's array interface (columns of cuDF, Numba)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunn.errors import ArrayTypeError, DataError
from gpunn.types import Array

if TYPE_CHECKING:
    from gpunn.backends.cuda.backend import CupyBackend

CUDA, MANAGED = 2, 13  # DLPack's numbers of devices; managed memory may name any of them


def adopt(ops: CupyBackend, where: str, value: Any) -> Array:
    """A CuPy array with the same memory, used only after the other library has finished writing to it."""
    ops.activate()
    home = _home(ops, where, value)
    if home in (None, ops.index):
        array = _converted(ops, where, value)
        home = int(array.device.id)
        if home == ops.index:
            return array
    fix = f"move it to {ops.device}, or make the network with device='cuda:{home}'"
    raise _elsewhere(ops, where, value, f"cuda:{home}", fix)


def _home(ops: CupyBackend, where: str, value: Any) -> int | None:
    """The number of its GPU; None if the interface does not say it, but only the address."""
    if isinstance(value, ops.xp.ndarray):
        return int(value.device.id)
    if hasattr(value, "__dlpack_device__"):
        kind, index = value.__dlpack_device__()
        if kind not in (CUDA, MANAGED):
            raise _elsewhere(ops, where, value, "a device that is not CUDA's", f"move it to {ops.device}")
        return int(index) if kind == CUDA else None
    if value.__cuda_array_interface__.get("mask") is not None:
        raise DataError(
            where, expected="a number everywhere", got="a column with nulls", fix="fill them or drop their rows"
        )
    return None


def _converted(ops: CupyBackend, where: str, value: Any) -> Array:
    if isinstance(value, ops.xp.ndarray):
        return value
    try:
        return ops.xp.from_dlpack(value) if hasattr(value, "__dlpack_device__") else ops.xp.asarray(value)
    except (NotImplementedError, TypeError, ValueError, BufferError) as error:
        raise ArrayTypeError(
            where,
            expected="an array that CuPy can read",
            got=f"a {_kind(value)} ({error})",
            fix="convert it to float32 in its own library",
        ) from error


def _elsewhere(ops: CupyBackend, where: str, value: Any, place: str, fix: str) -> ArrayTypeError:
    got = f"a {_kind(value)} on {place}"
    return ArrayTypeError(where, expected=f"an array on {ops.device}", got=got, fix=fix)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"
