"""CSV files: what is read, and what is refused with file, row and column."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")

import gpunn as gn
from gpunn.errors import ConfigurationError, DataError


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refuses(folder: Path, content: str | bytes, message: str, **options: Any) -> None:
    """Reading the content is refused; `message` begins after the name of the file."""
    path = written(folder, content)
    with pytest.raises(DataError, match=f"^{re.escape(path)}{message}"):
        gn.data.read(path, **options)


def test_csv_columns_of_every_kind_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'whole,part,truth,colour,day,gaps,"a, b"\n1,0.5,true,red,2020-01-02,,1\n2,,False,"NA",2020-01-01,,2\n'
        "3,-1e3,true,,1970-01-02,,3\n",
    )
    table = gn.data.read(path)
    assert table.kinds == {
        "whole": "numeric", "part": "numeric", "truth": "boolean", "colour": "categorical", "day": "time",
        "gaps": "empty", "a, b": "numeric",
    }  # fmt: skip
    assert (table.rows, table.target_name) == (3, "a, b")
    np.testing.assert_array_equal(table["part"].present, [True, False, True])
    np.testing.assert_array_equal(table["part"].values[[0, 2]], [0.5, -1000.0])
    assert table["colour"].values[:2].tolist() == ["red", "NA"]  # quoted, so no gap
    np.testing.assert_array_equal(table["colour"].present, [True, True, False])
    assert table["day"].values.tolist() == [18263.0, 18262.0, 1.0]
    assert table["truth"].values.tolist() == [True, False, True]
    assert not table["gaps"].present.any()
    assert repr(table) == f"<Table {path}: 3 rows, 7 columns, target 'a, b'>"


def test_csv_files_with_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n", b"\n\na,b\n1,2\n3,4", b"a,b\r1,2\r3,4\r"):
        table = gn.data.read(written(tmp_path, content))
        assert table.columns == ("a", "b")
        assert table["a"].values.tolist() == [1, 3]


def test_the_last_csv_column_is_the_target_unless_another_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a,Label,c\n1,2,3\n")
    assert gn.data.read(path).target_name == "Label"
    assert gn.data.read(path, target="a").target_name == "a"
    assert gn.data.read(path, target=-1).target_name == "c"
    assert gn.data.read(path, target=["a", 2]).target_name == ("a", "c")
    assert gn.data.read(written(tmp_path, "a,b,c\n1,2,3\n")).target_name == "c"
    for target in ("d", 3, True, 1.5, ["a", "d"]):
        with pytest.raises(ConfigurationError, match=r"^target: expected a column of .*, got .*; choose from 'a', 'b'"):
            gn.data.read(written(tmp_path, "a,b,c\n1,2,3\n"), target=target)
    for target in ([], ["a", 0]):
        with pytest.raises(ConfigurationError, match=r"^target: expected columns, each once, got"):
            gn.data.read(path, target=target)
    for counted in ("0,1", "1,2"):  # as pandas names columns without names
        assert gn.data.read(written(tmp_path, f"{counted}\n5,6\n")).columns == tuple(counted.split(","))


LONG = "a,b\n" + "".join(f"{i},{i}\n" for i in range(300_000))

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", ": expected a line of names and rows, got an empty file; give"),
    "names alone": ("a,b\n", ": expected rows, got none; give a table with at least one row"),
    "blank": ("\n\n", r": expected a whole \.csv file, got CSV parse error: Empty CSV file"),
    "too many": ("a,b\n1,2\n3,4,5\n", " row 2: expected 2 values, as many as names, got 3; correct the row"),
    "too few": ("a,b\n1,2\n3\n", " row 2: expected 2 values, as many as names, got 1; correct the row"),
    "too many, late": (LONG + "1,2,3\n", " row 300001: expected 2 values, as many as names, got 3;"),
    "no UTF-8 in a ragged row": (b"a,b\n1,2\n\xff,4,5\n", " row 2: expected 2 values, as many as names, got 3;"),
    "infinite": ("a,b\n1,2\n1,1e999\n", " row 2 column 'b': expected a finite number, got inf; correct it"),
    "infinity": ("a,b\n1,2\n1,-inf\n", " row 2 column 'b': expected a finite number, got -inf; correct it"),
    "twice": ("a,b,a\n1,2,3\n", " column 3: expected a name of its own, got 'a', which column 1 has; rename"),
    "no name": (",a\n0,1\n1,2\n", r" column 1: expected a name, got ''; name it; of a pandas table write no index"),
    "no names": ("5.1,3.5,0\n4.9,3.0,1\n", " line of names: expected names, got numbers, '5.1', '3.5', '0'; write a"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), ": expected text in UTF-8, got UTF-16; save it as CSV in UTF-8"),
    "UTF-16 unmarked": ("a,b\n1,2\n".encode("utf-16-le"), ": expected text in UTF-8, got a zero byte in line 1; save"),
    "zero byte": (b"a,b\n1,x\n2,\0\n", ": expected text in UTF-8, got a zero byte in line 3; save"),
    "Latin 1": (b"a,b\n1,x\n2,gr\xf6\xdfe\n", r" row 2 column 'b': expected text in UTF-8, got the bytes b'\\xf6"),
    "Latin 1 names": (b"a,gr\xf6\xdfe\n1,2\n", r" line of names: expected text in UTF-8, got the bytes b'\\xf6"),
    "Excel": (b"PK\x03\x04", ": expected text in UTF-8, got zip; save it as CSV"),
    "compressed": (b"\x1f\x8b\x08", ": expected text in UTF-8, got gzip; save it as CSV"),
    "semicolons": ("a;b\n1;2\n", " line of names: expected commas between names, got ';'; save it with commas"),
    "open quote in names": ('a,"b\n1,2\n', " line of names: expected names with commas .*; take .* correct the quotes"),
    "line break in names": ('"a\nb",c\n1,2\n', " line of names: .* in one line, got .*; take line breaks out"),
    "open quote": ('a,b,c\n1,"x,2\n3,y,4\n5,"z",6\n', " row 1 column 'b': expected a value within one line, got"),
    "slip": ("a,b\n" + "1,2\n" * 5 + "1,2o\n", " row 6 column 'b': expected a number, as in most rows, got '2o'; corr"),
    "placeholder": ("a,b\n" + "?,1\n5,2\n6,3\n" * 3, " row 1 column 'a': expected a number, as in most rows, got '\\?"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bad_csv_file_is_refused_with_row_and_column(tmp_path: Path, fault: str) -> None:
    refuses(tmp_path, *REFUSED[fault])


def test_the_argument_kinds_sets_the_kinds_of_csv_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "code,n,flag,y\n01,1,0,2\n1,x,1,3\n007,,1,\n")
    table = gn.data.read(path, kinds={"code": "categorical", "n": "categorical", "flag": "boolean"})
    assert table["code"].values.tolist() == ["01", "1", "007"]
    assert table.kinds == {"code": "categorical", "n": "categorical", "flag": "boolean", "y": "numeric"}
    assert table["flag"].values.tolist() == [False, True, True]
    assert gn.data.read(path, kinds={"y": "categorical", "n": "categorical"})["y"].values[:2].tolist() == ["2", "3"]


def test_kinds_that_do_not_fit_a_csv_column_are_refused(tmp_path: Path) -> None:
    content = "a,b,c,d,e\n1,x,true,2020-01-01,1e400\n2,y,false,2020-01-01,x\n3.5,z,true,2020-01-01,x\n"
    for kinds, message in {
        ("b", "numeric"): " row 1 column 'b': expected a number, got 'x'; correct it",
        ("e", "numeric"): " row 2 column 'e': expected a number, got 'x'; correct it",
        ("a", "boolean"): " row 2 column 'a': expected true or false, got 2.0; correct it",
        ("b", "boolean"): " row 1 column 'b': expected a boolean column, got 'x', categorical; give",
        ("d", "numeric"): " row 1 column 'd': expected a numeric column, got 18262.0, time; give",
        ("f", "numeric"): ": expected a column 'f', got columns 'a', 'b', 'c', 'd', 'e'; correct the name",
    }.items():
        refuses(tmp_path, content, message, kinds=dict([kinds]))
    with pytest.raises(ConfigurationError, match=r"^kinds\['a'\]: expected one of 'numeric', .*, got 'time'; choose"):
        gn.data.read(written(tmp_path, content), kinds={"a": "time"})


def test_columns_are_converted_to_other_kinds(tmp_path: Path) -> None:
    table = gn.data.read(
        {"b": [True, None, False], "t": ["1", "2.5", None], "w": ["1e400", "1", "1"], "f": [1.0, 2.5, 3.0]}
    )
    assert table.converted("b", "numeric").data[[0, 2]].tolist() == [1.0, 0.0]
    assert table.converted("b", "categorical").values[[0, 2]].tolist() == ["true", "false"]
    assert table.converted("t", "numeric").data[:2].tolist() == [1.0, 2.5]
    assert not table.converted("t", "numeric").present[2]
    with pytest.raises(DataError, match=r"^table row 1 column 'w': expected a finite number, got '1e400'; correct"):
        table.converted("w", "numeric")
    with pytest.raises(
        DataError, match=r"^table row 2 column 'f': expected whole numbers as categories, got 2\.5; cor"
    ):
        table.converted("f", "categorical")


def test_a_csv_column_that_mixes_numbers_and_texts_is_categorical(tmp_path: Path) -> None:
    """Such as ticket numbers, most of which are plain numbers."""
    table = gn.data.read(written(tmp_path, "a,b\n" + "1,17\n2,18\n3,A 5\n4,B 6\n5,19\n"))
    assert table.kinds["b"] == "categorical"


def test_a_csv_row_longer_than_a_block_is_read(tmp_path: Path) -> None:
    text = "x" * (3 << 20)
    table = gn.data.read(written(tmp_path, f"a,b\n{text},1\ny,2\n"))
    assert len(table["a"].values[0]) == 3 << 20


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path, got in (
        (tmp_path / "no.csv", "No such file"),
        (tmp_path / "dir.csv", "a folder"),
        ("a\0.csv", "embedded"),
    ):
        if "dir" in str(path):
            (tmp_path / "dir.csv").mkdir()
        with pytest.raises(DataError, match=rf"expected a file to read, got {got}.*; check the name"):
            gn.data.read(path)
    for path, got in (("data.xlsx", "the ending '.xlsx'"), ("digit", "no ending")):
        with pytest.raises(
            DataError, match=rf"^{path}: expected a file ending in \.csv, .*digits, .*, got {got}; conv"
        ):
            gn.data.read(path)


def test_a_csv_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.csv

    def full(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(pyarrow.csv, "read_csv", full)
    refuses(tmp_path, "a,b\n1,2\n", ": expected a table that fits in memory, got a larger one; give part")
