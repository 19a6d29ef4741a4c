"""Parquet and Arrow files, and tables that are in memory as pandas or Arrow have them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

import gpunn as gn
from gpunn.data import file_sizes
from gpunn.errors import DataError

ROWS = 1000
COLUMNS: dict[str, Any] = {
    "n": list(range(ROWS)),
    "f": [None if i % 10 == 0 else i / 4 for i in range(ROWS)],
    "t": [None if i % 7 == 0 else f"k{i % 5}" for i in range(ROWS)],
    "b": [i % 2 == 0 for i in range(ROWS)],
    "y": [i % 3 for i in range(ROWS)],
}


def table() -> Any:
    return pa.table(COLUMNS)


def write_stream(data: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, data.schema) as writer:
        writer.write_table(data, max_chunksize=300)


WRITERS: dict[str, Any] = {
    "a.parquet": pyarrow.parquet.write_table,
    "groups.parquet": lambda t, p: pyarrow.parquet.write_table(t, p, row_group_size=64, compression="zstd"),
    "lz4.feather": pyarrow.feather.write_feather,
    "zstd.feather": lambda t, p: pyarrow.feather.write_feather(t, str(p), compression="zstd", chunksize=100),
    "plain.arrow": lambda t, p: pyarrow.feather.write_feather(t, str(p), compression="uncompressed"),
    "stream.arrow": write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("encoded", [False, True], ids=["text", "dictionary"])
def test_parquet_and_arrow_files_are_read_as_they_were_written(tmp_path: Path, name: str, encoded: bool) -> None:
    data = table()
    data = data.set_column(2, "t", data["t"].dictionary_encode()) if encoded else data
    path = tmp_path / name
    WRITERS[name](data, str(path) if "stream" not in name else path)
    found = gn.data.read(path)
    assert list(found.kinds.values()) == ["numeric", "numeric", "categorical", "boolean", "numeric"]
    assert found.target_name == "y"
    for column in COLUMNS:
        wanted = COLUMNS[column]
        values, here = found[column].values.tolist(), found[column].present
        assert [v if h else None for v, h in zip(values, here)] == wanted


def test_columns_of_every_arrow_type_are_read() -> None:
    found = gn.data.read(
        pa.table(
            {
                "time32": pa.array([1, 2, None], pa.time32("s")), "time64": pa.array([1, 2, None], pa.time64("us")),
                "duration": pa.array([86_400_000, 2, 3], pa.duration("ms")),
                "date64": pa.array([86_400_000, 0, 0], pa.date64()), "date32": pa.array([1, 0, None], pa.date32()),
                "stamp": pa.array([86_400 * 10**9] * 3, pa.timestamp("ns", tz="UTC")),
                "decimal": pa.array([1, 2, 3], pa.decimal128(5, 2)), "half": pa.array(np.array([1, 2, 3], np.float16)),
                "view": pa.array(["a", "b", "a"], pa.string_view()),
                "large": pa.array(["a", None, "a"], pa.large_string()),
                "numbers": pa.array([1, 2, 1]).dictionary_encode(), "nothing": pa.nulls(3),
                "nan": [1.0, float("nan"), 2.0], "big": pa.array([2**64 - 1] * 3, pa.uint64()),
                "uuid": pa.array([True, False, None], pa.bool_()),
            }
        )
    )  # fmt: skip
    assert list(found.kinds.values()) == [
        *["time"] * 6, "numeric", "numeric", "categorical", "categorical", "numeric", "empty", "numeric", "numeric",
        "boolean",
    ]  # fmt: skip
    for name in ("date64", "stamp", "date32", "duration"):
        assert found[name].values[0] == 1.0
    assert found["time32"].values[0] * 86_400 == pytest.approx(1.0)
    assert found["time64"].values[1] * 86_400e6 == pytest.approx(2.0)
    assert found["nan"].present.tolist() == [True, False, True]
    assert found["numbers"].values.tolist() == [1, 2, 1]
    assert found["big"].values[0] == 2**64 - 1


def test_an_arrow_dictionary_with_repeated_and_unused_texts_is_read() -> None:
    given = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2]), pa.array(["a", "a", None, "b"]))
    found = gn.data.read(pa.table({"t": given, "y": [1, 2, 3, 4]}))["t"]
    assert found.labels == ("a", "b")
    assert found.data[:2].tolist() == [0, 0]
    assert found.present.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.list_(pa.int64()), "list<"), (pa.struct([("a", pa.int64())]), "struct<"), (pa.binary(), "binary"),
        (pa.month_day_nano_interval(), "month_day_nano"), (pa.map_(pa.string(), pa.int64()), "map<"),
    ],
    ids=str,
)  # fmt: skip
def test_arrow_columns_of_lists_structs_or_bytes_are_refused(kind: Any, said: str) -> None:
    message = rf"^table column 'a': expected numbers, bools, text or times, got Arrow's {said}.*; leave it out"
    with pytest.raises(DataError, match=message):
        gn.data.read(pa.table({"a": pa.nulls(3, kind), "y": [1, 2, 3]}))


def test_a_pandas_data_frame_is_read(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame({**COLUMNS, "c": pd.Categorical(["u", "v"] * (ROWS // 2))})
    frame = frame[frame["n"] % 2 == 1]  # an index that counts with gaps
    found = gn.data.read(frame)
    assert found.kinds == {
        "n": "numeric", "f": "numeric", "t": "categorical", "b": "boolean", "y": "numeric", "c": "categorical",
    }  # fmt: skip
    assert found.rows == ROWS // 2 and found["n"].values[:2].tolist() == [1, 3]
    for name in ("frame.parquet", "frame.feather"):  # pandas stores such an index as a column
        frame.to_parquet(tmp_path / name) if name.endswith("parquet") else WRITERS["lz4.feather"](
            pa.Table.from_pandas(frame), str(tmp_path / name)
        )
        assert gn.data.read(tmp_path / name).columns == found.columns
    assert gn.data.read(frame.set_index("n")).columns == found.columns[1:]  # no index is a column, named or not
    mixed = pd.DataFrame({"a": [1, "x"], "y": [1, 2]})
    with pytest.raises(
        DataError, match=r"^table: expected columns of one type each, .*, got .*column a.*; convert the"
    ):
        gn.data.read(mixed)
    with pytest.raises(DataError, match=r"^table column 2: expected a name of its own, got 'a', which column 1 has"):
        gn.data.read(pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]))


def test_a_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    for name in ("plain.arrow", "a.parquet"):
        path = str(tmp_path / name)
        WRITERS[name](twice, path) if name == "a.parquet" else write_stream(twice, Path(path))
        with pytest.raises(
            DataError, match=rf"^{re.escape(path)} column 2: expected a name of its own, got 'a', which"
        ):
            gn.data.read(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_files_with_other_content_than_their_ending_says_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"", b"a,b\n1,2\n", b"ARROW1\0\0", b"PAR1" * 4, b"FEA1" + bytes(64)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: expected (a whole|rows).*; (write the|give)"):
            gn.data.read(path)


# Places and sizes


def test_a_parquet_file_whose_columns_overlap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow.parquet.write_table(table(), tmp_path / "a.parquet", compression="none")
    metadata = pyarrow.parquet.read_metadata(tmp_path / "a.parquet")
    file_sizes.check_overlaps("a.parquet", metadata)

    class Moved:
        num_row_groups = 1
        num_columns = 2

        def row_group(self, group: int) -> Any:
            return self

        def column(self, i: int) -> Any:
            return metadata.row_group(0).column(1)

    message = r"^a\.parquet: expected a place of its own for column 'f', got that of 'f'; write the file again"
    with pytest.raises(DataError, match=message):
        file_sizes.check_overlaps("a.parquet", Moved())


def messages(compression: str | None) -> list[Any]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table().schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table())
    return list(pa.ipc.MessageReader.open_stream(sink.getvalue()))


def test_the_size_of_an_arrow_message_is_computed_from_its_metadata() -> None:
    schema, plain = messages(None)
    compressed = messages("zstd")[1]
    size = file_sizes._body_size("t", plain.metadata.to_pybytes(), plain.body)
    assert 0.9 * plain.body.size < size <= plain.body.size
    unpacked = file_sizes._body_size("t", compressed.metadata.to_pybytes(), compressed.body)
    assert unpacked == pytest.approx(size, rel=0.01)
    assert compressed.body.size < size / 2
    assert file_sizes._body_size("t", schema.metadata.to_pybytes(), schema.body) == 0
    for cut in (plain.metadata.to_pybytes()[:40], b"", bytes(200)):
        with pytest.raises(DataError, match=r"^t: expected a whole Arrow message, got .*; write the file again"):
            file_sizes._body_size("t", cut, plain.body)
    with pytest.raises(DataError, match=r"got a buffer of \d+ bytes at \d+, after one that ends at \d+; write"):
        file_sizes._body_size("t", plain.metadata.to_pybytes(), plain.body.slice(0, 900))
    metadata = bytearray(plain.metadata.to_pybytes())
    first = metadata.index((8 * ROWS).to_bytes(8, "little"))  # the values of n; those of f are moved onto them
    second = metadata.index((8 * ROWS).to_bytes(8, "little"), first + 16)
    metadata[second - 8 : second] = metadata[first - 8 : first]
    with pytest.raises(DataError, match=r"got a buffer of 8000 bytes at 0, after one that ends at \d+; write"):
        file_sizes._body_size("t", bytes(metadata), plain.body)
