"""npz and npy files, dicts, matrices and lists: NumPy alone."""

import io
import re
import zipfile
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.errors import DataError

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def member(content: bytes, name: str = "X.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def refuses(folder: Path, name: str, content: bytes, message: str) -> None:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}{message}"):
        gn.data.read(path)


# Files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_of_X_and_y_is_read(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", X=np.asfortranarray(X), y=Y)
    table = gn.data.read(tmp_path / "a.npz")
    assert (table.columns, table.target_name) == (("X0", "X1", "X2", "y"), "y")
    found = table.arrays()
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], Y)


def test_an_npz_file_of_columns_and_images_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", age=X[:, 0], name=np.array(["a", "b", "a", "b"]), image=X.reshape(4, 3, 1), y=X[:, :2])
    table = gn.data.read(tmp_path / "a.npz")
    assert table.columns == ("age", "name", "image0", "image1", "image2", "y0", "y1")
    assert table.target_name == ("y0", "y1")
    assert table["name"].values.tolist() == ["a", "b", "a", "b"]
    assert gn.data.read(tmp_path / "a.npz", target="age").target_name == "age"
    assert gn.data.read(tmp_path / "a.npz", target="image").target_name == ("image0", "image1", "image2")


def test_an_npy_file_is_read_as_a_table(tmp_path: Path) -> None:
    for array in (X, np.asfortranarray(X), X.astype(">f4"), X.astype(np.uint8)):
        np.save(tmp_path / "a.npy", array)
        table = gn.data.read(tmp_path / "a.npy")
        assert (table.columns, table.target_name) == (("x0", "x1", "x2"), "x2")
        np.testing.assert_array_equal(table.arrays()[0], X[:, :2])
        np.testing.assert_array_equal(gn.data.read(tmp_path / "a.npy", target=0).arrays()[1], X[:, 0])


HEADER = npy(X)[:128]
LARGE = HEADER.replace(b"(4, 3), }", b"(10000000000, 3), }")[:128]
BAD_NPY: dict[str, tuple[bytes, str]] = {
    "objects": (npy(np.array([[1, "a"]], object)), ": expected numbers, bools or text, got dtype object; save each"),
    "records": (npy(np.zeros(3, "f8,i4")), r": expected numbers, bools or text, got dtype \[.*; save each"),
    "vector": (npy(X[0]), r": expected a matrix with the target among its columns, got shape \(3,\); pass \(X, y\)"),
    "too short": (npy(X)[:-1], r": expected 96 bytes for float64 of shape \(4, 3\), got 95; write the file again"),
    "too long": (npy(X) + b"\0", r": expected 96 bytes for float64 of shape \(4, 3\), got 97; write"),
    "much too long": (LARGE + bytes(96), r": expected 240000000000 bytes for float64 of shape \(10000000000, 3\), got"),
    "version 3": (npy(X)[:6] + b"\3" + npy(X)[7:], r": expected format 1.0 or 2.0, got \(3, 0\); save it with numpy"),
    "no array": (b"hello", ": expected arrays that NumPy wrote, got ValueError: .*; write the file again"),
    "empty": (b"", ": expected arrays that NumPy wrote, got ValueError: .*; write"),
    "no rows": (npy(X[:0]), ": expected rows, got none; give a table"),
    "no columns": (npy(X[:, :0]), ": expected rows, got none; give"),
    "infinite": (npy(np.where(X == 4, np.inf, X)), " row 2 column 'x1': expected a finite number, got inf; correct it"),
    "complex": (npy(X + 1j), " column 'x0': expected numbers, bools, text or times, got dtype complex128; convert it"),
    "bytes": (npy(np.array([[b"a"]])), r" column 'x0': expected numbers, bools, text or times, got dtype \|S1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_NPY)
def test_a_bad_npy_file_is_refused(tmp_path: Path, fault: str) -> None:
    refuses(tmp_path, "a.npy", *BAD_NPY[fault])


def twice() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("X.npy", npy(X))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("X.npy", npy(X))
    return file.getvalue()


def test_a_bad_npz_file_is_refused(tmp_path: Path) -> None:
    plain = ": expected plain .npy arrays, each with a name of its own, got "
    for content, message in (
        (twice(), plain + "2 names, 1 of them different; write"),
        (member(b"", "../evil.py"), plain + "'../evil.py'; write"),
        (member(npy(X), method=zipfile.ZIP_LZMA), plain + "'X.npy'; write"),
        (member(npy(X))[:-4], ": expected arrays that NumPy wrote, got BadZipFile: .*"),
        (member(npy(np.array([None]))), " array 'X': expected numbers, bools or text, got dtype object; save each"),
        (member(npy(X)[:-8]), r" array 'X': expected 96 bytes for float64 of shape \(4, 3\), got 88; write"),
        (zip_of_nothing(), plain + "0 names, 0 of them different; write"),
    ):
        refuses(tmp_path, "a.npz", content, message)


def zip_of_nothing() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w"):
        pass
    return file.getvalue()


def test_an_npz_member_with_another_number_of_bytes_is_refused(tmp_path: Path) -> None:
    """The sizes in the archive's own list are checked, and no more bytes than these are unpacked."""
    sound = member(npy(X))
    real = len(npy(X)).to_bytes(4, "little")
    place = sound.rindex(real, sound.index(b"PK\1\2"))
    for size in (len(npy(X)) - 8, len(npy(X)) + 8):
        content = sound[:place] + size.to_bytes(4, "little") + sound[place + 4 :]
        refuses(tmp_path, "a.npz", content, ".*(expected 96 bytes for float64|Bad CRC-32).*; write the file again")
    longer = HEADER.replace(b"(4, 3), }", b"(5, 3), }") + bytes(96)
    content = member(longer)
    place = content.rindex(len(longer).to_bytes(4, "little"), content.index(b"PK\1\2"))
    content = content[:place] + (len(longer) + 24).to_bytes(4, "little") + content[place + 4 :]
    refuses(tmp_path, "a.npz", content, r": expected arrays that NumPy wrote, got EOFError: 96 of 120 bytes; write")


def test_an_npy_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("gpunn.data.arrays._read", full)
    refuses(tmp_path, "a.npy", npy(X), ": expected arrays that fit in memory, got larger ones; give part of them")


# In memory


def test_a_dict_of_columns_of_any_kind_is_read() -> None:
    table = gn.data.read(
        {
            "n": [1, None, 3], "f": np.array([1.0, np.nan, 2.0]), "t": ["a", None, "b"], "b": [None, True, False],
            "day": np.array(["1970-01-02", "NaT", "1970-01-03"], "datetime64[D]"), "s": np.array(["x", "y", "x"]),
            "masked": np.ma.MaskedArray([1, 2, 3], [False, False, True]), "empty": [None, None, None],
            "lasts": np.array([1, 2, 3], "timedelta64[D]"), "nan": [np.nan, np.float32(2.0), 3],
            "dates": [date(1970, 1, 2), None, datetime(1970, 1, 2, 3, tzinfo=timezone(timedelta(hours=3)))],
            "stamps": [np.datetime64("1970-01-02", "ns"), np.datetime64("NaT"), np.datetime64("1970-01-03")],
        }
    )  # fmt: skip
    assert list(table.kinds.values()) == [
        "numeric", "numeric", "categorical", "boolean", "time", "categorical", "numeric", "empty", "time", "numeric",
        "time", "time",
    ]  # fmt: skip
    gaps = {name: np.flatnonzero(~table[name].present).tolist() for name in table.columns}
    assert gaps == {
        "n": [1], "f": [1], "t": [1], "b": [0], "day": [1], "s": [], "masked": [2], "empty": [0, 1, 2], "lasts": [],
        "nan": [0], "dates": [1], "stamps": [1],
    }  # fmt: skip
    assert table["day"].values[[0, 2]].tolist() == [1.0, 2.0]
    assert table["lasts"].values.tolist() == [1.0, 2.0, 3.0]
    assert table["dates"].values[[0, 2]].tolist() == [1.0, 1.0]
    assert table["stamps"].values[[0, 2]].tolist() == [1.0, 2.0]
    assert table.target_name == "stamps"


def test_pairs_matrices_and_record_arrays_are_read() -> None:
    assert gn.data.read((X, Y)).columns == ("X0", "X1", "X2", "y")
    assert gn.data.read((X.tolist(), ["a", "b", "a", "b"])).target_name == "y"
    assert gn.data.read(X.tolist()).columns == ("x0", "x1", "x2")
    records = np.array([(1, 2.5), (2, 3.5)], [("a", "i4"), ("b", "f8")])
    assert gn.data.read(records).kinds == {"a": "numeric", "b": "numeric"}
    table = gn.data.read(X)
    assert gn.data.read(table).columns == table.columns
    assert gn.data.read(table, target="x0").target_name == "x0"


class Unconvertible:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("use get()")


BAD: dict[str, tuple[Any, str]] = {
    "no table": (3, r"^data: expected a file, a built-in name, or a table in memory, got a builtins\.int; pass"),
    "lengths": (
        {"a": [1, 2], "b": [1]},
        r"^table: expected columns of one length, got 2 rows of 'a' and 1 of 'b'; give",
    ),
    "nothing": ({}, "^table: expected rows, got none; give a table"),
    "names": ({1: [1]}, "^table: expected names of columns as text, got 1; rename the column"),
    "mixed": (
        {"a": [1, "b"], "c": [1, 2]},
        "^table column 'a', row 2: expected numeric values as before, got 'b'; give",
    ),
    "bools and numbers": ({"a": [True, 2]}, "^table column 'a', row 2: expected boolean values as before, got 2; give"),
    "numbers and bools": ({"a": [2, True]}, "^table column 'a', row 2: expected numeric values as before, got True; g"),
    "ragged": (
        {"a": [[1], [2, 3]]},
        r"^table column 'a', row 1: expected numbers, bools, text or times, got \[1\]; give",
    ),
    "objects": (
        {"a": [{}, {}]},
        "^table column 'a', row 1: expected numbers, bools, text or times, got {}; give the column",
    ),
    "one number": ({"a": 1}, "^table column 'a': expected one value a row, got 1; give an array"),
    "on a GPU": (
        {"a": Unconvertible()},
        "^table column 'a': expected a NumPy array or a list, got a Unconv.*: use get",
    ),
    "large": ({"a": [10**400]}, "^table column 'a': expected numbers in the range of float64, got a larger one; scale"),
    "vector": ([1, 2], r"^array: expected a matrix with the target among its columns, got shape \(2,\); pass"),
    "slip": ({"a": ["1", "2", "x"]}, "^table row 3 column 'a': expected a number, as in most rows, got 'x'; correct"),
}


@pytest.mark.parametrize("fault", BAD)
def test_values_that_are_not_tables_are_refused(fault: str) -> None:
    source, message = BAD[fault]
    with pytest.raises(DataError, match=message):
        gn.data.read(source)


def test_a_table_gives_rows_columns_and_arrays() -> None:
    table = gn.data.read({"a": [1, 2, None], "b": ["x", "y", "x"], "c": [1, 2, 3]})
    assert table.take([2, 0])["b"].values.tolist() == ["x", "x"]
    assert table.take(np.array([True, False, True])).rows == 2
    assert table.take(slice(2)).take([1])["a"].present.tolist() == [True]
    assert table.without("b").columns == ("a", "c")
    assert table.without("b").target_name == "c"
    assert table.without("c").target_name is None
    assert table.without("c", "b").arrays  # a method, not an array
    message = r"^table: expected a column 'd', got columns 'a', 'b', 'c'; correct the name"
    for use in (lambda: table["d"], lambda: table.without("d")):
        with pytest.raises(DataError, match=message):
            use()
    with pytest.raises(
        DataError, match=r"^table column 'a': expected numbers without gaps, got missing values; encode"
    ):
        table.arrays()
    with pytest.raises(
        DataError, match=r"^table column 'b': expected numbers without gaps, got a categorical column; e"
    ):
        table.without("a").arrays()
    wide = gn.data.read({f"c{i}": [1.0] for i in range(20)})
    with pytest.raises(DataError, match=r"got columns 'c0', .*'c7' and 12 more; correct"):
        wide["d"]
    both = gn.data.read({"a": [1, 2], "y": X[:2, :2]})
    np.testing.assert_array_equal(both.arrays()[1], X[:2, :2])
