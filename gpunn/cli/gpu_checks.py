"""The checks of `gpunn doctor` for CUDA: the driver, CuPy, the bindings of cuBLASLt, each GPU."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from gpunn.backends.cuda.backend import import_cupy
from gpunn.backends.cuda.detection import INSTALL, device_count, require_device
from gpunn.cli.checks import FAULT, NOTE, OK, WARNING, Check, installed, training
from gpunn.errors import DeviceError, readable

DRIVER = Path("/proc/driver/nvidia/version")


def cupy_packages() -> list[str]:
    """The installed packages with the module `cupy`; two of them overwrite each other's files."""
    names = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    return sorted(name for name in names if name == "cupy" or name.startswith("cupy-"))


def gpus() -> Iterator[Check]:
    """Whether the CPU trains, and then the checks of GPUs."""
    yield training("cpu")
    packages = cupy_packages()
    if not packages:
        driver = DRIVER.exists()
        found = "not installed, though there is an NVIDIA driver" if driver else "not installed; for NVIDIA GPUs"
        yield Check("CuPy", WARNING if driver else NOTE, found, INSTALL)
        return
    found = ", ".join(f"{name} {installed(name)}" for name in packages)
    if len(packages) > 1:
        yield Check("CuPy", FAULT, found, "uninstall all of them, then " + INSTALL)
        return
    yield Check("CuPy", OK, found)
    version = installed("nvmath-python")
    fix = "" if version else "pip install nvmath-python: without it steps are not captured, and small networks slow"
    yield Check("nvmath-python", OK if version else WARNING, version or "not installed", fix)
    try:
        cupy = import_cupy()
        count = device_count(cupy)
    except DeviceError as error:
        yield Check("CUDA", FAULT, f"expected {error.expected}, got {error.got}", error.fix)
        return
    yield Check("CUDA", OK, versions(cupy))
    for index in range(count):
        yield from gpu(cupy, index)


def versions(cupy: Any) -> str:
    numbers = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    driver, runtime = (f"{number // 1000}.{number % 1000 // 10}" for number in numbers)
    return f"a driver for CUDA {driver}, CuPy's runtime is {runtime}"


def gpu(cupy: Any, index: int) -> Iterator[Check]:
    """Its name and memory, whether it computes, and whether a network trains on it."""
    device = f"cuda:{index}"
    try:
        require_device(cupy, index)
    except DeviceError as error:
        yield Check(device, FAULT, f"expected {error.expected}, got {error.got}", error.fix)
        return
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    free, total = cupy.cuda.Device(index).mem_info
    name = properties["name"].decode() if isinstance(properties["name"], bytes) else properties["name"]
    capability = f"{properties['major']}.{properties['minor']}"
    yield Check(device, OK, f"{name}, capability {capability}, {readable(total)}, {readable(free)} free")
    yield training(device)
