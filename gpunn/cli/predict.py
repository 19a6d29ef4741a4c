"""`gpunn predict`."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gpunn.cli.options import device_option, memory_option, say_models, say_unused, unknown_option
from gpunn.cli.output import json_option, print_document, require_stdout, say, write_file
from gpunn.cli.runs import load_network
from gpunn.data import Answers, predict
from gpunn.data.answers import preprocessing_of
from gpunn.data.table import NUMBER
from gpunn.errors import ConfigurationError, DataError, MissingExtraError, printable

Columns = dict[str, list[Any]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # how text begins that a spreadsheet computes


@click.command("predict", short_help="Predict from rows without a target.")
@click.argument("run")
@click.argument("data")
@click.option("-o", "--output", metavar="FILE", help="A .csv or .parquet to write; CSV on stdout unless given.")
@click.option("--probabilities", is_flag=True, help="A column for each class, too.")
@click.option(
    "--spreadsheet-safe", is_flag=True, help="In CSV, a ' before text that a spreadsheet would take for a formula."
)
@unknown_option
@memory_option
@device_option
@json_option
def command(
    run: str, data: str, output: str | None, probabilities: bool, spreadsheet_safe: bool, leave_out: tuple[str, ...],
    memory: int | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Predict with the network of RUN for every row of DATA, which needs no target.

    RUN is the folder that train wrote, or a file that Network.save did. A line for each row, in the order of DATA:
    labels, or numbers in their own units. Several models predict the mean of their probabilities or numbers. CSV has
    names and labels as they are in the data; on a terminal, signs that would act on it are escaped.

    \b
    Example:
      gpunn predict runs/digits digits --probabilities -o digits.csv
    """
    if output is not None and Path(output).suffix.lower() not in (".csv", ".parquet"):
        raise ConfigurationError(
            "--output", expected="a name that ends in .csv or .parquet", got=repr(output), fix="rename it"
        )
    if output is not None and any(same_file(output, source) for source in (run, data)):
        raise ConfigurationError(
            "--output", expected="another file than what it is made from", got=repr(output), fix="choose another name"
        )
    if output is None:
        require_stdout()
    network = load_network(run, device)
    say_models(network)
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(data, memory=memory).without(*leave_out)
    say_unused(preprocessing, table)
    columns = columns_of(predict(network, table), probabilities)
    if output is not None:
        parquet = output.lower().endswith(".parquet")
        if parquet:
            content = as_parquet(columns)
        else:
            content = as_csv(columns, spreadsheet_safe).encode(errors="backslashreplace")
        write_file(output, content)
    if as_json:
        told = {"run": run, "data": data, "models": network.models or 1, "output": output}
        print_document(told if output else {**told, "predictions": columns})
    elif output is None:
        terminal = sys.stdout.isatty()
        sys.stdout.write(as_csv(columns, spreadsheet_safe, shown if terminal else as_it_is))
        sys.stdout.flush()


def same_file(one: str, other: str) -> bool:
    """Whether these are names of one file that is there."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def columns_of(answers: Answers, probabilities: bool) -> Columns:
    """The predictions under the target's name, and of each class its probability under NAME=LABEL."""
    values = answers.values.reshape(len(answers.values), -1)
    columns: Columns = {name: values[:, i].tolist() for i, name in enumerate(answers.names)}
    if probabilities:
        if answers.classes is None or answers.probabilities is None:
            raise ConfigurationError(
                "--probabilities", expected="a network for classes", got="one for numbers", fix="leave it out"
            )
        name = answers.names[0]
        columns |= {f"{name}={c}": answers.probabilities[:, i].tolist() for i, c in enumerate(answers.classes)}
    return columns


class Lines(io.StringIO):
    """Lines of `csv`, which it ends with \\r\\n, so that text with either sign is quoted; they end with \\n here."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def as_it_is(cell: Any) -> Any:
    return cell


def shown(cell: Any) -> Any:
    """A cell as people may see it."""
    return printable(cell) if isinstance(cell, str) else cell


def is_formula(cell: Any) -> bool:
    """Whether this is text that a spreadsheet computes, or may; numbers are none, even as text."""
    return isinstance(cell, str) and cell.startswith(FORMULA) and not NUMBER.fullmatch(cell)


def as_csv(columns: Columns, spreadsheet_safe: bool, form: Callable[[Any], Any] = as_it_is) -> str:
    """All in lines; says on stderr where a spreadsheet would find a formula."""
    rows: Iterable[Iterable[Any]] = (columns, *zip(*columns.values()))
    if spreadsheet_safe:
        rows = ([f"'{cell}" if is_formula(cell) else cell for cell in row] for row in rows)
    elif (formula := next((cell for row in rows for cell in row if is_formula(cell)), None)) is not None:
        told = f"a spreadsheet may compute {formula[:40]!r}; --spreadsheet-safe puts a ' before such text"
        say(f"gpunn: {told}", error=True)
    lines = Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(map(form, row) for row in rows)
    return lines.getvalue()


def as_parquet(columns: Columns) -> bytes:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise MissingExtraError(
            "--output", expected="pyarrow", got="none", fix='run: python -m pip install "gpunn[data]", or write a .csv'
        ) from None
    buffer = io.BytesIO()
    try:
        parquet.write_table(pyarrow.table(columns), buffer)
    except UnicodeEncodeError as error:
        raise DataError(
            "--output", expected="names and labels in Unicode", got=repr(error.object)[:80], fix="write a .csv"
        ) from None
    return buffer.getvalue()
