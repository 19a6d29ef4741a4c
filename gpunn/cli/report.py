"""What `gpunn train` and `gpunn evaluate` print: all choices that change the results, and the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpunn.cli import recipe
from gpunn.cli.output import text
from gpunn.data import Preprocessing
from gpunn.data.columns import Embedded, NumberEncoder, OneHot
from gpunn.data.predictions import evaluate_by_target
from gpunn.data.targets import Quantities
from gpunn.dataframes import listed
from gpunn.network import Network
from gpunn.optimizers import Optimizer

RMSE = "rmse_by_target"
UNCALIBRATED = "; the losses in the history include it, and probabilities are not calibrated"

Rows = list[tuple[str, Any]]


def evaluation(network: Network, source: Any) -> dict[str, Any]:
    """Loss and metrics of a network on a table; with several targets, also the rmse of each by its name."""
    results, rmse = evaluate_by_target(network, source)
    return results | ({RMSE: rmse} if rmse else {})


def result_rows(results: Mapping[str, Any], preprocessing: Preprocessing) -> Rows:
    """Rows of what `evaluation` returned, with the unit if it is not clear."""
    target, units = preprocessing.target, {}
    if isinstance(target, Quantities):
        several_units = "over all targets, whatever their units"
        unit = f"in the units of {target.names[0]}" if len(target.names) == 1 else several_units
        units = {"rmse": unit, "mae": unit}
        if any(target.means) or set(target.deviations) != {1.0}:
            units["loss"] = "of standardised targets"
    rows: Rows = []
    for name, value in results.items():
        if name == RMSE:
            rows += [(f"rmse of {column}", number) for column, number in value.items()]
        else:
            unit = f" ({units[name]})" if name in units else ""
            rows.append((name.replace("_", " "), f"{text(value)}{unit}"))
    return rows


def summary(record: Mapping[str, Any], preprocessing: Preprocessing, optimizer: Optimizer) -> Rows:
    """The summary that `gpunn train` prints at its end."""
    data, result, settings = record["data"], record["result"], record["settings"]
    target, inputs = ", ".join(data["target"]), several(data["inputs"], "input")
    epochs, best = several(result["epochs"], "epoch"), result["best_epoch"] or "none"
    return [
        ("run", record["run"]),
        ("data", f"{several(data['rows'], 'row')} to train on, {data['held_out']:,} held out, {inputs}"),
        *([("left out", listed(data["left_out"]))] if data["left_out"] else []),
        ("task", f"{data['task']} of {target}, {several(data['outputs'], 'output')}"),
        ("network", f"{record['network']['parameters']:,} parameters on {record['device']}"),
        ("layers", _layers(settings)),
        ("optimizer", recipe.describe(optimizer)),
        (
            "epochs",
            f"{settings['epochs']} at most, patience {settings['patience']}, batches of {settings['batch_size']}",
        ),
        *_seed(settings),
        *_columns(settings, preprocessing),
        *(_class_settings(settings) if preprocessing.classes is not None else ()),
        ("training", f"{epochs} ({result['stopped']}), the best is {best}, {result['seconds']:.1f} s"),
        *((f"held-out {name}", value) for name, value in result_rows(result["held_out"], preprocessing)),
    ]


def _layers(settings: Mapping[str, Any]) -> str:
    widths = recipe.widths(settings["hidden"])
    if not widths:  # without hidden layers, their options have no effect
        return f"no hidden ones, {settings['dtype']}"
    norm = "batch norm" if settings["batch_norm"] else "no batch norm"
    rest = f"{settings['activation']}, {norm}, dropout {settings['dropout']:g}, {settings['dtype']}"
    return f"hidden {', '.join(map(str, widths))}; {rest}"


def _seed(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    share, seed = recipe.share_of(settings["validation"]), settings["seed"]
    yield "held out", f"a share of {share:g}, drawn by seed {seed}" if share else settings["validation"]
    yield "seed", f"{seed}, of first weights, order of rows and dropout"


def _columns(settings: Mapping[str, Any], preprocessing: Preprocessing) -> Iterator[tuple[str, Any]]:
    """What becomes of the columns of each kind, if there are any."""
    numbers = [column for column in preprocessing.columns if isinstance(column, NumberEncoder)]
    if numbers:
        flagged = [column.name for column in numbers if column.flag]
        flags = f", with a flag in {listed(flagged)}" if flagged else ""
        plain = settings["numeric"] != "standardise" and any(column.kind == "boolean" for column in numbers)
        truth = "; truth values are standardised" if plain else ""
        yield "numbers", f"{settings['numeric']}; gaps become the median{flags}{truth}"
    for encoding, kind in (("one-hot", OneHot), ("embedding", Embedded)):
        names = [column.name for column in preprocessing.columns if isinstance(column, kind)]
        if names:
            yield encoding, listed(names)
    if settings["categorical"]:
        yield "read as categories", listed(settings["categorical"])


def _class_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    smoothing, weights = settings["smoothing"], settings["class_weight"]
    yield "smoothing", f"{smoothing:g}" + (UNCALIBRATED if smoothing else "")
    yield "class weights", weights + (UNCALIBRATED if weights != "none" else "")


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
