"""How much memory does training on a memory-mapped file take?

    python -m benchmarks.mapped [--gibibytes 4] [--folder DIR]

Writes a float32 .npy of that size, trains 784-128-10 on it for one epoch in a process of its own, and tells that
process's resident memory at its highest, the seconds, checking included, and the loss. The file is removed afterwards.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import gpunn as gn
from benchmarks.command import alone
from benchmarks.harness import Row, Setting, say

WIDTH, PIECE = 784, 20_000


def write(path: Path, rows: int) -> np.ndarray:
    """A file of normal numbers, piece by piece; returns labels that can be learnt from it."""
    rng = np.random.default_rng(0)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH))
    labels = np.empty(rows, np.int64)
    piece = rng.normal(size=(PIECE, WIDTH)).astype(np.float32)
    for start in range(0, rows, PIECE):
        part = np.roll(piece, start // PIECE, axis=1)[: rows - start]
        table[start : start + len(part)] = part
        labels[start : start + len(part)] = part[:, :10].argmax(axis=1)
    table.flush()
    return labels


def resident_peak() -> float:
    """MiB, as the kernel counts it since the last reset."""
    return _counted("VmHWM")


def resident() -> float:
    """MiB now."""
    return _counted("VmRSS")


def _counted(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def epoch(size: float, folder: str | None) -> tuple[int, int, float, float, float]:
    """Bytes and rows of the file, MiB resident at most, seconds, loss."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "X.npy")
        y = write(path, int(size * 2**30) // (4 * WIDTH))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh: writing the file does not count
        X = np.load(path, mmap_mode="r")
        network = gn.Network([gn.Dense(128, "relu"), gn.Dense(10)], WIDTH, device="cpu")
        start = time.perf_counter()
        history = network.fit(
            X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3), epochs=1, batch_size=256, progress=False
        )
        seconds = time.perf_counter() - start
    return X.nbytes, len(X), resident_peak(), seconds, float(history["loss"][-1])


def run(setting: Setting) -> list[Row]:
    size = setting.gibibytes or (1 / 16 if setting.quick else 4.0)
    say(f"mapped: {size:g} GiB")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # where nothing else takes memory
        taken, rows, resident, seconds, loss = process.submit(epoch, size, setting.folder).result()
    case = f"{taken / 2**30:.2f} GiB in {rows:,} rows"
    return [
        Row("mapped", case, "resident at most", "MiB", [resident], details={"loss": loss}),
        Row("mapped", case, "epoch, checking included", "s", [seconds]),
    ]


if __name__ == "__main__":
    alone("mapped")
