"""Makes a training that can run from the options of `fit` and the data; all errors that can be found early are."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpunn.engine import Engine
from gpunn.errors import readable
from gpunn.memory import Need, require_room
from gpunn.optimizers import LBFGS
from gpunn.passes import loss_of_network
from gpunn.regularization import Constraints
from gpunn.training.batches import CheckedExamples
from gpunn.training.evaluation import Evaluator, check_metrics
from gpunn.training.full_batch import FullBatchStep, Objective
from gpunn.training.judge import MonitorJudge
from gpunn.training.options import Options
from gpunn.training.progress import Progress
from gpunn.training.rates import check_rates
from gpunn.training.resume import read_training, resume, saver
from gpunn.training.sets import Columns, Sets, checked_sets
from gpunn.training.source import Cut, DeviceSet, Source, updates_of
from gpunn.training.step import Gradient, TrainingStep
from gpunn.training.streaming import CheckedStream, StreamedSet
from gpunn.training.training import Saving, Training


def prepare(network: Engine, X: Any, y: Any, options: Options) -> Training:
    """Check everything, make sure that the device has room, and allocate all arrays.

    The training starts at the beginning, or where the file to resume ended. The network gets its loss and columns.
    """
    if options.deterministic:
        network.ops.require_deterministic()
    saved = None if options.resume is None else read_training(options.resume)
    columns = (saved and saved.columns) or network.columns_for(X)
    sets = check(network, X, y, options, columns)
    _require_room(network, sets, options)
    training = training_of(network, sets, options, options.batch_size)
    if saved is not None:
        resume(saved, training, options)
    network.loss, network.columns = options.loss, columns
    return training


def check(network: Engine, X: Any, y: Any, options: Options, columns: Columns = None) -> Sets:
    """The sets of a training; raises all errors that can be found before an array is allocated."""
    loss_of_network("fit loss", options.loss, network.network)
    check_rates(options.optimizer, 1, network)
    sets = checked_sets(network, X, y, options, columns)
    check_metrics(network, options.metrics_by_row, options.loss, sets.train)
    if sets.held_out is not None:
        check_metrics(network, options.metrics, options.loss, sets.held_out)
    return sets


def need(network: Engine, sets: Sets, options: Options) -> Need:
    """How many bytes this training needs, for any batch size."""
    return Need(network.rehearsed, lambda hollow, batch_size: training_of(hollow, sets, options, batch_size))


def _require_room(network: Engine, sets: Sets, options: Options) -> None:
    """Raise an error unless the device has room; it names the largest batch size that fits."""

    def hint() -> str:
        _, rehearsal = network.rehearsed()
        if isinstance(sets.train, CheckedStream):
            cure = "lower memory="
            sets.train.to(rehearsal, options.batch_size)
        else:
            cure = "stream them with memory="
            sets.train.to(rehearsal)
        return f"no batch is small enough, and the data take {readable(rehearsal.bytes)}: {cure}, or shrink the network"

    require_room(
        "fit batch_size", "batch_size={}", network, need(network, sets, options), options.batch_size, sets.train.size,
        least=network.smallest_batch, whole=options.drop_last, hint=hint,
    )  # fmt: skip


def training_of(network: Engine, sets: Sets, options: Options, batch_size: int) -> Training:
    """The training of this network with all its arrays; a hollow network (see `Engine.rehearsed`) only counts bytes."""
    loss, by_row = options.loss, options.metrics_by_row
    validation = None
    if sets.held_out is not None:
        validation = Evaluator(network, sets.held_out.to(network.ops), loss, options.metrics, network.chunk(None))
    source = _source(network, sets.train, options, batch_size)
    gradient = Gradient(network, source, loss, by_row, norm=options.measures_gradient)
    step = _step(gradient, options)
    if validation is not None:
        gradient.measures.meters.join(validation.meters)
    total, epochs = options.length(len(source.updates))
    check_rates(options.optimizer, total, network)
    judge = MonitorJudge(
        network, gradient.measures, options.monitor, stopping=options.stopping, plateau=options.plateau,
        keep_best=options.keep == "best", validates=options.validates,
    )  # fmt: skip
    saving = None
    if options.checkpoint is not None:
        saving = Saving(saver(options), options.every, options.every_steps)
    return Training(
        network, step, judge, total=total, validation=validation, saving=saving, deterministic=options.deterministic,
        callbacks=(*options.callbacks, Progress(options.progress, epochs=epochs)),
    )  # fmt: skip


def _source(network: Engine, data: CheckedExamples | CheckedStream, options: Options, batch_size: int) -> Source:
    """The source of batches; only here all kinds of sources are known."""
    whole = isinstance(options.optimizer, LBFGS)  # then all batches make one update
    cut: Cut = partial(
        updates_of, batch_size=batch_size, smallest=network.smallest_batch, drop_last=options.drop_last,
        accumulate=data.size if whole else options.accumulate,
    )  # fmt: skip
    if isinstance(data, CheckedStream):
        return StreamedSet(network, data.to(network.ops, batch_size), cut, options.sampling)
    return DeviceSet(network, data.to(network.ops), cut, options.sampling)


def _step(gradient: Gradient, options: Options) -> TrainingStep | FullBatchStep:
    network, clips = gradient.network, {"clip_norm": options.clip_norm, "clip_value": options.clip_value}
    constraints = Constraints(network.ops, network.store, options.regularization, **clips)
    if isinstance(options.optimizer, LBFGS):
        return FullBatchStep(Objective(gradient, constraints), options.optimizer)
    return TrainingStep(gradient, constraints, options.optimizer)
