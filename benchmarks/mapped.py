"""How much memory does training on a memory-mapped file take?

    python -m benchmarks.mapped [GIBIBYTES] [FOLDER]

Writes a float32 .npy of that size (4 unless given), trains 784-128-10 on it for one epoch, and prints the process's
resident memory at its highest, the seconds, and the loss. The file is removed afterwards.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import gpunn as gn

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
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    folder = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "X.npy")
        y = write(path, int(size * 2**30) // (4 * WIDTH))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh: writing the file does not count
        X = np.load(path, mmap_mode="r")
        network = gn.Network([gn.Dense(128, "relu"), gn.Dense(10)], WIDTH, device="cpu")
        start = time.perf_counter()
        history = network.fit(X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(1e-3), epochs=1, batch_size=256)
        seconds = time.perf_counter() - start
    print(
        f"{X.nbytes / 2**30:.2f} GiB in {len(X):,} rows: {resident_peak():.0f} MiB resident at most, "
        f"{seconds:.1f} s for an epoch, checking included, loss {history['loss'][-1]:.3f}"
    )


if __name__ == "__main__":
    main()
