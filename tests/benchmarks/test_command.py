"""The benchmark command, with every benchmark at sizes that show only that it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import (
    accuracy,
    batching,
    busy,
    cases,
    command,
    digits,
    epoch,
    install,
    machine,
    mapped,
    memory,
    passes,
    populations,
    products,
    profile,
    report,
    scaling,
    step,
)
from benchmarks.cases import Case, Training
from benchmarks.harness import Row, Setting
from benchmarks.peers import TORCH, ours

SMALL = Case((64, 8, 10), 16)
DESCRIPTION: dict[str, Any] = {
    "date": "d", "commit": None, "device": "cuda", "system": "s", "python": "p", "cpu": "c", "cores": 2,
    "threads": None, "blas": [], "gpu": None, "versions": {}, "warnings": ["it is warm"],
}  # fmt: skip


def little_training() -> Training:
    rng = np.random.default_rng(0)
    return Training(SMALL, rng.standard_normal((40, 64), np.float32), np.arange(40) % 10, 1, ours.weights(SMALL))


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(cases, "MOST_BATCHES", 8)
    monkeypatch.setattr(Setting, "seconds", 1e-6)
    monkeypatch.setattr(step, "cases", lambda *_: [SMALL])
    monkeypatch.setattr(step, "peers", lambda kind: (TORCH,))
    monkeypatch.setattr(products, "sizes", lambda *_: (8,))
    monkeypatch.setattr(products, "step_cases", lambda *_: [SMALL])
    monkeypatch.setattr(digits, "WANTED", 0.5)
    monkeypatch.setattr(passes, "CASES", (((6, 5, 3), 8),))
    monkeypatch.setattr(mapped, "PIECE", 100)
    monkeypatch.setattr(accuracy, "NETS", {"moons": ((2, 8, 2), 2)})
    monkeypatch.setattr(accuracy, "COMPETITORS", ("gpunn",))
    monkeypatch.setattr(accuracy, "GOALS", (0.1,))
    monkeypatch.setattr(batching, "CASES", ((5, 32, 4000),))
    monkeypatch.setattr(epoch, "trainings", lambda quick: [little_training()])
    monkeypatch.setattr(install, "PACKAGES", {"gpunn": "gpunn"})
    monkeypatch.setattr(memory, "GRID", (SMALL, SMALL))
    monkeypatch.setattr(
        populations, "trainers", lambda device: {"gpunn": lambda: lambda m: populations.population(m, device)}
    )
    monkeypatch.setattr(profile, "GRID", (SMALL,))
    monkeypatch.setattr(scaling, "GROWTH", {"rows": (64, 128)})
    monkeypatch.setattr(busy, "commands", lambda setting: {"c": [sys.executable, "-c", "pass"]})


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(command.main, [str(a) for a in arguments], catch_exceptions=False)


def test_every_benchmark_runs_and_its_results_are_stored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = invoke("--quick", "--gibibytes", 0.001, "--folder", tmp_path, "--json", tmp_path / "a" / "r.json")
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "a" / "r.json").read_text(encoding="utf-8"))
    assert data["quick"] and data["machine"]["device"] == "cpu"
    found = {(r["question"], r["competitor"]): r for r in data["results"]}
    timed = {key for key, row in found.items() if row["median"] is not None}
    assert timed >= {
        ("step", "gpunn"), ("products", "products alone"), ("products", "step"), ("digits", "gpunn"),
        ("passes", "gpunn"), ("passes", "sketch"), ("passes", "products alone"), ("passes", "gpunn, call by call"),
        ("mapped", "resident at most"), ("mapped", "epoch, checking included"), ("profile", "share"),
        ("accuracy", "gpunn"), ("epoch", "gpunn"), ("batching", "NumPy indexing"), ("update", "gpunn"),
        ("populations", "gpunn"), ("scaling", "gpunn"), ("memory", "in training"), ("busy", "alone"),
    }  # fmt: skip
    assert found["install", "gpunn"]["note"].startswith("left out")  # the size; the import is a line before
    assert list(dict.fromkeys(question for question, _ in found)) == list(command.QUESTIONS)
    for other in (
        ("step", "torch eager"),
        ("products", products.TORCH),
        ("digits", "torch loop"),
        ("estimators", "scikit-learn"),
    ):
        assert other in timed or found[other]["note"].startswith("not installed")
    assert found["passes", "gpunn"]["details"]["held after 100 further passes:"] == "0 blocks, 0 bytes"
    assert float(found["passes", "gpunn"]["details"]["losses apart by"]) < 1e-6
    assert 0 < found["mapped", "resident at most"]["details"]["loss"] < 10
    assert found["mapped", "resident at most"]["case"] == "0.00 GiB in 342 rows"
    assert not list(tmp_path.glob("**/*.npy"))


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str, note: str = "") -> tuple[dict[str, Setting], Result]:
    """The settings that each benchmark would get; none is run."""
    settings: dict[str, Setting] = {}

    def question(name: str) -> Any:
        def run(setting: Setting) -> list[Row]:
            settings[name.removeprefix("benchmarks.")] = Setting(**vars(setting))
            return [Row(name, "c", "gpunn", "µs", [1.0], note)]

        return SimpleNamespace(run=run)

    monkeypatch.setattr(command, "import_module", question)
    monkeypatch.setattr(machine, "describe", lambda device, threads: DESCRIPTION)
    return settings, invoke(*arguments)


def test_a_gpu_runs_the_most_telling_benchmarks_within_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, done = asked(monkeypatch, "--device", "cuda")
    assert done.exit_code == 0
    assert list(settings) == ["step", "products", "digits"]
    assert settings["step"].selection and settings["step"].deadline < float("inf")
    settings, _ = asked(monkeypatch, "step", "--device", "cuda")
    assert not settings["step"].selection and settings["step"].deadline == float("inf")


def test_the_cpu_runs_every_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = asked(monkeypatch)
    assert list(settings) == list(command.QUESTIONS)
    assert not any(setting.selection or setting.quick for setting in settings.values())


def test_the_options_of_the_benchmark_command_reach_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, done = asked(
        monkeypatch, "mapped", "--quick", "--gibibytes", "0.5", "--folder", str(tmp_path), "--table", __file__
    )
    setting = settings["mapped"]
    assert (setting.quick, setting.gibibytes, setting.folder, setting.table) == (True, 0.5, str(tmp_path), __file__)
    assert "warning: it is warm" in done.stderr


@pytest.mark.parametrize(("note", "status"), [("", 0), ("not installed: x", 0), ("failed: x", 1), ("refused: x", 1)])
def test_the_benchmark_command_exits_with_an_error_status_after_a_fault(
    monkeypatch: pytest.MonkeyPatch, note: str, status: int
) -> None:
    _, done = asked(monkeypatch, "step", note=note)
    assert done.exit_code == status


def test_unknown_benchmarks_are_refused() -> None:
    done = invoke("speed")
    assert done.exit_code == 2
    assert f"'speed' is not one of {', '.join(map(repr, command.QUESTIONS))}" in " ".join(done.output.split())


def test_the_number_of_threads_is_set_in_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr("threadpoolctl.threadpool_limits", limits.append)
    monkeypatch.setitem(command.sys.modules, "torch", SimpleNamespace(set_num_threads=limits.append))
    command.prepare_environment(3)
    assert {os.environ[name] for name in command.THREAD_VARIABLES} == {"3"}
    assert limits == [3, 3]
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_the_benchmark_command_warns_of_settings_that_slow_blas_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))
    monkeypatch.setattr(os, "environ", {"OPENBLAS_CORETYPE": "Haswell"})
    assert machine.warnings() == ["OPENBLAS_CORETYPE is set; OpenBLAS may run at half its speed"]
    monkeypatch.setattr(os, "environ", {})
    assert machine.warnings() == []
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0, 0))
    assert machine.warnings() == ["the load was 2.0 before anything was timed; measure alone"]


def test_the_description_of_the_machine_names_the_gpu(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.sys.modules, "cupy", strict.xp)
    monkeypatch.setattr(machine, "driver", lambda: "600.1")
    described = machine.describe("cuda")
    assert described["gpu"]["name"] == "NVIDIA stand-in" and described["gpu"]["cuda runtime"] == 13000
    assert machine.lines(described)[1].startswith("NVIDIA stand-in, driver 600.1, CUDA runtime 13000, ")
    assert machine.describe("cpu")["gpu"] is None


def test_benchmark_plots_are_written_for_rows_with_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed (extra `plot`)")
    rows = [Row("step", "a", "gpunn", "µs", [1.0]), Row("step", "a", "jax jit", "µs", note="not installed: x")]
    report.plot(tmp_path / "plots", rows)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["step.png"]


def test_benchmark_plots_are_left_out_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.sys.modules, "matplotlib.figure", None)
    report.plot(tmp_path / "plots", [Row("step", "a", "gpunn", "µs", [1.0])])
    assert capsys.readouterr().err == "no plots: matplotlib is not installed\n"
    assert not (tmp_path / "plots").exists()


def test_the_generated_digits_of_benchmarks_can_be_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.sys.modules, "sklearn.datasets", None)
    monkeypatch.setattr(digits, "WANTED", 0.97)
    name, data = digits.digits()
    assert name == "generated digits"
    assert [part.shape for part in data] == [(1438, 64), (1438,), (359, 64), (359,)]
    accuracy, epochs = digits.train(data, 0, "cpu")
    assert accuracy >= 0.97 and epochs < digits.MOST_EPOCHS


def test_an_accuracy_that_is_never_reached_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "torch_loop", lambda kind: lambda data, seed: (0.1, 60))
    ours, theirs = digits.run(Setting(quick=True))
    assert len(ours.runs) == 3 and not ours.fault
    assert theirs.note == "failed: never reached"


def test_new_results_do_not_mark_the_measured_commit_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=tmp_path, check=True)

    files = [tmp_path / "benchmarks" / name for name in ("step.py", "results/step.json")]
    files[1].parent.mkdir(parents=True)
    for file in files:
        file.write_text("1", encoding="utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    clean = machine.commit()
    files[1].write_text("2", encoding="utf-8")
    assert machine.commit() == clean and len(clean or "") == 40
    files[0].write_text("2", encoding="utf-8")
    assert machine.commit() == f"{clean} with changes"


def test_the_benchmark_of_products_runs_on_the_stand_in_for_cuda(strict: Any) -> None:
    rows = products.run(Setting(device=strict, quick=True))
    assert {row.unit for row in rows} == {"TFLOP/s"}
    found = {(row.case, row.competitor): row for row in rows}
    assert found["8 x 8 x 8 float32", products.ALONE].runs
    share = found[str(SMALL), "step"]
    assert share.runs and set(share.details) == {
        "of the step's time at the products' rate",
        "at the best square rate",
    }


def test_a_measured_rate_is_operations_divided_by_seconds() -> None:
    cpu: Any = SimpleNamespace(device="cpu")
    cuda: Any = SimpleNamespace(device="cuda:0")
    rows = [Row("products", "", "a", "µs", [0.5e6]), Row("products", "", "b", "µs", note="not installed")]
    assert [(row.runs, row.unit) for row in products.rates(cpu, 2 * 10**9, rows)] == [
        ([4.0], "GFLOP/s"),
        ([], "GFLOP/s"),
    ]
    assert products.rates(cuda, 2 * 10**12, rows)[0].runs == [4.0]
