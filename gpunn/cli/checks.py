"""The checks of `gpunn doctor`: each looks at one thing and says whether it is as it should be."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gpunn as gn
from gpunn import cores
from gpunn.cli.machine import memory_limit, memory_of, processor
from gpunn.cores import cpu_limit, usable_cpus
from gpunn.errors import GpunnError, readable

OK, NOTE, WARNING, FAULT = "ok", "note", "warning", "FAULT"
HAND_SET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
EXTRAS = {
    "jit": ("numba", "faster steps on the CPU"),
    "sklearn": ("scikit-learn", "gpunn.estimators"),
    "data": ("pyarrow", "CSV, Parquet and Arrow files"),
    "plot": ("matplotlib", "learning curves as pictures"),
}
SECONDS = 0.5  # for which the use of the cores by others is measured
BUSY = 0.25  # of a core: the system itself takes less
GENERIC = ("prescott", "generic", "core2", "nehalem")  # OpenBLAS's kernels without AVX


@dataclass(frozen=True)
class Check:
    """What one check found; `fix` says what to do if it is not as it should be."""

    name: str
    status: str
    found: str
    fix: str = ""


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def python() -> Iterator[Check]:
    yield Check("gpunn", OK, f"{gn.__version__} in {Path(gn.__file__).parent}")
    yield Check("Python", OK, f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    version = installed("numpy") or "unknown"
    if version.split(".")[0] in ("0", "1"):
        yield Check("NumPy", FAULT, version, 'run: python -m pip install "numpy>=2.0"')
    else:
        yield Check("NumPy", OK, version)


def machine() -> Iterator[Check]:
    yield Check("system", OK, platform.platform())
    limit = cpu_limit()
    found = f"{processor()}, {usable_cpus()} of {os.cpu_count()} cores" + (f", limited to {limit:g}" if limit else "")
    yield Check("processor", OK, found)
    yield busy(cores.taken_by_others(SECONDS))
    total, free = memory_of()
    most = memory_limit()
    found = f"{readable(total)}, {readable(free)} free" if total else "unknown"
    yield Check("memory", OK if total else NOTE, found + (f", limited to {readable(most)}" if most else ""))


def busy(taken: float | None) -> Check:
    """How busy the machine is: a training has only the cores that other programs leave."""
    load = f"load {os.getloadavg()[0]:.2f} over the last minute" if hasattr(os, "getloadavg") else "load unknown"
    if taken is None:
        return Check("busy", NOTE, f"{load}; what others take cannot be measured here")
    found = f"others take {taken:.1f} of {usable_cpus()} cores ({taken / usable_cpus():.0%}), {load}"
    if taken < BUSY:
        return Check("busy", OK, found)
    fix = "end what else runs here: training takes fewer threads while cores are taken, and is slower"
    return Check("busy", WARNING, found, fix)


def blas(pools: list[dict[str, Any]], environment: Mapping[str, str]) -> Iterator[Check]:
    """The libraries that multiply matrices, their kernels and threads."""
    if not pools:
        yield Check("BLAS", NOTE, "one that cannot be looked into (such as Accelerate)")
    cpus = cores.most_threads()
    for pool in pools:
        kernels, threads = pool.get("architecture") or "unknown", pool["num_threads"]
        found = f"{pool['internal_api']} {pool['version']}, {kernels} kernels, {threads} threads"
        if threads > cpus:
            fix = f"set {THREADS[0]}={cpus}: threads that wait for a core make every product slower"
            yield Check("BLAS", WARNING, found, fix)
        elif kernels.lower() in GENERIC:
            yield Check(
                "BLAS", WARNING, found, "install NumPy from PyPI, whose OpenBLAS has kernels for this processor"
            )
        else:
            yield Check("BLAS", OK, found)
    for name in HAND_SET:
        if name in environment:
            fix = f"unset {name}: OpenBLAS chooses well by itself, and a wrong choice can halve its speed"
            yield Check("environment", WARNING, f"{name}={environment[name]}", fix)
    for name in (*THREADS, "CUDA_VISIBLE_DEVICES"):
        if name in environment:
            yield Check("environment", NOTE, f"{name}={environment[name]}")
    if environment.get("GPUNN_CAPTURE") == "0":
        fix = "unset it: without captured steps small networks are slow on a GPU"
        yield Check("environment", WARNING, "GPUNN_CAPTURE=0", fix)


def extras() -> Iterator[Check]:
    """The optional libraries."""
    for extra, (package, use) in EXTRAS.items():
        version = installed(package)
        if version:
            yield Check(package, OK, version)
        else:
            yield Check(package, NOTE, f"not installed; for {use}", f'run: python -m pip install "gpunn[{extra}]"')


def training(device: str) -> Check:
    """Whether a network trains: a few steps on four points."""
    try:
        net = gn.Network([gn.Dense(4, "relu"), gn.Dense(2)], 2, device=device)
        X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]
        net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(), epochs=5, batch_size=4, progress=False)
    except GpunnError as error:
        return Check(f"training on {device}", FAULT, error.got, error.fix)
    return Check(f"training on {device}", OK, "works")
