"""Arrays of other libraries on the GPU, taken as they lie."""

from __future__ import annotations

from typing import Any

from gpunn.backends.cuda_launch import Launcher
from gpunn.errors import ArrayTypeError, DataError
from gpunn.types import Array

CUDA, MANAGED = 2, 13  # DLPack's numbers of devices; managed memory may name any of them


class CudaInterchange(Launcher):
    """DLPack where a library has it (PyTorch, JAX), else CUDA's array interface (cuDF's columns, Numba)."""

    index: int

    def adopt(self, where: str, value: Any) -> Array:
        """The same memory as a CuPy array, once what its library has still to write there is written."""
        self.activate()
        home = self._home(where, value)
        if home in (None, self.index):
            array = self._converted(where, value)
            home = int(array.device.id)
            if home == self.index:
                return array
        fix = f"move it to {self.device}, or make the network with device='cuda:{home}'"
        raise self._elsewhere(where, value, f"cuda:{home}", fix)

    def _home(self, where: str, value: Any) -> int | None:
        """The number of its GPU; None where only the address tells."""
        if isinstance(value, self.xp.ndarray):
            return int(value.device.id)
        if hasattr(value, "__dlpack_device__"):
            kind, index = value.__dlpack_device__()
            if kind not in (CUDA, MANAGED):
                raise self._elsewhere(where, value, "a device that is not CUDA's", f"move it to {self.device}")
            return int(index) if kind == CUDA else None
        if value.__cuda_array_interface__.get("mask") is not None:
            raise DataError(
                where, expected="a number everywhere", got="a column with nulls", fix="fill them or drop their rows"
            )
        return None

    def _converted(self, where: str, value: Any) -> Array:
        if isinstance(value, self.xp.ndarray):
            return value
        try:
            return self.xp.from_dlpack(value) if hasattr(value, "__dlpack_device__") else self.xp.asarray(value)
        except (NotImplementedError, TypeError, ValueError, BufferError) as error:
            raise ArrayTypeError(
                where,
                expected="an array that CuPy can read",
                got=f"a {_kind(value)} ({error})",
                fix="convert it to float32 in its own library",
            ) from error

    def _elsewhere(self, where: str, value: Any, place: str, fix: str) -> ArrayTypeError:
        got = f"a {_kind(value)} on {place}"
        return ArrayTypeError(where, expected=f"an array on {self.device}", got=got, fix=fix)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"
