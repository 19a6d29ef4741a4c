"""The `backend` fixture: one test body for the CPU, the plain reference, a stand-in for CUDA, and CUDA itself."""

import os
from collections.abc import Callable
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each of several processes computes on one core; said before NumPy is loaded
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.reference.backend import Backend
from gpunn.errors import DeviceError
from tests.strict.compiler import have_gxx
from tests.strict.cublaslt import make_cublaslt
from tests.strict.standin import make_cupy


def strict_backend(**options: Any) -> Any:
    """The CUDA backend on stand-ins for CuPy and cuBLASLt; `backend.xp` has the counters."""
    from gpunn.backends.cuda.backend import CupyBackend

    if not have_gxx():
        pytest.skip("g++ is not installed, so CUDA kernels cannot run on the stand-in")
    cupy = make_cupy(**options)
    cublaslt = make_cublaslt(submit=cupy.machine.issue, capturing=lambda: cupy.machine.capturing)
    return CupyBackend(cupy=cupy, cublaslt=cublaslt)


def cuda_backend() -> Any:
    from gpunn.backends.cuda.backend import CupyBackend

    try:
        return CupyBackend()
    except DeviceError as error:
        pytest.skip(str(error))


os.environ["GPUNN_JIT"] = "0"  # networks on "cpu" are NumPy's; loops have tests of their own


def jit_backend() -> NumpyBackend:
    """NumPy with all the loops that Numba can compile, from the first call on.

    No member of `backend`, for compiling takes long; `tests/backends/test_numba_loops.py` holds it against NumPy.
    """
    pytest.importorskip("numba")
    from gpunn.backends.cpu.numba.loops import LoopFormulas

    return NumpyBackend(LoopFormulas(patient=False))


BACKENDS: dict[str, Callable[[], Any]] = {
    "cpu": NumpyBackend,
    "reference": Backend,
    "strict": strict_backend,
    "cuda": cuda_backend,
    "jit": jit_backend,
}
_made: dict[str, Any] = {}


def backend_named(name: str) -> Any:
    """One backend of each kind serves the whole run, as in a program: compiled kernels are kept."""
    if name not in _made:
        _made[name] = BACKENDS[name]()
    return _made[name]


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.cuda if name == "cuda" else ()) for name in BACKENDS if name != "jit"]
)
def backend(request: pytest.FixtureRequest) -> Any:
    return backend_named(request.param)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core, but at most 8 for the sake of memory; with a GPU only one, which has it to itself."""
    return 0 if "cuda" in config.option.markexpr else min(os.cpu_count() or 1, 8)


@pytest.fixture
def strict() -> Any:
    return backend_named("strict")


@pytest.fixture
def reference() -> Backend:
    return Backend()
