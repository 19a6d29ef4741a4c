"""`gpunn evaluate`."""

from __future__ import annotations

import click

from gpunn.cli.options import device_option, leave_out_option, memory_option, say_models, say_unused
from gpunn.cli.output import json_option, print_document, print_table
from gpunn.cli.report import evaluation, result_rows
from gpunn.cli.runs import load_network
from gpunn.data.predictions import preprocessing_of


@click.command("evaluate", short_help="Judge a trained network on other data.")
@click.argument("run")
@click.argument("data")
@leave_out_option
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
    results = evaluation(network, table)
    if as_json:
        given = {"run": run, "data": data, "models": network.models or 1, "rows": table.rows}
        print_document({**given, "device": network.ops.device, **results})
    else:
        print_table([("rows", f"{table.rows:,}"), *result_rows(results, preprocessing)])
