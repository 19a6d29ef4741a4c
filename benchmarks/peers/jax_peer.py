"""JAX: a step under jit with donated state, or a whole epoch of them as one scan."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.cases import Case, Problem
from benchmarks.harness import NOT_INSTALLED, MissingPeerError

EPS, MOMENTUM = 1e-5, 0.1  # of batch normalisation
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


def forward(case: Case, weights: Any, running: Any, X: Any, key: Any) -> tuple[Any, Any]:
    """The last layer's output, and the running statistics after it."""
    half = None if case.dtype == "float32" else jnp.bfloat16
    statistics = []
    A = X if half is None else X.astype(half)
    for i, layer in enumerate(weights):
        A = A @ (layer["W"] if half is None else layer["W"].astype(half))
        if "b" in layer:
            A = A + layer["b"].astype(A.dtype)
        if i == len(weights) - 1:
            break
        if case.norm:
            mean, var = A.mean(0, keepdims=True), A.var(0, keepdims=True)
            known, n = running[i], len(A)
            statistics.append({
                "mean": known["mean"] + MOMENTUM * (mean - known["mean"]),
                "var": known["var"] + MOMENTUM * (var * (n / (n - 1)) - known["var"]),
            })  # fmt: skip
            A = (A - mean) * lax.rsqrt(var + EPS) * layer["G"] + layer["B"]
        A = jnp.maximum(A, 0)
        if case.dropout:
            key, own = jax.random.split(key)
            A = jnp.where(jax.random.bernoulli(own, 1 - case.dropout, A.shape), A / (1 - case.dropout), 0)
    return A.astype(jnp.float32), statistics


def loss(weights: Any, case: Case, running: Any, X: Any, y: Any, key: Any) -> tuple[Any, Any]:
    Z, statistics = forward(case, weights, running, X, key)
    if case.regression:
        return jnp.mean((Z - y) ** 2), statistics
    chosen = jnp.take_along_axis(jax.nn.log_softmax(Z), y[:, None], axis=1)
    return -chosen.mean(), statistics


def step(case: Case, state: Any, X: Any, y: Any, rows: Any) -> tuple[Any, Any]:
    """One update: the new state, and the loss before it."""
    weights, running, moments, count, key = state
    key, own = jax.random.split(key)
    (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(weights, case, running, X[rows], y[rows], own)
    count = count + 1
    tree = jax.tree_util.tree_map
    if case.optimizer == "SGD":
        weights = tree(lambda w, g: w - case.rate * g, weights, gradients)
    else:
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], gradients)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], gradients)
        rate, root = case.rate / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
        weights = tree(lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + ADAM_EPS), weights, first, second)
        moments = first, second
    return (weights, running, moments, count, key), value


def step_at(case: Case, state: Any, X: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
    """The i-th update of an epoch."""
    return step(case, state, X, y, lax.dynamic_slice(order, (i * case.batch,), (case.batch,)))


def epoch(case: Case, state: Any, X: Any, y: Any, order: Any) -> tuple[Any, Any]:
    """All updates of an epoch."""
    return lax.scan(lambda s, rows: step(case, s, X, y, rows), state, order.reshape(-1, case.batch))


class Steps:
    """Steps on data, weights and order of the problem."""

    def __init__(self, problem: Problem, kind: str, *, scan: bool = False) -> None:
        # No TF32 on a GPU, as with the others.
        jax.config.update("jax_default_matmul_precision", "float32" if problem.case.dtype == "float32" else None)
        if kind == "cpu":
            jax.config.update("jax_platforms", "cpu")
        try:
            self.device = jax.devices(kind)[0]
        except RuntimeError as error:
            raise MissingPeerError(f"{NOT_INSTALLED}: {error}") from error
        case, self.scan = problem.case, scan
        self.epoch = problem.batches
        self.grain = self.epoch if scan else 1
        self.data = tuple(map(self._put, (problem.X, problem.y.astype(np.float32 if case.regression else np.int32),
                                          problem.order.astype(np.int32))))  # fmt: skip
        weights = [{name: self._put(value) for name, value in layer.items()} for layer in problem.weights]
        running = [
            {"mean": jnp.zeros_like(layer["G"]), "var": jnp.ones_like(layer["G"])} for layer in weights if "G" in layer
        ]
        zeros = partial(jax.tree_util.tree_map, jnp.zeros_like)
        moments = (zeros(weights), zeros(weights)) if case.optimizer == "Adam" else ()
        count = self._put(np.zeros((), np.float32))
        # "rbg" makes random bits faster than JAX's default.
        self.state = self._put((weights, running, moments, count, jax.random.key(0, impl="rbg")))
        self.step = jax.jit(partial(step_at, case), donate_argnums=0)
        self.whole = jax.jit(partial(epoch, case), donate_argnums=0)
        self.places = [self._put(np.int32(i)) for i in range(self.epoch)]

    def _put(self, value: Any) -> Any:
        return jax.device_put(value, self.device)

    def begin(self) -> None:
        jax.block_until_ready(self.state)

    def run(self, steps: int) -> None:
        if self.scan:
            self.state, _ = self.whole(self.state, *self.data)
        else:
            for place in self.places[:steps]:
                self.state, _ = self.step(self.state, *self.data, place)
        jax.block_until_ready(self.state)

    def losses(self, steps: int) -> list[float]:
        """Of each of the first steps."""
        found: list[float] = []
        while len(found) < steps:
            if self.scan:
                self.state, values = self.whole(self.state, *self.data)
                found += np.asarray(values).tolist()
            else:
                self.state, value = self.step(self.state, *self.data, self.places[len(found) % self.epoch])
                found.append(float(value))
        return found[:steps]

    def close(self) -> None:
        """Forget compiled code."""
        jax.clear_caches()
