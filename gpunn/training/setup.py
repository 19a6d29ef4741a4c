"""From the arguments of `fit` to a training that can run; everything is refused here that can be refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpunn import metrics as scores
from gpunn import schedules
from gpunn.engine import Engine
from gpunn.errors import ConfigurationError, readable
from gpunn.hyper import choice, whole
from gpunn.losses import Loss
from gpunn.memory import Need, require_room
from gpunn.metrics import Metric
from gpunn.optimizers import LBFGS, Optimizer
from gpunn.passes import loss_of_network
from gpunn.regularization import Constraints
from gpunn.schedules import ReduceOnPlateau
from gpunn.training.batches import CheckedExamples
from gpunn.training.callbacks import Callback, as_callbacks, probes_of
from gpunn.training.evaluation import Evaluator, check_metrics
from gpunn.training.full_batch import FullBatchTrainer
from gpunn.training.history import History
from gpunn.training.loop import Plan, Run
from gpunn.training.progress import Progress
from gpunn.training.resume import read_training, resume, saver
from gpunn.training.sets import checked_sets
from gpunn.training.step import Recipe, Trainer
from gpunn.training.stopping import EarlyStopping, GradientTolerance, Stopping, as_criteria, improvement, monitored
from gpunn.training.streaming import CheckedStream, StreamTrainer
from gpunn.value import Value


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


@dataclass(frozen=True)
class Asked:
    """What `fit` was asked for, checked; `run` makes the arrays of every step."""

    loss: Loss
    optimizer: Optimizer
    recipe: Recipe
    metrics: Mapping[str, Metric]
    stopping: tuple[Stopping, ...]
    callbacks: tuple[Callback, ...]
    data: CheckedExamples | CheckedStream
    held_out: CheckedExamples | None
    options: Options

    def require_room(self, network: Engine) -> None:
        """Refuse what the device cannot hold; the message names the largest batch that it can."""
        recipe = self.recipe
        require_room(
            "fit batch_size", "batch_size={}", network, self.need(network), recipe.batch_size, self.data.size,
            least=network.smallest_batch, whole=recipe.drop_last, hint=lambda: self._hint(network),
        )  # fmt: skip

    def need(self, network: Engine) -> Need:
        """The bytes of this training for any batch size."""

        def rehearse(stage: Engine, batch_size: int) -> None:
            replace(self, recipe=replace(self.recipe, batch_size=batch_size)).run(stage)

        return Need(network.rehearsed, rehearse)

    def _hint(self, network: Engine) -> str:
        _, rehearsal = network.rehearsed()
        self.data.to(rehearsal, self.recipe.batch_size)
        cure = "stream them with memory=" if isinstance(self.data, CheckedExamples) else "lower memory="
        return f"no batch is small enough, and the data take {readable(rehearsal.bytes)}: {cure}, or shrink the network"

    def run(self, network: Engine) -> Run:
        """The training of this network, which may be a stage for a rehearsal, with its arrays."""
        recipe, loss, optimizer, metrics, options = self.recipe, self.loss, self.optimizer, self.metrics, self.options
        by_row = _by_row(metrics)
        validation = None
        if self.held_out is not None:
            validation = Evaluator(network, self.held_out.to(network.ops), loss, metrics, network.chunk(None))
        measured = ["loss", *by_row, *(f"validation_{n}" for n in ("loss", *metrics) if validation), "seconds"]
        measure_gradient = any(isinstance(criterion, GradientTolerance) for criterion in self.stopping)
        measured += ["gradient_norm"] * measure_gradient
        for criterion in self.stopping:
            criterion.check(measured)
        given: dict[str, Any] = {"metrics": by_row, "measure_gradient": measure_gradient}
        given["constraints"] = _constraints(network, options)
        trainer: Trainer
        if isinstance(self.data, CheckedStream):
            chunks = self.data.to(network.ops, recipe.batch_size)
            trainer = StreamTrainer(network, chunks, loss, optimizer, recipe, **given)
        else:
            kind = FullBatchTrainer if isinstance(optimizer, LBFGS) else Trainer
            trainer = kind(network, self.data.to(network.ops), loss, optimizer, recipe, **given)
        if validation is not None:
            trainer.meters.join(validation.meters)
        total, epochs = _length(options, len(trainer.updates))
        check_rates(optimizer, total, network)
        callbacks = (*self.callbacks, Progress(options.progress, epochs=epochs))
        trainer.probes = probes_of(callbacks, trainer.last_pass)
        plan = Plan(
            total=total,
            validation=validation,
            stopping=self.stopping,
            callbacks=callbacks,
            monitor=_monitor(self.stopping, measured),
            keep_best=options.keep == "best",
            plateau=options.plateau,
            save=None if options.checkpoint is None else saver(options.checkpoint),
            every=whole("fit every", options.every),
            every_steps=None if options.every_steps is None else whole("fit every_steps", options.every_steps),
            deterministic=options.deterministic,
        )
        return Run(network, trainer, plan)


def ask(network: Engine, X: Any, y: Any, options: Options, columns: tuple[str, ...] | None = None) -> Asked:
    """Check everything that can be checked before any array of the training is made.

    `columns` are the names of those of tables in their order, as the network or X has them unless given.
    """
    loss = loss_of_network("fit loss", options.loss, network.network)
    optimizer = checked_optimizer(options.optimizer)
    check_rates(optimizer, 1, network)
    recipe = _recipe(options)
    metrics = scores.resolve(options.metrics)
    stopping, callbacks = as_criteria(options.stopping), as_callbacks(options.callbacks)
    data, held_out = checked_sets(network, X, y, loss, options, columns or network.columns_for(X))
    check_metrics(network, _by_row(metrics), loss, data)
    if held_out is not None:
        check_metrics(network, metrics, loss, held_out)
    elif whole_set := [name for name, metric in metrics.items() if metric.whole]:
        raise ConfigurationError(
            f"fit metrics {', '.join(whole_set)}",
            expected="validation= or folds=, of which such figures of a whole set are made",
            got="neither",
            fix="pass validation=0.2, or measure them afterwards with evaluate",
        )
    return Asked(loss, optimizer, recipe, metrics, stopping, callbacks, data, held_out, options)


def prepare(network: Engine, X: Any, y: Any, options: Options, columns: tuple[str, ...] | None = None) -> Run:
    """Check everything, make sure that the device has room, and make the arrays of every step."""
    asked = ask(network, X, y, options, columns)
    asked.require_room(network)
    return asked.run(network)


def _by_row(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Those that are measured on the training set, too, while it is trained on."""
    return {name: metric for name, metric in metrics.items() if not metric.whole}


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
    run, columns = _started(network, X, y, options)
    network.loss, network.columns = run.trainer.loss, columns
    return run.go()


def _started(network: Engine, X: Any, y: Any, options: Options) -> tuple[Run, tuple[str, ...] | None]:
    """A training at its beginning or where the file to resume stands, and the names of the columns it goes by."""
    saved = None if options.resume is None else read_training(options.resume)
    columns = (saved and saved.columns) or network.columns_for(X)
    run = prepare(network, X, y, options, columns)
    if saved is not None:
        resume(saved, run)
    return run, columns


def checked_optimizer(optimizer: Any) -> Optimizer:
    """The optimizer itself; refuses whatever is none."""
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            "fit optimizer",
            expected="an optimizer such as gn.Adam(1e-3)",
            got=repr(optimizer),
            fix="make one, with its parentheses" if isinstance(optimizer, type) else _named_optimizer(optimizer),
        )
    return optimizer


def _named_optimizer(given: Any) -> str:
    names = {name.lower(): name for family, name in Value.known if family == Optimizer.family}
    name = names.get(given.lower()) if isinstance(given, str) else None
    return f"write gn.{name}(1e-3)" if name else "pass one of gpunn's optimizers"


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
