"""What the file of a training holds, and what must be true of it before any of it is taken.

    network/NAME            parameters and state that fit would leave behind now, by name
    run/values, run/state   those that the training goes on with, as flat as they are on the device
    run/best values, ...    the initial ones, while some model has had no best epoch
    run/before 0, 1         what was best before the best
    run/meters              the sums of the epoch so far, a row each
    run/loss scale/NAME     of float16
    run/optimizer/NAME      moments, small state, and count, the number of the next update
    meta network            architecture, loss, step (the random counter), preprocessing, columns
    meta run                the settings of fit, progress (see `Standing`), history (see `History.to_json`)

A number that no training writes is refused as a damaged file is: with its place, what was expected, and what came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from gpunn import loss_scale
from gpunn.rules import (
    Rule,
    anything,
    each,
    items,
    mapping,
    maybe,
    null,
    number,
    record,
    require,
    short,
    text,
    whole,
)  # fmt: skip
from gpunn.training.history import History
from gpunn.training.measures import BAD_STEP, MADE
from gpunn.training.options import Options
from gpunn.training.standing import NOT_FINITE, Standing
from gpunn.training.training import Training
from gpunn.types import Array

Arrays = Mapping[str, Array]
STEPS = 2**64  # values of the random counter
ALWAYS = ("rate", "seconds", "examples_per_second")  # what every training records beside the loss
OPTIMIZER = "run/optimizer/"
COUNT = f"{OPTIMIZER}count"


def check_names(meta: Any, described: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """The names in a file's JSON are those of a network described like this and of its settings."""
    needed = {"architecture": mapping, "loss": mapping, "step": whole(0, STEPS - 1)}
    network = {**dict.fromkeys(described, anything), "preprocessing": maybe(mapping), "columns": anything, **needed}
    of_run = record({**dict.fromkeys(settings, anything), "progress": mapping, "history": text})
    record({"network": record(network, optional=network.keys() - needed), "run": of_run}).check("meta", meta)


# Standing and history


def standing_rules(training: Training, options: Options, epochs: int) -> Rule:
    """What `Standing` must be after so many epochs."""
    models = training.models
    return record({
        "epoch": whole(epochs, epochs),
        "update": whole(0, len(training.source.updates) - 1),
        "done": whole(),
        "seconds": number(0.0),
        "best": each(maybe(number()), models),
        "stopped": each(text, models),
        "criteria": items([record(criterion.rules(models, epochs)) for criterion in options.stopping]),
        "plateau": record(options.plateau.rules(models)) if options.plateau else null,
        "factors": each(number(0.0, 1.0), models),
    })  # fmt: skip


def checked_standing(training: Training, options: Options, data: Any, history: History) -> Standing:
    """Where the training stands, if all of it fits together and to the history."""
    standing_rules(training, options, history.epochs).check("progress", data)
    at = Standing(**data)
    done = at.epoch * len(training.source.updates) + at.update
    require(at.done == done, "progress.done", expected=f"{done}, as epoch and update say", got=str(at.done))
    factors = at.plateau["factor"] if at.plateau else [1.0] * training.models
    require(at.factors == factors, "progress.factors", expected=short(factors), got=short(at.factors))
    seconds = float(history["seconds"].max()) if history.epochs else 0.0
    require(at.seconds >= seconds, "progress.seconds", expected=f"at least {seconds:g}", got=f"{at.seconds:g}")
    for k, epoch in enumerate(_best_epochs(training, history)):
        best = None
        if epoch is not None:
            best = float(history[options.monitor.name].reshape(history.epochs, -1)[epoch - 1, k])
        require(at.best[k] == best, f"progress.best[{k}]", expected=f"{best}, as in the history", got=short(at.best[k]))
    return at


def _best_epochs(training: Training, history: History) -> list[int | None]:
    """Of each model; none before the first epoch."""
    best = history.best_epoch if history.population else [history.best_epoch]
    return best if history.epochs else [None] * training.models


def recorded(training: Training, options: Options) -> set[str]:
    """The names of what this training measures in each epoch."""
    skips = {"skipped"} if training.network.loss_scale is not None else set()
    return {*options.measured, *ALWAYS} | skips


def checked_history(training: Training, options: Options, written: str) -> History:
    """The history of a training like this one, which goes on."""
    history, population = History.from_json(written), training.network.models is not None
    require(
        history.population == population, "history.population", expected=short(population), got=short(not population)
    )
    names = recorded(training, options) if history.epochs else set()
    require(
        set(history.names) == names, "history.values", expected=", ".join(sorted(names)) or "no columns",
        got=", ".join(history.names) or "none",
    )  # fmt: skip
    require(not history.stopped, "history.stopped", expected="a training that goes on", got=short(history.stopped))
    marked = len(_best_epochs(training, history))
    require(marked == training.models, "history.best", expected=f"{training.models} epochs", got=f"{marked}")
    for name in ALWAYS if history.epochs else ():
        fits = (np.isfinite(history[name]) & (history[name] >= 0.0)).all()
        got = short(history[name].tolist())
        require(fits, f"history.values.{name}", expected="finite numbers >= 0", got=got)
    return history


# Arrays


@dataclass(frozen=True)
class Numbers:
    """What each number must be of all arrays of some name, for some of the models."""

    names: str  # with * for any end
    models: str  # see `_models`
    expected: str
    holds: Callable[[Array], Array]


def _is_scale(x: Array) -> Array:
    return (np.frexp(x)[0] == 0.5) & (x >= loss_scale.SMALLEST) & (x <= loss_scale.LARGEST)


def _is_streak(x: Array) -> Array:
    return (x == np.floor(x)) & (x >= 0.0) & (x < loss_scale.PATIENCE)


# Not of state: a variance of large numbers may be infinite there, and NaN an epoch later, while the loss is finite.
NUMBERS = (
    Numbers("network/*", "kept", "finite numbers", np.isfinite),
    Numbers("run/best *", "all", "finite numbers", np.isfinite),
    Numbers("run/before *", "all", "finite numbers", np.isfinite),
    Numbers("run/values", "going", "finite numbers", np.isfinite),
    Numbers("run/optimizer/*", "going", "no NaN", lambda x: ~np.isnan(x)),
    Numbers("run/loss scale/scale", "all", "powers of 2 that a loss is scaled by", _is_scale),
    Numbers("run/loss scale/streak", "all", "whole numbers of updates", _is_streak),
)


def _models(options: Options, at: Standing) -> dict[str, Array]:
    """Models by what is known of them, as K truth values: all, those that go on with finite numbers, and those whose
    kept weights are in the file.

    Those that diverge hold NaN and infinity, and only their best weights do not; within an epoch that is known of none.
    Of those that keep="last" leaves as they are, even a diverged one goes into the file.
    """
    diverged = np.array([why.startswith(NOT_FINITE) for why in at.stopped])
    every = np.ones(len(at.stopped), bool)
    return {
        "all": every,
        "going": at.going & (at.update == 0),
        "kept": every if options.keep == "best" else ~at.going & ~diverged,
    }


def check_arrays(training: Training, options: Options, at: Standing, wanted: Arrays, arrays: Arrays) -> None:
    """Every array is there, as it should be, and no other; and its numbers are such as training leaves."""
    for name in sorted(arrays.keys() - wanted.keys()):
        require(False, name, expected="no such array", got="one")
    for name, array in wanted.items():
        like, found = f"{array.dtype} of shape {tuple(array.shape)}", arrays.get(name)
        got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
        require(got == like, name, expected=like, got=got)
    models = _models(options, at)
    states = {"run/state", "run/best state", "run/before 1", *(f"network/{name}" for name in training.network.state)}
    for name in sorted(arrays.keys() - states - {COUNT}):
        for rule in (rule for rule in NUMBERS if fnmatchcase(name, rule.names)):
            numbers = arrays[name].reshape(training.models, -1)[models[rule.models]]
            wrong = numbers[~rule.holds(numbers)]
            require(not wrong.size, name, expected=rule.expected, got=f"{wrong[0]:g}" if wrong.size else "")
    _check_padding(training, models, arrays)
    _check_meters(training, at, arrays["run/meters"])
    _check_count(training, at, arrays[COUNT])
    if models["going"].any():
        kept = {name.removeprefix(OPTIMIZER): array for name, array in arrays.items() if name.startswith(OPTIMIZER)}
        options.optimizer.check_state(kept, at.done)


def _check_padding(training: Training, models: Mapping[str, Array], arrays: Arrays) -> None:
    """Between two parameters there are zeros, which all that looks at the whole buffer counts on."""
    store = training.network.store
    for kind, places in (("values", store.places), ("state", store.state_places)):
        for name, known in ((f"run/{kind}", "going"), (f"run/best {kind}", "all")):
            if name in arrays:
                padding = np.ones(arrays[name].shape[-1], bool)
                for place in places.values():
                    padding[place] = False
                between = arrays[name].reshape(training.models, -1)[models[known]][:, padding]
                require(not between.any(), name, expected="0 between two parameters", got="another number")


def _check_meters(training: Training, at: Standing, table: Array) -> None:
    """The sums of an epoch that goes on; what it leaves behind nobody reads."""
    rows = dict(zip(training.step.measures.meters.names, table))
    updates = at.update or len(training.source.updates)
    bad, made = rows[BAD_STEP], rows.get(MADE, np.zeros(1))
    for row, low, high in ((bad, -1, updates - 1), (made, 0, updates)):
        fits = (row == np.floor(row)) & (row >= low) & (row <= high)
        require(fits.all(), "run/meters", expected=f"whole numbers from {low} to {high}", got=short(row.tolist()))
    going = (bad < 0) & (at.update > 0)
    for name in rows.keys() & {"loss", *training.step.measures.metrics}:
        sums = rows[name][going]
        fits = ~np.isnan(sums) if name != "loss" else np.isfinite(sums)
        require(fits.all(), "run/meters", expected=f"numbers for {name}", got=short(sums.tolist()))


def _check_count(training: Training, at: Standing, count: Array) -> None:
    """The number of the next update; with a loss scale, of each model, of those that were not skipped."""
    skips = training.network.loss_scale is not None
    fits = (count == np.floor(count)) & (count >= (1 if skips else at.done + 1)) & (count <= at.done + 1)
    told = f"whole numbers from 1 to {at.done + 1}" if skips else f"{at.done + 1}, one more than there were"
    require(fits.all(), COUNT, expected=told, got=short(count.reshape(-1).tolist()))
