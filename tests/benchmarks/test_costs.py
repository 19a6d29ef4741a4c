"""Benchmarks of gpunn alone and of installing it: where time and memory go, and how they grow."""

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, current_thread, main_thread
from typing import Any

import numpy as np
import pytest

from benchmarks import busy, install, layers, memory, profile, requests, scaling
from benchmarks.cases import Case
from benchmarks.harness import REFUSED, DisagreementError, Row, Setting
from benchmarks.peers import ours
from gpunn.value import is_own

SMALL = Case((6, 5, 4, 3), 4)
QUICK = Setting(quick=True)


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Setting, "seconds", 1e-6)


# Profile


class FakeTime:
    """A clock that a test sets."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_recorded_calls_are_timed_under_the_names_of_their_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(profile, "time", clock)

    def spend(seconds: float) -> None:
        clock.now += seconds

    record = [("sum", (spend, (1.0,))), ("matmul", (spend, (2.0,))), ("sum", (spend, (4.0,)))]
    assert profile.timed_calls(record, 3) == {"sum": 15.0, profile.PRODUCTS: 6.0}


def test_every_recorded_call_of_a_step_has_a_name() -> None:
    steps = ours.Steps(SMALL, "cpu")
    steps.run(1)
    kind = type(steps.network.ops)
    before = {name: getattr(kind, name) for name in dir(kind)}
    record = profile.labelled(steps.network.ops, steps.update_once)
    assert {name: getattr(kind, name) for name in dir(kind)} == before
    counted = Counter(label for label, _ in record)
    assert (
        counted["matmul"] + counted["affine"] == len(SMALL.products)
        and counted["adam"] == counted["relu_biased"] / 2 == 1
    )
    assert {"batch", "softmax_cross_entropy", "after_update"} < set(counted)


def test_the_profiled_parts_add_up_to_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "stretch", lambda steps, count, clock: float(count))  # a step of a second
    rows = {
        (row.case.rpartition(": ")[2], row.competitor): row
        for row in profile.measure("net", ours.Steps(SMALL, "cpu"), QUICK)
    }
    assert rows[profile.STEP, profile.TIME].median == 1e6
    names = {name for name, _ in rows} - {profile.STEP}
    assert names >= {profile.PRODUCTS, "other operations", profile.PYTHON}
    assert sum(rows[name, profile.SHARE].median for name in names) == pytest.approx(100)
    assert rows[profile.PYTHON, profile.SHARE].median > 90


# Memory


def test_the_memory_formula_is_right_for_a_small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCHES", 10)
    parameters, activations = 6 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3, 4 * (6 + 2 * (5 + 4 + 3))
    assert memory.formula(SMALL) == 4 * (4 * parameters + activations) + 40 * (4 * 6 + 8)
    assert memory.data(Case((6, 5, 1), 4))[1].shape == (40, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count is read from /proc")
def test_the_measured_memory_peak_is_that_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a network that is nearly all parameters: two numbers for each once it is made, four or more in training."""
    monkeypatch.setattr(memory, "BATCHES", 2)
    case = Case((500, 1000, 10), 8)
    parameters = 4 * 511_010
    plan, made, trained = memory.allocated(case)
    assert not tracemalloc.is_tracing()
    assert made > 2 * parameters
    assert 4 * parameters < plan < trained < 1.05 * plan
    (taken,) = memory.resident(case)
    assert taken < 100 * parameters


def test_memory_is_measured_in_a_process_for_each_figure() -> None:
    rows = memory.measure("case", SMALL)
    names = (memory.FORMULA, memory.PLAN, memory.MADE, memory.TRAINED, memory.RESIDENT)
    assert tuple(row.competitor for row in rows) == names
    assert rows[0].runs == [memory.formula(SMALL) / 2**20]
    assert rows[3].median > rows[1].median > rows[0].median
    assert rows[3].details.keys() == {"of the formula", "of the plan"}
    failed = memory.measure("case", Case((6, 5, 3), 0))
    assert [row.note.partition(":")[0] for row in failed] == ["", "failed", "failed", "failed", "failed"]


# Growth


def test_the_fitted_exponent_of_a_power_is_found() -> None:
    assert scaling.exponent((1, 2, 4, 8), [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_growth_is_measured_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[scaling.Size] = []
    monkeypatch.setattr(scaling, "epoch", lambda size, device: made.append(size) or (lambda: None))
    rows = scaling.run(Setting())
    places = {name: {getattr(size, name) for size in made} for name in scaling.GROWTH}
    assert all(set(values) <= places[name] for name, values in scaling.GROWTH.items())
    assert len(made) == sum(map(len, scaling.GROWTH.values())) == len(rows) - 4
    assert [row.case for row in rows if row.unit == ""] == [f"{name}, exponent" for name in scaling.GROWTH]


@pytest.mark.parametrize("models", [1, 3])
def test_each_timed_epoch_of_the_growth_benchmark_is_a_new_one(models: int) -> None:
    size = scaling.Size(rows=130, width=4, depth=3, models=models)
    assert size.case.widths == (64, 4, 4, 4, 10)
    once = scaling.epoch(size, "cpu")
    inside = dict(zip(once.__code__.co_freevars, (cell.cell_contents for cell in once.__closure__)))
    orders = []
    for _ in range(2):
        once()
        orders.append(np.array(inside["source"].order.rows))
    assert not np.array_equal(*orders) and float(inside["step"].frame.count[0]) == 1 + 2 * 3


# Beside another process


@pytest.fixture
def situations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Notes the commands instead of running them; each takes one second alone and two beside the busy loop."""
    done: list[Any] = []

    @contextmanager
    def loop() -> Iterator[None]:
        done.append("loop begins")
        yield
        done.append("loop ends")

    def seconds(command: list[str], variables: dict[str, str]) -> float:
        done.append((command, variables))
        return 2.0 if "loop begins" in done[-2:] else 1.0

    monkeypatch.setattr(busy, "loop", loop)
    monkeypatch.setattr(busy, "seconds", seconds)
    return done


def test_commands_are_timed_alone_and_beside_a_busy_loop_in_turns(situations: list[Any]) -> None:
    free, taken, one = busy.case("c", ["x"], turns=2)
    assert (free.runs, taken.runs, one.runs) == ([1.0] * 2, [2.0] * 2, [2.0] * 2)
    assert taken.details == one.details == {"times as long as alone": 2.0} and not free.details
    beside = [
        "loop begins",
        (["x"], {}),
        "loop ends",
        "loop begins",
        (["x"], {"OPENBLAS_NUM_THREADS": "1"}),
        "loop ends",
    ]
    assert situations == [(["x"], {}), *beside] * 2


def test_a_timed_command_that_fails_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    rows = busy.case("c", [sys.executable, "-c", "raise SystemExit(3)"], turns=1)
    assert len(rows) == 3 and all(row.note.startswith("failed: CalledProcessError") for row in rows)


def test_the_table_of_the_user_is_one_of_the_busy_cases(situations: list[Any], tmp_path: Path) -> None:
    assert list(busy.commands(QUICK)) == ["digits", busy.LARGER]
    cases = busy.commands(Setting(table=str(tmp_path / "adult.parquet")))
    assert list(cases) == ["digits", "adult", busy.LARGER] and cases["adult"][-1] == str(tmp_path / "adult.parquet")
    assert {row.case for row in busy.run(QUICK)} == {"digits", busy.LARGER}


def test_the_busy_loop_runs_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    start = subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", lambda command: started.append(start(command)) or started[-1])
    with busy.loop():
        assert started[0].poll() is None
    assert started[0].poll() is not None


def test_each_timed_command_runs_in_a_new_folder() -> None:
    row, *_ = busy.case("c", [sys.executable, "-c", "import os; os.mkdir('run')"], turns=2)
    assert len(row.runs) == 2 and not row.note


def test_the_training_of_the_larger_network_beside_a_busy_loop_runs() -> None:
    program = busy.PROGRAM.replace("20_480", "2_048").replace("512", "8")
    assert busy.seconds([sys.executable, "-c", program.format(steps=2)], {}) > 0


# Installation


def test_with_quick_imports_are_timed_in_the_running_environment() -> None:
    rows = {(row.case, row.competitor): row for row in install.run(QUICK)}
    assert rows[install.IMPORT, "gpunn"].runs and rows[install.IMPORT, "gpunn"].median > 0
    assert {row.note for (case, _), row in rows.items() if case == install.SIZE} == {
        "left out: nothing is installed for --quick"
    }


def commands(monkeypatch: pytest.MonkeyPatch, **broken: Exception) -> list[list[str]]:
    """Replaces the commands: pip writes 3 MB, and imports take 1 s, 2 s, 3 s and so on."""
    done: list[list[str]] = []

    def run(arguments: list[str], where: Path | None = None) -> str:
        done.append(arguments)
        kind = "venv" if "venv" in arguments else "pip" if "pip" in arguments else "import"
        if kind in broken:
            raise broken[kind]
        if kind == "venv":
            Path(arguments[-1], "lib", "python3.11", "site-packages", "pip").mkdir(parents=True)
            Path(arguments[-1], "lib", "python3.11", "site-packages", "pip", "x.py").write_bytes(bytes(10**6))
        elif kind == "pip":
            site = Path(arguments[0]).parents[1] / "lib" / "python3.11" / "site-packages"
            (site / "a.so").write_bytes(bytes(3 * 10**6))
            (site / "b.so").symlink_to(site / "a.so")
        return str(sum("-c" in command for command in done))

    monkeypatch.setattr(install, "command", run)
    return done


def test_imports_are_timed_in_a_fresh_environment_that_is_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = commands(monkeypatch)
    monkeypatch.setattr(install, "PACKAGES", {"gpunn": "gpunn"})
    imported, size = install.run(Setting(folder=str(tmp_path)))
    assert imported.runs == [2, 3, 4, 5, 6, 7, 8] and imported.unit == "s"
    assert size.runs == [3.0] and size.unit == "MB"
    assert done[1][-1].startswith(str(tmp_path)) and done[1][0].startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_gpunn_is_built_from_a_copy_of_its_sources(tmp_path: Path) -> None:
    copy = install.sources(tmp_path)
    wanted = {"pyproject.toml", "README.md", "LICENSE", "gpunn", "backends"}
    assert copy.parent == tmp_path and {path.name for path in copy.iterdir()} == wanted
    assert (copy / "gpunn" / "backends").is_symlink() and (copy / "gpunn" / "backends" / "program.py").is_file()


def test_packages_that_pip_cannot_install_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = subprocess.CalledProcessError(1, "pip", stderr="looking\nERROR: No matching distribution found for jax\n")
    commands(monkeypatch, pip=error)
    monkeypatch.setattr(install, "PACKAGES", {"jax": "jax"})
    rows = install.run(Setting(folder=str(tmp_path)))
    told = "not installed: pip could not bring it: ERROR: No matching distribution found for jax"
    assert [row.note for row in rows] == [told, told] and not any(row.fault for row in rows)
    commands(monkeypatch, venv=subprocess.TimeoutExpired("venv", 1))
    assert install.run(Setting(folder=str(tmp_path)))[0].note.endswith("could not bring it: TimeoutExpired")


def test_a_timed_import_that_fails_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands(monkeypatch, **{"import": subprocess.CalledProcessError(1, "python", stderr="ImportError: no\n")})
    monkeypatch.setattr(install, "PACKAGES", {"torch": "torch"})
    imported, size = install.run(Setting(folder=str(tmp_path)))
    assert imported.note == "failed: ImportError: no" and imported.fault and size.runs == [3.0]


@pytest.mark.parametrize("question", [memory, profile])
def test_benchmarks_for_the_cpu_alone_are_left_out_on_a_gpu(question: Any, strict: Any) -> None:
    (row,) = question.run(Setting(device=strict))
    assert row.note.startswith("left out: ") and not row.fault


def test_a_timed_import_writes_its_bytecode_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every timed import would compile again."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "tiny.py").write_text("x = 1", encoding="utf-8")
    row = Row("install", "import", "tiny", "s")
    install.timed_import(row, Path(sys.executable), "tiny", 1, tmp_path)
    assert len(row.runs) == 1 and list(tmp_path.rglob("tiny*.pyc"))


def test_predictions_mixed_up_between_threads_are_refused() -> None:
    """One model whose threads write to the same array is refused; one whose threads do not is accepted."""
    shared, barrier = np.zeros(1), Barrier(8)

    def mixing(X: Any) -> Any:
        shared[0] = X[0, 0]
        if current_thread() is not main_thread():
            barrier.wait()
        return shared.copy()

    with ThreadPoolExecutor(8) as pool:
        with pytest.raises(DisagreementError, match=r"^refused: \d+ of 80 answers are not those of one thread"):
            requests.check(mixing, 1, 80, pool)
        requests.check(lambda X: X.sum(), 1, 80, pool)


def test_every_model_answers_the_benchmark_of_requests() -> None:
    rows = requests.run(Setting(quick=True))
    cases = {
        f"{size}, {threads}" for size in ("1 row", "100 rows") for threads in ("1 thread", "2 threads", "8 threads")
    }
    assert {(row.case, row.competitor) for row in rows} == {(case, name) for case in cases for name in requests.MODELS}
    assert all(row.runs or row.note.startswith("not installed") for row in rows)


def test_digests_show_which_training_differs_between_two_versions(tmp_path: Path) -> None:
    def ask(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.bits", *arguments], capture_output=True, text=True, check=False
        )

    found = json.loads(ask().stdout)
    assert len(set(found.values())) == len(found) > 40
    found["embedding"] = "0"
    (tmp_path / "before.json").write_text(json.dumps(found))
    compared = ask(str(tmp_path / "before.json"))
    assert compared.returncode == 1
    assert compared.stdout.startswith("embedding: 0 before, ") and compared.stdout.endswith(" 1 differences\n")


def test_a_users_layer_is_timed_beside_gpunns_own() -> None:
    rows = layers.run(Setting(quick=True))
    assert [row.competitor for row in rows] == list(layers.KINDS)
    assert not [row.note for row in rows if row.note] and all(row.runs for row in rows)
    assert [is_own(make()()) for make in layers.KINDS.values()] == [True, False, False]


def test_a_layer_that_learns_otherwise_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(layers.numpy_gain()):  # type: ignore[misc]
        def forward(self, t: Any, X: Any) -> Any:
            return super().forward(t, X) * 2

    monkeypatch.setitem(layers.KINDS, "a user's, with NumPy", lambda: Twice)
    assert [row.note.startswith(REFUSED) for row in layers.run(Setting(quick=True))] == [False, False, True]
