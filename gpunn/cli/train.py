"""`gpunn train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gpunn.cli.exits import FAILURE, INTERRUPTED
from gpunn.cli.options import device_option, dtype_option, memory_option
from gpunn.cli.output import json_option, print_document, print_table, say
from gpunn.cli.recipe import ACTIVATIONS, OPTIMIZERS, share_of
from gpunn.cli.report import summary
from gpunn.cli.runs import RunFolder, locked, new_folder
from gpunn.cli.training import FINISHED, STOPPED, TERMINATED, TableTraining, source_path
from gpunn.errors import ConfigurationError
from gpunn.training.signals import EXIT_ON_TERMINATION

NOT_RECORDED = {"out", "resume", "device", "memory", "as_json", "quiet"}  # options that --resume may change

MOST = 10**9  # of anything that is counted: very large whole numbers have no float


@click.command("train", short_help="Train on a file or a built-in set.")
@click.argument("data", required=False)
@click.option(
    "--target",
    metavar="COL",
    multiple=True,
    help="What to predict; several for several numbers. "
    "Unless given, the column target, label, class or y, else the last one.",
)
@click.option("--leave-out", metavar="COL", multiple=True, help="A column not to learn from, such as a row's number.")
@click.option("--categorical", metavar="COL", multiple=True, help="Numbers that are names, such as postcodes.")
@click.option(
    "--task", type=click.Choice(["classification", "regression"]), help="What the target looks like, unless given."
)
@click.option(
    "--numeric",
    type=click.Choice(["standardise", "quantile"]),
    default="standardise",
    show_default=True,
    help="What numbers become; quantile makes normal scores, which outliers do not spread.",
)
@click.option("--hidden", default="256,256", show_default=True, metavar="N,N", help='Widths; "" for none.')
@click.option("--activation", type=click.Choice(ACTIVATIONS), default="relu", show_default=True)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="After every hidden layer.",
)
@click.option("--batch-norm/--no-batch-norm", default=True, show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adamw", show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="The highest of the one cycle; suits the optimizer unless given.",
)
@click.option("--epochs", type=click.IntRange(1, MOST), help="At most; 20 to 200 for some 1,500 updates unless given.")
@click.option("--batch-size", type=click.IntRange(1, MOST), help="A 25th of the rows, 16 to 1024, unless given.")
@click.option("--validation", default="0.2", show_default=True, metavar="SHARE|FILE", help="What to hold out.")
@click.option(
    "--patience",
    type=click.IntRange(1, MOST),
    help="Epochs without a better held-out loss; a third of all unless given.",
)
@click.option(
    "--smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Of the labels in training, as 0.1; probabilities are then too even.",
)
@click.option(
    "--class-weight",
    type=click.Choice(["none", "balanced"]),
    default="none",
    show_default=True,
    help="balanced trains rare classes as much as common ones; probabilities are then those of equally common classes.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@memory_option
@device_option
@dtype_option
@click.option("--out", metavar="DIR", help="The run's folder; runs/NAME unless given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, with its own options.")
@json_option
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Train a network on DATA and keep the best one.

    DATA is a table (.csv, .parquet, .arrow, .npz, .npy) or a built-in set: digits, spirals, moons, friedman. The
    target's kind decides between classification and regression. Inputs are standardised, the rate makes one cycle,
    training ends early when the held-out part gets no better, and the best weights are kept. Probabilities are
    calibrated unless --smoothing or --class-weight is given.

    The run's folder has model.gpunn, checkpoint.gpunn, history.csv, history.json, curves.png and run.json. After Ctrl-C
    or SIGTERM, --resume goes on as if nothing had happened. While it trains, no other training gets the folder.

    \b
    Example:
      gpunn train digits --out runs/digits
    """
    settings = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    folder = None
    if options["resume"]:
        folder, settings = _resumed(context, options)
        _lock_until_end(context, folder)
    elif options["data"] is None:
        raise click.MissingParameter(ctx=context, param=command.params[0])
    training = TableTraining.prepare(_absolute(settings), options["device"], options["memory"])
    if folder is None:
        folder = new_folder(options["out"], Path(settings["data"]).stem)
        _lock_until_end(context, folder)
    for note in training.run(folder, resume=options["resume"], quiet=options["quiet"]):
        say(f"gpunn: {note}", error=True)
    status = training.record["status"]
    if options["as_json"]:
        print_document(training.record)
    elif status != TERMINATED:
        print_table(summary(training.record, training.preprocessing, training.optimizer))
    context.exit({FINISHED: 0, STOPPED: INTERRUPTED, TERMINATED: EXIT_ON_TERMINATION}.get(status, FAILURE))


def _lock_until_end(context: click.Context, folder: RunFolder) -> None:
    """Keep other trainings out of the folder until the command ends."""
    context.call_on_close(folder.release)
    if folder.lock is not None and not folder.lock.works:
        say(f"gpunn: {folder.path} is on a file system without locks: let no other training use it", error=True)


def _absolute(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with absolute paths, so that a run can go on from any working folder."""
    validation = settings["validation"]
    return {
        **settings,
        "data": source_path(settings["data"]),
        "validation": source_path(validation) if share_of(validation) is None else validation,
    }


def _resumed(context: click.Context, options: dict[str, Any]) -> tuple[RunFolder, dict[str, Any]]:
    """The run to go on with, and its recorded settings; refuses options that differ from these."""
    if options["out"] is None:
        raise ConfigurationError(
            "--resume", expected="--out with the folder of a run", got="no --out", fix="name the folder to go on with"
        )
    folder = RunFolder(Path(options["out"]))
    recorded = folder.settings(context, [option for option in command.params if option.name not in NOT_RECORDED])
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if name in recorded and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    for name, value in _absolute({**recorded, **given}).items():
        if value != recorded[name]:
            raise ConfigurationError(
                "DATA" if name == "data" else f"--{name.replace('_', '-')}",
                expected=f"that of the run, {recorded[name]!r}",
                got=repr(value),
                fix="leave it out to go on, or train anew with another --out",
            )
    return locked("--resume", folder.path), recorded
