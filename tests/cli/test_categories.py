"""`gpunn train --categorical`: columns of numbers that are categories, from the table to predictions."""

from pathlib import Path

import pytest

from tests.cli.stage import QUICK, call, document

ROWS = "\n".join(f"{(10115, 80331, 20095)[i % 3]},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(60))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`)")
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(f"postcode,n,y\n{ROWS}\n", encoding="utf-8")


def test_the_option_categorical_makes_a_column_of_numbers_categories() -> None:
    assert document("train", "a.csv", "--out", "numbers", *QUICK)["data"]["inputs"] == 2
    told = document("train", "a.csv", "--categorical", "postcode", "--out", "names", *QUICK)
    assert told["data"]["inputs"] == 4  # three slots and n
    columns = document("inspect", "names")["preprocessing"]["columns"]
    assert {c["name"]: c["column"] for c in columns} == {"postcode": "OneHot", "n": "Standard"}
    Path("new.csv").write_text("n,postcode\n3,99999\n4,10115\n", encoding="utf-8")  # one was never seen
    assert len(document("predict", "names", "new.csv")["predictions"]["y"]) == 2
    call("train", "--resume", "--out", "names", "--device", "cpu", "--quiet")


def test_train_names_columns_that_it_leaves_out() -> None:
    """For example a column of numbers written as "1,5": the user must learn that it is not used."""
    rows = "\n".join(f'"{i},5",{i % 7},{i % 2}' for i in range(40))
    Path("b.csv").write_text(f"price,n,y\n{rows}\n", encoding="utf-8")
    assert "\nleft out           'price'\n" in call("train", "b.csv", "--out", "b", *QUICK).stdout
    assert document("inspect", "b")["record"]["data"]["left_out"] == ["price"]
    assert "left out" not in call("train", "a.csv", "--out", "a", *QUICK).stdout


def test_the_whole_table_decides_between_classes_and_numbers() -> None:
    """20 different numbers in 40 rows are few enough for classes; in the 32 training rows they would not be."""
    rows = "\n".join(f"{i % 3},{i % 20}" for i in range(40))
    Path("b.csv").write_text(f"a,y\n{rows}\n", encoding="utf-8")
    told = document("train", "b.csv", "--out", "b", *QUICK)["data"]
    assert (told["task"], told["outputs"]) == ("classification", 20)


def test_the_option_categorical_refuses_a_missing_column() -> None:
    told = call("train", "a.csv", "--categorical", "city", *QUICK, code=3)
    assert "expected a column 'city'" in told.stderr


def test_the_error_for_a_word_among_numbers_names_the_option_categorical() -> None:
    Path("a.csv").write_text(f"postcode,n,y\n{ROWS}\nunknown,1,no\n", encoding="utf-8")
    assert "in a terminal: --categorical 'postcode'" in call("train", "a.csv", *QUICK, code=3).stderr
    call("train", "a.csv", "--categorical", "postcode", "--out", "a", *QUICK)
