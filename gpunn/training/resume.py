"""A training in a file: the network with its best weights, and all that a resumed training needs to go on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpunn import archive
from gpunn.dataframes import stored_columns
from gpunn.errors import CheckpointError, GpunnError
from gpunn.rules import short
from gpunn.training.history import History
from gpunn.training.options import Options
from gpunn.training.saved import check_arrays, check_names, checked_history, checked_standing
from gpunn.training.standing import Standing
from gpunn.training.training import Training
from gpunn.types import Array
from gpunn.value import to_json


def network_parts(network: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """A network for `archive.write`: copies of its arrays under "network/", and meta for the key "network"."""
    views = {**network.parameters, **network.state}
    arrays = {f"network/{name}": network.ops.to_host(view) for name, view in views.items()}
    try:
        architecture = json.loads(network.to_json())
    except TypeError as error:
        raise CheckpointError(
            "network",
            expected="layers whose fields are numbers, text, layers and lists of them",
            got=str(error),
            fix="keep arrays and functions out of a layer's fields",
        ) from error
    meta = {
        "architecture": architecture,
        "loss": to_json(network.loss),
        "step": int(network.ops.to_host(network.step)[0]),
    }
    if network.preprocessing is not None:
        meta["preprocessing"] = to_json(network.preprocessing)
    if network.columns is not None:
        meta["columns"] = list(network.columns)
    return arrays, meta


def saver(options: Options) -> Callable[[Training], None]:
    """The function that a training calls to write its checkpoint."""

    def save(training: Training) -> None:
        arrays, meta = network_parts(training.network)
        host = training.network.ops.to_host
        arrays |= _named(training)
        arrays |= {f"run/{name}": host(array) for name, array in _changing(training, training.standing).items()}
        state = {"progress": asdict(training.standing), "history": training.history.to_json()}
        archive.write(options.checkpoint, arrays, {"network": meta, "run": {**_settings(training, options), **state}})

    return save


@dataclass(frozen=True, eq=False)
class SavedTraining:
    """What a file of `saver` holds, and the names of the table's columns; None if the training had no table."""

    path: Any
    arrays: Mapping[str, Array]
    meta: Mapping[str, Any]
    columns: tuple[str, ...] | None


def read_training(path: Any) -> SavedTraining:
    """The training in a file. So far only the names of columns are checked: data must be put in their order first."""
    arrays, meta = archive.read(path)
    if "run" not in meta:
        raise CheckpointError(
            str(path),
            expected="a checkpoint of a training",
            got="a saved network",
            fix="load it with gn.load and fit it",
        )
    with _errors_of(path):
        network = _object(meta, "network")
        columns = stored_columns(network.get("columns"), _object(network, "architecture").get("inputs"))
    return SavedTraining(path, arrays, meta, columns)


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a file's JSON; an empty one if there is none, for which `_checked` then raises the error."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}


@contextmanager
def _errors_of(path: Any) -> Iterator[None]:
    """Errors in this block name the file."""
    try:
        yield
    except GpunnError as error:
        raise CheckpointError(
            f"{path}: {error.where}", expected=error.expected, got=error.got, fix=error.fix
        ) from error


def resume(saved: SavedTraining, training: Training, options: Options) -> None:
    """Bring a training to where the file's ended. Nothing is changed unless everything fits (see `saved`)."""
    arrays, meta = saved.arrays, saved.meta
    with _errors_of(saved.path):
        standing, history = _checked(training, options, arrays, meta)
    network, host = training.network, {name.removeprefix("run/"): array for name, array in arrays.items()}
    network.load_parameters({n.removeprefix("network/"): a for n, a in arrays.items() if n.startswith("network/")})
    training.judge.best.take(np.ones(training.models, bool))  # the file's network is the best one
    for name, array in _changing(training, standing).items():
        network.ops.copy(network.ops.from_host(host[name]), out=array)
    step = np.array([meta["network"]["step"]], np.uint64)
    network.ops.copy(network.ops.from_host(step), out=network.step)
    training.standing, training.history = standing, history


def _checked(
    training: Training, options: Options, arrays: Mapping[str, Array], meta: Mapping[str, Any]
) -> tuple[Standing, History]:
    """The standing and history of the file; raise an error unless this training may go on from there."""
    settings, described = _settings(training, options), network_parts(training.network)[1]
    check_names(meta, described, settings)
    theirs = {**meta["run"], "architecture": meta["network"]["architecture"], "network loss": meta["network"]["loss"]}
    ours = {"architecture": described["architecture"], **settings, "network loss": settings["loss"]}
    for name, value in ours.items():
        here, there = json.loads(json.dumps(value)), theirs[name]
        if there != here:
            where, here, there = _difference(name, here, there)
            raise CheckpointError(
                where, expected=short(here), got=short(there),
                fix="resume with the network, data and settings that the file was written with",
            )  # fmt: skip
    history = checked_history(training, options, meta["run"]["history"])
    standing = checked_standing(training, options, meta["run"]["progress"], history)
    views = {**training.network.parameters, **training.network.state}
    wanted = {f"network/{name}": view for name, view in views.items()}
    wanted |= {f"run/{name}": array for name, array in _changing(training, standing).items()}
    check_arrays(training, options, standing, wanted, arrays)
    return standing, history


def _changing(training: Training, standing: Standing) -> dict[str, Array]:
    """The arrays that training changes; and the best weights, while some model has had no best epoch."""
    return _arrays(training) | (training.judge.best.arrays() if None in standing.best else {})


def _arrays(training: Training) -> dict[str, Array]:
    """The arrays that training changes, not copies."""
    store, step, loss_scale = training.network.store, training.step, training.network.loss_scale
    arrays = {"values": store.values, "state": store.state, "meters": step.measures.meters.table}
    arrays |= {f"before {i}": buffer for i, buffer in enumerate(training.judge.best.before)}
    if loss_scale is not None:
        arrays |= {f"loss scale/{name}": array for name, array in loss_scale.state().items()}
    return arrays | {f"optimizer/{name}": array for name, array in step.frame.state().items()}


def _named(training: Training) -> dict[str, Array]:
    """The parameters and state that `fit` would leave behind now, by name: the best ones, or else the present ones."""
    store, best = training.network.store, training.judge.best.arrays()
    host = training.network.ops.to_host
    none = ~training.judge.to_restore(training.standing)
    named = {}
    for kind, current, places, shapes in (
        ("best values", store.values, store.places, {n: p.shape for n, p in store.parameters.items()}),
        ("best state", store.state, store.state_places, {n: s.shape for n, s in store.state_values.items()}),
    ):
        if not current.size:
            continue
        now = host(current)
        flat = host(best[kind]) if kind in best else now
        if store.models is None:
            flat = now if none[0] else flat
        else:
            flat[none] = now[none]
        for name, place in places.items():
            named[f"network/{name}"] = flat[..., place].reshape(*flat.shape[:-1], *shapes[name])
    return named


def _settings(training: Training, options: Options) -> dict[str, Any]:
    """The settings that must be the same when a training is resumed."""
    return {
        "recipe": {name: getattr(options, name) for name in ("batch_size", "sampling", "accumulate", "drop_last")},
        "optimizer": _json(options.optimizer),
        "loss": to_json(options.loss),
        "metrics": list(options.metrics_by_row),
        "examples": training.source.size,
        "regularization": [to_json(frame.regularization) for frame in training.step.constraints.frames],
        "stopping": [to_json(criterion) for criterion in options.stopping],
        "plateau": to_json(options.plateau),
        "monitor": asdict(options.monitor),
        "keep": options.keep,
    }


def _json(value: Any) -> Any:
    """A value as JSON; what JSON cannot hold, such as a function, becomes its name."""
    data = to_json(value)
    return json.loads(json.dumps(data, default=lambda other: getattr(other, "__qualname__", type(other).__qualname__)))


def _difference(where: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """Where two JSON values first differ, and what each has there."""
    while True:  # not recursive: networks may be nested deeply
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
            parts = [(f"{where} {key}", ours[key], theirs[key]) for key in ours]
        elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
            parts = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(ours, theirs))]
        else:
            return where, ours, theirs
        where, ours, theirs = next(part for part in parts if part[1] != part[2])
