"""How figures are measured: turns, medians, what is not counted, and who is not timed; on a simulated clock."""

import math
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.harness import (
    Calls,
    DisagreementError,
    MissingPeerError,
    Row,
    Setting,
    agreeing,
    alternate,
    compared,
    disagreement,
    ratios,
    stretch,
    timed,
)


class FakeClock:
    """A clock that moves only while a competitor works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now


class Worker:
    """A competitor: `cost` seconds for each step, and a long first step of an epoch, which must not be counted."""

    def __init__(self, clock: FakeClock, name: str, cost: float, epoch: int = 10, grain: int = 1) -> None:
        self.clock, self.name, self.cost, self.epoch, self.grain = clock, name, cost, epoch, grain
        self.done: list[int] = []

    def begin(self) -> None:
        self.clock.now += 1000.0

    def run(self, steps: int) -> None:
        assert steps <= self.epoch and steps % self.grain == 0
        self.done.append(steps)
        self.clock.log.append(self.name)
        self.clock.now += steps * self.cost


def test_the_first_steps_of_an_epoch_are_not_timed() -> None:
    clock = FakeClock()
    worker = Worker(clock, "a", 2.0)
    assert stretch(worker, 25, clock) == pytest.approx(50.0)
    assert worker.done == [10, 10, 5]


def test_competitors_are_timed_in_turns_with_one_figure_each_turn() -> None:
    clock = FakeClock()
    subjects = {name: Worker(clock, name, cost) for name, cost in (("slow", 0.2), ("fast", 0.1))}
    figures, errors = alternate(subjects, 5, 1.0, clock)
    assert not errors
    assert figures["slow"] == pytest.approx([0.2] * 5) and figures["fast"] == pytest.approx([0.1] * 5)
    order = [name for i, name in enumerate(clock.log) if i == 0 or clock.log[i - 1] != name]
    assert order == ["slow", "fast"] * 6  # once to see how long a step takes, then five turns


def test_a_turn_lasts_about_as_long_as_asked() -> None:
    clock = FakeClock()
    worker = Worker(clock, "a", 0.01, epoch=10**6)
    alternate({"a": worker}, 3, 2.0, clock)
    assert worker.done[-1] == pytest.approx(200, rel=0.1)


def test_whole_epochs_are_timed_if_a_competitor_cannot_run_less() -> None:
    clock = FakeClock()
    worker = Worker(clock, "scan", 0.5, epoch=8, grain=8)
    figures, _ = alternate({"scan": worker}, 2, 1.0, clock)
    assert set(worker.done) == {8}
    assert figures["scan"] == pytest.approx([0.5, 0.5])


def test_the_median_of_runs_ignores_an_outlier() -> None:
    row = Row("q", "c", "gpunn", "µs", [10.0, 11.0, 500.0])
    assert row.median == 11.0
    assert row.spread == pytest.approx(489 / 11)
    assert math.isnan(Row("q", "c", "gpunn", "µs").median)


def test_a_competitor_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def breaks() -> None:
        calls.append(1)
        if len(calls) > 40:
            raise ValueError("boom\nand more")

    good, bad = timed("q", "c", {"good": Calls(lambda: None), "bad": Calls(breaks)}, Setting(quick=True))
    assert len(good.runs) == 3 and not good.fault and not good.note
    assert bad.runs == [] and bad.note == "failed: ValueError: boom" and bad.fault
    assert "Traceback" in capsys.readouterr().err


def test_only_failed_and_refused_rows_are_faults() -> None:
    notes = {"not installed: No module named 'jax'": False, "left out: its time was up": False, "failed: x": True,
             "refused: y": True, "": False}  # fmt: skip
    assert {note: Row("q", "c", "p", "µs", note=note).fault for note in notes} == notes


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ([2.0, 1.0], ""),
        ([2.0, 1.0009], ""),
        ([2.0, 1.01], "refused: the loss of step 2 is 1.01, gpunn's is 1"),
        ([math.nan, 1.0], "refused: the loss of step 1 is nan, gpunn's is 2"),
        ([2.0], "refused: 1 numbers where 2 were expected"),
    ],
)
def test_disagreement_names_the_first_loss_that_differs(theirs: list[float], why: str) -> None:
    assert disagreement([2.0, 1.0], theirs, 1e-3) == why


def test_ratios_are_geometric_means_over_the_cases_of_both_competitors() -> None:
    def row(case: str, competitor: str, *runs: float, unit: str = "µs") -> Row:
        return Row("q", case, competitor, unit, list(runs))

    rows = [
        row("a", "gpunn", 10), row("a", "torch", 20), row("b", "gpunn", 10), row("b", "torch", 80),
        row("c", "torch", 1), row("c", "gpunn"), row("a", "jax"), row("a", "rate", 5, unit="GFLOP/s"),
    ]  # fmt: skip
    ((name, mean, low, high, count),) = ratios(rows)
    assert (name, count) == ("torch", 2)
    assert (mean, low, high) == pytest.approx((4.0, 2.0, 8.0))


def test_a_benchmark_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Any = iter([1.0, 3.0])
    monkeypatch.setattr(harness.time, "monotonic", lambda: next(now))
    setting = Setting(deadline=2.0)
    assert [setting.late, setting.late] == [False, True]


def test_a_slow_competitor_runs_once_in_each_turn() -> None:
    clock = FakeClock()
    slow, fast = Worker(clock, "slow", 5.0), Worker(clock, "fast", 0.01, epoch=10**6)
    figures, _ = alternate({"slow": slow, "fast": fast}, 3, 1.0, clock)
    assert slow.done == [1] * (2 + 3) and figures["slow"] == pytest.approx([5.0] * 3)
    assert fast.done[-2:] == pytest.approx([25, 100], rel=0.1)  # uncounted, then counted


def test_every_competitor_gets_a_row_in_the_given_order(capsys: pytest.CaptureFixture[str]) -> None:
    def raises(error: Exception) -> Any:
        def make() -> Any:
            raise error

        return make

    makers = {
        "absent": raises(MissingPeerError("not installed: x")), "good": lambda: Calls(lambda: None),
        "wrong": raises(DisagreementError("refused: y")), "bad": raises(ValueError("boom")),
    }  # fmt: skip
    rows = compared("q", "c", makers, Setting(quick=True), unit="s")
    assert [(row.competitor, row.note, len(row.runs)) for row in rows] == [
        ("absent", "not installed: x", 0), ("good", "", 3), ("wrong", "refused: y", 0),
        ("bad", "failed: ValueError: boom", 0),
    ]  # fmt: skip
    assert {row.unit for row in rows} == {"s"} and "boom" in capsys.readouterr().err


def test_a_competitor_with_other_losses_is_refused() -> None:
    agreeing([1.0, 2.0], [1.0, 2.0], 1e-6, "the loss of epoch")
    with pytest.raises(DisagreementError, match="refused: the loss of epoch 2 is 3, gpunn's is 2"):
        agreeing([1.0, 2.0], [1.0, 3.0], 1e-6, "the loss of epoch")
