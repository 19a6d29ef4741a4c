"""`gpunn inspect`."""

from __future__ import annotations

from os.path import lexists
from pathlib import Path
from typing import Any

import click

import gpunn as gn
from gpunn.cli.output import json_option, print_document, print_table, say, text
from gpunn.cli.report import several
from gpunn.cli.runs import RunFolder, load_network
from gpunn.cli.training import parameter_count
from gpunn.data import Preprocessing
from gpunn.value import to_json

MOST_ROWS = 40  # of columns; of more only the first and last ones are shown


@click.command("inspect", short_help="Show what is in a run.")
@click.argument("run")
@json_option
def command(run: str, as_json: bool) -> None:
    """Show what is in RUN: architecture, preprocessing, history, and what was asked for.

    RUN is the folder that train wrote, or a file that Network.save did.

    \b
    Example:
      gpunn inspect runs/digits
    """
    network = load_network(run, "cpu")
    folder = RunFolder(Path(run)) if Path(run).is_dir() else None
    record = folder.read() if folder and lexists(folder.record) else None
    history = folder.history() if folder else None
    preprocessing = network.preprocessing if isinstance(network.preprocessing, Preprocessing) else None
    if as_json:
        print_document(document(run, network, preprocessing, history, record))
        return
    for line in network.summary().split("\n"):
        say(line)
    if network.models is not None:
        say(f"{several(network.models, 'model')} of this architecture, whose predictions are averaged")
    if preprocessing is not None:
        show_preprocessing(preprocessing)
    if record is not None:
        say()
        say("asked for")
        print_table((name, text(value)) for name, value in record["settings"].items() if value not in (None, []))
    if history is not None:
        show_history(history)


def document(
    run: str, network: gn.Network, preprocessing: Preprocessing | None, history: gn.History | None, record: Any
) -> dict[str, Any]:
    return {
        "run": run,
        "layers": to_json(network.network.layers),
        "inputs": list(network.inputs),
        "models": network.models or 1,
        "parameters": parameter_count(network),
        "dtype": network.precision.name,
        "loss": to_json(network.loss),
        "preprocessing": to_json(preprocessing),
        "history": None if history is None else {name: history[name] for name in history.names},
        "record": record,
    }


def show_preprocessing(preprocessing: Preprocessing) -> None:
    rows = preprocessing.describe()
    say()
    say(f"preprocessing of {len(rows)} columns")
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = [*rows[: MOST_ROWS // 2], ("...", "", f"{left_out} more"), *rows[-MOST_ROWS // 2 :]]
    print_table(rows)


def show_history(history: gn.History) -> None:
    say()
    say(repr(history))
    if not history.epochs:
        return
    names = [name for name in history.names if name not in ("examples_per_second",)]
    epochs = sorted(
        {1, history.epochs, history.best_epoch or 1, *range(1, history.epochs + 1, max(1, history.epochs // 8))}
    )
    best = history.best_epoch
    rows = [
        [f"{epoch}{' best' if epoch == best else ''}", *(float(history[name][epoch - 1]) for name in names)]
        for epoch in epochs
    ]
    print_table(rows, header=["epoch", *(name.replace("_", " ") for name in names)])
