"""`gpunn evaluate`."""

from __future__ import annotations

import click

from gpunn.cli.options import device_option, memory_option, say_models, say_unused, unknown_option
from gpunn.cli.output import json_option, print_document, print_table
from gpunn.cli.report import figure_rows, judge
from gpunn.cli.runs import load_network
from gpunn.data.answers import preprocessing_of


@click.command("evaluate", short_help="Judge a trained network on other data.")
@click.argument("run")
@click.argument("data")
@unknown_option
@memory_option
@device_option
@json_option
def command(run: str, data: str, leave_out: tuple[str, ...], memory: int | None, device: str, as_json: bool) -> None:
    """Judge the network of RUN on DATA, which has its target.

    RUN is the folder that train wrote, or a file that Network.save did. Of classes: loss and accuracy; of numbers: the
    loss of the standardised ones, rmse and mae in their own units, r2, and of several the rmse of each. Several models
    are judged by the mean of their probabilities or numbers.

    \b
    Example:
      gpunn evaluate runs/digits digits
    """
    network = load_network(run, device)
    say_models(network)
    preprocessing = preprocessing_of(network)
    table = preprocessing.read(data, memory=memory).without(*leave_out)
    say_unused(preprocessing, table)
    found = judge(network, table)
    if as_json:
        about = {"run": run, "data": data, "models": network.models or 1, "rows": table.rows}
        print_document({**about, "device": network.ops.device, **found})
    else:
        print_table([("rows", f"{table.rows:,}"), *figure_rows(found, preprocessing)])
