"""`gpunn doctor`: what it finds, and what it says to do."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gpunn.cli import checks, gpu_checks, machine
from gpunn.cli.checks import FAULT, NOTE, OK, WARNING, Check
from gpunn.errors import DeviceError
from tests.cli.stage import call, document

DOCTOR = "gpunn.cli.doctor"
POOL = {"internal_api": "openblas", "version": "0.3", "architecture": "Zen", "num_threads": 1, "user_api": "blas"}


@pytest.mark.parametrize(("status", "code"), [(OK, 0), (NOTE, 0), (WARNING, 0), (FAULT, 1)])
def test_doctor_exits_with_1_if_it_finds_a_fault(status: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[DOCTOR], "gpus", lambda: [Check("thing", status, "so and so", "do this")])
    told = document("doctor", code=code)
    assert told["ok"] is (code == 0)
    assert {"name": "thing", "status": status, "found": "so and so", "fix": "do this"} in told["checks"]
    text = call("doctor", code=code).stdout
    assert ("thing (" in text and "do this" in text) == (status != OK)
    assert ("1 fault, " if status == FAULT else "0 faults, ") in text


def test_doctor_describes_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[DOCTOR], "gpus", lambda: ())
    found = {check["name"]: check["found"] for check in document("doctor")["checks"]}
    assert {"gpunn", "Python", "NumPy", "system", "processor", "busy", "memory", "BLAS"} <= set(found)
    assert found["NumPy"][0].isdigit() and "kernels" in found["BLAS"]


def statuses(found: Any) -> list[tuple[str, str]]:
    return [(check.status, check.found) for check in found]


@pytest.mark.parametrize(
    ("pools", "environment", "status", "message"),
    [
        ([POOL], {}, OK, "openblas 0.3, Zen kernels, 1 threads"),
        ([], {}, NOTE, "cannot be looked into"),
        ([{**POOL, "num_threads": 1000}], {}, WARNING, "1000 threads"),
        ([{**POOL, "architecture": "Prescott"}], {}, WARNING, "Prescott"),
        ([POOL], {"OPENBLAS_CORETYPE": "Haswell"}, WARNING, "OPENBLAS_CORETYPE=Haswell"),
        ([POOL], {"OMP_NUM_THREADS": "1"}, NOTE, "OMP_NUM_THREADS=1"),
        ([POOL], {"GPUNN_CAPTURE": "0"}, WARNING, "GPUNN_CAPTURE=0"),
    ],
)
def test_doctor_reports_the_blas_and_warns_of_settings_that_slow_it_down(
    pools: list[Any], environment: dict[str, str], status: str, message: str
) -> None:
    found = list(checks.blas(pools, environment))
    assert any(check.status == status and message in check.found for check in found)
    assert all(bool(check.fix) == (check.status == WARNING) for check in found)
    assert len(found) == 1 + len(environment)


@pytest.mark.parametrize(
    ("taken", "status", "message"),
    [
        (0.02, OK, "others take 0.0 of 2 cores (1%), load 0.75 over the last minute"),
        (1.04, WARNING, "others take 1.0 of 2 cores (52%), load 0.75 over the last minute"),
        (None, NOTE, "load 0.75 over the last minute; what others take cannot be measured here"),
    ],
)
def test_doctor_reports_how_busy_the_machine_is(
    taken: float | None, status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "usable_cpus", lambda: 2)
    monkeypatch.setattr(checks.os, "getloadavg", lambda: (0.75, 0.5, 0.25))
    monkeypatch.setattr(checks.cores, "taken_by_others", lambda seconds: taken)
    check = next(check for check in checks.machine() if check.name == "busy")
    assert (check.status, check.found) == (status, message)
    assert ("end what else runs here" in check.fix) == (status == WARNING)


def test_doctor_works_on_a_system_that_has_no_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(checks.os, "getloadavg")
    assert checks.busy(None).found == "load unknown; what others take cannot be measured here"


@pytest.mark.parametrize(("version", "status"), [("1.26.4", FAULT), ("2.0.0", OK)])
def test_doctor_calls_a_numpy_before_2_a_fault(version: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "installed", lambda package: version)
    assert {c.name: c.status for c in checks.python()}["NumPy"] == status


def test_doctor_names_the_command_that_installs_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "installed", lambda package: None)
    fixes = [check.fix for check in checks.extras()]
    assert fixes == [f'run: python -m pip install "gpunn[{extra}]"' for extra in ("jit", "sklearn", "data", "plot")]


def test_doctor_calls_a_device_that_cannot_train_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.training("cpu").status == OK

    def broken(*arguments: Any, **options: Any) -> None:
        raise DeviceError("here", expected="a", got="smoke", fix="call someone")

    monkeypatch.setattr(checks.gn, "Network", broken)
    assert checks.training("cpu") == Check("training on cpu", FAULT, "smoke", "call someone")


# GPUs


def packages(monkeypatch: pytest.MonkeyPatch, *names: str, nvmath: str | None = "1.0.0") -> None:
    monkeypatch.setattr(gpu_checks, "cupy_packages", lambda: list(names))
    monkeypatch.setattr(gpu_checks, "installed", lambda name: nvmath if name == "nvmath-python" else "14.2.0")


def found_by_name() -> dict[str, Check]:
    return {check.name: check for check in gpu_checks.gpus()}


@pytest.mark.parametrize("driver", [False, True])
def test_doctor_warns_of_a_missing_cupy_only_if_there_is_a_driver(
    driver: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(monkeypatch)
    monkeypatch.setattr(gpu_checks, "DRIVER", tmp_path if driver else tmp_path / "none")
    check = found_by_name()["CuPy"]
    assert check.status == (WARNING if driver else NOTE) and "gpunn[cuda13]" in check.fix


def test_doctor_calls_two_installed_cupys_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, "cupy-cuda12x", "cupy-cuda13x")
    check = found_by_name()["CuPy"]
    assert check.status == FAULT and check.found == "cupy-cuda12x 14.2.0, cupy-cuda13x 14.2.0"


def test_doctor_calls_a_missing_driver_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise DeviceError("device", expected="a driver", got="none", fix="install one")

    packages(monkeypatch, "cupy-cuda13x", nvmath=None)
    monkeypatch.setattr(gpu_checks, "import_cupy", fail)
    found = found_by_name()
    assert found["CUDA"] == Check("CUDA", FAULT, "expected a driver, got none", "install one")
    assert found["nvmath-python"].status == WARNING


def test_doctor_describes_a_gpu_and_trains_on_it(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in for CuPy, whose devices have names and memory as CUDA's do."""
    packages(monkeypatch, "cupy-cuda13x")
    monkeypatch.setattr(gpu_checks, "import_cupy", lambda: strict.xp)
    monkeypatch.setattr(gpu_checks, "training", lambda device: Check(f"training on {device}", OK, "works"))
    found = found_by_name()
    assert found["CUDA"].status == OK and "a driver for CUDA" in found["CUDA"].found
    assert found["cuda:0"].status == OK and "capability" in found["cuda:0"].found and "free" in found["cuda:0"].found
    assert found["training on cuda:0"].status == OK


def test_doctor_calls_a_gpu_that_cannot_compute_a_fault(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cupy: Any, index: int) -> None:
        raise DeviceError("device", expected="cuBLAS", got="none", fix="install it")

    packages(monkeypatch, "cupy-cuda13x")
    monkeypatch.setattr(gpu_checks, "import_cupy", lambda: strict.xp)
    monkeypatch.setattr(gpu_checks, "require_device", fail)
    assert found_by_name()["cuda:0"] == Check("cuda:0", FAULT, "expected cuBLAS, got none", "install it")


def test_cupy_packages_are_those_named_cupy_or_cupy_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    names = ("numpy", "cupy-cuda13x", "CuPy", "cupylike", "cupy-cuda13x")
    monkeypatch.setattr(gpu_checks.metadata, "distributions", lambda: map(Found, names))
    assert gpu_checks.cupy_packages() == ["cupy", "cupy-cuda13x"]


# The machine


def test_the_memory_limit_of_a_container_is_read(tmp_path: Path) -> None:
    assert machine.memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.memory_limit(tmp_path) == 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_limit(tmp_path) is None


def test_doctor_reads_processor_and_memory_from_proc(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast 9000\n")
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:  1024 kB\n")
    assert machine.processor(tmp_path / "cpuinfo") == "Fast 9000"
    assert machine.memory_of(tmp_path / "meminfo") == (2 << 20, 1 << 20)
    assert machine.memory_of(tmp_path / "none") == (0, 0)
