"""Fitting a network to checked data: by batches, or by L-BFGS on the whole set."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse
from sklearn.exceptions import ConvergenceWarning

from gpunn.backends.reference.backend import Backend
from gpunn.engine import Engine
from gpunn.errors import DataError
from gpunn.estimators import parameters
from gpunn.estimators.memory import Memory
from gpunn.estimators.training import BatchTrainer, EstimatorRun, FullTrainer, Validation
from gpunn.inputs import checked_targets, to_device
from gpunn.losses import Loss
from gpunn.optimizers import SGD
from gpunn.training.batches import Examples
from gpunn.training.callbacks import as_callbacks, probes_of
from gpunn.training.history import History
from gpunn.training.loop import Plan
from gpunn.training.setup import check_rates
from gpunn.training.step import Trainer
from gpunn.training.stopping import improvement
from gpunn.training.threads import threads_for
from gpunn.types import Array


@dataclass(frozen=True)
class Task:
    """What is to be learnt: the network, its objective, and over how many outputs this is averaged when it is told."""

    network: Engine
    loss: Loss
    outputs: int


def examples(task: Task, X: Any, y: Array, weight: Array | None) -> Examples:
    """A set as training reads it: on the device, but for sparse inputs, which the CPU reads batch by batch."""
    network, ops = task.network, task.network.ops
    rows = X.shape[0]
    target = checked_targets(y, task.loss, (rows,), network.outputs, ops, network.dtype).to(ops)
    weights = None if weight is None else to_device(weight.reshape(-1, 1), ops, network.dtype)
    if sparse.issparse(X) and ops.name != "cuda":
        return Examples(X.astype(network.dtype, copy=False), target, weights, None, rows)
    dense = network.checked_inputs(X.toarray() if sparse.issparse(X) else X)
    return Examples(to_device(dense, ops, network.dtype), target, weights, None, rows)


def rows_of(array: Any, places: np.ndarray[Any, Any], ops: Backend) -> Any:
    """Some rows, where the array lies."""
    return None if array is None else array[ops.from_host(places) if ops.owns(array) else places]


def fit_by_batches(
    e: Any, task: Task, data: Examples, validation: Validation | None, memory: Memory, random: Any, *, once: bool
) -> History:
    """Train for `max_iter` epochs, or `once`, unless the rules end it; warns where the epochs end first."""
    network, optimizer = task.network, parameters.optimizer_of(e)
    trainer: Trainer
    if parameters.by_batches(e):
        trainer = BatchTrainer(
            network, data, task.loss, optimizer, batch_size(e, data.size), alpha=float(e.alpha),
            outputs=task.outputs, shuffle=random.shuffle if e.shuffle else None,
        )  # fmt: skip
        memory.continue_with(trainer.frame)
    else:
        trainer = full_trainer(e, task, data, optimizer)
    epochs, each = 1 if once else e.max_iter, len(trainer.updates)
    total = memory.steps + epochs * each
    check_rates(optimizer, total, network)
    plan = Plan(
        total=total,
        validation=validation,  # type: ignore[arg-type]  # which does what the loop asks of an evaluator
        stopping=(),
        callbacks=as_callbacks(e.callbacks),
        monitor=improvement("loss"),
        keep_best=bool(e.early_stopping),
        plateau=None,
        save=None,
        every=1,
        every_steps=None,
    )
    trainer.probes = probes_of(plan.callbacks, trainer.last_pass)
    best = memory.best_of(network) if e.early_stopping else None
    run = EstimatorRun(network, trainer, plan, memory.rules, outputs=task.outputs, best=best, restores=not once)
    run.at.done = memory.steps
    history = run.go()
    memory.steps = run.at.done
    if history.stopped == "interrupted":
        warnings.warn("interrupted: the estimator has what it learnt so far", stacklevel=4)
    elif run.at.done == total and not once and not memory.rules.ended:
        warnings.warn(
            f"{e.max_iter} epochs were not enough to converge; raise max_iter", ConvergenceWarning, stacklevel=4
        )
    return history


def batch_size(e: Any, rows: int) -> int:
    if isinstance(e.batch_size, str):
        return min(200, rows)
    if e.batch_size > rows:
        warnings.warn(f"batch_size={e.batch_size} is more than the {rows} examples there are", stacklevel=5)
    return min(int(e.batch_size), rows)


def full_trainer(e: Any, task: Task, data: Examples, optimizer: Any) -> FullTrainer:
    """The whole set as one function, its weights with mean 1."""
    mass, ops = float(data.size), task.network.ops
    if data.weight is not None:
        mass = float(ops.to_host(data.weight).sum(dtype=np.float64))
        data = Examples(data.X, data.y, data.weight * (data.size / mass), None, data.size)
    if sparse.issparse(data.X):
        data = Examples(ops.from_host(data.X.toarray()), data.y, data.weight, None, data.size)
    return FullTrainer(task.network, data, task.loss, optimizer, strength=e.alpha / mass, outputs=task.outputs)


def fit_by_scipy(e: Any, task: Task, data: Examples) -> tuple[float, int]:
    """SciPy's L-BFGS-B on gpunn's loss and gradient, as scikit-learn does it: the loss and the number of steps."""
    network, ops = task.network, task.network.ops
    trainer = full_trainer(e, task, data, SGD())
    trainer.begin(0, np.ones((1, 1)))

    def function(vector: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        ops.copy(ops.from_host(vector, network.dtype), out=network.vector)
        loss = trainer.value()
        look()
        return loss, ops.to_host(network.gradient_vector).astype(np.float64)

    options = {"maxfun": e.max_fun, "maxiter": e.max_iter, "gtol": e.tol}
    with ops.quiet(), threads_for(network, data.size) as look:
        end = optimize.minimize(
            function, ops.to_host(network.vector).astype(np.float64), method="L-BFGS-B", jac=True, options=options
        )
        ops.copy(ops.from_host(end.x, network.dtype), out=network.vector)
        trainer.value()
    if e.verbose:
        print(f"lbfgs: loss {end.fun:.8f} after {end.nit} steps and {end.nfev} evaluations; {end.message}")
    if end.status != 0:
        warnings.warn(
            f"lbfgs did not converge: {end.message}; raise max_iter or scale the data", ConvergenceWarning, stacklevel=4
        )
    return float(trainer.read(1)["loss"][0]) / task.outputs, min(int(end.nit), e.max_iter)


def refuse_wild_weights(network: Engine, stopped: str) -> None:
    """scikit-learn's last word on a training: all weights are finite."""
    if not network.ops.all_finite(network.vector):
        raise DataError(
            "fit",
            expected="weights that stay finite",
            got=stopped or "infinite ones",
            fix="scale the features, as StandardScaler does, or lower learning_rate_init",
        )
