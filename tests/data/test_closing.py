"""A table that was read or refused leaves no file open or mapped, without a garbage collection."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunn.data import read
from gpunn.errors import DataError

pa = pytest.importorskip("pyarrow")
csv, feather, parquet = (pytest.importorskip(f"pyarrow.{name}") for name in ("csv", "feather", "parquet"))
pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")

TABLE = pa.table({"a": np.arange(500.0), "b": ["x", "y"] * 250, "y": np.arange(500) % 3})
ARRAYS = {"X": np.ones((50, 3)), "y": np.arange(50)}


def stream(path: str) -> None:
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE)


WRITERS: dict[str, Callable[[str], Any]] = {
    "t.csv": lambda path: csv.write_csv(TABLE, path),
    "t.parquet": lambda path: parquet.write_table(TABLE, path),
    "t.feather": lambda path: feather.write_feather(TABLE, path, compression="uncompressed"),
    "z.feather": lambda path: feather.write_feather(TABLE, path, compression="zstd"),
    "t.arrow": stream,
    "t.npz": lambda path: np.savez(path, **ARRAYS),
    "z.npz": lambda path: np.savez_compressed(path, **ARRAYS),
    "t.npy": lambda path: np.save(path, ARRAYS["X"]),
}


@pytest.fixture
def without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held(folder: Path) -> list[str]:
    """Files of the folder that are open or mapped."""
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [line for line in (*opened, *mapped) if str(folder) in line]


def attempt(path: Path, whole: bool) -> None:
    try:
        read(path)
        assert whole
    except DataError:
        assert not whole


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_was_read_or_refused_is_closed_at_once(
    tmp_path: Path, without_collection: None, name: str, whole: bool
) -> None:
    path = tmp_path / name
    WRITERS[name](str(path))
    if not whole:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3] + b"\0" * name.endswith("csv"))
    with open(path, "rb"):
        assert len(held(tmp_path)) == 1  # it would be seen
    attempt(path, whole)
    end = time.monotonic() + 10
    while held(tmp_path) and time.monotonic() < end:  # pyarrow's own threads let go a moment later
        time.sleep(0.01)
    assert held(tmp_path) == []
