"""What the file of a training holds, and the checks of it before any of it is used.

    network/NAME            parameters and state that fit would leave behind now, by name
    run/values, run/state   the present ones, with which training goes on: flat, as on the device
    run/best values, ...    the best ones, flat; only while some model has had no best epoch
    run/before 0, 1         the best ones before the best
    run/meters              the sums of the epoch so far, one row each
    run/loss scale/NAME     for float16 only
    run/optimizer/NAME      moments, small state, and count: the number of the next update
    meta network            architecture, loss, step (the random counter), preprocessing, columns
    meta run                the settings of fit, progress (see `Standing`), history (see `History.to_json`)

A number that no training writes is an error, as a damaged file is: it names the place, and what was expected there.
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
ALWAYS = ("rate", "seconds", "examples_per_second")  # what every training records besides the loss
OPTIMIZER = "run/optimizer/"
COUNT = f"{OPTIMIZER}count"


def check_names(meta: Any, described: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise an error unless the file's JSON has the names of this network's description and settings."""
    needed = {"architecture": mapping, "loss": mapping, "step": whole(0, STEPS - 1)}
    network = {**dict.fromkeys(described, anything), "preprocessing": maybe(mapping), "columns": anything, **needed}
    of_run = record({**dict.fromkeys(settings, anything), "progress": mapping, "history": text})
    record({"network": record(network, optional=network.keys() - needed), "run": of_run}).check("meta", meta)


# Standing and history


def standing_rules(training: Training, options: Options, epochs: int) -> Rule:
    """The rule of a `Standing` after so many epochs."""
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
    """The standing in a file; raise an error unless its parts fit together and fit the history."""
    standing_rules(training, options, history.epochs).check("progress", data)
    standing = Standing(**data)
    done = standing.epoch * len(training.source.updates) + standing.update
    require(standing.done == done, "progress.done", expected=f"{done}, as epoch and update say", got=str(standing.done))
    factors = standing.plateau["factor"] if standing.plateau else [1.0] * training.models
    require(standing.factors == factors, "progress.factors", expected=short(factors), got=short(standing.factors))
    seconds = float(history["seconds"].max()) if history.epochs else 0.0
    require(
        standing.seconds >= seconds, "progress.seconds", expected=f"at least {seconds:g}", got=f"{standing.seconds:g}"
    )
    for k, epoch in enumerate(_best_epochs(training, history)):
        best = None
        if epoch is not None:
            best = float(history[options.monitor.name].reshape(history.epochs, -1)[epoch - 1, k])
        require(
            standing.best[k] == best,
            f"progress.best[{k}]",
            expected=f"{best}, as in the history",
            got=short(standing.best[k]),
        )
    return standing


def _best_epochs(training: Training, history: History) -> list[int | None]:
    """The best epoch of each model, or None."""
    best = history.best_epoch if history.population else [history.best_epoch]
    return best if history.epochs else [None] * training.models


def recorded(training: Training, options: Options) -> set[str]:
    """The names of what this training measures in each epoch."""
    skips = {"skipped"} if training.network.loss_scale is not None else set()
    return {*options.measured, *ALWAYS} | skips


def checked_history(training: Training, options: Options, written: str) -> History:
    """The history in a file; raise an error unless it may be one of this training, not ended."""
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
    """A rule for every number in the arrays of some names, for some of the models."""

    names: str  # * stands for anything
    models: str  # a key of `_models`
    expected: str
    holds: Callable[[Array], Array]


def _is_scale(x: Array) -> Array:
    return (np.frexp(x)[0] == 0.5) & (x >= loss_scale.SMALLEST) & (x <= loss_scale.LARGEST)


def _is_streak(x: Array) -> Array:
    return (x == np.floor(x)) & (x >= 0.0) & (x < loss_scale.PATIENCE)


# State has no rule: its variance of large numbers may be infinite, and NaN an epoch later, while the loss is finite.
NUMBERS = (
    Numbers("network/*", "kept", "finite numbers", np.isfinite),
    Numbers("run/best *", "all", "finite numbers", np.isfinite),
    Numbers("run/before *", "all", "finite numbers", np.isfinite),
    Numbers("run/values", "going", "finite numbers", np.isfinite),
    Numbers("run/optimizer/*", "going", "no NaN", lambda x: ~np.isnan(x)),
    Numbers("run/loss scale/scale", "all", "powers of 2 that a loss is scaled by", _is_scale),
    Numbers("run/loss scale/streak", "all", "whole numbers of updates", _is_streak),
)


def _models(options: Options, standing: Standing) -> dict[str, Array]:
    """Groups of models, as K truth values: all; "going", which surely have finite numbers; "kept", which have finite
    weights under network/.

    A diverged model holds NaN and infinity, except in its best weights; within an epoch nobody knows which have
    diverged. With keep="last" the weights of a diverged model are in the file as they are.
    """
    diverged = np.array([why.startswith(NOT_FINITE) for why in standing.stopped])
    every = np.ones(len(standing.stopped), bool)
    return {
        "all": every,
        "going": standing.going & (standing.update == 0),
        "kept": every if options.keep == "best" else ~standing.going & ~diverged,
    }


def check_arrays(training: Training, options: Options, standing: Standing, wanted: Arrays, arrays: Arrays) -> None:
    """Raise an error unless the file has exactly the wanted arrays, with numbers that a training may have."""
    for name in sorted(arrays.keys() - wanted.keys()):
        require(False, name, expected="no such array", got="one")
    for name, array in wanted.items():
        like, found = f"{array.dtype} of shape {tuple(array.shape)}", arrays.get(name)
        got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
        require(got == like, name, expected=like, got=got)
    models = _models(options, standing)
    states = {"run/state", "run/best state", "run/before 1", *(f"network/{name}" for name in training.network.state)}
    for name in sorted(arrays.keys() - states - {COUNT}):
        for rule in (rule for rule in NUMBERS if fnmatchcase(name, rule.names)):
            numbers = arrays[name].reshape(training.models, -1)[models[rule.models]]
            wrong = numbers[~rule.holds(numbers)]
            require(not wrong.size, name, expected=rule.expected, got=f"{wrong[0]:g}" if wrong.size else "")
    _check_padding(training, models, arrays)
    _check_meters(training, standing, arrays["run/meters"])
    _check_count(training, standing, arrays[COUNT])
    if models["going"].any():
        kept = {name.removeprefix(OPTIMIZER): array for name, array in arrays.items() if name.startswith(OPTIMIZER)}
        options.optimizer.check_state(kept, standing.done)


def _check_padding(training: Training, models: Mapping[str, Array], arrays: Arrays) -> None:
    """Raise an error unless the padding between parameters is 0; sums over the whole buffer rely on it."""
    store = training.network.store
    for kind, places in (("values", store.places), ("state", store.state_places)):
        for name, known in ((f"run/{kind}", "going"), (f"run/best {kind}", "all")):
            if name in arrays:
                padding = np.ones(arrays[name].shape[-1], bool)
                for place in places.values():
                    padding[place] = False
                between = arrays[name].reshape(training.models, -1)[models[known]][:, padding]
                require(not between.any(), name, expected="0 between two parameters", got="another number")


def _check_meters(training: Training, standing: Standing, table: Array) -> None:
    """Check the sums of an unfinished epoch; after an epoch nobody reads them."""
    rows = dict(zip(training.step.measures.meters.names, table))
    updates = standing.update or len(training.source.updates)
    bad, made = rows[BAD_STEP], rows.get(MADE, np.zeros(1))
    for row, low, high in ((bad, -1, updates - 1), (made, 0, updates)):
        fits = (row == np.floor(row)) & (row >= low) & (row <= high)
        require(fits.all(), "run/meters", expected=f"whole numbers from {low} to {high}", got=short(row.tolist()))
    going = (bad < 0) & (standing.update > 0)
    for name in rows.keys() & {"loss", *training.step.measures.metrics}:
        sums = rows[name][going]
        fits = ~np.isnan(sums) if name != "loss" else np.isfinite(sums)
        require(fits.all(), "run/meters", expected=f"numbers for {name}", got=short(sums.tolist()))


def _check_count(training: Training, standing: Standing, count: Array) -> None:
    """Check the number of the next update; with a loss scale each model has one, which skipped updates do not raise."""
    skips = training.network.loss_scale is not None
    fits = (count == np.floor(count)) & (count >= (1 if skips else standing.done + 1)) & (count <= standing.done + 1)
    told = f"whole numbers from 1 to {standing.done + 1}" if skips else f"{standing.done + 1}, one more than there were"
    require(fits.all(), COUNT, expected=told, got=short(count.reshape(-1).tolist()))
