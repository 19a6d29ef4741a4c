"""The file of arrays and JSON is read as it was written, readable by safetensors, and refused if anything is wrong."""

import errno
import json
import math
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load

import gpunn as gn
from gpunn import archive
from gpunn.archive import read, write
from gpunn.errors import CheckpointError
from tests.archives import ARRAYS, META, bits, same, write_sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sample(tmp_path)


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """The file has the same bytes after the block as before."""
    before = path.read_bytes()
    yield
    assert path.read_bytes() == before


# Round trips


def test_an_archive_is_read_as_it_was_written(path: Path) -> None:
    arrays, meta = read(path)
    assert same(arrays, ARRAYS)
    assert bits(meta) == bits(META) and list(meta) == list(META)
    for array in arrays.values():
        assert array.flags.writeable and array.flags.aligned and array.dtype.isnative


def test_the_same_content_makes_the_same_bytes_of_an_archive(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", *read(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from([np.dtype(text) for text in archive.DTYPES.values()])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
STORED = st.dictionaries(NAMES, hnp.arrays(st.one_of(DTYPES, DTYPES.map(lambda d: d.newbyteorder(">"))), SHAPES))
PLAIN = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(max_examples=200, deadline=None)
@given(STORED, st.dictionaries(st.text(), JSON))
def test_an_archive_of_any_arrays_and_json_is_read_as_it_was_written(
    arrays: dict[str, Any], meta: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path, arrays, meta)
        loaded, loaded_meta = read(path)
        others = load(path.read_bytes())
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    assert same(loaded, native)
    assert bits(loaded_meta) == bits(meta)
    assert same(dict(sorted(others.items())), dict(sorted(native.items())))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(10.0)[::-2],
        np.broadcast_to(np.float32(3), (2, 5)),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([math.nan, -math.nan, math.inf, -0.0, 5e-324]),
        np.arange(3 * archive.CHUNK // 8 + 5, dtype=np.float64),
    ],
    ids=["transposed", "backwards", "broadcast", "Fortran", "special values", "several chunks"],
)
def test_an_archive_stores_arrays_of_any_memory_layout(tmp_path: Path, array: Any) -> None:
    write(tmp_path / "file", {"a": array}, {})
    assert same(read(tmp_path / "file")[0], {"a": np.ascontiguousarray(array)})


def test_an_archive_stores_tuples_as_lists(tmp_path: Path) -> None:
    write(tmp_path / "file", {}, {"shape": (1, (2, np.float64(0.1)))})
    assert read(tmp_path / "file") == ({}, {"shape": [1, [2, 0.1]]})


def test_safetensors_reads_an_archive(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        assert same({name: file.get_tensor(name) for name in ARRAYS}, ARRAYS)
        entries = file.metadata()
    assert entries["gpunn_format"] == "1" and entries["gpunn_version"] == gn.__version__
    assert bits(json.loads(entries["meta"])) == bits(META)
    assert set(entries) == {"gpunn_format", "gpunn_version", "data_bytes", "sha256", "meta"}


def test_writing_an_archive_takes_little_memory(tmp_path: Path) -> None:
    """One array of these is 16 MB."""
    arrays = {str(i): np.zeros(2_000_000) for i in range(3)}
    tracemalloc.start()
    try:
        write(tmp_path / "file", arrays, {})
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        read(tmp_path / "file")
        taken = tracemalloc.get_traced_memory()[1] - 48_000_000
    finally:
        tracemalloc.stop()
    assert written < 4_000_000 and taken < 4_000_000


# Paths


def test_writing_an_archive_through_a_link_replaces_the_file_behind_it(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "latest"
    link.symlink_to("../file.gpunn")
    write(link, {}, {"via": "link"})
    assert link.is_symlink() and not path.is_symlink()
    assert read(path) == read(link) == ({}, {"via": "link"})
    assert os.listdir(tmp_path / "elsewhere") == ["latest"]
    dangling = tmp_path / "elsewhere" / "next"
    dangling.symlink_to(tmp_path / "new")
    write(dangling, {}, {})
    assert dangling.is_symlink() and read(tmp_path / "new") == ({}, {})


@pytest.mark.parametrize("name", ["plain", "sub/../plain.gpunn", "./ä 統", b"bytes"])
def test_an_archive_may_have_any_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    write(name, {}, {"a": 1})
    assert read(name)[1] == {"a": 1}
    assert sorted(os.listdir()) == sorted([os.path.basename(os.fsdecode(name)), "sub"])


@pytest.mark.parametrize("name", ["", "folder/", None, 3, "nul\0", "\ud800"])
def test_an_archive_refuses_a_bad_file_name(name: Any) -> None:
    message = r"checkpoint: expected the name of a file, got .*; pass one such as \"digits.gpunn\""
    with pytest.raises(CheckpointError, match=message):
        write(name, {}, {})
    with pytest.raises(CheckpointError, match=message):
        read(name)


# What cannot be written


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros(2, complex), "dtype complex128"),
        (np.array([object()]), "dtype object"),
        (np.array(["a"]), "dtype <U1"),
        (np.zeros(2, "M8[s]"), "dtype datetime64"),
        (np.zeros(2, "f4,i4"), "dtype \\["),
        ([1.0], "a builtins.list"),
        (np.ma.masked_array([1.0], [True]), "a numpy.ma.*MaskedArray"),
        (np.float32(1), "a numpy.float32"),
    ],
)
def test_an_archive_refuses_arrays_that_it_cannot_store(path: Path, array: Any, got: str) -> None:
    message = f"array 'a': expected a NumPy array of bool.* float64, got {got}.*; convert"
    with unchanged(path), pytest.raises(CheckpointError, match=message):
        write(path, {"a": array}, {})


@pytest.mark.parametrize("name", ["__metadata__", "\ud800", 3])
def test_an_archive_refuses_names_of_arrays_that_it_cannot_store(path: Path, name: Any) -> None:
    with pytest.raises(CheckpointError, match="expected names of arrays as text, got .*; choose another name"):
        write(path, {name: np.zeros(1)}, {})


def nested(levels: int) -> Any:
    value: Any = [1.0]
    for _ in range(levels - 1):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float32(1), r"meta\.a: expected numbers, text, lists and dicts, got a float32; convert it"),
        ([0, {"b": b""}], r"meta\.a\[1\]\.b: expected numbers, .*, got a bytes; convert"),
        ({1: 2}, r"meta\.a: expected names as keys, got 1; turn the keys into text"),
        (nested(archive.DEPTH_LIMIT + 1), r"at most 650 levels of nesting, got more; store it flatter"),
        (CYCLE, r"at most 650 levels of nesting, got more; store it flatter"),
        (10**5000, r"expected numbers JSON can hold, got Exceeds .*; store it as text"),
    ],
    ids=["float32", "bytes", "key", "deep", "cycle", "long"],
)
def test_an_archive_refuses_meta_that_json_cannot_hold(path: Path, value: Any, message: str) -> None:
    with unchanged(path), pytest.raises(CheckpointError, match=message):
        write(path, {}, {"a": value})


def test_an_archive_stores_meta_up_to_the_depth_limit(tmp_path: Path) -> None:
    meta = {"a": nested(archive.DEPTH_LIMIT)}
    write(tmp_path / "file", {}, meta)
    assert read(tmp_path / "file")[1] == meta


def test_an_archive_refuses_meta_beyond_the_size_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "HEADER_LIMIT", 1000)
    message = r"at most 1000 bytes of names and meta, got \d+ bytes; store long lists"
    with unchanged(path), pytest.raises(CheckpointError, match=message):
        write(path, {}, {"a": "b" * 900})


def test_a_full_disk_leaves_the_old_archive_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = r"expected to write a file, got No space left.*; free space.*unchanged"
    with unchanged(path), pytest.raises(CheckpointError, match=message):
        write(path, {}, {})
    assert os.listdir(path.parent) == [path.name]


def test_an_error_while_synchronising_the_folder_of_an_archive_is_raised(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(archive.files, "sync_folder", broken)
    with pytest.raises(CheckpointError, match=r"its folder to reach the disk, got Input/output.*; the new file is in"):
        write(path, {}, {"new": 1})
    assert read(path)[1] == {"new": 1}


def test_writing_an_archive_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected to write a file, got No such file.*; .* a folder that exists"):
        write(tmp_path / "missing" / "file", {}, {})


@pytest.mark.parametrize(("make", "got"), [(os.mkdir, "a folder"), (os.mkfifo, "a device, pipe or socket")])
def test_an_archive_refuses_a_folder_or_pipe_as_its_file(
    tmp_path: Path, make: Callable[[Path], None], got: str
) -> None:
    make(tmp_path / "thing")
    with pytest.raises(CheckpointError, match=f"expected to write a file, got {got}"):
        write(tmp_path / "thing", {}, {})
    with pytest.raises(CheckpointError, match=f"expected a file to read, got {got}.*; check the name"):
        read(tmp_path / "thing")
