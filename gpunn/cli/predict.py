"""`gpunn predict`."""

from __future__ import annotations

import csv
import io
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gpunn.cli.options import device_option, memory_option, say_models, say_unused, unknown_option
from gpunn.cli.output import json_option, print_document, write_file
from gpunn.cli.runs import load_network
from gpunn.data import Answers, predict
from gpunn.data.answers import preprocessing_of
from gpunn.errors import ConfigurationError, MissingExtraError

Columns = dict[str, list[Any]]


@click.command("predict", short_help="Predict from rows without a target.")
@click.argument("run")
@click.argument("data")
@click.option("-o", "--output", metavar="FILE", help="A .csv or .parquet to write; CSV on stdout unless given.")
@click.option("--probabilities", is_flag=True, help="A column for each class, too.")
@unknown_option
@memory_option
@device_option
@json_option
def command(
    run: str, data: str, output: str | None, probabilities: bool, leave_out: tuple[str, ...], memory: int | None,
    device: str, as_json: bool,
) -> None:  # fmt: skip
    """Predict with the network of RUN for every row of DATA, which needs no target.

    RUN is the folder that train wrote, or a file that Network.save did. A line for each row, in the order of DATA:
    labels, or numbers in their own units. Several models predict the mean of their probabilities or numbers.

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
    network = load_network(run, device)
    say_models(network)
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(data, memory=memory).without(*leave_out)
    say_unused(preprocessing, table)
    columns = columns_of(predict(network, table), probabilities)
    if output is not None:
        parquet = output.lower().endswith(".parquet")
        write_file(output, as_parquet(columns) if parquet else as_csv(columns).encode())
    if as_json:
        told = {"run": run, "data": data, "models": network.models or 1, "output": output}
        print_document(told if output else {**told, "predictions": columns})
    elif output is None:
        click.echo(as_csv(columns), nl=False)


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


def as_csv(columns: Columns) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    return text.getvalue()


def as_parquet(columns: Columns) -> bytes:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise MissingExtraError(
            "--output", expected="pyarrow", got="none", fix='run: python -m pip install "gpunn[data]", or write a .csv'
        ) from None
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()
