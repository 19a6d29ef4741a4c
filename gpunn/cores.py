"""The cores that this process may use, and how much of them other processes take.

If the system does not say (macOS has no /proc), `waits` is empty and `idle_seconds` is None.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

CGROUP, PROC = Path("/sys/fs/cgroup"), Path("/proc")


def read(path: Path) -> str:
    """A file's text; empty if there is no such file, as on other systems than Linux."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def usable_numbers() -> set[int]:
    """The numbers of the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """The number of cores that this process may run on."""
    return len(usable_numbers())


def cpu_limit(cgroup: Path = CGROUP) -> float | None:
    """The number of cores whose time a container may take; None without a limit."""
    quota, _, period = read(cgroup / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def most_threads() -> int:
    """How many threads can run at once, at least one; a container often has fewer cores than the machine."""
    usable = usable_cpus()
    return max(1, int(min(usable, cpu_limit() or usable)))


def waits(proc: Path = PROC) -> dict[str, float]:
    """For each thread of this process, the seconds for which it was ready to run but had no core."""
    found = {}
    for task in _threads(proc / "self" / "task"):
        numbers = read(task / "schedstat").split()  # time on a core, time waiting for one, turns
        if len(numbers) == 3:  # else the thread has ended meanwhile
            found[task.name] = int(numbers[1]) / 1e9
    return found


def _threads(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def waited(before: dict[str, float], after: dict[str, float]) -> float:
    """Seconds for which the threads together had no core between two readings of `waits`."""
    return sum(max(0.0, seconds - before.get(thread, 0.0)) for thread, seconds in after.items())


def idle_seconds(proc: Path = PROC) -> float | None:
    """Seconds for which the usable cores together had nothing to do, since the machine started; None if unknown."""
    names = {f"cpu{number}" for number in usable_numbers()}
    lines = [line.split() for line in read(proc / "stat").splitlines()]
    # The time in which a core was idle, and in which it only waited for a disk.
    ticks = [int(line[4]) + int(line[5]) for line in lines if len(line) > 5 and line[0] in names]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def taken_by_others(seconds: float) -> float | None:
    """How many of the usable cores other processes use, measured for so many seconds; None if unknown."""
    started, used, idle = time.perf_counter(), time.process_time(), idle_seconds()
    time.sleep(seconds)
    passed, used, idle_now = time.perf_counter() - started, time.process_time() - used, idle_seconds()
    if idle is None or idle_now is None:
        return None
    return max(0.0, usable_cpus() - (idle_now - idle + used) / passed)
