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

from gpunn.cli.options import device_option, leave_out_option, memory_option, say_models, say_unused
from gpunn.cli.output import json_option, print_document, require_stdout, say, write_file
from gpunn.cli.runs import load_network
from gpunn.data import Predictions, predict
from gpunn.data.predictions import preprocessing_of
from gpunn.data.table import NUMBER
from gpunn.errors import ConfigurationError, DataError, MissingExtraError, printable

Columns = dict[str, list[Any]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # the first characters of text that a spreadsheet computes


@click.command("predict", short_help="Predict from rows without a target.")
@click.argument("run")
@click.argument("data")
@click.option("-o", "--output", metavar="FILE", help="A .csv or .parquet to write; CSV on stdout unless given.")
@click.option("--probabilities", is_flag=True, help="A column for each class, too.")
@click.option(
    "--spreadsheet-safe", is_flag=True, help="In CSV, a ' before text that a spreadsheet would take for a formula."
)
@leave_out_option
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
        given = {"run": run, "data": data, "models": network.models or 1, "output": output}
        print_document(given if output else {**given, "predictions": columns})
    elif output is None:
        terminal = sys.stdout.isatty()
        sys.stdout.write(as_csv(columns, spreadsheet_safe, escaped if terminal else unchanged))
        sys.stdout.flush()


def same_file(one: str, other: str) -> bool:
    """Whether these are two names of one existing file."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def columns_of(predictions: Predictions, probabilities: bool) -> Columns:
    """The predictions under the target's name, and the probability of each class under NAME=LABEL."""
    values = predictions.values.reshape(len(predictions.values), -1)
    columns: Columns = {name: values[:, i].tolist() for i, name in enumerate(predictions.names)}
    if probabilities:
        if predictions.classes is None or predictions.probabilities is None:
            raise ConfigurationError(
                "--probabilities", expected="a network for classes", got="one for numbers", fix="leave it out"
            )
        name = predictions.names[0]
        columns |= {f"{name}={c}": predictions.probabilities[:, i].tolist() for i, c in enumerate(predictions.classes)}
    return columns


class Lines(io.StringIO):
    """Lines that `csv` ends with \\r\\n, so that it quotes text with either of these; here they end with \\n."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def unchanged(cell: Any) -> Any:
    return cell


def escaped(cell: Any) -> Any:
    """A cell that is safe to show on a terminal."""
    return printable(cell) if isinstance(cell, str) else cell


def is_formula(cell: Any) -> bool:
    """Whether a spreadsheet may compute this text; numbers, even as text, are not formulas."""
    return isinstance(cell, str) and cell.startswith(FORMULA) and not NUMBER.fullmatch(cell)


def as_csv(columns: Columns, spreadsheet_safe: bool, convert: Callable[[Any], Any] = unchanged) -> str:
    """All lines of the CSV; says on stderr if a spreadsheet would find a formula in them."""
    rows: Iterable[Iterable[Any]] = (columns, *zip(*columns.values()))
    if spreadsheet_safe:
        rows = ([f"'{cell}" if is_formula(cell) else cell for cell in row] for row in rows)
    elif (formula := next((cell for row in rows for cell in row if is_formula(cell)), None)) is not None:
        warning = f"a spreadsheet may compute {formula[:40]!r}; --spreadsheet-safe puts a ' before such text"
        say(f"gpunn: {warning}", error=True)
    lines = Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(map(convert, row) for row in rows)
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
