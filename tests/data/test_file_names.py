"""Files with any names that the system allows, not only UTF-8."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

import gpunn as gn
from gpunn.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="this system has only names in Unicode")
COLUMNS = {"x": [1.0, 2.0, 3.0], "y": ["a", "b", "a"]}


def write_stream(data: Any, file: Any) -> None:
    with pa.ipc.new_stream(file, data.schema) as writer:
        writer.write_table(data)


WRITERS: dict[str, Callable[[Any], Any]] = {
    ".csv": lambda file: file.write(b"x,y\n1,a\n2,b\n3,a\n"),
    ".parquet": lambda file: pa.parquet.write_table(pa.table(COLUMNS), file),
    ".feather": lambda file: pa.feather.write_feather(pa.table(COLUMNS), file),
    ".arrow": lambda file: write_stream(pa.table(COLUMNS), file),
    ".npz": lambda file: np.savez(file, **{name: np.array(values) for name, values in COLUMNS.items()}),
}


def named(folder: Path, name: bytes) -> str:
    return os.fsdecode(os.fsencode(folder) + b"/" + name)


@pytest.mark.parametrize("name", [b"\xff", "ŷ".encode(), b"a\nb\x1b"], ids=["no UTF-8", "UTF-8", "control"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_of_any_name_is_read(suffix: str, name: bytes, tmp_path: Path) -> None:
    path = named(tmp_path, name + suffix.encode())
    with open(path, "wb") as file:
        WRITERS[suffix](file)
    for source in (path, Path(path)):
        table = gn.data.read(source)
        assert table.rows == 3 and table["y"].values.tolist() == COLUMNS["y"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_an_error_names_a_file_whose_name_is_not_utf8(suffix: str, tmp_path: Path) -> None:
    path = named(tmp_path, b"\xff" + suffix.encode())
    with open(path, "wb") as file:
        file.write(b"x,y\n1\n" if suffix == ".csv" else b"ARROW1" * 20)
    with pytest.raises(DataError, match=r"^\S+/\\udcff\.\w+( row 1)?: expected .*, got (?!'utf-8' codec)"):
        gn.data.read(path)
