"""How much sooner are K models trained as one population than one after the other?

    python -m benchmarks.populations

64-64-10 with ReLU and Adam on 1,600 digits, batches of 64, ten epochs: 64 learning rates; and five folds for each of 16
settings, four rates with four weight decays. Against gpunn's own networks and scikit-learn's perceptrons one by one,
these also in processes of joblib, and JAX under vmap. Model k has the same first weights everywhere; whose weights do
not have gpunn's loss after an epoch in a fixed order is not timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

import gpunn as gn
from benchmarks.cases import Case
from benchmarks.command import alone
from benchmarks.digits import digits
from benchmarks.harness import Calls, Row, Setting, agreeing, compared, say
from benchmarks.peers import competing, ours
from gpunn.regularization import HalfL2

CASE, ROWS, EPOCHS, FOLDS = Case((64, 64, 10), 64), 1600, 10, 5
SETTINGS = ((3e-4, 1e-3, 3e-3, 1e-2), (0.0, 1e-4, 1e-3, 1e-2))  # rates and weight decays
CHECKED, TOLERANCE = 4, 3e-3  # models, and of their losses: Adam magnifies rounding
Weights = list[dict[str, Any]]


@dataclass(frozen=True)
class Models:
    """What everybody trains: first weights, a rate, a weight decay and the rows to train on for each model."""

    X: Any
    y: Any
    starts: tuple[Weights, ...]
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    folds: tuple[tuple[Any, Any], ...] = ()  # rows to train on and to hold out; none: all models see all rows
    epochs: int = EPOCHS
    shuffle: bool = True

    def first(self, count: int) -> Models:
        """The first models for one epoch in a fixed order."""
        chosen = {name: getattr(self, name)[:count] for name in ("starts", "rates", "decays", "folds")}
        return replace(self, epochs=1, shuffle=False, **chosen)

    def rows(self, k: int) -> Any:
        return self.folds[k][0] if self.folds else np.arange(len(self.X))

    @property
    def regularization(self) -> HalfL2 | None:
        return HalfL2(self.decays) if any(self.decays) else None


Train = Callable[[Models], list[Weights]]


def run(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    for name, models in questions(setting.quick).items():
        say(f"populations: {name}")
        rows += measure(f"{name}, {CASE}, {models.epochs} epochs", models, setting)
    return rows


def questions(quick: bool) -> dict[str, Models]:
    _, (X, y, Xv, yv) = digits()
    X, y = np.concatenate([X, Xv])[:ROWS], np.concatenate([y, yv])[:ROWS]
    count, epochs = (4, 2) if quick else (64, EPOCHS)
    rates = tuple(np.geomspace(1e-4, 1e-2, count).tolist())
    places = np.arange(ROWS).reshape(FOLDS, -1)
    folds = [(np.delete(places, k, axis=0).reshape(-1), places[k]) for k in range(FOLDS)]
    settings = list(product(SETTINGS[0], SETTINGS[1]))[-1 if quick else 0 :]
    each = [(rate, decay, fold) for rate, decay in settings for fold in folds]
    return {
        f"{count} rates": Models(X, y, starts(count), rates, (0.0,) * count, epochs=epochs),
        f"{FOLDS} folds x {len(settings)} settings": Models(X, y, starts(len(each)), *zip(*each), epochs=epochs),
    }


def starts(count: int) -> tuple[Weights, ...]:
    """Each model's first weights: those of a network with its number as seed."""
    return tuple(ours.weights(CASE, k) for k in range(count))


def measure(case: str, models: Models, setting: Setting) -> list[Row]:
    """All competitors, each compared with the population before it is timed."""
    few = models.first(CHECKED)
    expected = losses(few, population(few, setting.device))

    def contender(make: Callable[[], Train]) -> Calls:
        train = make()
        agreeing(expected, losses(few, train(few)), TOLERANCE, "the loss of model")
        return Calls(lambda: train(models))

    makers = {name: lambda make=make: contender(make) for name, make in trainers(setting.device).items()}
    return compared("populations", case, makers, setting, unit="s")


def trainers(device: Any) -> dict[str, Callable[[], Train]]:
    """What makes each competitor's training, or raises where its package is missing."""

    def jax() -> Train:
        peer, kind = competing("jax", "jax_peer"), ours.kind_of(device)
        return lambda models: peer.train_models(CASE, models, kind)

    def perceptrons(jobs: bool) -> Train:
        peer = competing("sklearn", "sklearn_peer")
        return lambda models: one_by_one(peer, models, jobs)

    def each(device: Any) -> Train:
        return lambda models: [single(models, k, device) for k in range(len(models.rates))]

    def loops() -> Any:
        return competing("numba", "jit_peer").device()

    found: dict[str, Callable[[], Train]] = {
        "gpunn": lambda: lambda models: population(models, device),
        "gpunn, one by one": lambda: each(device),
        "gpunn jit": lambda: lambda models: population(models, loops()),
        "gpunn jit, one by one": lambda: each(loops()),
        "scikit-learn": lambda: perceptrons(False),
        "scikit-learn, joblib": lambda: perceptrons(True),
        "jax vmap": jax,
    }
    if ours.kind_of(device) == "cuda":
        del found["gpunn jit"], found["gpunn jit, one by one"]
    return found


def trained(network: gn.Network, models: Models, X: Any, y: Any, rate: Any, **options: Any) -> dict[str, Any]:
    network.fit(
        X, y, loss=gn.CrossEntropy(), optimizer=gn.Adam(rate), epochs=models.epochs, batch_size=CASE.batch,
        sampling="shuffle" if models.shuffle else "sequential", keep="last", progress=False, **options,
    )  # fmt: skip
    return {name: network.ops.to_host(value) for name, value in network.parameters.items()}


def population(models: Models, device: Any) -> list[Weights]:
    count = len(models.rates)
    network = gn.Network(
        ours.layers(CASE), CASE.widths[0], device=device, models=count, seed=tuple(range(count))
    )  # fmt: skip
    values = trained(
        network, models, models.X, models.y, models.rates, regularization=models.regularization,
        folds=models.folds or None, metrics=["accuracy"] if models.folds else (),
    )  # fmt: skip
    return [ours.by_layer({name: value[k] for name, value in values.items()}) for k in range(count)]


def single(models: Models, k: int, device: Any) -> Weights:
    network, rows = gn.Network(ours.layers(CASE), CASE.widths[0], device=device, seed=k), models.rows(k)
    options: dict[str, Any] = {"regularization": HalfL2(models.decays[k]) if models.decays[k] else None}
    if models.folds:
        held_out = models.folds[k][1]
        options |= {"validation": (models.X[held_out], models.y[held_out]), "metrics": ["accuracy"]}
    return ours.by_layer(trained(network, models, models.X[rows], models.y[rows], models.rates[k], **options))


def one_by_one(peer: Any, models: Models, jobs: bool) -> list[Weights]:
    """scikit-learn's perceptrons, here or in a process for each core; held-out rows are judged once, at the end."""
    given = list(enumerate(models.starts))
    if not jobs:
        return [perceptron(peer, models, k, weights) for k, weights in given]
    from joblib import Parallel, delayed

    found: list[Weights] = Parallel(n_jobs=-1)(delayed(perceptron)(peer, models, k, weights) for k, weights in given)
    return found


def perceptron(peer: Any, models: Models, k: int, weights: Weights) -> Weights:
    rows = models.rows(k)
    made = peer.perceptron(
        CASE, weights, alpha=models.decays[k] * CASE.batch, learning_rate_init=models.rates[k], random_state=k,
        max_iter=models.epochs, shuffle=models.shuffle,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that do not converge
        made.fit(models.X[rows], models.y[rows])
    if models.folds:
        made.score(models.X[models.folds[k][1]], models.y[models.folds[k][1]])
    return [{"W": W, "b": b[None]} for W, b in zip(made.coefs_, made.intercepts_)]


def losses(models: Models, weights: list[Weights]) -> list[float]:
    """Each model's cross-entropy on the rows it was trained on."""
    found = []
    for k, layers in enumerate(weights):
        A, y = models.X[models.rows(k)].astype(np.float64), models.y[models.rows(k)]
        for i, layer in enumerate(layers):
            A = A @ layer["W"] + layer["b"]
            A = A if i == len(layers) - 1 else np.maximum(A, 0)
        A -= A.max(axis=1, keepdims=True)
        found.append(float(np.mean(np.log(np.exp(A).sum(axis=1)) - A[np.arange(len(y)), y])))
    return found


if __name__ == "__main__":
    alone("populations")
