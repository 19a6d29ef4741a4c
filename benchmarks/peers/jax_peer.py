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


def update(case: Case, state: Any, gradients: Any, rate: Any) -> Any:
    """Weights, moments and their count after the optimizer's formula."""
    weights, moments, count = state
    count = count + 1
    tree = jax.tree_util.tree_map
    if case.optimizer == "SGD":
        weights = tree(lambda w, g: w - rate * g, weights, gradients)
    else:
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], gradients)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], gradients)
        rate, root = rate / (1 - BETA1**count), jnp.sqrt(1 - BETA2**count)
        weights = tree(lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + ADAM_EPS), weights, first, second)
        moments = first, second
    return weights, moments, count


def step(case: Case, state: Any, X: Any, y: Any, rows: Any) -> tuple[Any, Any]:
    """One update: the new state, and the loss before it."""
    weights, running, moments, count, key = state
    key, own = jax.random.split(key)
    (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(weights, case, running, X[rows], y[rows], own)
    weights, moments, count = update(case, (weights, moments, count), gradients, case.rate)
    return (weights, running, moments, count, key), value


def step_at(case: Case, state: Any, X: Any, y: Any, order: Any, i: Any) -> tuple[Any, Any]:
    """The i-th update of an epoch."""
    return step(case, state, X, y, lax.dynamic_slice(order, (i * case.batch,), (case.batch,)))


def epoch(case: Case, state: Any, X: Any, y: Any, order: Any) -> tuple[Any, Any]:
    """All updates of an epoch."""
    return lax.scan(lambda s, rows: step(case, s, X, y, rows), state, order.reshape(-1, case.batch))


def train_model(
    case: Case, epochs: int, shuffle: bool, X: Any, y: Any, weights: Any, rows: Any, rate: Any, decay: Any, key: Any
) -> Any:
    """The weights of a model of its own rate, weight decay and rows after some epochs."""

    def one(state: Any, rows: Any) -> tuple[Any, Any]:
        gradients = jax.grad(lambda weights: loss(weights, case, [], X[rows], y[rows], None)[0])(state[0])
        gradients = [{**g, "W": g["W"] + decay * w["W"]} for g, w in zip(gradients, state[0])]
        return update(case, state, gradients, rate), None

    def whole(state: Any, key: Any) -> tuple[Any, Any]:
        order = jax.random.permutation(key, rows) if shuffle else rows
        return lax.scan(one, state, order.reshape(-1, case.batch))

    zeros = jax.tree_util.tree_map(jnp.zeros_like, weights)
    state, _ = lax.scan(whole, (weights, (zeros, zeros), jnp.zeros(())), jax.random.split(key, epochs))
    return state[0]


@partial(jax.jit, static_argnums=(0, 1, 2))
def train_all(case: Case, epochs: int, shuffle: bool, X: Any, y: Any, *each: Any) -> Any:
    """`train_model` for all of them at once."""
    return jax.vmap(partial(train_model, case, epochs, shuffle, X, y))(*each)


def train_models(case: Case, models: Any, kind: str) -> Any:
    """The weights of all models, from NumPy arrays to NumPy arrays; their rows are whole batches."""
    device = require(kind)
    count = len(models.rates)
    each = (
        jax.tree_util.tree_map(lambda *values: np.stack(values), *models.starts),
        np.stack([models.rows(k) for k in range(count)]).astype(np.int32),
        np.array(models.rates, np.float32), np.array(models.decays, np.float32),
    )  # fmt: skip
    given = jax.device_put((models.X, models.y.astype(np.int32), *each), device)
    found = train_all(case, models.epochs, models.shuffle, *given, jax.random.split(jax.random.key(0), count))
    host = jax.tree_util.tree_map(np.asarray, found)
    return [jax.tree_util.tree_map(lambda value, k=k: value[k], host) for k in range(count)]


def require(kind: str) -> Any:
    """The device; refuses where JAX sees none of this kind."""
    if kind == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        return jax.devices(kind)[0]
    except RuntimeError as error:
        raise MissingPeerError(f"{NOT_INSTALLED}: {error}") from error


class Steps:
    """Steps on data, weights and order of the problem."""

    def __init__(self, problem: Problem, kind: str, *, scan: bool = False) -> None:
        # No TF32 on a GPU, as with the others.
        jax.config.update("jax_default_matmul_precision", "float32" if problem.case.dtype == "float32" else None)
        self.device = require(kind)
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


def updates(arrays: list[Any], gradients: list[Any], name: str, rate: float, kind: str) -> tuple[Any, Any, Any]:
    """Of an optax optimizer: the compiled update of all arrays, their first state, and the gradients on the device."""
    import optax

    device = require(kind)
    made = optax.adam(rate) if name == "Adam" else optax.sgd(rate)

    @partial(jax.jit, donate_argnums=0)
    def apply(state: Any, gradients: Any) -> Any:
        weights, moments = state
        changes, moments = made.update(gradients, moments, weights)
        return optax.apply_updates(weights, changes), moments

    values, given = jax.device_put((arrays, gradients), device)
    return apply, (values, made.init(values)), given
