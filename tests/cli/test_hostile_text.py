"""Names and labels from data never act on a terminal, never forge a line and never end the command."""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunn.cli import predict as predict_module
from gpunn.cli.output import print_table, say
from gpunn.errors import DataError, GpunnError, printable
from tests.cli.stage import QUICK, ROOT, call

SIGNS = "\x00\x07\t\n\r\x1b\x7f\x85\x9b\u00ad\u200b\u200d\u2028\u202a\u202e\u2066\u2069\ufeff\udcff\U000e0001"
NAME = f"ŷ{SIGNS}\ntask  regression"
CPU = ("--device", "cpu")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(labels: list[str], target: str = "y", column: str = "x") -> str:
    np.savez("a.npz", **{column: np.arange(40.0), target: np.array(labels * 20)})
    return "a.npz"


def harmless(text: str) -> bool:
    return all(unicodedata.category(sign)[0] != "C" for sign in text.replace("\n", ""))


# One function


@pytest.mark.parametrize("sign", SIGNS)
def test_control_characters_are_escaped_as_repr_escapes_them(sign: str) -> None:
    assert printable(f"a{sign}b") == repr(f"a{sign}b")[1:-1]


@pytest.mark.parametrize("text", ["", "abc", "ŷ = Σ w·x", "a'b\"c\\d", "日本語", "🙂"])
def test_printable_characters_are_not_escaped(text: str) -> None:
    assert printable(text) == text


def test_the_text_of_an_error_is_printable_and_its_parts_are_unchanged() -> None:
    error = DataError(NAME, expected=NAME, got=NAME, fix=NAME)
    assert str(error).isprintable() and "\\x1b" in str(error)
    assert error.where == error.got == NAME


# Where text goes out


def test_a_message_with_line_breaks_is_printed_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (False, True):
        say(NAME, error=error)
    told = capsys.readouterr()
    for text in told:
        assert text.count("\n") == 1 and harmless(text) and "\\u202e" in text


def test_a_table_row_with_line_breaks_is_printed_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([("a", NAME, "b"), (NAME, "c", NAME)], header=("", NAME, ""))
    text = capsys.readouterr().out
    assert text.count("\n") == 3 and harmless(text)
    first, second, third = text.splitlines()
    width = len(printable(NAME)) + 2
    assert first[width:].startswith("ŷ") and second[width:].startswith("ŷ") and third[width:].startswith("c")


def test_every_command_prints_names_with_control_characters_escaped() -> None:
    signs = SIGNS.replace("\x00", "").replace("\udcff", "")  # which no file of arrays can have in a name
    target, column = f"ŷ{signs}\ntask  regression", f"x{signs}"
    data = save([f"a{signs}", f"b{signs}"], target=target, column=column)
    results = [
        call("train", data, "--target", target, "--leave-out", column, *QUICK, code=3),
        call("train", data, "--target", target, "--out", "run", *QUICK),
        call("inspect", "run"),
        call("evaluate", "run", data, *CPU),
        call("evaluate", "run", data, "--leave-out", column, *CPU, code=3),
        call("predict", "run", f"{NAME}.csv", *CPU, code=3),
        call("train", data, NAME, code=2),
    ]
    for result in results:
        assert harmless(result.output)
        assert "task  regression" not in result.output.splitlines()
    assert "\\x1b" in results[1].stdout and "\\x1b" in results[2].stdout and "\\x1b" in results[4].stderr
    json.loads(call("predict", "run", data, "--json", *CPU).stdout.encode("ascii"))


# CSV


def test_predictions_as_csv_escape_labels_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["a\x1b[31m", "b\u202e"]
    call("train", save(labels), "--out", "run", *QUICK)
    text = call("predict", "run", "a.npz", *CPU).stdout
    assert set(text.splitlines()[1:]) <= set(labels) and len(text.splitlines()) == 41
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    text = call("predict", "run", "a.npz", *CPU).stdout
    assert set(text.splitlines()[1:]) <= {"a\\x1b[31m", "b\\u202e"} and len(text.splitlines()) == 41


FORMULAS = ("=1+1", "+a", "-a", "@a", "\ta", "\ra", "\na", '=HYPERLINK("a")')
PLAIN = ("a", "-1.5", "+2e3", "a=1", " =1", "", "1-2")


def rows(columns: dict[str, list[Any]], safe: bool) -> list[list[str]]:
    return list(csv.reader(io.StringIO(predict_module.as_csv(columns, safe), newline="")))


@pytest.mark.parametrize("label", FORMULAS)
def test_labels_that_look_like_formulas_are_quoted_on_demand_or_warned_of(
    label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {label: [label, "a"], "p": [-1.5, 0.5]}
    assert rows(columns, True) == [[f"'{label}", "p"], [f"'{label}", "-1.5"], ["a", "0.5"]]
    assert capsys.readouterr().err == ""
    assert rows(columns, False) == [[label, "p"], [label, "-1.5"], ["a", "0.5"]]
    told = capsys.readouterr().err
    assert told == f"gpunn: a spreadsheet may compute {label!r}; --spreadsheet-safe puts a ' before such text\n"


def test_numbers_and_plain_labels_are_not_taken_for_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"y": list(PLAIN), "p": [-float(i) for i in range(len(PLAIN))]}
    assert predict_module.as_csv(columns, True) == predict_module.as_csv(columns, False)
    assert capsys.readouterr().err == ""


def test_csv_lines_end_with_a_line_feed() -> None:
    assert predict_module.as_csv({"y": ["a", "b\r", "c\n"]}, False) == 'y\na\n"b\r"\n"c\n"\n'


def test_labels_that_are_not_unicode_are_escaped_in_csv_and_refused_in_parquet(tmp_path: Path) -> None:
    """A file of arrays can hold them."""
    call("train", save(["a\udcff", "b\udcff"]), "--out", "run", *QUICK)
    call("predict", "run", "a.npz", "-o", "a.csv", *CPU)
    assert set(Path("a.csv").read_text().splitlines()[1:]) <= {"a\\udcff", "b\\udcff"}
    pytest.importorskip("pyarrow")
    told = call("predict", "run", "a.npz", "-o", "a.parquet", *CPU, code=3).stderr
    assert told.startswith("gpunn: --output: expected names and labels in Unicode, got '")


def test_the_option_spreadsheet_safe_of_predict_quotes_formulas() -> None:
    pytest.importorskip("pyarrow")
    call("train", save(["=1+1", "-a"]), "--out", "run", *QUICK)
    plain = call("predict", "run", "a.npz", "--probabilities", *CPU)
    assert "y,y=-a,y==1+1" in plain.stdout and "--spreadsheet-safe" in plain.stderr
    for arguments in (("-o", "a.parquet"), ("--json",)):
        assert call("predict", "run", "a.npz", *arguments, *CPU).stderr == ""
    safe = call("predict", "run", "a.npz", "--spreadsheet-safe", "-o", "a.csv", *CPU)
    assert safe.stderr == "" and set(Path("a.csv").read_text().splitlines()[1:]) <= {"'=1+1", "'-a"}


# Encodings


@pytest.mark.parametrize(
    ("variables", "arguments", "code"),
    [
        ({"PYTHONIOENCODING": "ascii"}, ["inspect", "run"], 0),
        ({"PYTHONIOENCODING": "ascii"}, ["evaluate", "run", "a.npz", "--leave-out", "ŷ0", *CPU], 3),
        ({"PYTHONIOENCODING": "latin-1"}, ["predict", "run", "a.npz", *CPU], 0),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, ["predict", "run", "a.npz", *CPU], 0),
    ],
)
def test_characters_missing_in_the_output_encoding_are_escaped(
    variables: dict[str, str], arguments: list[str], code: int
) -> None:
    call("train", save(["ŷ1", "ŷ2"], target="ŷ"), "--target", "ŷ", "--out", "run", *QUICK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONCOERCECLOCALE": "0", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "gpunn.cli", *arguments], env=environment, capture_output=True, check=False
    )
    text = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == code and "Traceback" not in text
    assert "\\u0177" in text


@pytest.mark.skipif(sys.platform != "linux", reason="this system has only names in Unicode")
def test_files_and_folders_with_names_that_are_not_utf8_work() -> None:
    pytest.importorskip("pyarrow")
    name = os.fsdecode(b"\xff.csv")
    Path(name).write_text("x,y\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40)))
    told = call("train", name, "--validation", name, *QUICK).stdout
    assert "run                runs/\\udcff\n" in told
    run = str(Path("runs", Path(name).stem))
    call("train", name, "--resume", "--out", run, "--quiet", *CPU)
    call("inspect", run)
    call("predict", run, name, "-o", os.fsdecode(b"\xfe.csv"), *CPU)
    assert b"\xfe.csv" in os.listdir(b".")


def test_the_text_of_every_kind_of_error_is_printable() -> None:
    """No error class makes its message itself, since only the base class escapes it."""
    assert not [kind for kind in GpunnError.__subclasses__() if "__init__" in vars(kind)]
