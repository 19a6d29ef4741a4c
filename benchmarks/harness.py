"""What is measured and how: competitors take turns, each turn gives one figure, and the median is shown."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

Clock = Callable[[], float]
NOT_INSTALLED, FAILED, REFUSED, LEFT_OUT = "not installed", "failed", "refused", "left out"
LONG = 4  # times as long as a turn should be: what happens beside one step of such a program does not matter


class MissingPeerError(Exception):
    """A competitor that cannot take part here; the message says what is missing."""


class DisagreementError(Exception):
    """A competitor that does not compute the same; the message says where it parts."""


@dataclass
class Setting:
    """What a question is asked for."""

    device: Any = "cpu"  # or a backend
    quick: bool = False
    selection: bool = False  # the most telling cases only
    deadline: float = math.inf  # of time.monotonic(): no case is begun after it
    gibibytes: float | None = None
    folder: str | None = None
    table: str | None = None

    @property
    def turns(self) -> int:
        return 3 if self.quick else 7

    @property
    def seconds(self) -> float:
        """How long one competitor runs in one turn."""
        return 0.05 if self.quick else 0.3

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline


@dataclass
class Row:
    """One figure of one competitor in one case, or the note that says why there is none."""

    question: str
    case: str
    competitor: str
    unit: str
    runs: list[float] = field(default_factory=list)  # one for each turn
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.runs) if self.runs else math.nan

    @property
    def spread(self) -> float:
        """The farthest turn's distance from the median, as a share of it."""
        middle = self.median
        return max((abs(run - middle) for run in self.runs), default=math.nan) / middle if middle else 0.0

    @property
    def fault(self) -> bool:
        """Whether something went wrong, which a competitor that is not installed is not."""
        return self.note.startswith((FAILED, REFUSED))


class Subject(Protocol):
    """A program that can be timed: steps within an epoch, whose beginning is not counted."""

    epoch: int  # steps after which it must begin again
    grain: int  # it runs multiples of so many steps

    def begin(self) -> None:
        """Stand before the first step, with nothing left to do on the device."""

    def run(self, steps: int) -> None:
        """Do so many steps and wait for them."""


class Calls:
    """A plain function as a subject."""

    epoch, grain = sys.maxsize, 1

    def __init__(self, function: Callable[[], Any], wait: Callable[[], None] | None = None) -> None:
        self.function, self.wait = function, wait

    def begin(self) -> None:
        if self.wait is not None:
            self.wait()

    def run(self, steps: int) -> None:
        function = self.function
        for _ in range(steps):
            function()
        self.begin()


def stretch(subject: Subject, steps: int, clock: Clock) -> float:
    """Seconds for so many steps, a multiple of the subject's grain."""
    seconds, left = 0.0, steps
    while left > 0:
        now = min(left, subject.epoch)
        subject.begin()
        start = clock()
        subject.run(now)
        seconds += clock() - start
        left -= now
    return seconds


def whole_grains(steps: float, subject: Subject) -> int:
    return max(1, math.ceil(steps / subject.grain)) * subject.grain


def steps_for(subject: Subject, seconds: float, clock: Clock) -> tuple[int, int]:
    """How many steps take about so long, and how many go before them uncounted, of a program that lasts long none.

    The first steps of all, which compile and allocate, are not looked at.
    """
    steps = whole_grains(1, subject)
    stretch(subject, steps, clock)
    if stretch(subject, steps, clock) > LONG * seconds:
        return steps, 0
    stretch(subject, steps, clock)
    while (taken := stretch(subject, steps, clock)) < seconds / 4:
        steps = whole_grains(2 * steps, subject)
    steps = whole_grains(steps * seconds / taken, subject)
    return steps, whole_grains(steps / 4, subject)


def alternate(
    subjects: Mapping[str, Subject], turns: int, seconds: float, clock: Clock = time.perf_counter
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds a step of each subject, one figure a turn, and the errors of those that failed.

    They take turns so that what else the machine does falls on all of them. Before its turn each runs uncounted for a
    while, in which the threads of the one before go to sleep; one that lasts long itself need not.
    """
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    counts: dict[str, tuple[int, int]] = {}
    errors: dict[str, str] = {}
    for turn in range(-1, turns):
        for name, subject in subjects.items():
            if name in errors:
                continue
            try:
                if turn < 0:
                    counts[name] = steps_for(subject, seconds, clock)
                    continue
                counted, uncounted = counts[name]
                stretch(subject, uncounted, clock)
                figures[name].append(stretch(subject, counted, clock) / counted)
            except Exception as error:  # one that breaks must not cost the others their figures
                errors[name] = failure(error)
    return figures, errors


def failure(error: BaseException) -> str:
    """The note for an error, whose traceback goes to standard error."""
    traceback.print_exception(error)
    text = str(error).strip().splitlines()
    return f"{FAILED}: {type(error).__name__}" + (f": {text[0]}" if text else "")


def timed(
    question: str,
    case: str,
    subjects: Mapping[str, Subject],
    setting: Setting,
    *,
    unit: str = "µs",
    clock: Clock = time.perf_counter,
) -> list[Row]:
    """A row for each subject."""
    scale = {"µs": 1e6, "s": 1.0}[unit]
    figures, errors = alternate(subjects, setting.turns, setting.seconds, clock)
    rows = []
    for name in subjects:
        runs = [] if name in errors else [scale * figure for figure in figures[name]]
        rows.append(Row(question, case, name, unit, runs, errors.get(name, "")))
    return rows


def compared(
    question: str, case: str, makers: Mapping[str, Callable[[], Subject]], setting: Setting, *, unit: str = "µs"
) -> list[Row]:
    """A row for each competitor that makers stand for: timed, or with the note that says why it was not."""
    subjects: dict[str, Subject] = {}
    notes: dict[str, str] = {}
    for name, make in makers.items():
        try:
            subjects[name] = make()
        except (MissingPeerError, DisagreementError) as error:
            notes[name] = str(error)
        except Exception as error:  # one that breaks must not cost the others their figures
            notes[name] = failure(error)
    rows = {row.competitor: row for row in timed(question, case, subjects, setting, unit=unit)}
    return [rows[name] if name in rows else Row(question, case, name, unit, note=notes[name]) for name in makers]


def agreeing(ours: Sequence[float], theirs: Sequence[float], tolerance: float, what: str) -> None:
    """Raise unless two programs compute the same."""
    note = disagreement(ours, theirs, tolerance, what)
    if note:
        raise DisagreementError(note)


def disagreement(
    ours: Sequence[float], theirs: Sequence[float], tolerance: float, what: str = "the loss of step"
) -> str:
    """Why two programs cannot be compared: where their losses first part; empty where they agree."""
    if len(ours) != len(theirs):
        return f"{REFUSED}: {len(theirs)} numbers where {len(ours)} were expected"
    for step, (expected, got) in enumerate(zip(ours, theirs), 1):
        if not abs(got - expected) <= tolerance * max(abs(expected), 1e-3):  # so that NaN disagrees too
            return f"{REFUSED}: {what} {step} is {got:.6g}, gpunn's is {expected:.6g}"
    return ""


def ratios(rows: Iterable[Row], base: str = "gpunn") -> list[tuple[str, float, float, float, int]]:
    """For each competitor of `base`: geometric mean, smallest and largest of its time over base's, and of how many."""
    timed_rows = [row for row in rows if row.runs and row.unit in ("µs", "s")]
    bases = {row.case: row.median for row in timed_rows if row.competitor == base}
    found: dict[str, list[float]] = {}
    for row in timed_rows:
        if row.competitor != base and row.case in bases:
            found.setdefault(row.competitor, []).append(row.median / bases[row.case])
    return [
        (name, math.exp(sum(map(math.log, values)) / len(values)), min(values), max(values), len(values))
        for name, values in found.items()
    ]


def say(text: str) -> None:
    """What goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)
