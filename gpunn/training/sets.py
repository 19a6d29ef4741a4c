"""The training and the validation set of `fit`, with weights and folds; nothing is uploaded yet.

The user's data are converted and checked here, once; rows are then chosen from the checked data.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.dataframes import arranged
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError, DataError
from gpunn.hyper import number
from gpunn.inputs import Checked, as_array
from gpunn.optimizers import LBFGS
from gpunn.randomness import Purpose, stream_key
from gpunn.training.batches import CheckedExamples, examples_of, weights_on_host
from gpunn.training.options import Options
from gpunn.training.streaming import CheckedStream, budget_of, stream
from gpunn.types import Array

log = logging.getLogger("gpunn")
Columns = tuple[str, ...] | None  # the names of a table's columns, in order


@dataclass(frozen=True)
class Sets:
    """The training set, whole or as a stream, and the validation set."""

    train: CheckedExamples | CheckedStream
    held_out: CheckedExamples | None


def checked_sets(network: Engine, X: Any, y: Any, options: Options, columns: Columns) -> Sets:
    """The sets of a training; tables are brought into the order of `columns`."""
    budget = budget_of(network, X, options.memory)
    if not _exceeds(X, budget):  # a larger X is converted chunk by chunk
        X = _array(network, "X", X, columns)
    if _exceeds(X, budget):
        return Sets(_streamed(network, X, y, options, budget), _given(network, options, columns))
    whole = examples_of(network, "fit", X, y, options.loss)
    whole = whole.weighted("fit", _weights(network, whole.y, options), network)
    if options.folds is not None:
        train, held_out = _folds(network, options.folds, options.validation)
        return _divided(network, whole, train, held_out)
    if isinstance(options.validation, float):
        return _divided(network, whole, *_drawn(network, whole.size, options.validation))
    return Sets(whole, _given(network, options, columns))


def _array(network: Engine, where: str, X: Any, columns: Columns) -> Array:
    """X as an array; a table gives these columns, in this order."""
    return as_array(where, arranged(where, X, columns), network.ops)


def _exceeds(X: Any, budget: float) -> bool:
    return isinstance(X, np.ndarray) and X.nbytes > budget


def _streamed(network: Engine, X: Array, y: Any, options: Options, budget: float) -> CheckedStream:
    """The training set as a stream, because it is larger than the budget."""
    if options.folds is not None or isinstance(options.validation, float) or isinstance(options.optimizer, LBFGS):
        raise ConfigurationError(
            "fit memory",
            expected="validation=(Xv, yv) or none, no folds and no LBFGS for a set that is streamed",
            got=f"{X.nbytes} bytes of X where {int(budget)} are allowed",
            fix="raise memory= so that the set fits, or hold a part of it out yourself",
        )
    checked = stream(network, X, y, options.loss, budget)
    return checked.weighted("fit", _weights(network, checked.y, options), network)


def _divided(network: Engine, whole: CheckedExamples, train: Any, held_out: Any) -> Sets:
    """The sets of these rows: those to train on, and those that are held out."""
    chosen = whole.of_rows("fit", train, network)
    _warn_of_large_differences(chosen.lengths)
    return Sets(chosen, whole.of_rows("fit validation", held_out, network))


def _drawn(network: Engine, rows: int, fraction: float) -> tuple[Array, Array]:
    """Row numbers to train on and to hold out, for each model; the first seed draws them, the same for all models."""
    count = min(max(1, round(rows * fraction)), rows - 1)
    if count < 1:
        raise DataError("fit validation", expected="at least 2 examples to divide", got=f"{rows}", fix="pass more data")
    rng = np.random.Generator(np.random.Philox(key=stream_key(network.seeds[0], Purpose.SPLIT)))
    order = rng.permutation(rows)
    kept, left_out = (
        np.broadcast_to(np.sort(drawn), (*network.model_axes, len(drawn))) for drawn in (order[count:], order[:count])
    )
    return kept, left_out


def _given(network: Engine, options: Options, columns: Columns) -> CheckedExamples | None:
    """The validation set that was passed as arrays, if any."""
    if not isinstance(options.validation, tuple):
        return None
    where = "fit validation"
    X, y, *rest = options.validation
    return examples_of(
        network, where, _array(network, f"{where} X", X, columns), y, options.loss, weight=rest[0] if rest else None
    )  # fmt: skip


def _folds(network: Engine, folds: tuple[Any, ...], validation: Any) -> tuple[list[Any], list[Any]]:
    """Row numbers to train on and to hold out, for each model."""
    if network.models is None:
        raise ConfigurationError(
            "fit folds", expected="a population, of one model for each fold", got="a network of one model",
            fix="make it with models= the number of folds, or train each fold by itself with validation=",
        )  # fmt: skip
    pairs = all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in folds)
    if validation is not None or network.models != len(folds) or not pairs:
        raise ConfigurationError(
            "fit folds",
            expected=f"{network.models} pairs (training rows, held-out rows), and no validation=",
            got=f"{len(folds)} of them",
            fix="make the network with models= the number of folds, and pass list(KFold(...).split(X))",
        )
    return [pair[0] for pair in folds], [pair[1] for pair in folds]


def _warn_of_large_differences(lengths: tuple[int, ...] | None) -> None:
    """Warn if folds differ much: an epoch has as many rows for every model as the smallest fold has."""
    if lengths is not None and 2 * min(lengths) < max(lengths):
        least, most = lengths.index(min(lengths)), lengths.index(max(lengths))
        log.warning(
            "folds: model %d has %d rows to train on and model %d has %d: an epoch takes %d for each and goes "
            "through a larger part in several", least, lengths[least], most, lengths[most], lengths[least],
        )  # fmt: skip


def _weights(network: Engine, target: Checked, options: Options) -> Array | None:
    """Weights of examples times weights of their classes; "balanced" gives every class the same total weight."""
    given = options.sample_weight
    weight = None if given is None else weights_on_host("fit", given, network)
    if options.class_weight is None:
        return weight
    labels = target.given(network.ops)
    if labels.ndim != 1 and labels.shape[1:] != (1,):
        raise ConfigurationError(
            "fit class_weight",
            expected="y of one class for each example",
            got=f"shape {labels.shape}",
            fix="use sample_weight",
        )
    classes, numbers, counts = np.unique(labels.reshape(-1), return_inverse=True, return_counts=True)
    if isinstance(options.class_weight, str):  # "balanced"
        of_class = len(labels) / (len(classes) * counts)
    else:
        known = dict(options.class_weight)
        strangers = set(known) - set(classes.tolist())
        if strangers:
            raise ConfigurationError(
                "fit class_weight",
                expected=f"weights of {', '.join(map(str, classes))}",
                got=f"one of {strangers.pop()!r} too",
                fix="name classes of y",
            )
        of_class = np.array([number(f"fit class_weight[{c}]", known.get(c, 1.0), low=0.0) for c in classes.tolist()])
    of_row = of_class[numbers]
    if weight is None:
        return of_row
    fits = weight.shape in (of_row.shape, (*of_row.shape, 1))
    return of_row * weight.reshape(of_row.shape) if fits else weight  # `weighted` then raises the error
