"""Small files that declare or would become very large arrays are refused before the memory is taken."""

import io
import re
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import file_sizes
from gpunn.errors import ConfigurationError, DataError

ROOT = Path(__file__).resolve().parents[2]
LARGE = 5 << 26  # bytes, above what any file may take
TAKEN = 96 << 20  # what refusing one may take, pyarrow's own import included
READ = """
import sys
import time
import tracemalloc
import gpunn as gn
import numpy as np
from tests.data.peak import peak
gn.data.read({"a": [1, 2], "b": [1, 2]})
try:
    import pyarrow.csv, pyarrow.compute, pyarrow.ipc, pyarrow.parquet
except ImportError:
    pass
before = peak()
try:
    gn.data.read(sys.argv[1])
except gn.errors.DataError as error:
    print(peak() - before, error)
"""


def refused(path: Path) -> tuple[int, str]:
    """Read the file in a process of its own: the memory that it took, and its error."""
    done = subprocess.run([sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
    taken, _, said = done.stdout.partition(" ")
    return int(taken), said.strip()


def npz_of_zeros(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (LARGE // 8, 8)})
    write_zeros(path, header.getvalue())


def write_zeros(path: Path, first: bytes) -> None:
    """An archive of one member, padded with zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("X.npy", "w") as file,
    ):
        file.write(first)
        for _ in range(LARGE >> 20):
            file.write(bytes(1 << 20))


def parquet_of_zeros(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    group = pa.table({name: np.zeros(1 << 17) for name in "abcd"})
    with pyarrow.parquet.ParquetWriter(path, group.schema, compression="zstd") as writer:
        for _ in range(LARGE // group.nbytes):
            writer.write_table(group)


def arrow_of_zeros(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.ipc

    batch = pa.record_batch({name: np.zeros(1 << 17) for name in "abcd"})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema, options=options) as writer:
        for _ in range(LARGE // batch.nbytes):
            writer.write_batch(batch)


def arrow_of_nothing(path: Path) -> None:
    """Gaps of no type take no place at all in a file."""
    import pyarrow as pa
    import pyarrow.ipc

    batch = pa.record_batch({name: pa.nulls(LARGE // 8) for name in "ab"})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


BOMBS = {
    "X.npz": npz_of_zeros, "X.parquet": parquet_of_zeros, "X.feather": arrow_of_zeros,
    "nothing.arrow": arrow_of_nothing,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_becomes_very_large_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    if not name.endswith("npz"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")
    path = tmp_path / name
    BOMBS[name](path)
    assert path.stat().st_size < LARGE / 100
    taken, said = refused(path)
    wanted = (
        r": expected at most \d+ bytes when read, got \d+ declared in a file of \d+; "
        "if you trust it, pass memory=BYTES; in a terminal: --memory BYTES$"
    )
    assert re.match(re.escape(str(path)) + wanted, said)
    assert taken < TAKEN


def test_the_argument_memory_sets_how_large_a_file_may_become(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros((100, 100)), y=np.arange(100))
    assert gn.data.read(tmp_path / "a.npz", memory=200_000).rows == 100
    with pytest.raises(
        DataError, match=r"expected at most 50000 bytes when read, got \d+ declared in a file of \d+; if"
    ):
        gn.data.read(tmp_path / "a.npz", memory=50_000)
    with pytest.raises(ConfigurationError, match=r"^memory: expected a whole number >= 1, got -1; give such a number"):
        gn.data.read(tmp_path / "a.npz", memory=-1)


def test_files_that_do_not_grow_when_read_are_always_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sizes, "LEAST_LIMIT", 0)
    np.savez(tmp_path / "a.npz", X=np.random.default_rng(0).normal(size=(100, 100)), y=np.arange(100))
    assert gn.data.read(tmp_path / "a.npz").rows == 100
    np.savez_compressed(tmp_path / "b.npz", X=np.zeros((1000, 100)), y=np.arange(1000))
    with pytest.raises(DataError, match=r"expected at most \d+ bytes when read"):
        gn.data.read(tmp_path / "b.npz")


def test_an_npz_file_that_lies_about_its_size_is_refused_in_little_memory(tmp_path: Path) -> None:
    """Header and list agree on less than a megabyte; unpacking stops there."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (100_000, 8)})
    content = header.getvalue() + bytes(800_000)
    path = tmp_path / "a.npz"
    write_zeros(path, content)
    data = bytearray(path.read_bytes())
    size = (len(content) + LARGE).to_bytes(4, "little")
    place = data.rindex(size, data.rindex(b"PK\1\2"))
    data[place : place + 4] = len(content).to_bytes(4, "little")
    path.write_bytes(data)
    taken, said = refused(path)
    assert re.match(
        rf"{re.escape(str(path))}: expected arrays that NumPy wrote, got (BadZipFile|ValueError): .*; write", said
    )
    assert taken < TAKEN


def test_the_tests_of_large_files_measure_the_memory_of_the_process() -> None:
    """`refused` measures the memory that a process takes."""
    full = "np.ones(1 << 25); raise gn.errors.DataError('a', expected='b', got='c', fix='d')"
    command = [sys.executable, "-c", READ.replace("gn.data.read(sys.argv[1])", full)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) > TAKEN


# Shapes that take no bytes, or few for each column


def npy(shape: tuple[int, ...], descr: str = "<f8", content: bytes = b"") -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue() + content


NONE = "expected rows, got none; give a table with at least one row"
MANY = "expected at most 100000 columns, got .*; leave some out"
DAMAGED = "expected arrays that NumPy wrote, got .*; write the file again"
SHAPES: list[tuple[tuple[int, ...], str, bytes, str]] = [
    ((0, 10**12), "<f8", b"", NONE),
    ((0, 10**12), "<M8[us]", b"", NONE),
    ((0, 10**6, 10**6), "<f8", b"", NONE),
    ((0, 0), "<f8", b"", NONE),
    ((10**12, 0), "<f8", b"", NONE),
    ((10**12, 0, 10**6), "<f8", b"", NONE),
    ((1, 1_000_000), "|u1", bytes(1_000_000), MANY),
    ((2, 1_000, 101), "|u1", bytes(202_000), MANY),
    ((0, 10**30), "<f8", b"", DAMAGED),
    ((10**12,), "<U0", b"", DAMAGED),
    ((2, 10**12), "<U0", b"", DAMAGED),
    ((1,) * 70, "<f8", bytes(8), DAMAGED),
    ((2**62, 4), "<f8", b"", "expected 147573952589676412928 bytes for .*, got 0; write the file again"),
    ((0, -5), "<f8", b"", r"expected a shape of numbers >= 0, got \(0, -5\); write the file again"),
    ((-1, 3), "<f8", b"", r"expected a shape of numbers >= 0, got \(-1, 3\); write the file again"),
]


@pytest.mark.parametrize(("shape", "descr", "content", "message"), SHAPES)
def test_arrays_of_huge_shapes_without_content_are_refused_at_once(
    tmp_path: Path, shape: tuple[int, ...], descr: str, content: bytes, message: str
) -> None:
    """In an .npy and in an .npz file."""
    data = npy(shape, descr, content)
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", data)
    for name in ("a.npy", "a.npz"):
        path = str(tmp_path / name)
        tracemalloc.start()
        start = time.perf_counter()
        try:
            with pytest.raises(DataError, match=f"^{re.escape(path)}.*: {message}"):
                gn.data.read(path)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000 and time.perf_counter() - start < 1.0
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("wrap", [lambda X: X, lambda X: {"X": X, "y": []}, lambda X: (X, np.empty(0))])
def test_arrays_without_rows_or_columns_are_refused(wrap: Any) -> None:
    for X in (np.empty((0, 10**12)), np.empty((10**12, 0))):
        with pytest.raises(DataError, match=f"(array|table|\\(X, y\\)): {NONE}"):
            gn.data.read(wrap(X))


def test_tables_with_too_many_columns_are_refused() -> None:
    assert len(gn.data.read((np.zeros((1, 1_999)), [1.0])).columns) == 2_000
    with pytest.raises(DataError, match="at most 100000 columns, got 150000 up to 'b' of shape \\(1, 75000\\); leave"):
        gn.data.read({"a": np.zeros((1, 75_000), bool), "b": np.zeros((1, 75_000), bool)})
