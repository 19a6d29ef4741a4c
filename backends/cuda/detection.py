"""Checks whether a CUDA device can be used, and finds the reason if it cannot."""

from __future__ import annotations

import os
from typing import Any

from gpunn.errors import DeviceError, DeviceLostError

INSTALL = "pip install 'gpunn[cuda13]' (driver 580 or newer) or 'gpunn[cuda12]' (driver 525 or newer)"
INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice
# After these a process cannot use the device again: the driver was unloaded, the device is disconnected or needs a
# reset, or a kernel has failed.
LOST = {
    3: "cudaErrorInitializationError", 4: "cudaErrorCudartUnloading", 46: "cudaErrorDevicesUnavailable",
    NO_DEVICE: "cudaErrorNoDevice", 214: "cudaErrorECCUncorrectable", 700: "cudaErrorIllegalAddress",
    702: "cudaErrorLaunchTimeout", 709: "cudaErrorContextIsDestroyed", 710: "cudaErrorAssert",
    714: "cudaErrorHardwareStackError", 715: "cudaErrorIllegalInstruction", 716: "cudaErrorMisalignedAddress",
    719: "cudaErrorLaunchFailure", 802: "cudaErrorSystemNotReady", 999: "cudaErrorUnknown",
}  # fmt: skip


def diagnose_import(error: ImportError) -> DeviceError:
    """The error for a CuPy that cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return DeviceError('device "cuda"', expected="CuPy", got="no module named cupy", fix=INSTALL)
    return DeviceError(
        'device "cuda"',
        expected="a CuPy that can be imported",
        got=f"{type(error).__name__}: {error}",
        fix="uninstall every cupy* package, then " + INSTALL,
    )


def device_count(cupy: Any) -> int:
    """The number of devices that CUDA shows; if it is 0, an error that tells the three possible reasons apart."""
    where = 'device "cuda"'
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except RuntimeError as error:
        status = getattr(error, "status", None)
        if status == INSUFFICIENT_DRIVER:
            raise _driver_error(cupy, where) from error
        if status != NO_DEVICE:
            raise DeviceError(
                where,
                expected="a working CUDA driver",
                got=str(error),
                fix="run nvidia-smi, which names what is broken",
            ) from error
        count = 0
    if count:
        return count
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        raise DeviceError(
            where,
            expected="a visible GPU",
            got=f"none with CUDA_VISIBLE_DEVICES={visible!r}",
            fix="unset CUDA_VISIBLE_DEVICES or set it to a GPU that nvidia-smi lists",
        )
    raise DeviceError(
        where,
        expected="an NVIDIA GPU",
        got="a driver that sees none",
        fix='run nvidia-smi, start the container with --gpus all, or use device="cpu"',
    )


def raise_if_lost(error: RuntimeError, device: str) -> None:
    """Raise a DeviceLostError if this error of CUDA means that the device is lost."""
    if getattr(error, "status", None) in LOST:
        raise DeviceLostError(
            f'device "{device}"',
            expected="a device that answers",
            got=str(error),
            fix="start a new process and go on from the last checkpoint (fit resume=); nvidia-smi and the system's log"
            " name the cause",
        ) from error


def _driver_error(cupy: Any, where: str) -> DeviceError:
    driver, runtime = (int(f()) for f in (cupy.cuda.runtime.driverGetVersion, cupy.cuda.runtime.runtimeGetVersion))
    if driver == 0:  # CUDA calls a missing driver insufficient too
        return DeviceError(
            where,
            expected="an NVIDIA driver",
            got="none on this machine",
            fix='install one from nvidia.com/drivers, start the container with --gpus all, or use device="cpu"',
        )
    return DeviceError(
        where,
        expected=f"a driver for CUDA {_version(runtime)}",
        got=f"one for CUDA {_version(driver)}",
        fix=f"update the NVIDIA driver, or {INSTALL}",
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def require_device(cupy: Any, index: int) -> None:
    """Raise a DeviceError with the reason unless the device can compute.

    To count devices is not enough: if the compiler or cuBLAS is missing, only its first use fails.
    """
    count = device_count(cupy)
    if index >= count:
        raise DeviceError(
            f'device "cuda:{index}"',
            expected=f"one of {', '.join(f'cuda:{i}' for i in range(count))}",
            got=f"index {index}",
            fix="count from 0; CUDA_VISIBLE_DEVICES hides and renumbers GPUs",
        )
    try:
        with cupy.cuda.Device(index):
            ones = cupy.ones((2, 2), "float32")
            ones += ones
            cupy.matmul(ones, ones)
            cupy.cuda.Device(index).synchronize()
    except (ImportError, RuntimeError, cupy.cuda.compiler.CompileException) as error:
        raise DeviceError(
            f'device "cuda:{index}"',
            expected="CUDA's compiler and cuBLAS",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}",
            fix="pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]'), which brings the libraries CuPy needs",
        ) from error
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceError(
            f'device "cuda:{index}"',
            expected="some free device memory",
            got=str(error),
            fix="end what nvidia-smi shows on this GPU, or use another",
        ) from error
