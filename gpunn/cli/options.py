"""Options and messages that several sub-commands have."""

from __future__ import annotations

import click

from gpunn.cli.output import say
from gpunn.data import Preprocessing, Table
from gpunn.dataframes import listed
from gpunn.network import Network

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N", help="auto takes a GPU if it can."
)
memory_option = click.option(
    "--memory", type=click.IntRange(1), metavar="BYTES", help="What a compressed file may become when it is read."
)
leave_out_option = click.option(
    "--leave-out", metavar="COL", multiple=True, help="A column of DATA that is not to be looked at."
)


def say_models(network: Network) -> None:
    """Say how the models of a population predict together."""
    if (network.models or 1) > 1:
        say(f"gpunn: {network.models} models: what is predicted is the mean of theirs", error=True)


def say_unused(preprocessing: Preprocessing, table: Table) -> None:
    """Say which columns are ignored, in case one of them should not be."""
    unused = preprocessing.unused(table)
    if unused:
        say(f"gpunn: columns that training did not have are not used: {listed(unused)}", error=True)


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "tf32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="The last three on a GPU only.",
)
