"""How much longer does a training take while another process takes one of the cores?

    python -m benchmarks.busy [--table FILE]

Each figure is a whole process, from its start to its end: `gpunn train` on the digits and, if given, on a table whose
last column is the target, such as Adult; and `Network.fit` of a larger net. They run alone and beside a process in a
busy loop, in turns, each with the threads that gpunn chooses; beside the loop also with one thread from the start,
which is as fast as it can be there. The details tell how many times as long as alone it takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.command import alone
from benchmarks.harness import LEFT_OUT, Row, Setting, failure, say
from benchmarks.machine import ROOT
from benchmarks.peers import ours

ALONE, TAKEN, ONE_THREAD = "alone", "one core taken", "one core taken, one thread"
LARGER = "784-512-512-10 b1024 Adam"
LOOP = "while True: pass"
PROGRAM = """
import numpy as np, gpunn as gn
rng = np.random.default_rng(0)
X, y = rng.standard_normal((20_480, 784), np.float32), rng.integers(0, 10, 20_480)
net = gn.Network([gn.Dense(512, "relu"), gn.Dense(512, "relu"), gn.Dense(10)], 784, device="cpu", seed=0)
net.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(), batch_size=1024, steps={steps}, progress=False)
"""


def run(setting: Setting) -> list[Row]:
    if ours.kind_of(setting.device) == "cuda":
        return [Row("busy", "", ALONE, "s", note=f"{LEFT_OUT}: it is measured on the CPU")]
    turns = 1 if setting.quick else setting.turns
    rows = []
    for name, command in commands(setting).items():
        say(f"busy: {name}")
        rows += case(name, command, turns)
    return rows


def commands(setting: Setting) -> dict[str, list[str]]:
    """What is run, for each case."""
    train = [sys.executable, "-m", "gpunn.cli", "train", "--device", "cpu", "--quiet", "--out", "run"]
    train += ["--epochs", "1"] * setting.quick
    found = {"digits": [*train, "digits"]}
    if setting.table:
        found[Path(setting.table).stem] = [*train, str(Path(setting.table).resolve())]
    return found | {LARGER: [sys.executable, "-c", PROGRAM.format(steps=2 if setting.quick else 400)]}


def case(name: str, command: list[str], turns: int) -> list[Row]:
    """In each turn alone, beside the loop, and beside the loop with one thread."""
    rows = {situation: Row("busy", name, situation, "s") for situation in (ALONE, TAKEN, ONE_THREAD)}
    try:
        for _ in range(turns):
            for situation, row in rows.items():
                with nullcontext() if situation == ALONE else loop():
                    row.runs.append(seconds(command, {"OPENBLAS_NUM_THREADS": "1"} if situation == ONE_THREAD else {}))
    except (subprocess.SubprocessError, OSError) as error:
        return [Row("busy", name, situation, "s", note=failure(error)) for situation in rows]
    for situation in (TAKEN, ONE_THREAD):
        rows[situation].details["times as long as alone"] = rows[situation].median / rows[ALONE].median
    return list(rows.values())


@contextmanager
def loop() -> Iterator[None]:
    """A process that takes a core, wherever the system puts it."""
    process = subprocess.Popen([sys.executable, "-c", LOOP])
    try:
        time.sleep(0.2)  # until it loops
        yield
    finally:
        process.kill()
        process.wait()


def seconds(command: list[str], variables: dict[str, str]) -> float:
    """That the process takes in a new folder, with gpunn's loops as a user has them."""
    environment = {name: value for name, value in os.environ.items() if name != "GPUNN_JIT"}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    alone("busy")
