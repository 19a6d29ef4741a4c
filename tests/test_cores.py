"""What the system reports about cores: how many there are, which threads waited, and how long cores were idle."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from gpunn import cores


def test_the_cpu_limit_of_a_container_is_read(tmp_path: Path) -> None:
    assert cores.cpu_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cores.cpu_limit(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.cpu_limit(tmp_path) is None


@pytest.mark.parametrize(
    ("usable", "limit", "threads"), [(4, None, 4), (4, 1.5, 1), (4, 0.5, 1), (2, 3.0, 2), (64, 8.0, 8)]
)
def test_most_threads_is_the_number_that_can_run_at_once(
    usable: int, limit: float | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cpus", lambda: usable)
    monkeypatch.setattr(cores, "cpu_limit", lambda: limit)
    assert cores.most_threads() == threads


def test_without_an_affinity_all_cores_are_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores.usable_numbers() == {0, 1, 2}
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.usable_cpus() == 1


def test_the_time_that_each_thread_waited_is_read(tmp_path: Path) -> None:
    for thread, text in {"7": "900 1500000000 3\n", "8": "1 250000000 1\n", "9": ""}.items():
        (tmp_path / "self" / "task" / thread).mkdir(parents=True)
        (tmp_path / "self" / "task" / thread / "schedstat").write_text(text)
    (tmp_path / "self" / "task" / "10").mkdir()  # one that has ended since the folder was read
    assert cores.waits(tmp_path) == {"7": 1.5, "8": 0.25}


def test_the_idle_time_of_the_usable_cores_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "cpu  1 1 1 99999 1 0 0 0 0 0\ncpu0 9 9 9 300 50 9 9 9 0 0\ncpu1 9 9 9 7000 0 0 0\ncpu2 9 9 9 100 0 9\nintr 5\n"
    )
    (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(cores, "usable_numbers", lambda: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    assert cores.idle_seconds(tmp_path) == 4.5


def test_waits_and_idle_time_are_unknown_on_a_system_without_their_files(tmp_path: Path) -> None:
    assert cores.waits(tmp_path) == {} and cores.idle_seconds(tmp_path) is None


@pytest.mark.skipif(not cores.waits(), reason="this system does not count how long threads wait")
def test_threads_that_compete_for_a_core_are_seen_to_wait() -> None:
    core = {min(cores.usable_numbers())}
    end = time.monotonic() + 0.3
    seen: list[dict[str, float]] = []

    def work() -> None:
        os.sched_setaffinity(0, core)  # of this thread alone
        while time.monotonic() < end:
            hashlib.sha256(bytes(1 << 20))  # which does not hold Python's lock
        seen.append(cores.waits())

    before = cores.waits()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cores.waited(before, seen[0]) > 0.1


@pytest.mark.parametrize(("idle", "taken"), [((10.0, 10.0), 2.0), ((10.0, 99.0), 0.0), ((None, None), None)])
def test_the_cores_taken_by_other_processes_are_computed_from_idle_time(
    idle: tuple[float | None, float | None], taken: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(idle)
    monkeypatch.setattr(cores, "idle_seconds", lambda: next(readings))
    monkeypatch.setattr(cores, "usable_cpus", lambda: 2)
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    assert cores.taken_by_others(0.01) == taken


def test_the_work_of_this_process_is_not_counted_as_taken_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"perf_counter": iter([0.0, 2.0]), "process_time": iter([5.0, 6.0])}
    for name, clock in clocks.items():
        monkeypatch.setattr(time, name, lambda clock=clock: next(clock))
    readings = iter([10.0, 11.0])
    monkeypatch.setattr(cores, "idle_seconds", lambda: next(readings))
    monkeypatch.setattr(cores, "usable_cpus", lambda: 2)
    assert cores.taken_by_others(0.0) == 1.0
