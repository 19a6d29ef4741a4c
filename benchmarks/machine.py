"""What a result was measured on: processor, BLAS kernels, threads, GPU, driver, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "gpunn", "numpy", "cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "ml_dtypes", "numba", "torch", "jax", "jaxlib",
    "optax", "scikit-learn", "joblib", "threadpoolctl",
)  # fmt: skip
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BUSY = 1.0  # processes at work over the last minute
ROOT = Path(__file__).resolve().parents[1]


def describe(device: str, threads: int | None = None) -> dict[str, Any]:
    """Everything that JSON keeps and tables name."""
    import numpy as np  # so that its BLAS is there to be looked at
    from threadpoolctl import threadpool_info

    assert np.__version__
    pools = [
        {name: pool.get(name) for name in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device,
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "blas": pools,
        "gpu": gpu() if device.startswith("cuda") else None,
        "versions": {name: version for name in PACKAGES if (version := installed(name))},
        "warnings": warnings(),
    }


def warnings() -> list[str]:
    """What spoils figures."""
    told = [f"{name} is set; OpenBLAS may run at half its speed" for name in SLOWING if name in os.environ]
    load = os.getloadavg()[0]
    return told + [f"the load was {load:.1f} before anything was timed; measure alone"] * (load >= BUSY)


def processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Of this checkout, marked where its files differ from it; in an image, the one it was built from; else None.

    Results differ as soon as one question's are stored, which changes nothing about what the next one measures.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--", ".", ":!benchmarks/results") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GPUNN_REVISION")


def gpu() -> dict[str, Any]:
    """The first CUDA device, as CuPy and the driver describe it."""
    import cupy

    from gpunn.backends.cuda.gemm import load_cublaslt

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "memory": properties["totalGlobalMem"],
        "driver": driver(),
        "cuda driver": runtime.driverGetVersion(),
        "cuda runtime": runtime.runtimeGetVersion(),
        "cublaslt": load_cublaslt() is not None,
    }


def driver() -> str | None:
    """The NVIDIA driver's own version, which CUDA does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def lines(description: dict[str, Any]) -> list[str]:
    """The description in a few lines of text."""
    gpu, threads = description["gpu"], description["threads"]
    blas = ", ".join(
        f"{pool['internal_api']} {pool['version']} ({pool['architecture']}, {pool['num_threads']} threads)"
        for pool in description["blas"]
    )
    told = [f"{description['cpu']}, {description['cores']} cores; {blas or 'no BLAS that says its name'}"]
    if gpu:
        told.append(
            f"{gpu['name']}, driver {gpu['driver'] or 'unknown'}, CUDA runtime {gpu['cuda runtime']}, "
            + ("cuBLASLt" if gpu["cublaslt"] else "no cuBLASLt: CuPy's products")
        )
    told.append(", ".join(f"{name} {version}" for name, version in description["versions"].items()))
    chosen = f"{threads} threads" if threads else "threads as each library chooses"
    told.append(f"{chosen}; commit {description['commit'] or 'unknown'}; {description['date']}")
    return told
