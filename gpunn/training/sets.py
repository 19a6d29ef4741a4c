"""The sets that `fit` trains and is judged on, checked, with weights, folds and held-out parts; nothing is uploaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gpunn.dataframes import arranged
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError, DataError
from gpunn.hyper import choice, number, whole
from gpunn.inputs import as_array
from gpunn.losses import Loss
from gpunn.optimizers import LBFGS
from gpunn.randomness import Purpose, stream_key
from gpunn.training.batches import CheckedExamples, examples
from gpunn.training.streaming import CheckedStream, budget_of, stream
from gpunn.types import Array

log = logging.getLogger("gpunn")


def checked_sets(
    network: Engine, X: Any, y: Any, loss: Loss, options: Any, columns: tuple[str, ...] | None
) -> tuple[CheckedExamples | CheckedStream, CheckedExamples | None]:
    """The set to train on, whole or as a stream, and the one that is held out. `options` is as `fit` has it.

    Tables are brought into the order of `columns`.
    """
    if isinstance(options.validation, (tuple, list)) and options.validation:
        first, *others = options.validation
        options = replace(options, validation=(_arrayed(network, "fit validation X", first, columns), *others))
    X = _arrayed(network, "X", X, columns)
    streamed = _streamed(network, X, y, loss, options)
    if streamed is not None:
        return streamed, _given(network, loss, options)
    return split(network, X, y, loss, options)


def _arrayed(network: Engine, where: str, X: Any, columns: tuple[str, ...] | None) -> Any:
    """X as an array, which has no names any more by which others than these columns would be found."""
    return X if isinstance(X, np.ndarray) else as_array(where, arranged(where, X, columns), network.ops)


def split(network: Engine, X: Any, y: Any, loss: Loss, options: Any) -> tuple[CheckedExamples, CheckedExamples | None]:
    """The training set and the one that is held out: given, a fraction drawn by the first seed, or each fold's own."""
    weight = _weights(network, y, options)
    validation = options.validation
    if options.folds is not None:
        train, held_out = _folds(network, options)
        whole_set = examples(network, "fit", X, y, loss, weight=weight, subsets=train)
        judged_on = examples(network, "fit validation", X, y, loss, weight=weight, subsets=held_out)
        _tell_of_large_differences(whole_set.parts)
        return whole_set, judged_on
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
        rows = len(as_array("X", X, network.ops))
        fraction = number("fit validation", validation, low=0.0, high=1.0, open_low=True, open_high=True)
        count = min(max(1, round(rows * fraction)), rows - 1)
        if count < 1:
            raise DataError(
                "fit validation", expected="at least 2 examples to divide", got=f"{rows}", fix="pass more data"
            )
        rng = np.random.Generator(np.random.Philox(key=stream_key(network.seeds[0], Purpose.SPLIT)))
        order = rng.permutation(rows)
        sets = [
            np.broadcast_to(np.sort(part), (network.models or 1, len(part))) for part in (order[count:], order[:count])
        ]
        kept, left_out = (part if network.models else part[0] for part in sets)
        whole_set = examples(network, "fit", X, y, loss, weight=weight, subsets=kept)
        return whole_set, examples(network, "fit validation", X, y, loss, weight=weight, subsets=left_out)
    return examples(network, "fit", X, y, loss, weight=weight), _given(network, loss, options)


def _given(network: Engine, loss: Loss, options: Any) -> CheckedExamples | None:
    """A validation set of its own."""
    validation = options.validation
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ConfigurationError(
            "fit validation",
            expected="(X, y), (X, y, weight) or a fraction",
            got=type(validation).__name__,
            fix="pass validation=(Xv, yv) or validation=0.2",
        )
    Xv, yv, *rest = validation
    return examples(network, "fit validation", Xv, yv, loss, weight=rest[0] if rest else None)


def _streamed(network: Engine, X: Any, y: Any, loss: Loss, options: Any) -> CheckedStream | None:
    """The training set as a stream, where it takes more memory than it may."""
    memory = None if options.memory is None else whole("fit memory", options.memory)
    if not isinstance(X, np.ndarray) or X.nbytes <= budget_of(network, X, memory):
        return None
    if options.folds is not None or isinstance(options.validation, float) or isinstance(options.optimizer, LBFGS):
        raise ConfigurationError(
            "fit memory",
            expected="validation=(Xv, yv) or none, no folds and no LBFGS for a set that is streamed",
            got=f"{X.nbytes} bytes of X where {int(budget_of(network, X, memory))} are allowed",
            fix="raise memory= so that the set fits, or hold a part of it out yourself",
        )
    budget = budget_of(network, X, memory)
    return stream(network, X, y, loss, _weights(network, y, options), budget)


def _folds(network: Engine, options: Any) -> tuple[list[Any], list[Any]]:
    """Row numbers to train on and to hold out, for each model."""
    folds = list(options.folds) if isinstance(options.folds, Iterable) else []
    if network.models is None:
        raise ConfigurationError(
            "fit folds", expected="a population, of one model for each fold", got="a network of one model",
            fix="make it with models= the number of folds, or train each fold by itself with validation=",
        )  # fmt: skip
    pairs = all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in folds)
    if options.validation is not None or network.models != len(folds) or not pairs:
        raise ConfigurationError(
            "fit folds",
            expected=f"{network.models} pairs (training rows, held-out rows), and no validation=",
            got=f"{len(folds)} of them",
            fix="make the network with models= the number of folds, and pass list(KFold(...).split(X))",
        )
    return [pair[0] for pair in folds], [pair[1] for pair in folds]


def _tell_of_large_differences(parts: tuple[int, ...] | None) -> None:
    """An epoch has as many rows for each model as the shortest part has: say so where that is few of another's."""
    if parts is not None and 2 * min(parts) < max(parts):
        least, most = parts.index(min(parts)), parts.index(max(parts))
        log.warning(
            "folds: model %d has %d rows to train on and model %d has %d: an epoch takes %d for each and goes "
            "through a larger part in several", least, parts[least], most, parts[most], parts[least],
        )  # fmt: skip


def _weights(network: Engine, y: Any, options: Any) -> Array | None:
    """Weights of examples times those of their classes; "balanced" gives every class the same sum."""
    weight = (
        None if options.sample_weight is None else as_array("fit sample_weight", options.sample_weight, network.ops)
    )
    if weight is not None:
        weight = np.asarray(network.ops.to_host(weight) if network.ops.owns(weight) else weight, np.float64)
    if options.class_weight is None:
        return weight
    labels = as_array("y", y, network.ops)
    labels = network.ops.to_host(labels) if network.ops.owns(labels) else labels
    if labels.ndim != 1 and labels.shape[1:] != (1,):
        raise ConfigurationError(
            "fit class_weight",
            expected="y of one class for each example",
            got=f"shape {labels.shape}",
            fix="use sample_weight",
        )
    classes, places, counts = np.unique(labels.reshape(-1), return_inverse=True, return_counts=True)
    if isinstance(options.class_weight, str):
        choice("fit class_weight", options.class_weight, ("balanced",))
        of_class = len(labels) / (len(classes) * counts)
    else:
        if not isinstance(options.class_weight, Mapping):
            raise ConfigurationError(
                "fit class_weight",
                expected='"balanced" or a dict of classes and weights',
                got=repr(options.class_weight),
                fix="pass one of them",
            )
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
    weights = of_class[places]
    if weight is None:
        return weights
    fits = weight.shape in (weights.shape, (*weights.shape, 1))
    return weights * weight.reshape(weights.shape) if fits else weight  # which is refused
