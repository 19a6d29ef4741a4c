"""Processes that write checkpoints and are killed, or write one at the same time; run as `python -m tests.crash`.

    kill FOLDER COUNT   COUNT times: a child saves versions 1, 2, ... of one file until SIGKILL, then the file is read
    race FOLDER COUNT   two children save COUNT versions each of one file, which is read all the while

Children are forked from a process that has imported everything, which makes a kill cost milliseconds. Prints JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from gpunn.checkpoint import read, write

SIZE = 150_000


def save(path: Path, version: int) -> None:
    write(path, {"a": np.full(SIZE, version, np.uint32), "b": np.full(7, version, np.int8)}, {"version": version})


def version_of(path: Path) -> int:
    """The version in a file; every byte must belong to it."""
    arrays, meta = read(path)
    version = int(meta["version"])
    assert arrays["a"].shape == (SIZE,) and (arrays["a"] == version).all()
    assert (arrays["b"] == np.int64(version).astype(np.int8)).all()
    return version


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.glob(".gpunn-*.tmp"))


def kill(folder: Path, count: int) -> dict[str, int]:
    rng = random.Random(0)
    caught = lost = saved = 0
    for i in range(count):
        path = folder / f"{i}.gpunn"
        save(path, 0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for version in range(1, 1 << 30):
                    save(path, version % 128)
                    os.write(writer, bytes([version % 128]))
            finally:
                os._exit(1)
        os.close(writer)
        time.sleep(rng.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        reported = os.read(reader, 1 << 16)
        os.close(reader)
        done = reported[-1] if reported else 0
        lost += version_of(path) not in (done, (done + 1) % 128)
        saved += len(reported)
        caught += bool(temporaries(folder))
        save(path, 1)
        assert not temporaries(folder)
    return {"caught": caught, "lost": lost, "saved": saved}


def race(folder: Path, count: int) -> dict[str, int]:
    path = folder / "one.gpunn"
    save(path, 0)
    children = []
    for first in (1, 2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for i in range(count):
                    save(path, first + 2 * (i % 50))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    reads, seen, failed = 0, set(), 0
    while children:
        seen.add(version_of(path))
        reads += 1
        for child in list(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                children.remove(child)
                failed += status != 0
    return {"reads": reads, "seen": len(seen), "failed": failed}


if __name__ == "__main__":
    task, where, times = sys.argv[1:]
    print(json.dumps({"kill": kill, "race": race}[task](Path(where), int(times))))
