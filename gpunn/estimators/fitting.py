"""Fitting a network to checked data: by batches, or by L-BFGS on the whole set."""

from __future__ import annotations

import warnings
from contextlib import closing
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
from gpunn.estimators.training import RulesJudge, Validation, objective, step_by_batches
from gpunn.inputs import checked_targets, to_device
from gpunn.losses import Loss
from gpunn.optimizers import LBFGS
from gpunn.training.batches import Examples
from gpunn.training.callbacks import as_callbacks
from gpunn.training.full_batch import FullBatchStep, Objective
from gpunn.training.history import History
from gpunn.training.rates import check_rates
from gpunn.training.step import TrainingStep
from gpunn.training.threads import threads_for
from gpunn.training.training import Training
from gpunn.types import Array


@dataclass(frozen=True)
class Problem:
    """A network, the loss to minimise, and the number by which the loss is divided when it is reported."""

    network: Engine
    loss: Loss
    outputs: int


def examples(problem: Problem, X: Any, y: Array, weight: Array | None) -> Examples:
    """A set as training reads it: on the device; on the CPU, sparse inputs stay sparse until a batch is loaded."""
    network, ops = problem.network, problem.network.ops
    rows = X.shape[0]
    target = checked_targets(y, problem.loss, (rows,), network.outputs, ops, network.dtype).to(ops)
    sample_weights = None if weight is None else to_device(weight.reshape(-1, 1), ops, network.dtype)
    if sparse.issparse(X) and ops.name != "cuda":
        return Examples(X.astype(network.dtype, copy=False), target, sample_weights, None, rows)
    dense = network.checked_inputs(X.toarray() if sparse.issparse(X) else X)
    return Examples(to_device(dense, ops, network.dtype), target, sample_weights, None, rows)


def rows_of(array: Any, places: np.ndarray[Any, Any], ops: Backend) -> Any:
    """These rows of an array, on its own device."""
    return None if array is None else array[ops.from_host(places) if ops.owns(array) else places]


def fit_by_batches(
    e: Any, problem: Problem, data: Examples, validation: Validation | None, memory: Memory, random: Any, *, once: bool
) -> History:
    """Train for one epoch if `once`; else for `max_iter`, with a warning, unless the rules end the training before."""
    network, optimizer = problem.network, parameters.optimizer_of(e)
    step: TrainingStep | FullBatchStep
    if isinstance(optimizer, LBFGS):
        step = FullBatchStep(whole_set(e, problem, data), optimizer)
    else:
        step = step_by_batches(
            network, data, problem.loss, optimizer, batch_size(e, data.size), alpha=float(e.alpha),
            outputs=problem.outputs, shuffle=random.shuffle if e.shuffle else None,
        )  # fmt: skip
        memory.continue_with(step.frame)
    epochs = 1 if once else e.max_iter
    total = memory.steps + epochs * len(step.source.updates)
    check_rates(optimizer, total, network)
    best = memory.best_of(network) if e.early_stopping else None
    judge = RulesJudge(network, memory.rules, data.size, outputs=problem.outputs, best=best, restores=not once)
    training = Training(
        network, step, judge, total=total, validation=validation, callbacks=as_callbacks(e.callbacks)
    )  # fmt: skip
    training.standing.done = memory.steps
    history = training.run()
    memory.steps = training.standing.done
    if history.stopped == "interrupted":
        warnings.warn("interrupted: the estimator has what it learnt so far", stacklevel=4)
    elif training.standing.done == total and not once and not memory.rules.ended:
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


def whole_set(e: Any, problem: Problem, data: Examples) -> Objective:
    """The whole set as one function, its weights with mean 1."""
    mass, ops = float(data.size), problem.network.ops
    if data.weight is not None:
        mass = float(ops.to_host(data.weight).sum(dtype=np.float64))
        data = Examples(data.X, data.y, data.weight * (data.size / mass), None, data.size)
    if sparse.issparse(data.X):
        data = Examples(ops.from_host(data.X.toarray()), data.y, data.weight, None, data.size)
    return objective(problem.network, data, problem.loss, e.alpha / mass, outputs=problem.outputs)


def fit_by_scipy(e: Any, problem: Problem, data: Examples) -> tuple[float, int]:
    """SciPy's L-BFGS-B on gpunn's loss and gradient, as scikit-learn does it: the loss and the number of steps."""
    network, ops = problem.network, problem.network.ops
    whole = whole_set(e, problem, data)

    def function(vector: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        ops.copy(ops.from_host(vector, network.dtype), out=network.vector)
        loss = whole.value()
        look()
        return loss, ops.to_host(network.gradient_vector).astype(np.float64)

    options = {"maxfun": e.max_fun, "maxiter": e.max_iter, "gtol": e.tol}
    with closing(whole), ops.quiet(), threads_for(network, data.size) as look:
        end = optimize.minimize(
            function, ops.to_host(network.vector).astype(np.float64), method="L-BFGS-B", jac=True, options=options
        )
        ops.copy(ops.from_host(end.x, network.dtype), out=network.vector)
        whole.value()
    if e.verbose:
        print(f"lbfgs: loss {end.fun:.8f} after {end.nit} steps and {end.nfev} evaluations; {end.message}")
    if end.status != 0:
        warnings.warn(
            f"lbfgs did not converge: {end.message}; raise max_iter or scale the data", ConvergenceWarning, stacklevel=4
        )
    return float(whole.read()["loss"][0]) / problem.outputs, min(int(end.nit), e.max_iter)


def check_finite_weights(network: Engine, stopped: str) -> None:
    """Refuse a network whose weights are not finite, as scikit-learn does after training."""
    if not network.ops.all_finite(network.vector):
        raise DataError(
            "fit",
            expected="weights that stay finite",
            got=stopped or "infinite ones",
            fix="scale the features, as StandardScaler does, or lower learning_rate_init",
        )
