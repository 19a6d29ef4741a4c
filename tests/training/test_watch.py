"""Cores taken by other processes are noticed at once and without false alarms, and used again once they are free."""

import logging
from types import SimpleNamespace

import pytest

from gpunn import cores
from gpunn.training import watch
from gpunn.training.watch import CALM, COST, IN_A_ROW, PERIOD, Watch

BUSY, NOISE = 0.7, 0.03  # seconds in which threads had no core, of each second: two cores and three programs; two idle


class Machine:
    """A simulated machine: a test sets how long threads wait and cores are idle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int = 2) -> None:
        self.now, self.used, self.cost = 100.0, 0.0, 0.0
        self.waits, self.idle = {"1": 5.0, "2": 7.0}, 1000.0
        self.reads = 0
        clock = SimpleNamespace(perf_counter=lambda: self.now, thread_time=lambda: self.used)
        monkeypatch.setattr(watch, "time", clock)
        monkeypatch.setattr(cores, "waits", self._read)
        monkeypatch.setattr(cores, "idle_seconds", lambda: self.idle)
        self.changes: list[int] = []
        self.watch = Watch(threads, self.changes.append)

    def _read(self) -> dict[str, float]:
        self.reads, self.used = self.reads + 1, self.used + self.cost
        return dict(self.waits)

    def go_on(self, seconds: float, lost: float, idle: float = 0.0) -> None:
        """Run updates of a hundredth of a second each, with so much waiting and idle time in each second."""
        for _ in range(round(100 * seconds)):
            self.now += 0.01
            self.waits["1"] += 0.004 * lost
            self.waits["2"] += 0.006 * lost
            self.idle += 0.01 * idle
            self.watch.check()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_machine_busy_from_the_first_step_lowers_the_number_of_threads(
    two: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    two.go_on(IN_A_ROW * PERIOD + 0.1, BUSY)
    assert two.changes == [1]
    two.go_on(60, BUSY)
    assert two.changes == [1]
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("gpunn", "WARNING", "cores are taken by others: training goes on with 1 of 2 threads")
    ]


def test_an_idle_machine_keeps_the_number_of_threads(two: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(20):
        two.go_on(30, NOISE)
        two.go_on(0.4, 2.0)  # something else runs for a moment
    assert not two.changes and not caplog.records


def test_the_number_of_threads_is_halved_until_none_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = Machine(monkeypatch, threads=8)
    eight.go_on(1.4, BUSY)
    eight.go_on(60, NOISE)
    assert eight.changes == [4]
    eight.go_on(60, BUSY)
    assert eight.changes == [4, 2, 1]


def test_cores_that_become_free_are_used_again(two: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    two.go_on(1.4, BUSY)
    two.go_on(CALM - 1, 0.0, idle=1.0)
    assert two.changes == [1]
    two.go_on(2, 0.0, idle=1.0)
    assert two.changes == [1, 2]
    assert caplog.records[-1].getMessage() == "cores are free: training goes on with 2 of 2 threads"
    two.go_on(60, NOISE)
    assert two.changes == [1, 2]


def test_cores_that_are_free_only_briefly_are_not_used(two: Machine) -> None:
    for _ in range(60):
        two.go_on(CALM - 1, BUSY)
        two.go_on(CALM - 1, 0.0, idle=1.0)
    assert two.changes == [1]


def test_each_attempt_to_use_more_threads_waits_longer(two: Machine) -> None:
    for _ in range(100):
        two.go_on(10, BUSY)
        two.go_on(10, 0.0, idle=1.0)
    assert two.changes == [1, 2, 1, 2, 1]  # after 4 seconds, after 8, and never after 16


def test_a_core_that_is_partly_taken_does_not_count_as_free(two: Machine) -> None:
    two.go_on(2, BUSY)
    two.go_on(60, 0.0, idle=0.5)
    assert two.changes == [1]


def test_a_system_that_does_not_count_waits_keeps_the_number_of_threads(
    two: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "waits", dict)
    two.go_on(60, BUSY)
    assert not two.changes


def test_without_idle_times_the_lowered_number_of_threads_stays(two: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "idle_seconds", lambda: None)
    two.go_on(2, BUSY)
    two.go_on(60, 0.0)
    assert two.changes == [1]


def test_busy_cores_are_looked_for_seldom(two: Machine) -> None:
    two.go_on(10, NOISE)
    assert 18 <= two.reads <= 26
    two.cost = 0.01  # seconds of a core, as with hundreds of threads
    two.go_on(COST * two.cost * 4, NOISE)
    assert two.reads <= 26 + 5


def test_threads_that_begin_or_end_count_for_the_time_they_waited() -> None:
    before, after = {"1": 1.0, "2": 9.0}, {"1": 1.5, "3": 0.25}
    assert cores.waited(before, after) == pytest.approx(0.75)
    assert cores.waited({"1": 9.0}, {"1": 0.0}) == 0.0  # a new one with the number of one that has ended
