"""From the arguments of `fit` to a training that can run; everything is refused here that can be refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn import metrics as scores
from gpunn import schedules
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError, DataError
from gpunn.hyper import choice, number, whole
from gpunn.inputs import as_array
from gpunn.losses import Loss, checked_loss
from gpunn.optimizers import LBFGS, Optimizer
from gpunn.randomness import Purpose, stream_key
from gpunn.regularization import Constraints
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.batches import Examples, examples
from gpunn.training.callbacks import as_callbacks
from gpunn.training.evaluation import Evaluator
from gpunn.training.history import History
from gpunn.training.loop import Plan, Run
from gpunn.training.progress import Progress
from gpunn.training.resume import resume, saver
from gpunn.training.step import FullBatchTrainer, Recipe, Trainer
from gpunn.training.stopping import EarlyStopping, GradientTolerance, as_criteria, improvement, monitored
from gpunn.training.streaming import Stream, StreamTrainer, budget_of, stream
from gpunn.types import Array


@dataclass(frozen=True)
class Options:
    """The arguments of `Network.fit` beside the data; they are described there."""

    loss: Loss
    optimizer: Optimizer
    epochs: int | None
    steps: int | None
    batch_size: int
    validation: Any
    folds: Any
    metrics: Any
    stopping: Any
    callbacks: Any
    sampling: str
    sample_weight: Any
    class_weight: Any
    regularization: Any
    clip_norm: Any
    clip_value: Any
    accumulate: int
    drop_last: bool
    plateau: ReduceOnPlateau | None
    keep: str
    checkpoint: Any
    every: int
    every_steps: int | None
    resume: Any
    deterministic: bool
    memory: int | None
    progress: bool | None


def prepare(network: Engine, X: Any, y: Any, options: Options) -> Run:
    """Check everything and make the arrays of every step."""
    loss = checked_loss("fit loss", options.loss)
    optimizer = checked_optimizer(options.optimizer)
    check_rates(optimizer, 1, network)
    recipe = _recipe(options)
    metrics = scores.resolve(options.metrics)
    stopping, callbacks = as_criteria(options.stopping), as_callbacks(options.callbacks)
    streamed = _streamed(network, X, y, loss, options)
    data, held_out = (
        split(network, X, y, loss, options) if streamed is None else (streamed, _given(network, loss, options))
    )
    for name, metric in metrics.items():
        for given in (data, held_out):
            if given is not None:
                metric.check(name, given.y, len(network.outputs), network.dtype)
    validation = None if held_out is None else Evaluator(network, held_out, loss, metrics, network.chunk(None))
    measured = ["loss", *metrics, *(f"validation_{n}" for n in ("loss", *metrics) if validation), "seconds"]
    measure_gradient = any(isinstance(criterion, GradientTolerance) for criterion in stopping)
    measured += ["gradient_norm"] * measure_gradient
    for criterion in stopping:
        criterion.check(measured)
    kind = StreamTrainer if streamed is not None else FullBatchTrainer if isinstance(optimizer, LBFGS) else Trainer
    trainer = kind(
        network,
        data,  # type: ignore[arg-type]  # of the kind that this trainer takes
        loss,
        optimizer,
        recipe,
        constraints=_constraints(network, options),
        metrics=metrics,
        measure_gradient=measure_gradient,
    )
    if validation is not None:
        trainer.meters.join(validation.meters)
    total, epochs = _length(options, len(trainer.updates))
    check_rates(optimizer, total, network)
    callbacks = (*callbacks, Progress(options.progress, epochs=epochs))
    trainer.probes = [probe for callback in callbacks if (probe := callback.probe(trainer.last_pass)) is not None]
    plan = Plan(
        total=total,
        validation=validation,
        stopping=stopping,
        callbacks=callbacks,
        monitor=_monitor(stopping, measured),
        keep_best=options.keep == "best",
        plateau=options.plateau,
        save=None if options.checkpoint is None else saver(options.checkpoint),
        every=whole("fit every", options.every),
        every_steps=None if options.every_steps is None else whole("fit every_steps", options.every_steps),
    )
    return Run(network, trainer, plan)


def _recipe(options: Options) -> Recipe:
    choice("fit keep", options.keep, ("best", "last"))
    if not (options.plateau is None or isinstance(options.plateau, ReduceOnPlateau)):
        raise ConfigurationError(
            "fit plateau",
            expected="gn.schedules.ReduceOnPlateau(...)",
            got=repr(options.plateau),
            fix="make one, or leave it out",
        )
    return Recipe(
        whole("fit batch_size", options.batch_size),
        options.sampling,
        whole("fit accumulate", options.accumulate),
        choice("fit drop_last", options.drop_last, (True, False)),
    )


def _constraints(network: Engine, options: Options) -> Constraints:
    clips = {"clip_norm": options.clip_norm, "clip_value": options.clip_value}
    return Constraints(network.ops, network.store, options.regularization, **clips)


def fit(network: Engine, X: Any, y: Any, options: Options) -> History:
    """Train."""
    if choice("fit deterministic", options.deterministic, (True, False)):
        network.ops.require_deterministic()
    run = prepare(network, X, y, options)
    if options.resume is not None:
        resume(options.resume, run)
    network.loss = run.trainer.loss
    return run.go()


def checked_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer itself; refuses whatever is none."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            "fit optimizer",
            expected="an optimizer such as gn.Adam(1e-3)",
            got=repr(optimizer),
            fix="make one, with its parentheses" if isinstance(optimizer, type) else "pass one of gpunn's optimizers",
        )
    return optimizer


def check_rates(optimizer: Optimizer, total: int, network: Engine) -> None:
    """A schedule that ends before the training does, or leaves the dtype's range, is refused before the first step."""
    if isinstance(optimizer.rate, tuple) and len(optimizer.rate) != network.models:
        return  # which the optimizer's frame says of all its numbers
    for step in (0, total - 1):
        rates = schedules.table(optimizer.rate, step, 1, network.models)
        if rates.max() > np.finfo(network.dtype).max:
            raise ConfigurationError(
                f"{type(optimizer).__name__} rate",
                expected=f"a {network.dtype.name} number",
                got=f"{rates.max():g} at step {step}",
                fix="choose a smaller one",
            )


def _length(options: Options, updates: int) -> tuple[int, int]:
    """Updates and epochs of the training."""
    if options.epochs is not None and options.steps is not None:
        raise ConfigurationError(
            "fit", expected="epochs= or steps=", got="both", fix="leave one out: an epoch is one pass over the data"
        )
    if options.steps is not None:
        steps = whole("fit steps", options.steps)
        return steps, math.ceil(steps / updates)
    epochs = 20 if options.epochs is None else whole("fit epochs", options.epochs)
    return epochs * updates, epochs


def _monitor(stopping: Sequence[Any], measured: Sequence[str]) -> Any:
    """What decides which weights are the best: what EarlyStopping watches, else the (validation) loss."""
    early = next((criterion for criterion in stopping if isinstance(criterion, EarlyStopping)), None)
    if early is None:
        return improvement(monitored(measured))
    return improvement(early.monitored(measured), early.mode)


def split(network: Engine, X: Any, y: Any, loss: Loss, options: Options) -> tuple[Examples, Examples | None]:
    """The training set and the one that is held out: given, a fraction drawn by the first seed, or each fold's own."""
    weight = _weights(network, y, options)
    validation = options.validation
    if options.folds is not None:
        train, held_out = _folds(network, options)
        whole_set = examples(network, "fit", X, y, loss, weight=weight, subsets=train)
        return whole_set, examples(network, "fit validation", X, y, loss, weight=weight, subsets=held_out)
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


def _given(network: Engine, loss: Loss, options: Options) -> Examples | None:
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


def _streamed(network: Engine, X: Any, y: Any, loss: Loss, options: Options) -> Stream | None:
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
    return stream(network, X, y, loss, _weights(network, y, options), options.batch_size, budget)


def _folds(network: Engine, options: Options) -> tuple[list[Any], list[Any]]:
    """Row numbers to train on and to hold out, for each model."""
    folds = list(options.folds) if isinstance(options.folds, Iterable) else []
    pairs = all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in folds)
    if options.validation is not None or network.models != len(folds) or not pairs:
        raise ConfigurationError(
            "fit folds",
            expected=f"{network.models or 'no'} pairs (training rows, held-out rows), and no validation=",
            got=f"{len(folds)} of them",
            fix="make the network with models= the number of folds, and pass list(KFold(...).split(X))",
        )
    return [pair[0] for pair in folds], [pair[1] for pair in folds]


def _weights(network: Engine, y: Any, options: Options) -> Array | None:
    """Weights of examples times those of their classes; "balanced" gives every class the same sum."""
    weight = (
        None if options.sample_weight is None else as_array("fit sample_weight", options.sample_weight, network.ops)
    )
    if weight is not None:
        weight = np.asarray(network.ops.to_host(weight) if network.ops.owns(weight) else weight, np.float64)
    if options.class_weight is None:
        return weight
    labels = network.ops.to_host(y) if network.ops.owns(y) else np.asarray(y)
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
    return weights if weight is None or weight.shape != weights.shape else weight * weights
