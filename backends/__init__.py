"""The devices that gpunn computes on. This package is `gpunn.backends`, wherever its folder lies."""

from __future__ import annotations

if __name__ != "gpunn.backends":
    raise ImportError(f"this package is gpunn.backends, not {__name__}; import gpunn.backends")

import functools
import logging
import os
import re
from importlib.util import find_spec
from typing import Any

from gpunn.backends.formula import formulas
from gpunn.backends.reference.backend import Backend
from gpunn.errors import ConfigurationError, DeviceError

__all__ = ["Backend", "available_devices", "formulas", "get_backend"]

log = logging.getLogger("gpunn")


def get_backend(device: str = "auto") -> Backend:
    """Return the backend of a device: one object for each device, however often it is asked for.

    "auto" is the first GPU if that can be used, else the CPU. "cuda" and "cuda:1" raise an error if that GPU cannot be
    used.
    """
    if device == "auto":
        return _backend(_automatic_device())
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ConfigurationError(
            "device",
            expected='"auto", "cpu", "cuda" or "cuda:" and a number',
            got=repr(device),
            fix="gpunn.backends.available_devices() lists those of this machine",
        )
    return _backend("cpu" if device == "cpu" else f"cuda:{int(match[1] or 0)}")


def available_devices() -> tuple[str, ...]:
    """Return the names of the devices that can be used, the CPU first, after a small test on each GPU."""
    from gpunn.backends.cuda.backend import import_cupy
    from gpunn.backends.cuda.detection import device_count, require_device

    try:
        cupy = import_cupy()
        indices = range(device_count(cupy))
        for index in indices:
            require_device(cupy, index)
    except DeviceError:
        return ("cpu",)
    return ("cpu", *(f"cuda:{index}" for index in indices))


@functools.cache
def _backend(device: str) -> Backend:
    if device == "cpu":
        from gpunn.backends.cpu.backend import NumpyBackend

        return NumpyBackend(_numba_formulas())
    from gpunn.backends.cuda.backend import CupyBackend

    return CupyBackend(int(device.partition(":")[2]))


def _numba_formulas() -> Any:
    """Formulas that Numba may compile to loops, or None without Numba.

    GPUNN_JIT=0 turns them off; GPUNN_JIT=1 compiles every loop at its first call.
    """
    wanted = os.environ.get("GPUNN_JIT")
    if wanted == "0":
        return None
    if not find_spec("numba"):
        log.info("formulas run on NumPy, because Numba, the extra jit, is not installed")
        return None
    from gpunn.backends.cpu.numba.loops import LoopFormulas

    return LoopFormulas(patient=wanted != "1")


@functools.cache
def _automatic_device() -> str:
    try:
        _backend("cuda:0")
    except DeviceError as error:
        # Who installed CuPy wants the GPU; who did not has chosen the CPU.
        level = logging.WARNING if find_spec("cupy") else logging.INFO
        log.log(level, "using the CPU: %s", error)
        return "cpu"
    return "cuda:0"
