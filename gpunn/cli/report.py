"""What `gpunn train` and `gpunn evaluate` tell people: every choice that changes the answer, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpunn.cli import recipe
from gpunn.cli.output import text
from gpunn.data import Preprocessing
from gpunn.data.answers import figures
from gpunn.data.columns import Embedded, Numbers, OneHot
from gpunn.data.goals import Quantities
from gpunn.data.table import named
from gpunn.network import Network
from gpunn.optimizers import Optimizer

RMSE = "rmse_by_target"
CHANGED = "; the losses in the history include it, and probabilities are not calibrated"

Rows = list[tuple[str, Any]]


def judge(network: Network, source: Any) -> dict[str, Any]:
    """The figures of a network on a table; of several targets, also the rmse of each by its name."""
    found, rmse = figures(network, source)
    return found | ({RMSE: rmse} if rmse else {})


def figure_rows(found: Mapping[str, Any], preprocessing: Preprocessing) -> Rows:
    """What `judge` found, with the units of figures that have different ones."""
    goal, units = preprocessing.target, {}
    if isinstance(goal, Quantities):
        unit = f"in the units of {goal.names[0]}" if len(goal.names) == 1 else "over all targets, whatever their units"
        units = {"rmse": unit, "mae": unit}
        if any(goal.means) or set(goal.deviations) != {1.0}:
            units["loss"] = "of standardised targets"
    rows: Rows = []
    for name, value in found.items():
        if name == RMSE:
            rows += [(f"rmse of {target}", number) for target, number in value.items()]
        else:
            unit = f" ({units[name]})" if name in units else ""
            rows.append((name.replace("_", " "), f"{text(value)}{unit}"))
    return rows


def summary(record: Mapping[str, Any], preprocessing: Preprocessing, optimizer: Optimizer) -> Rows:
    """What to tell people of a training's outcome."""
    data, result, settings = record["data"], record["result"], record["settings"]
    target, inputs = ", ".join(data["target"]), several(data["inputs"], "input")
    epochs, best = several(result["epochs"], "epoch"), result["best_epoch"] or "none"
    return [
        ("run", record["run"]),
        ("data", f"{several(data['rows'], 'row')} to train on, {data['held_out']:,} held out, {inputs}"),
        *([("left out", named(data["left_out"]))] if data["left_out"] else []),
        ("task", f"{data['task']} of {target}, {several(data['outputs'], 'output')}"),
        ("network", f"{record['network']['parameters']:,} parameters on {record['device']}"),
        ("layers", _layers(settings)),
        ("optimizer", recipe.described(optimizer)),
        (
            "epochs",
            f"{settings['epochs']} at most, patience {settings['patience']}, batches of {settings['batch_size']}",
        ),
        *_seed(settings),
        *_columns(settings, preprocessing),
        *(_of_classes(settings) if preprocessing.classes is not None else ()),
        ("training", f"{epochs} ({result['stopped']}), the best is {best}, {result['seconds']:.1f} s"),
        *((f"held-out {name}", value) for name, value in figure_rows(result["held_out"], preprocessing)),
    ]


def _layers(settings: Mapping[str, Any]) -> str:
    widths = recipe.widths(settings["hidden"])
    if not widths:  # what belongs to hidden layers is not there
        return f"no hidden ones, {settings['dtype']}"
    norm = "batch norm" if settings["batch_norm"] else "no batch norm"
    parts = f"{settings['activation']}, {norm}, dropout {settings['dropout']:g}, {settings['dtype']}"
    return f"hidden {', '.join(map(str, widths))}; {parts}"


def _seed(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    share, seed = recipe.share_of(settings["validation"]), settings["seed"]
    yield "held out", f"a share of {share:g}, drawn by seed {seed}" if share else settings["validation"]
    yield "seed", f"{seed}, of first weights, order of rows and dropout"


def _columns(settings: Mapping[str, Any], preprocessing: Preprocessing) -> Iterator[tuple[str, Any]]:
    """What becomes of columns, as far as there are any of a kind."""
    numbers = [column for column in preprocessing.columns if isinstance(column, Numbers)]
    if numbers:
        flagged = [column.name for column in numbers if column.flag]
        flags = f", with a flag in {named(flagged)}" if flagged else ""
        plain = settings["numeric"] != "standardise" and any(column.kind == "boolean" for column in numbers)
        truth = "; truth values are standardised" if plain else ""
        yield "numbers", f"{settings['numeric']}; gaps become the median{flags}{truth}"
    for how, kind in (("one-hot", OneHot), ("embedding", Embedded)):
        names = [column.name for column in preprocessing.columns if isinstance(column, kind)]
        if names:
            yield how, named(names)
    if settings["categorical"]:
        yield "read as categories", named(settings["categorical"])


def _of_classes(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    smoothing, weights = settings["smoothing"], settings["class_weight"]
    yield "smoothing", f"{smoothing:g}" + (CHANGED if smoothing else "")
    yield "class weights", weights + (CHANGED if weights != "none" else "")


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
