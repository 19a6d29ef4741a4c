"""Two trainings that start at once with one --out, again and again; run as `python -m tests.cli.pairs FOLDER COUNT`.

They are forked from a process that has imported everything, prepare their data, wait for each other and go for the
folder. Of every third pair the one that has it is killed in the middle; then a third training must be able to go on.
Prints JSON: how often exactly one ran, of which words the other one's refusal was, and how many were killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gpunn.cli import gpunn, train
from gpunn.cli.runs import RunFolder
from gpunn.cli.training import FolderCallback
from tests.cli.stage import QUICK

REFUSALS = ("a folder that no other training uses", "a folder without a run")


def start(folder: Path, name: str, *arguments: str, gate: int | None = None, stay: bool = False) -> int:
    """A process with the command; it waits at the gate before it takes a folder, and may stay in its first epoch."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(folder / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if gate is not None:
            make = train.new_folder
            train.new_folder = lambda *given: (os.read(gate, 1), make(*given))[1]
        if stay:
            FolderCallback.on_epoch = lambda self, run, record: time.sleep(60)  # type: ignore[method-assign]
        RunFolder.draw = lambda self, history: []  # type: ignore[method-assign]  # which takes the most time
        gpunn.main(["train", *arguments, "--out", str(folder / "run")], prog_name="gpunn")
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pair(folder: Path, kill: bool) -> str:
    """Run a pair of trainings and return the kind of the refusal."""
    read_end, write_end = os.pipe()
    first, second = (start(folder, n, "moons", *QUICK, gate=read_end, stay=kill) for n in ("first", "second"))
    os.close(read_end)
    time.sleep(0.05)
    os.write(write_end, b"go")
    os.close(write_end)
    child, status = os.wait()
    other = {first: second, second: first}[child]
    codes = {child: os.waitstatus_to_exitcode(status)}
    if kill:
        deadline = time.monotonic() + 30
        while not (folder / "run/run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(other, signal.SIGKILL)
    codes[other] = ended(other)
    assert sorted(codes.values()) == ([-signal.SIGKILL, 2] if kill else [0, 2]), codes
    refused = next(name for name, pid in (("first", first), ("second", second)) if codes[pid] == 2)
    told = (folder / f"{refused}.txt").read_text()
    (kind,) = [words for words in REFUSALS if words in told]
    if kill:
        assert ended(start(folder, "third", "--resume", "--device", "cpu", "--quiet")) == 0
    record = json.loads((folder / "run/run.json").read_text())
    assert record["status"] == "finished" and record["result"]["epochs"] == 6
    assert not (folder / "run/.gpunn.lock").exists()
    return kind


def main(folder: Path, count: int) -> dict[str, Any]:
    told = dict.fromkeys(REFUSALS, 0)
    killed = 0
    for number in range(count):
        inside = folder / str(number)
        inside.mkdir()
        kill = number % 3 == 0
        told[pair(inside, kill)] += 1
        killed += kill
    return {"one": sum(told.values()), "killed": killed, "told": told}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
