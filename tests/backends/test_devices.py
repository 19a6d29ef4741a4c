"""Which device is used, and the errors where a device cannot be used."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunn import backends
from gpunn.backends import available_devices, get_backend
from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.cuda import backend as cupy_backend
from gpunn.backends.cuda.detection import device_count, require_device
from gpunn.errors import ConfigurationError, DeviceError
from tests.strict.compiler import have_gxx
from tests.strict.standin import make_cupy

ROOT = Path(backends.__file__).resolve().parent.parent


class CUDARuntimeError(RuntimeError):
    """As CuPy's: a status beside the text."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class CompileException(Exception):
    """As CuPy's: not a RuntimeError."""


class OutOfMemoryError(MemoryError):
    pass


def fail(error: BaseException) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        raise error

    return function


def fake_cupy(count: Any = 1, driver: int = 13000, matmul: BaseException | None = None) -> Any:
    """The part of CuPy that the diagnosis uses."""
    cupy = SimpleNamespace()
    runtime = SimpleNamespace(
        getDeviceCount=(lambda: count) if isinstance(count, int) else fail(count),
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
    )
    device = type(
        "Device",
        (),
        {
            "__init__": lambda *_: None,
            "__enter__": lambda *_: None,
            "__exit__": lambda *_: None,
            "synchronize": lambda _: None,
        },
    )
    cupy.cuda = SimpleNamespace(
        runtime=runtime,
        Device=device,
        compiler=SimpleNamespace(CompileException=CompileException),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    cupy.ones = lambda shape, dtype: 1.0
    cupy.matmul = fail(matmul) if matmul else lambda a, b: a * b
    return cupy


INSUFFICIENT = CUDARuntimeError(35, "cudaErrorInsufficientDriver: CUDA driver version is insufficient")
NO_DEVICE = CUDARuntimeError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
DIAGNOSES: dict[str, tuple[Any, int, str]] = {
    "no driver": (fake_cupy(INSUFFICIENT, driver=0), 0, "an NVIDIA driver, got none on this machine; install one"),
    "old driver": (
        fake_cupy(INSUFFICIENT, driver=12040),
        0,
        r"expected a driver for CUDA 13\.2, got one for CUDA 12\.4; update the NVIDIA driver, or pip install",
    ),
    "broken driver": (
        fake_cupy(CUDARuntimeError(999, "unknown error")),
        0,
        "a working CUDA driver, got unknown error; run nvidia-smi",
    ),
    "no device": (fake_cupy(NO_DEVICE), 0, "expected an NVIDIA GPU, got a driver that sees none; run nvidia-smi"),
    "no device counted": (fake_cupy(0), 0, "expected an NVIDIA GPU"),
    "index": (fake_cupy(2), 2, 'device "cuda:2": expected one of cuda:0, cuda:1, got index 2; count from 0'),
    "no compiler": (
        fake_cupy(matmul=RuntimeError("CuPy failed to load libnvrtc")),
        0,
        r"expected CUDA's compiler and cuBLAS, got RuntimeError: .* libnvrtc; pip install 'cupy-cuda13x\[ctk\]'",
    ),
    "no cuBLAS": (fake_cupy(matmul=ImportError("libcublas.so.13: cannot open")), 0, r"ImportError: libcublas\.so\.13"),
    "headers": (fake_cupy(matmul=CompileException("cannot open source\nmore")), 0, "Exception: cannot open source;"),
    "silent": (fake_cupy(matmul=RuntimeError()), 0, "RuntimeError: no message"),
    "full": (fake_cupy(matmul=OutOfMemoryError("Out of memory")), 0, "some free device memory, got Out of memory"),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget earlier backends and decisions, and show all GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for cache in (backends._backend, backends._automatic_device):
        cache.cache_clear()
    yield
    for cache in (backends._backend, backends._automatic_device):
        cache.cache_clear()


@pytest.mark.parametrize("case", DIAGNOSES)
def test_an_error_about_a_gpu_names_the_reason_and_the_fix(case: str) -> None:
    cupy, index, message = DIAGNOSES[case]
    with pytest.raises(DeviceError, match=message):
        require_device(cupy, index)


@pytest.mark.parametrize("count", [0, NO_DEVICE])
def test_the_error_for_a_hidden_gpu_differs_from_that_for_a_missing_gpu(
    monkeypatch: pytest.MonkeyPatch, count: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="expected a visible GPU, got none with CUDA_VISIBLE_DEVICES=''; unset"):
        device_count(fake_cupy(count))


def test_a_usable_gpu_passes_the_check_and_is_counted() -> None:
    require_device(fake_cupy(2), 1)
    assert device_count(fake_cupy(3)) == 3


IMPORT_ERRORS: dict[str, tuple[ImportError, str]] = {
    "missing": (
        ModuleNotFoundError("No module named 'cupy'", name="cupy"),
        r"expected CuPy, got no module named cupy; pip install 'gpunn\[cuda13\]'",
    ),
    "broken": (
        ImportError("libcuda.so.1"),
        r"a CuPy that can be imported, got ImportError: libcuda\.so\.1; uninstall every cupy\* package",
    ),
    "incomplete": (ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"), "a CuPy that can be imported"),
}


@pytest.mark.parametrize("case", IMPORT_ERRORS)
def test_the_error_for_a_missing_cupy_differs_from_that_for_a_broken_cupy(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    error, message = IMPORT_ERRORS[case]
    monkeypatch.setattr(cupy_backend.importlib, "import_module", fail(error))
    with pytest.raises(DeviceError, match=message):
        get_backend("cuda")
    assert available_devices() == ("cpu",)


def use(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    monkeypatch.setattr(cupy_backend, "import_cupy", lambda: cupy)


def test_device_cuda_never_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_cupy(INSUFFICIENT, driver=0))
    for name in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(DeviceError, match="NVIDIA driver"):
            get_backend(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", None, 0])
def test_get_backend_refuses_an_unknown_device(name: Any) -> None:
    with pytest.raises(ConfigurationError, match='device: expected "auto", "cpu", "cuda" or "cuda:" and a number, got'):
        get_backend(name)


def test_there_is_one_backend_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = get_backend("cpu")
    assert isinstance(cpu, NumpyBackend)
    assert get_backend("cpu") is cpu
    assert cpu.device == "cpu"
    use(monkeypatch, make_cupy(devices=2))
    assert get_backend("cuda") is get_backend("cuda:0") is get_backend("cuda:00") is get_backend("auto")
    second = get_backend("cuda:1")
    assert second is not get_backend("cuda")
    assert second.device == "cuda:1"
    assert repr(second) == "<cuda backend on cuda:1>"
    assert available_devices() == ("cpu", "cuda:0", "cuda:1")


@pytest.mark.skipif(not have_gxx(), reason="g++ is not installed, so CUDA kernels cannot run on the stand-in")
def test_an_operation_makes_its_gpu_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = make_cupy(devices=2)
    use(monkeypatch, cupy)
    first, second = get_backend("cuda:0"), get_backend("cuda:1")
    X = second.zeros((2, 3), "float32")
    assert cupy.cuda.get_device_id() == 1
    first.zeros((2, 3), "float32")
    assert cupy.cuda.get_device_id() == 0
    second.softmax(X, out=X)
    assert cupy.cuda.get_device_id() == 1


@pytest.mark.parametrize(("installed", "level"), [(True, logging.WARNING), (False, logging.INFO)])
def test_device_auto_logs_once_why_it_uses_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: bool, level: int
) -> None:
    use(monkeypatch, fake_cupy(NO_DEVICE))
    monkeypatch.setattr(backends, "find_spec", lambda name: object() if installed else None)
    with caplog.at_level(logging.INFO, "gpunn"):
        assert get_backend("auto") is get_backend() is get_backend("cpu")
    assert [r.levelno for r in caplog.records if r.getMessage().startswith("using the CPU")] == [level]
    assert 'using the CPU: device "cuda": expected an NVIDIA GPU' in caplog.text


def test_backends_cannot_be_imported_under_another_name() -> None:
    spec = importlib.util.spec_from_file_location("backends", backends.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"this package is gpunn\.backends, not backends; import gpunn\.backends"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_importing_gpunn_touches_neither_cupy_nor_cuda() -> None:
    code = (
        "import sys, gpunn.backends as b; b.get_backend('cpu'); print('cupy' in sys.modules, 'nvmath' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_without_cublaslt_matrix_products_use_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend, "load_cublaslt", lambda: None)
    backend = cupy_backend.CupyBackend(cupy=make_cupy())
    rng = np.random.default_rng(0)
    for shape in ((3, 4), (2, 3, 4)):
        A, B = rng.standard_normal((2, *shape))
        for first, second in ((A.mT, B), (A, B.mT), (A[..., :1, :].mT, B[..., :1, :])):
            out = backend.zeros((first @ second).shape, "float64")
            left = backend.from_host(np.ascontiguousarray(first.mT)).mT
            backend.matmul(left, backend.from_host(second), out=out)
            np.testing.assert_allclose(backend.to_host(out), first @ second)
    shared = rng.standard_normal((4, 5))
    out = backend.zeros((2, 3, 5), "float64")
    backend.matmul(backend.from_host(A), backend.from_host(shared), out=out)
    np.testing.assert_allclose(backend.to_host(out), A @ shared)
